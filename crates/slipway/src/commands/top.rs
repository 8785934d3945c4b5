//! `slipway top`

use slipway_types::service::ReplicaUsage;
use slipway_types::size::human_bytes;

use super::Context;
use crate::failure::Failure;
use crate::printer::Format;
use crate::query;

/// Show what the replicas of services use of CPU and memory now
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

/// Shows.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let pairs: Vec<(&str, &str)> = args.service.iter().map(|name| ("service", name.as_str())).collect();
    let replicas: Vec<ReplicaUsage> = context.client()?.get(&query::path("/v1/top", &pairs))?;
    if args.format == Format::Json {
        context.printer.json(&replicas);
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = replicas.iter().map(row).collect();
    context.printer.table(&["SERVICE", "REPLICA", "CPU", "MEMORY", "LIMIT"], &rows);
    Ok(0)
}

fn row(replica: &ReplicaUsage) -> Vec<String> {
    vec![
        replica.service.clone(),
        replica.container.short().to_owned(),
        format!("{:.2}", replica.cpu_millis as f64 / 1e3),
        human_bytes(replica.memory),
        replica.memory_limit.map(human_bytes).unwrap_or_default(),
    ]
}
