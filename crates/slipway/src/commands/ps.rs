//! `slipway ps`

use slipway_types::container::{ContainerState, ContainerStatus};

use super::Context;
use crate::failure::Failure;
use crate::printer::{Format, age};
use crate::query;

/// List containers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also those that ended
    #[arg(short, long)]
    all: bool,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// How to write the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Lists.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let all = if args.all { "true" } else { "false" };
    let list: Vec<ContainerStatus> =
        context.client()?.get(&query::path("/v1/containers", &[("all", all)]))?;
    let printer = context.printer;
    if args.quiet {
        list.iter().for_each(|c| printer.line(c.id.short()));
    } else if args.format == Format::Json {
        printer.json(&list);
    } else {
        let rows: Vec<Vec<String>> = list.iter().map(row).collect();
        printer.table(&["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAME"], &rows);
    }
    Ok(0)
}

fn row(container: &ContainerStatus) -> Vec<String> {
    let now = jiff::Timestamp::now();
    let mut command = container.command.join(" ");
    if command.chars().count() > 30 {
        command = command.chars().take(29).chain(['…']).collect();
    }
    vec![
        container.id.short().to_owned(),
        container.image.clone(),
        command,
        format!("{} ago", age(container.created_at, now)),
        status(container, now),
        container.name.clone(),
    ]
}

fn status(container: &ContainerStatus, now: jiff::Timestamp) -> String {
    match (container.state, &container.exit) {
        (ContainerState::Created, _) => "Created".to_owned(),
        (ContainerState::Running, _) => {
            format!("Up {}", age(container.started_at.unwrap_or(container.created_at), now))
        }
        (ContainerState::Exited, Some(exit)) => {
            let oom = if exit.oom_killed { ", out of memory" } else { "" };
            format!("Exited ({}{oom}) {} ago", exit.code, age(exit.finished_at, now))
        }
        (ContainerState::Exited, None) => "Exited".to_owned(),
    }
}
