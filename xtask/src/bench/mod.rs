//! `cargo xtask bench`: Slipway beside its peers, as ratios. Nothing here asserts a time.

mod deploy;
mod docker;
mod error;
mod image;
mod kubernetes;
mod machine;
mod packages;
mod process;
mod rebuild;
mod report;
mod runc;
mod scratch;
mod serve;
mod slipway;
mod start;
mod stats;

use std::path::PathBuf;

use self::error::Error;
use self::machine::{Machine, busy_note};
use self::report::Report;
use self::scratch::Scratch;
use self::slipway::Programs;
use crate::error::chain;

/// `cargo xtask bench`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    benchmark: Benchmark,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Subcommand)]
enum Benchmark {
    /// Start a container, run `true` in it and remove it: beside docker and runc
    Run(start::Args),
    /// Build a project with 20,000 files again: beside BuildKit and a plain walk
    Rebuild(rebuild::Args),
    /// From the command to the first answer of a service on a real node of a cluster: beside kubectl
    Deploy(deploy::Args),
    /// Requests per second for a small ONNX model: beside mosec, LitServe and MLServer
    Serve(serve::Args),
    /// A thousand services and a gang of a thousand ranks on nodes that kwok plays: beside kubectl
    Kubernetes(kubernetes::Args),
}

/// What all benchmarks take.
#[derive(Debug, clap::Args)]
struct Common {
    /// Write every figure to this file as JSON
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Install missing Debian packages
    #[arg(long, global = true)]
    install: bool,
    /// Folder with `slipway` and `slipway-runner` [default: they are built, optimised]
    #[arg(long, global = true, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Where the temporary folder is made [default: the system's]
    #[arg(long, global = true, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
}

/// What a benchmark is given.
struct Bench {
    programs: Programs,
    scratch: Scratch,
    install: bool,
    report: Report,
}

/// Runs a benchmark.
pub fn run(args: &Args) -> Result<(), String> {
    measure(args).map_err(|error| chain(&error))
}

fn measure(args: &Args) -> Result<(), Error> {
    process::watch_signals()?;
    let name = match args.benchmark {
        Benchmark::Run(_) => "run",
        Benchmark::Rebuild(_) => "rebuild",
        Benchmark::Deploy(_) => "deploy",
        Benchmark::Serve(_) => "serve",
        Benchmark::Kubernetes(_) => "kubernetes",
    };
    let programs = match &args.common.programs {
        Some(folder) => Programs::in_folder(folder)?,
        None => Programs::in_folder(&crate::binaries::build(true).map_err(Error::Build)?)?,
    };
    let scratch = Scratch::new(args.common.scratch.as_deref())?;
    let mut report = Report::new(name, Machine::of_this_host());
    report.versions.push(("slipway".into(), programs.version()?));
    report.notes.extend(busy_note("Before the start")?);
    let mut bench = Bench { programs, scratch, install: args.common.install, report };
    match &args.benchmark {
        Benchmark::Run(args) => start::measure(&mut bench, args)?,
        Benchmark::Rebuild(args) => rebuild::measure(&mut bench, args)?,
        Benchmark::Deploy(args) => deploy::measure(&mut bench, args)?,
        Benchmark::Serve(args) => serve::measure(&mut bench, args)?,
        Benchmark::Kubernetes(args) => kubernetes::measure(&mut bench, args)?,
    }
    bench.report.notes.extend(busy_note("After the end")?);
    bench.report.publish(args.common.json.as_deref())
}

/// Progress, on standard error: standard output has the report alone.
fn say(text: impl std::fmt::Display) {
    eprintln!("==> {text}");
}
