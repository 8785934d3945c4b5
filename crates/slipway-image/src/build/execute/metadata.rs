//! Instructions that change the configuration, and WORKDIR, which also makes a folder.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Build;
use super::stage::StageState;
use crate::build::cache::StepKey;
use crate::build::copy::Writer;
use crate::build::dockerfile::{InstructionKind, KeyValue, Word, parse_ports};
use crate::build::error::{Fault, StepErrorKind};
use crate::build::image_config::HealthConfig;
use crate::build::plan::StageArg;
use crate::build::root::clean_absolute;
use crate::build::words;

impl Build<'_> {
    /// Applies an instruction that changes no files. Its place in the history carries the time of the newest step
    /// before it, so that an unchanged build gives the same image.
    pub(super) fn change_config(
        &self,
        stage: usize,
        state: &mut StageState,
        kind: &InstructionKind,
    ) -> Result<(), Fault> {
        let created_by = self.apply(stage, state, kind)?;
        state.created = self.parts.epoch.or(state.created);
        state.config.record(state.created, &created_by, true);
        Ok(())
    }

    /// Changes the state; how Docker writes the instruction in the history.
    fn apply(&self, stage: usize, state: &mut StageState, kind: &InstructionKind) -> Result<String, Fault> {
        let text = match kind {
            InstructionKind::Env(pairs) => {
                let pairs = expand_pairs(state, pairs)?;
                for (name, value) in &pairs {
                    state.config.config.set_variable(name, value);
                }
                format!("ENV {}", join_pairs(&pairs))
            }
            InstructionKind::Label(pairs) => {
                let pairs = expand_pairs(state, pairs)?;
                let labels = state.config.config.labels.get_or_insert_default();
                labels.extend(pairs.iter().cloned());
                format!("LABEL {}", join_pairs(&pairs))
            }
            InstructionKind::Arg(args) => {
                let planned = self.planned(stage)?;
                let mut text = "ARG".to_owned();
                for arg in args {
                    let default = arg.default.as_ref().map(|word| state.expand(word)).transpose()?;
                    let value = self.parts.globals.in_stage(arg, default, &planned.name);
                    text.push(' ');
                    text.push_str(&arg.name.text);
                    if let Some(value) = &value {
                        text.push('=');
                        text.push_str(value);
                    }
                    state.args.push(StageArg { name: arg.name.text.clone(), value });
                }
                text
            }
            InstructionKind::User(user) => {
                let user = state.expand(user)?;
                state.config.config.user = Some(user.clone());
                format!("USER {user}")
            }
            InstructionKind::Entrypoint(command) => {
                let config = &mut state.config.config;
                let args = config.command(command);
                // What the base runs is no argument of another program.
                if !state.cmd_set {
                    config.cmd = None;
                }
                config.entrypoint = Some(args.clone()).filter(|args| !args.is_empty());
                format!("ENTRYPOINT {}", quoted(&args))
            }
            InstructionKind::Cmd(command) => {
                let args = state.config.config.command(command);
                state.config.config.cmd = Some(args.clone()).filter(|args| !args.is_empty());
                state.cmd_set = true;
                format!("CMD {}", quoted(&args))
            }
            InstructionKind::Expose(words) => {
                let mut ports: BTreeMap<String, Value> = BTreeMap::new();
                for word in words {
                    let expanded = words::expand_words(&word.text, &|name| state.lookup(name), state.escape)
                        .map_err(|source| StepErrorKind::Expand { word: word.text.clone(), source });
                    for text in expanded.map_err(|kind| Fault::from(kind).at(word.span))? {
                        let list = parse_ports(&text).map_err(|error| Fault::from(error).at(word.span))?;
                        ports.extend(list.into_iter().map(|port| (port, json!({}))));
                    }
                }
                let list: Vec<String> = ports.keys().map(|port| format!("{port}:{{}}")).collect();
                state.config.config.exposed_ports.get_or_insert_default().extend(ports);
                format!("EXPOSE map[{}]", list.join(" "))
            }
            InstructionKind::Volume(words) => {
                let paths = expand_all(state, words)?;
                let volumes = state.config.config.volumes.get_or_insert_default();
                volumes.extend(paths.iter().map(|path| (path.clone(), json!({}))));
                format!("VOLUME [{}]", paths.join(" "))
            }
            InstructionKind::StopSignal(word) => {
                let signal = state.expand(word)?;
                state.config.config.stop_signal = Some(signal.clone());
                format!("STOPSIGNAL {signal}")
            }
            InstructionKind::Healthcheck(check) => {
                let health = HealthConfig::new(check);
                let text = format!("HEALTHCHECK {}", quoted(&health.test));
                state.config.config.healthcheck = Some(health);
                text
            }
            InstructionKind::Shell(words) => {
                let shell: Vec<String> = words.iter().map(|word| word.text.clone()).collect();
                let text = format!("SHELL [{}]", shell.join(" "));
                state.config.config.shell = Some(shell);
                text
            }
            InstructionKind::Onbuild(onbuild) => {
                state.config.config.on_build.get_or_insert_default().push(onbuild.trigger.clone());
                format!("ONBUILD {}", onbuild.trigger)
            }
            InstructionKind::Maintainer(word) => {
                let name = state.expand(word)?;
                state.config.author = Some(name.clone());
                format!("MAINTAINER {name}")
            }
            InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_) => String::new(),
        };
        Ok(text)
    }

    /// WORKDIR. The folder is made as root with mode 0755, whoever USER says, as BuildKit does it.
    pub(super) fn workdir_step(&self, state: &mut StageState, word: &Word) -> Result<bool, Fault> {
        let path = absolute(state, &state.expand(word)?);
        let created_by = format!("WORKDIR {path}");
        let layers = state.config.rootfs.diff_ids.clone();
        let key = StepKey::new("workdir", &layers).text("path", &path);
        let (made, cached) = self.layered(key, &created_by, &mut |staging| {
            let root = self.open_root(&self.layout(&layers, staging)?)?;
            let writer = Writer { root: &root, owner: None, mode: None, cancel: &self.parts.cancel };
            Ok(writer.make_folder(&path)?)
        })?;
        state.config.config.working_dir = Some(path);
        self.add(state, &made, &created_by);
        Ok(cached)
    }
}

/// A path as seen from the working directory, clean and absolute.
pub(super) fn absolute(state: &StageState, path: &str) -> String {
    if path.starts_with('/') {
        clean_absolute(path)
    } else {
        clean_absolute(&format!("{}/{path}", state.config.config.working_dir()))
    }
}

fn expand_all(state: &StageState, words: &[Word]) -> Result<Vec<String>, Fault> {
    words.iter().map(|word| state.expand(word)).collect()
}

/// All pairs see the variables from before the instruction.
fn expand_pairs(state: &StageState, pairs: &[KeyValue]) -> Result<Vec<(String, String)>, Fault> {
    pairs.iter().map(|pair| Ok((state.expand(&pair.key)?, state.expand(&pair.value)?))).collect()
}

fn join_pairs(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

/// A list as Docker's history writes it: `["a" "b"]`.
fn quoted(args: &[String]) -> String {
    let args: Vec<String> = args.iter().map(|arg| json!(arg).to_string()).collect();
    format!("[{}]", args.join(" "))
}
