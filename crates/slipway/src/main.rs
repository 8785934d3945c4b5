//! One binary from training code to a monitored, autoscaled REST API, in containers.

mod attached;
mod client;
mod commands;
mod daemon;
mod env_vars;
mod failure;
mod interrupt;
mod owned_folder;
mod printer;
mod progress;
mod project_file;
mod query;
mod settings;
mod wire;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::{Cli, Context};
use crate::failure::exit;
use crate::printer::Printer;

fn main() -> ExitCode {
    // The shim forks: it must run before anything starts a thread or reads settings.
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == "shim") {
        return ExitCode::from(slipway_runtime::shim_main(arguments.collect()));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usual = if error.use_stderr() { exit::USAGE } else { 0 };
            // Nothing can be done when even this cannot be written.
            let _ = error.print();
            return ExitCode::from(if usual == 0 { 0 } else { usage_code(std::env::args(), usual) });
        }
    };
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

/// `run` and `exec` have Docker's exit codes: whatever keeps the container's process from being tried is 125.
fn usage_code(arguments: impl Iterator<Item = String>, usual: u8) -> u8 {
    let mut arguments = arguments.skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--root" => drop(arguments.next()),
            "run" | "exec" => return exit::CONTAINER_FAILED,
            option if option.starts_with('-') => {}
            _ => break,
        }
    }
    usual
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_in_run_and_exec_are_125() {
        let code = |line: &str| usage_code(line.split(' ').map(str::to_owned), 2);
        assert_eq!(code("slipway run --bad"), 125);
        assert_eq!(code("slipway --root /r exec"), 125);
        assert_eq!(code("slipway --root=/r run"), 125);
        assert_eq!(code("slipway build run"), 2);
        assert_eq!(code("slipway --root run ps"), 2);
    }
}
