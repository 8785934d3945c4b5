//! The static program that runs inside a serving container: `slipway-serving` behind a Unix socket.
//!
//! `slipway-runner [CONFIG]` reads a [`slipway_types::service::RunnerConfig`], by default from
//! `/slipway/runner.json`. It exits with 0 after SIGTERM, with 1 when it cannot serve, with 2 on wrong usage.
//!
//! In a pod it is the only program that is sure to be there, so it does more: `slipway-runner copy SOURCE TARGET` fills a
//! volume from an image, `slipway-runner wait SECONDS` lets time pass before a container ends, `slipway-runner output
//! CHECKPOINTS MODEL` makes the folders that a training run writes to, and `slipway-runner archive FOLDER [NAME…]` writes
//! what is in a folder to standard output, as a tar. `slipway-runner mpi COMMAND…` is one rank of a gang of MPI, and
//! `slipway-runner mpi-shell [OPTION…] HOST WORD…` what its `mpirun` takes for a remote shell.

#![forbid(unsafe_code)]

mod archive;
mod config;
mod copy;
mod listen;
mod mpi;
mod output;
mod python;
mod reap;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use slipway_serving::http::Frontend;
use slipway_serving::metrics::Metrics;
use slipway_serving::model::{Model, ModelOptions};
use slipway_serving::worker::{LogSink, WorkerOptions, WorkerPids};
use slipway_types::service::RunnerConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

const DEFAULT_CONFIG: &str = "/slipway/runner.json";
/// How long loading and warming up may take.
const START_TIME: Duration = Duration::from_secs(600);
/// Longest time that requests get to finish after SIGTERM.
const DRAIN_TIME: Duration = Duration::from_secs(30);
/// Most words of the command line that are looked at.
const MAX_WORDS: usize = 16;
/// Longest `wait`: no pod gets more time to end.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    if let Some(code) = of_gang() {
        return code;
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).take(MAX_WORDS + 1).collect();
    let Some(task) = Task::read(&arguments) else {
        tracing::error!(
            "usage: slipway-runner [CONFIG], slipway-runner copy SOURCE TARGET, slipway-runner wait SECONDS, \
             slipway-runner output CHECKPOINTS MODEL, slipway-runner archive FOLDER [NAME…], slipway-runner mpi COMMAND…, \
             or slipway-runner mpi-shell HOST WORD…"
        );
        return ExitCode::from(2);
    };
    let outcome = match task {
        Task::Serve(config) => run(&config),
        Task::Copy { source, target } => copy::folder(&source, &target).map_err(Into::into),
        Task::Output { checkpoints, model } => output::folders(&checkpoints, &model).map_err(Into::into),
        Task::Archive { folder, names } => {
            let out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
            archive::folder(&folder, &names, out).map_err(Into::into)
        }
        Task::Wait(time) => {
            std::thread::sleep(time);
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    tracing::error!("{message}");
    ExitCode::FAILURE
}

/// What gangs of MPI need of it: their command lines have any length, and their exit codes are those of others.
fn of_gang() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let word = arguments.next()?;
    let rest: Vec<OsString> = match word.to_str() {
        Some("mpi" | "mpi-shell") => arguments.collect(),
        _ => return None,
    };
    if rest.is_empty() {
        return None;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Some(failed(&error)),
    };
    let code = runtime
        .block_on(async { if word == "mpi" { mpi::rank(&rest).await } else { mpi::shell(&rest).await } });
    Some(code.map_or_else(|error| failed(&error), ExitCode::from))
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Serve(PathBuf),
    Copy { source: PathBuf, target: PathBuf },
    Output { checkpoints: PathBuf, model: PathBuf },
    Archive { folder: PathBuf, names: Vec<OsString> },
    Wait(Duration),
}

