//! `slipway runs`

use slipway_types::run::{RunState, RunStatus};

use super::Context;
use crate::failure::Failure;
use crate::printer::{Format, age};
use crate::query;

/// List training runs, show one, cancel one, or remove what one has left
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only of this project
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Stop this run; it leaves no model version
    #[arg(long, conflicts_with = "project")]
    cancel: bool,
    /// Remove what this run has left once it is done: a model that could not be fetched from its cluster, and checkpoints and
    /// files here. Its record, its log and its model version stay
    #[arg(long, conflicts_with_all = ["project", "cancel"])]
    discard: bool,
    /// How to write them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// One run, such as `digits-7`
    #[arg(value_name = "RUN", required_if_eq_any([("cancel", "true"), ("discard", "true")]))]
    run: Option<String>,
}

/// Lists.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let client = context.client()?;
    let printer = context.printer;
    match &args.run {
        Some(run) if args.cancel => {
            client.post::<_, ()>(&query::path("/v1/runs/cancel", &[("run", run)]), &())?;
            printer.line(run);
        }
        Some(run) if args.discard => {
            client.post::<_, ()>(&query::path("/v1/runs/discard", &[("run", run)]), &())?;
            printer.line(run);
        }
        Some(run) => printer.json(&client.get::<RunStatus>(&query::path("/v1/run", &[("run", run)]))?),
        None => {
            let pairs: Vec<_> = args.project.as_deref().map(|p| ("project", p)).into_iter().collect();
            let runs: Vec<RunStatus> = client.get(&query::path("/v1/runs", &pairs))?;
            if args.format == Format::Json {
                printer.json(&runs);
            } else {
                let rows: Vec<_> = runs.iter().map(row).collect();
                printer.table(
                    &["RUN", "STATE", "ENGINE", "STARTED", "TOOK", "EXIT", "VERSION", "METRICS"],
                    &rows,
                );
            }
        }
    }
    Ok(0)
}

fn row(run: &RunStatus) -> Vec<String> {
    let now = jiff::Timestamp::now();
    let state = match run.state {
        RunState::Running => "running",
        RunState::Packing => "packing",
        RunState::Succeeded => "succeeded",
        RunState::Failed => "failed",
        RunState::Cancelled => "cancelled",
    };
    let took = run.finished_at.unwrap_or(now).duration_since(run.started_at).as_secs_f64();
    vec![
        run.id.clone(),
        match run.attempt {
            1 => state.to_owned(),
            attempt => format!("{state} (attempt {attempt})"),
        },
        run.engine.clone(),
        format!("{} ago", age(run.started_at, now)),
        format!("{took:.1}s"),
        run.exit_code.map_or_else(String::new, |code| code.to_string()),
        run.version.map_or_else(String::new, |version| version.to_string()),
        super::model::metrics_text(&run.metrics),
    ]
}
