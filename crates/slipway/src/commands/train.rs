//! `slipway train`

use std::path::PathBuf;

use hyper::Method;
use slipway_types::container::{NetworkMode, OutputStream};
use slipway_types::run::{Gang, GangBy, Launcher, RunEvent, RunSpec, RunState, RunStatus, Secrets};
use slipway_types::size::human_bytes;

use super::Context;
use crate::failure::{self, Failure, exit};
use crate::interrupt::Interrupts;
use crate::printer::Printer;
use crate::project_file::{LoadedProject, limits};

/// Train the project's model in its image, and record it as a new model version
///
/// Ctrl-C, or SIGTERM to this command, cancels the run as `slipway runs --cancel` does: its program gets SIGTERM and
/// 10 seconds, for example to write a checkpoint, and no version is recorded. A second Ctrl-C leaves at once. A run
/// outlives its terminal: when this command is killed or the terminal is closed, the run goes on, and `slipway runs`
/// shows it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image to train in [default: the project's, as `up` builds it]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Folder mounted read-only at /data [default: the project's]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Set an environment variable (repeatable)
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Set an environment variable to the value that it has here, and let nothing show it (repeatable)
    #[arg(long = "secret", value_name = "NAME")]
    secrets: Vec<String>,
    /// Memory limit, such as `4g`
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// CPU limit, such as `1.5`
    #[arg(long, value_name = "COUNT")]
    cpus: Option<f64>,
    /// Network: `none` or `host`
    #[arg(long, value_name = "NETWORK")]
    network: Option<NetworkMode>,
    /// Containers that train together, on a cluster [default: the project's, else 1]
    #[arg(long, value_name = "COUNT")]
    ranks: Option<u32>,
    /// Processes in each of them [default: the project's, else 1]
    #[arg(long, value_name = "COUNT")]
    processes: Option<u32>,
    /// What starts the processes and tells them about each other: `none`, `torchrun`, `tensorflow` or `mpi`
    #[arg(long, value_name = "LAUNCHER")]
    launcher: Option<Launcher>,
    /// How often all may begin again, from their checkpoints, after one failed; on a cluster
    #[arg(long, value_name = "COUNT")]
    retries: Option<u32>,
    /// What of the cluster starts all together: `auto` (what there is), `none`, `jobset`, `kueue`, `volcano` or `podgroup`
    #[arg(long, value_name = "WHAT")]
    gang: Option<GangBy>,
    /// Queue of Kueue or Volcano [default: the project's, else the namespace's]
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Print the run's id and do not wait for its end
    #[arg(short, long)]
    detach: bool,
    /// Folder of the project
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    project: PathBuf,
    /// Program and arguments [default: the project's]
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Args {
    /// The project's gang with what the flags change.
    fn gang(&self, project: &Gang) -> Result<Gang, Failure> {
        let gang = Gang {
            ranks: self.ranks.unwrap_or(project.ranks),
            processes: self.processes.unwrap_or(project.processes),
            launcher: self.launcher.unwrap_or(project.launcher),
            retries: self.retries.unwrap_or(project.retries),
            storage: project.storage,
            by: self.gang.unwrap_or(project.by),
            queue: self.queue.clone().or_else(|| project.queue.clone()),
        };
        // The project's own keys were checked when it was read: what is wrong is a flag.
        match gang.fault() {
            Some((key, reason)) => Err(Failure::usage(format!(
                "{}: {}",
                key.replace("train.", "--"),
                reason.replace("train.", "--")
            ))),
            None => Ok(gang),
        }
    }
}