impl Task {
    fn read(arguments: &[OsString]) -> Option<Self> {
        match arguments {
            [] => Some(Self::Serve(PathBuf::from(DEFAULT_CONFIG))),
            [word, source, target] if word == "copy" && !source.is_empty() && !target.is_empty() => {
                Some(Self::Copy { source: source.into(), target: target.into() })
            }
            [word, seconds] if word == "wait" => {
                let seconds = seconds.to_str()?.parse::<u64>().ok().filter(|s| *s <= MAX_WAIT.as_secs())?;
                Some(Self::Wait(Duration::from_secs(seconds)))
            }
            [word, checkpoints, model]
                if word == "output" && !checkpoints.is_empty() && !model.is_empty() =>
            {
                Some(Self::Output { checkpoints: checkpoints.into(), model: model.into() })
            }
            [word, folder, names @ ..] if word == "archive" && arguments.len() <= MAX_WORDS => {
                let folder = Some(folder).filter(|folder| !folder.is_empty())?;
                Some(Self::Archive { folder: folder.into(), names: names.to_vec() })
            }
            [word]
                if ["copy", "wait", "output", "archive", "mpi", "mpi-shell"]
                    .iter()
                    .any(|own| word == own) =>
            {
                None
            }
            [config] if !config.is_empty() => Some(Self::Serve(config.into())),
            _ => None,
        }
    }
}

fn run(path: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let config = config::read(path)?;
    config::raise_file_limit();
    // One thread: requests are short, and the cores are for the model.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: RunnerConfig) -> Result<(), Box<dyn std::error::Error>> {
    let stop = CancellationToken::new();
    watch_signals(stop.clone())?;
    let pids = WorkerPids::default();
    if rustix::process::getpid().is_init() {
        tokio::spawn(reap::orphans(pids.clone())?);
    }
    let listeners = listen::Listeners::bind(&config)?;
    let metrics = Arc::new(Metrics::new());
    let search = std::env::var_os("PATH").unwrap_or_default();
    let worker = WorkerOptions {
        interpreter: python::find(&search),
        script: config.python_dir.join(slipway_serving::WORKER_SCRIPT),
        format: config.format,
        model_dir: config.model_dir.clone(),
        code_dirs: vec![PathBuf::from("/workspace")],
        entry: config.entry.clone(),
        start_timeout: START_TIME,
        log: LogSink::new(|line| {
            // A log that cannot be written must not end the server.
            let _ = writeln!(std::io::stderr().lock(), "[worker] {line}");
        }),
        pids,
    };
    let model = Model::start(ModelOptions::new(&config, worker), &metrics);
    let frontend = Frontend::new(vec![model.clone()], metrics);
    let drain = DRAIN_TIME.min(Duration::from_millis(config.timeout_ms) + Duration::from_secs(1));
    listeners.serve(frontend, stop, drain).await;
    model.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// The first SIGTERM or SIGINT stops the server, the second ends it at once.
fn watch_signals(stop: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for code in [None, Some(143)] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            match code {
                None => stop.cancel(),
                #[expect(clippy::exit, reason = "a second signal asks not to wait for anything")]
                Some(code) => std::process::exit(code),
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_command_line() {
        let read = |words: &[&str]| Task::read(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(read(&[]), Some(Task::Serve(DEFAULT_CONFIG.into())));
        assert_eq!(read(&["/etc/slipway/runner.json"]), Some(Task::Serve("/etc/slipway/runner.json".into())));
        assert_eq!(read(&["wait", "5"]), Some(Task::Wait(Duration::from_secs(5))));
        let copy = Task::Copy { source: "/model".into(), target: "/target".into() };
        assert_eq!(read(&["copy", "/model", "/target"]), Some(copy));
        let output = Task::Output { checkpoints: "/c".into(), model: "/m".into() };
        assert_eq!(read(&["output", "/c", "/m"]), Some(output));
        let archive = Task::Archive { folder: "/output".into(), names: vec!["model".into()] };
        assert_eq!(read(&["archive", "/output", "model"]), Some(archive));
        for wrong in [
            &[""][..],
            &["archive"],
            &["output", "/output/checkpoints"],
            &["output"],
            &["archive", ""],
            &["archive"; MAX_WORDS + 1],
            &["copy"],
            &["copy", "/model"],
            &["copy", "/model", ""],
            &["copy", "/model", "/target", "more"],
            &["wait"],
            &["wait", "-1"],
            &["wait", "1.5"],
            &["wait", "86401"],
            &["a.json", "b.json"],
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
