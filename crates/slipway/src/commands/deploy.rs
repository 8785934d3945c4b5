//! `slipway deploy`

use slipway_types::service::{ServiceSpec, ServiceStatus};
use slipway_types::size::parse_bytes;

use super::Context;
use super::services::wait_until_ready;
use crate::failure::Failure;
use crate::project_file::limits;

/// Serve a model version as replicas of a service, or change a service that runs
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the service [default: the model's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Image that has the model's framework [default: the one it was trained in]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// How many replicas run [default: as it is, else 1]
    #[arg(long, value_name = "COUNT")]
    replicas: Option<u32>,
    /// Class of yours for the formats `python` and `torch`, as `module:Class` [default: the model's]
    #[arg(long, value_name = "MODULE:CLASS")]
    entry: Option<String>,
    /// Most rows in one batch [default: as it is, else 32]
    #[arg(long, value_name = "ROWS")]
    batch_size: Option<u32>,
    /// How long an idle worker waits for more rows, in microseconds [default: as it is, else 0]
    #[arg(long, value_name = "MICROSECONDS")]
    batch_delay: Option<u64>,
    /// Memory limit of each replica, such as `2g` [default: as it is, else none]
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// CPU limit of each replica [default: as it is, else none]
    #[arg(long, value_name = "COUNT")]
    cpus: Option<f64>,
    /// Set an environment variable (repeatable); those that a service has stay
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Largest request body, such as `32m` [default: as it is, else 32m]
    #[arg(long, value_name = "SIZE")]
    max_body: Option<String>,
    /// Do not wait until it answers
    #[arg(short, long)]
    detach: bool,
    /// Model version
    #[arg(value_name = "MODEL[@VERSION|@ALIAS]")]
    model: String,
}

/// Deploys.
pub fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let reference: slipway_types::model::ModelRef =
        args.model.parse().map_err(|reason: String| Failure::usage(reason))?;
    let limits = limits(args.memory.as_deref(), args.cpus, "--memory", "--cpus")
        .map_err(|(flag, reason)| Failure::usage(format!("{flag}: {reason}")))?;
    let max_body = args.max_body.as_deref().map(parse_bytes).transpose();
    let spec = ServiceSpec {
        name: args.name.unwrap_or_else(|| reference.model.clone()),
        image: args.image.unwrap_or_default(),
        model: args.model,
        version: 0,
        replicas: args.replicas.unwrap_or(0),
        entry: args.entry,
        ..ServiceSpec::default()
    };
    let change = serde_json::json!({
        "batch_size": args.batch_size,
        "batch_delay_us": args.batch_delay,
        "memory": limits.memory,
        "cpu_millis": limits.cpu_millis,
        "env": args.env,
        "max_body": max_body.map_err(|e| Failure::usage(format!("--max-body: {e}")))?,
    });
    let body = serde_json::json!({ "spec": spec, "keep_replicas": args.replicas.is_none(), "change": change,
        "engine": context.engine });
    let client = context.client()?;
    let status: ServiceStatus = client.post("/v1/services", &body)?;
    if !args.detach {
        wait_until_ready(context, &client, &status.spec.name)?;
    }
    context.printer.line(&status.url);
    Ok(0)
}
