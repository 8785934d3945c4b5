//! `slipway system`

use serde::{Deserialize, Serialize};
use serde_json::json;
use slipway_types::size::human_bytes;

use super::Context;
use crate::failure::{Failure, exit};
use crate::printer::Format;
use crate::query;

/// Look after the machine: what is used, what was left behind
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show how much disk images, containers and models take
    Df {
        /// How to write it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Remove what nothing uses: containers that ended, images without a name, leftovers of processes that died
    Prune {
        /// Also images that no container uses
        #[arg(short, long)]
        all: bool,
        /// Also the build cache
        #[arg(long)]
        build_cache: bool,
        /// How to write what was removed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Look for leaks and damage; exit 1 if anything is found
    Check {
        /// Read every byte again and compare digests
        #[arg(long)]
        deep: bool,
        /// How to write what was found
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// One thing that `check` found or `prune` removed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: String,
    /// Which, and what is wrong with it.
    pub message: String,
}

#[derive(Serialize, Deserialize)]
struct Pruned {
    removed: Vec<Finding>,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct UsageRow {
    kind: String,
    count: u64,
    bytes: u64,
    reclaimable: u64,
}

/// Looks after the machine.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let client = context.client()?;
    let printer = context.printer;
    match &args.action {
        Action::Df { format } => {
            let rows: Vec<UsageRow> = client.get("/v1/system/df")?;
            if *format == Format::Json {
                printer.json(&rows);
                return Ok(0);
            }
            let cells = |row: &UsageRow| {
                vec![
                    row.kind.clone(),
                    row.count.to_string(),
                    human_bytes(row.bytes),
                    human_bytes(row.reclaimable),
                ]
            };
            printer.table(
                &["TYPE", "COUNT", "SIZE", "RECLAIMABLE"],
                &rows.iter().map(cells).collect::<Vec<_>>(),
            );
            Ok(0)
        }
        Action::Prune { all, build_cache, format } => {
            let pruned: Pruned =
                client.post("/v1/system/prune", &json!({ "all": all, "build_cache": build_cache }))?;
            if *format == Format::Json {
                printer.json(&pruned);
                return Ok(0);
            }
            for finding in &pruned.removed {
                printer.line(format!("removed {} {}", finding.kind, finding.message));
            }
            printer.line(format!("{} freed", human_bytes(pruned.bytes)));
            Ok(0)
        }
        Action::Check { deep, format } => {
            let deep = if *deep { "true" } else { "false" };
            let findings: Vec<Finding> = client.get(&query::path("/v1/system/check", &[("deep", deep)]))?;
            if *format == Format::Json {
                printer.json(&findings);
            } else if findings.is_empty() {
                printer.line("nothing was left behind and nothing is damaged");
            } else {
                for finding in &findings {
                    printer.line(format!("{}: {}", finding.kind, finding.message));
                }
                printer.note("`slipway system prune` removes what was left behind");
            }
            Ok(if findings.is_empty() { 0 } else { exit::FAILED })
        }
    }
}
