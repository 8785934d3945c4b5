//! Development tasks of the workspace: `cargo xtask <task>`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a development tool talks to its terminal")]

mod bench;
mod binaries;
mod cluster;
mod error;
mod layers;
mod packages;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "xtask", about = "Development tasks of the Slipway workspace")]
enum Task {
    /// Check that crates use lower layers only
    Layers,
    /// Build `slipway` and the static `slipway-runner`, and put them side by side in `target/slipway/<profile>`
    Build {
        /// Optimise
        #[arg(long)]
        release: bool,
    },
    /// Run Slipway beside its peers and print ratios; benches/README.md says how to read them
    Bench(bench::Args),
    /// A real Kubernetes cluster for tests, from Go modules and Debian packages alone
    Cluster(cluster::Args),
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Layers => layers::check(),
        Task::Build { release } => binaries::build(release).map(|folder| println!("{}", folder.display())),
        Task::Bench(args) => bench::run(&args),
        Task::Cluster(args) => cluster::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}
