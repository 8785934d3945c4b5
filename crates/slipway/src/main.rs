//! One binary from training code to a monitored, autoscaled REST API, in containers.

mod attached;
mod client;
mod cluster;
mod commands;
mod daemon;
mod env_vars;
mod failure;
mod interrupt;
mod mapped;
mod owned_folder;
mod printer;
mod progress;
mod project_file;
mod query;
mod settings;
mod wire;

use std::ffi::OsString;
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
            // Nothing can be done when even this cannot be written.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { usage_code(std::env::args_os()) } else { 0 });
        }
    };
    let printer = Printer::new();
    let outcome =
        Context::new(cli.root, cli.engine, printer).and_then(|context| commands::run(&context, cli.command));
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
fn usage_code(arguments: impl Iterator<Item = OsString>) -> u8 {
    let mut arguments = arguments.skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--root" | "--engine") => drop(arguments.next()),
            Some("run" | "exec") => return exit::CONTAINER_FAILED,
            Some(option) if option.starts_with('-') => {}
            _ => break,
        }
    }
    exit::USAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_in_run_and_exec_are_125() {
        let code = |line: &str| usage_code(line.split(' ').map(OsString::from));
        assert_eq!(code("slipway run --bad"), 125);
        assert_eq!(code("slipway --root /r exec"), 125);
        assert_eq!(code("slipway --root=/r run"), 125);
        assert_eq!(code("slipway --engine native run"), 125);
        let not_text: OsString = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff]);
        assert_eq!(usage_code(["slipway".into(), "run".into(), not_text].into_iter()), 125);
        assert_eq!(code("slipway build run"), 2);
        assert_eq!(code("slipway --root run ps"), 2);
    }
}
