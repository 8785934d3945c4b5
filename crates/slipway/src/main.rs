//! One binary from training code to a monitored, autoscaled REST API, in containers.

mod attached;
mod client;
mod commands;
mod daemon;
mod env_vars;
mod failure;
mod interrupt;
mod printer;
mod progress;
mod project_file;
mod query;
mod settings;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::{Cli, Context};
use crate::printer::Printer;

fn main() -> ExitCode {
    // The shim forks: it must run before anything starts a thread or reads settings.
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == "shim") {
        return ExitCode::from(slipway_runtime::shim_main(arguments.collect()));
    }
    let cli = Cli::parse();
    let printer = Printer::new();
    let outcome = Context::new(cli.root, printer).and_then(|context| commands::run(&context, cli.command));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if let Some(error) = &failure.error {
                printer.error(error);
            }
            ExitCode::from(failure.exit_code)
        }
    }
}
