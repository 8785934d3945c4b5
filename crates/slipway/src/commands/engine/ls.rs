//! `slipway engine ls`

use slipway_types::engine::EngineStatus;

use super::super::Context;
use crate::failure::Failure;
use crate::printer::Format;

/// List the engines; `*` marks the one in use
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to write them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Lists.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let engines: Vec<EngineStatus> = context.client()?.get("/v1/engines")?;
    if args.format == Format::Json {
        context.printer.json(&engines);
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = engines.iter().map(row).collect();
    context.printer.table(&["", "ENGINE", "PLACE", "REGISTRY", "SERVICES"], &rows);
    for engine in &engines {
        if let Some(trouble) = &engine.trouble {
            context.printer.warning(format!("`{}` cannot be asked: {trouble}", engine.name));
        }
    }
    Ok(0)
}

fn row(engine: &EngineStatus) -> Vec<String> {
    vec![
        if engine.default { "*" } else { "" }.to_owned(),
        engine.name.clone(),
        engine.place.clone(),
        engine.cluster.as_ref().map(|cluster| cluster.registry.clone()).unwrap_or_default(),
        engine.services.to_string(),
    ]
}
