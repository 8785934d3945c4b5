//! RUN.

use std::fmt::Write as _;

use slipway_types::Digest;
use slipway_types::container::{NetworkMode, OutputStream};

use super::Build;
use super::hints::hint;
use super::mounts::Planned;
use super::output::{Decoder, Tail};
use super::roots::prepare;
use super::stage::StageState;
use super::steps::Step;
use super::stubs::Stubs;
use super::trust::StepFiles;
use crate::build::cache::StepKey;
use crate::build::copy::Writer;
use crate::build::dockerfile::{Instruction, Run, RunNetwork, RunProgram};
use crate::build::error::{Fault, StepErrorKind};
use crate::build::image_config::DEFAULT_PATH;
use crate::build::runner::{RunStep, StepExit};
use crate::store::Staging;

/// Longest command in a message, in characters.
const MAX_SHOWN: usize = 200;

/// What a RUN asks for, apart from its file system.
struct Task<'t> {
    program: RunProgram,
    /// The image's environment and the arguments in scope.
    env: Vec<String>,
    user: Option<String>,
    cwd: String,
    network: NetworkMode,
    mounts: Vec<Planned>,
    layers: Vec<Digest>,
    shell: Vec<String>,
    instruction: &'t Instruction,
}

impl Build<'_> {
    /// Executes RUN, or takes it from the cache.
    pub(super) fn run_step(
        &self,
        stage: usize,
        state: &mut StageState,
        run: &Run,
        instruction: &Instruction,
        step: &Step<'_>,
    ) -> Result<bool, Fault> {
        let config = &state.config.config;
        let mut env = config.env.clone().unwrap_or_default();
        if config.variable("PATH").is_none() {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        let args = state.visible_args();
        env.extend(args.iter().map(|(name, value)| format!("{name}={value}")));
        let task = Task {
            program: run.program(),
            env,
            user: config.user.clone().filter(|user| !user.is_empty()),
            cwd: config.working_dir().to_owned(),
            network: match run.network {
                RunNetwork::Default => self.parts.request.network.unwrap_or(NetworkMode::Host),
                RunNetwork::None => NetworkMode::None,
                RunNetwork::Host => NetworkMode::Host,
            },
            mounts: self.plan_mounts(stage, state, run, step)?,
            layers: state.config.rootfs.diff_ids.clone(),
            shell: config.shell(),
            instruction,
        };
        let created_by = task.describe(&args);
        let (made, cached) =
            self.layered(task.key(), &created_by, &mut |staging| self.run_task(&task, staging, step))?;
        self.add(state, &made, &created_by);
        Ok(cached)
    }

    fn run_task(&self, task: &Task<'_>, staging: &Staging, step: &Step<'_>) -> Result<(), Fault> {
        let layout = self.layout(&task.layers, staging)?;
        let mut files = StepFiles::new(staging);
        let mut env = task.env.clone();
        let set = |env: &mut Vec<String>, name: &str, value: &str| {
            let start = format!("{name}=");
            if !env.iter().any(|pair| pair.starts_with(&start)) {
                env.push(format!("{name}={value}"));
            }
        };
        for (name, value) in self.parts.globals.proxies() {
            set(&mut env, name, value);
        }
        let stubs = {
            // Closed before the step runs: one upper folder must not be in two overlays at once.
            let root = self.open_root(&layout)?;
            if let Some(trust) = &self.parts.trust {
                for (name, value) in trust.install(&root, files.folder()?)? {
                    set(&mut env, name, &value);
                }
            }
            // A base image may name a folder that it does not have.
            let writer = Writer { root: &root, owner: None, mode: None, cancel: &self.parts.cancel };
            writer.make_folder(&task.cwd)?;
            let targets = task.mounts.iter().filter_map(Planned::target);
            Stubs::before(&root, targets).map_err(StepErrorKind::OpenRoot)?
        };
        let args = task.args(&mut files)?;
        let ready = self.ready_mounts(&task.mounts, staging)?;
        let mut mounts = ready.mounts.clone();
        mounts.extend(files.mount());
        for (name, value) in &ready.env {
            env.retain(|pair| !pair.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('=')));
            env.push(format!("{name}={value}"));
        }
        let run = RunStep {
            lowers: layout.lowers,
            upper: layout.upper,
            work: layout.work,
            args,
            env,
            cwd: task.cwd.clone(),
            user: task.user.clone(),
            network: task.network,
            mounts,
        };
        let (exit, last_output) = self.watch(&run, step)?;
        if exit.code != 0 || exit.oom_killed {
            let hint = hint(exit.code, exit.oom_killed, task.network, &last_output);
            let command = shorten(&task.instruction.text);
            let StepExit { code, oom_killed } = exit;
            let kind = StepErrorKind::Exit { command, code: code.max(u8::from(oom_killed)), oom_killed };
            return Err(Fault { hint, last_output, ..Fault::from(kind) });
        }
        stubs.clean(&run.upper).map_err(prepare(&run.upper))?;
        Ok(())
    }

    /// Runs a step and reports its output; the last lines of it.
    fn watch(&self, run: &RunStep, step: &Step<'_>) -> Result<(StepExit, Vec<String>), Fault> {
        let mut decoders = [Decoder::default(), Decoder::default()];
        let mut tail = Tail::default();
        let mut output = |stream: OutputStream, bytes: &[u8]| {
            let decoder = &mut decoders[usize::from(stream != OutputStream::Stdout)];
            let text = decoder.push(bytes);
            tail.push(&text);
            step.output(stream, text);
        };
        let result = self.parts.machine.runner.run(run, &mut output, &self.parts.cancel);
        for (decoder, stream) in decoders.iter_mut().zip([OutputStream::Stdout, OutputStream::Stderr]) {
            let text = decoder.finish();
            tail.push(&text);
            step.output(stream, text);
        }
        let last_output = tail.finish();
        match result {
            Ok(exit) => Ok((exit, last_output)),
            Err(error) => Err(Fault { last_output, ..Fault::from(StepErrorKind::Runner(error)) }),
        }
    }
}

