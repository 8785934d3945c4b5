//! `slipway services`

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use slipway_types::name::argument;
use slipway_types::service::{ReplicaState, ServiceStatus};
use slipway_types::{ApiError, ErrorCode};

use super::Context;
use crate::client::Client;
use crate::failure::Failure;
use crate::printer::Format;
use crate::query;

/// How long a service may take until it answers: as long as the reconciler gives a replica to start.
const READY_LIMIT: Duration = Duration::from_secs(300);

/// What stands for an address that is yet to come, as kubectl has it.
const PENDING: &str = "<pending>";

/// List services and their replicas
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to write them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

/// Lists.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let client = context.client()?;
    let list: Vec<ServiceStatus> = match &args.service {
        Some(name) => vec![client.get(&query::path("/v1/service", &[("name", name)]))?],
        None => client.get("/v1/services")?,
    };
    if args.format == Format::Json {
        context.printer.json(&list);
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = list.iter().map(row).collect();
    context.printer.table(&["SERVICE", "MODEL", "READY", "REVISION", "RESTARTS", "URL"], &rows);
    if args.service.is_some() {
        let replicas: Vec<Vec<String>> = list.iter().flat_map(|s| &s.replicas).map(replica_row).collect();
        context.printer.line("");
        context.printer.table(&["REPLICA", "REVISION", "STATE", "REASON"], &replicas);
        for reason in list.iter().filter_map(|service| service.pending.as_deref()) {
            context.printer.line(format!("\nIt answers nowhere yet: {reason}"));
        }
        for service in &list {
            let Some(reason) = &service.failing else { continue };
            let what =
                if service.is_ready() { "It is not as declared" } else { "Its replicas do not get ready" };
            context.printer.line(format!("\n{what}: {reason}"));
        }
    }
    let troubles: BTreeMap<&str, &str> =
        list.iter().filter_map(|s| Some((s.engine.as_str(), s.trouble.as_deref()?))).collect();
    for (engine, trouble) in troubles {
        context
            .printer
            .warning(format!("the engine `{engine}` cannot be asked, this is what it last said: {trouble}"));
    }
    Ok(0)
}

fn row(service: &ServiceStatus) -> Vec<String> {
    vec![
        service.spec.name.clone(),
        service.spec.content(),
        match service.older() {
            Some((count, revision)) => {
                format!("{}/{} ({count} of revision {revision})", service.ready(), wanted(service))
            }
            None => format!("{}/{}", service.ready(), wanted(service)),
        },
        service.revision.to_string(),
        service.restarts.to_string(),
        if service.pending.is_some() { PENDING.to_owned() } else { service.url.clone() },
    ]
}

/// How many replicas it shall have; a range where load decides.
fn wanted(service: &ServiceStatus) -> String {
    let range = service.spec.autoscale;
    range.map_or_else(|| service.spec.replicas.to_string(), |range| format!("{}-{}", range.min, range.max))
}

fn replica_row(replica: &slipway_types::service::ReplicaStatus) -> Vec<String> {
    vec![
        replica.container.short().to_owned(),
        replica.revision.to_string(),
        state_name(replica.state).to_owned(),
        replica.reason.as_deref().and_then(|reason| reason.lines().next()).unwrap_or_default().to_owned(),
    ]
}

/// Prints where a service answers, if it does anywhere.
pub fn print_address(context: &Context, status: &ServiceStatus) {
    if !status.url.is_empty() {
        context.printer.line(&status.url);
    }
}

/// The name of a state, for people.
pub fn state_name(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Starting => "starting",
        ReplicaState::Ready => "ready",
        ReplicaState::Unready => "unready",
        ReplicaState::Draining => "draining",
        ReplicaState::Stopped => "stopped",
    }
}

/// Waits until every declared replica of the declared revision is ready, and the service answers. Where only an address is
/// missing, which the cluster may never give it, that is said after a few seconds and waited for no longer.
pub fn wait_until_ready(context: &Context, client: &Client, name: &str) -> Result<ServiceStatus, Failure> {
    let began = Instant::now();
    let mut last = String::new();
    let mut lacking_since = None;
    loop {
        let service: ServiceStatus = client.get(&query::path("/v1/service", &[("name", name)]))?;
        // One that offers no port is not told to be reachable, and is not waited for.
        let reachable = service.spec.replicas == 0 || service.reachable != Some(false);
        // What is as it shall be by its replicas may be something else otherwise, so the engine is heard first.
        if let Some(failure) = service.failure() {
            return Err(failure.into());
        }
        if service.settled() && reachable && !service.unseen {
            return Ok(service);
        }
        let now = service.progress();
        if now != last {
            context.printer.note(&now);
            last = now;
        }
        if service.lacks_address().is_none() {
            lacking_since = None;
        } else if lacking_since.get_or_insert_with(Instant::now).elapsed() > ServiceStatus::ADDRESS_WAIT {
            context.printer.note(format!(
                "it runs, and is waited for no longer: `slipway services {}` shows its address once there is one",
                argument(name)
            ));
            return Ok(service);
        }
        if began.elapsed() > READY_LIMIT {
            let message = format!("`{name}` is not ready after {} s", READY_LIMIT.as_secs());
            let mut error = ApiError::new(ErrorCode::Failed, message);
            error.causes.push(last);
            return Err(error
                .with_hint(format!(
                    "see `slipway logs {}` and `slipway events --subject {}`",
                    argument(name),
                    argument(&format!("service/{name}"))
                ))
                .into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