/// Trains.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let loaded = LoadedProject::load(&args.project)?;
    let mut spec = RunSpec { engine: context.engine.clone(), ..run_spec(&loaded)? };
    if let Some(image) = &args.image {
        spec.image.clone_from(image);
    }
    if let Some(data) = &args.data {
        spec.data = Some(data.canonicalize().map_err(|e| failure::io("open", data, &e))?);
    }
    spec.env.extend(args.env.iter().cloned());
    spec.secrets.0.extend(secrets(&args.secrets, "--secret")?.0);
    let flags = limits(args.memory.as_deref(), args.cpus, "--memory", "--cpus")
        .map_err(|(flag, reason)| Failure::usage(format!("{flag}: {reason}")))?;
    spec.limits.memory = flags.memory.or(spec.limits.memory);
    spec.limits.cpu_millis = flags.cpu_millis.or(spec.limits.cpu_millis);
    spec.network = args.network.unwrap_or(spec.network);
    spec.gang = args.gang(&spec.gang)?;
    if !args.command.is_empty() {
        spec.command.clone_from(&args.command);
    }
    let path = if args.detach { "/v1/runs?detach=true" } else { "/v1/runs" };
    let printer = context.printer;
    let mut outcome = Err(context.no_result("the run"));
    let client = context.client()?;
    let interrupts = match args.detach {
        true => None,
        false => Some(Interrupts::catch(&context.settings, printer)?),
    };
    client.stream(Method::POST, path, Some(&spec), |event: RunEvent| {
        show(printer, &event);
        match event {
            RunEvent::Started(status) if args.detach => {
                printer.line(&status.id);
                outcome = Ok(0);
            }
            RunEvent::Started(status) => {
                interrupts.iter().for_each(|interrupts| interrupts.started(&status.id));
            }
            RunEvent::Finished(status) => {
                let signal = interrupts.as_ref().and_then(Interrupts::signal);
                outcome =
                    Ok(match (status.state, signal.and_then(|signal| u8::try_from(128 + signal).ok())) {
                        (RunState::Succeeded, _) => 0,
                        (RunState::Cancelled, Some(code)) => code,
                        _ => exit::FAILED,
                    });
            }
            RunEvent::Failed(error) => outcome = Err(error.into()),
            RunEvent::Note { .. } | RunEvent::Log(_) => {}
        }
        Ok(())
    })?;
    outcome
}

/// What a project's training runs.
pub fn run_spec(loaded: &LoadedProject) -> Result<RunSpec, Failure> {
    let train = &loaded.project.train;
    let data =
        match &train.data {
            None => None,
            Some(data) => {
                let path = loaded.folder.join(data);
                Some(path.canonicalize().map_err(|e| {
                    failure::io("open", &path, &e).hint("`train.data` in slipway.toml names it")
                })?)
            }
        };
    Ok(RunSpec {
        engine: None,
        project: loaded.project.name.clone(),
        image: loaded.image_name(),
        command: train.command.clone(),
        secrets: secrets(&train.secrets, "train.secrets")?,
        env: train.env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        workspace: loaded.folder.clone(),
        data,
        limits: loaded.train_limits().map_err(|(key, reason)| Failure::usage(format!("{key}: {reason}")))?,
        network: train.network,
        format: loaded.project.model.format.parse().ok(),
        entry: loaded.project.model.entry.clone(),
        gang: loaded.gang().map_err(|(key, reason)| Failure::usage(format!("{key}: {reason}")))?,
    })
}

/// The values that variables have here. `key` is what names them.
fn secrets(names: &[String], key: &str) -> Result<Secrets, Failure> {
    let value = |name: &String| match std::env::var(name) {
        Ok(value) => Ok((name.clone(), value)),
        Err(std::env::VarError::NotPresent) => {
            Err(Failure::usage(format!("{key}: the environment variable `{name}` is not set here")))
        }
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::usage(format!("{key}: the environment variable `{name}` is no text")))
        }
    };
    let secrets = Secrets(names.iter().map(value).collect::<Result<_, _>>()?);
    match secrets.fault() {
        Some(reason) => Err(Failure::usage(format!("{key}: {reason}"))),
        None => Ok(secrets),
    }
}

/// Shows an event of a run.
pub fn show(printer: Printer, event: &RunEvent) {
    match event {
        RunEvent::Started(status) => printer.note(format!("run {} started", status.id)),
        RunEvent::Note { text } => printer.note(text),
        RunEvent::Log(line) => match line.stream {
            OutputStream::Stdout => printer.line(&line.text),
            OutputStream::Stderr => printer.note(&line.text),
        },
        RunEvent::Finished(status) => finished(printer, status),
        RunEvent::Failed(_) => {}
    }
}

fn finished(printer: Printer, status: &RunStatus) {
    let seconds = status.finished_at.map_or(0.0, |end| end.duration_since(status.started_at).as_secs_f64());
    let memory = status.peak_memory.map(|m| format!(", peak memory {}", human_bytes(m))).unwrap_or_default();
    match (status.state, status.version) {
        (RunState::Succeeded, Some(version)) => printer.note(format!(
            "run {} succeeded in {seconds:.1}s{memory}: {}@{version}",
            status.id, status.project
        )),
        _ => printer.note(format!(
            "run {} {} after {seconds:.1}s{memory}: {}",
            status.id,
            if status.state == RunState::Cancelled { "was cancelled" } else { "failed" },
            status.error.as_deref().unwrap_or("no model version was recorded")
        )),
    }
}