impl Task<'_> {
    /// The inputs of the step. Proxies and certificates are not among them: they change how things are fetched, not
    /// what.
    fn key(&self) -> StepKey {
        let (kind, words): (&str, Vec<&str>) = match &self.program {
            RunProgram::Exec(args) => ("exec", args.iter().map(String::as_str).collect()),
            RunProgram::Shell(text) => {
                ("shell", self.shell.iter().map(String::as_str).chain([text.as_str()]).collect())
            }
            RunProgram::Script { content, .. } => ("script", vec![content.as_str()]),
        };
        let network = match self.network {
            NetworkMode::None => "none",
            NetworkMode::Host => "host",
        };
        let key = StepKey::new("run", &self.layers)
            .text("program", kind)
            .list("args", words)
            .list("env", self.env.iter().map(String::as_str))
            .option("user", self.user.as_deref())
            .text("cwd", &self.cwd)
            .text("network", network);
        self.mounts.iter().fold(key, |key, mount| mount.add_to(key))
    }

    fn args(&self, files: &mut StepFiles<'_>) -> Result<Vec<String>, Fault> {
        Ok(match &self.program {
            RunProgram::Exec(args) => args.clone(),
            RunProgram::Shell(text) => self.shell.iter().cloned().chain([text.clone()]).collect(),
            RunProgram::Script { name, content } => vec![files.script(name, content)?],
        })
    }

    /// The instruction as Docker's history has it: `RUN |1 A=b /bin/sh -c …`.
    fn describe(&self, args: &[(&str, &str)]) -> String {
        let mut text = "RUN ".to_owned();
        if !args.is_empty() {
            let _ = write!(text, "|{} ", args.len());
            for (name, value) in args {
                let _ = write!(text, "{name}={value} ");
            }
        }
        match &self.program {
            RunProgram::Exec(args) => text.push_str(&args.join(" ")),
            RunProgram::Shell(script) => {
                text.push_str(&self.shell.join(" "));
                text.push(' ');
                text.push_str(script);
            }
            RunProgram::Script { name, content } => {
                let _ = write!(text, "<<{name} {content}");
            }
        }
        text
    }
}

/// An instruction without its keyword, short enough for a message.
fn shorten(text: &str) -> String {
    let text = text.split_once(char::is_whitespace).map_or(text, |(_, rest)| rest.trim());
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
