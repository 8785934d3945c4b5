//! Walks the stages in order and keeps what is known at each instruction.

use std::collections::{BTreeMap, BTreeSet};

use slipway_types::build::Span;

use super::bases::{globals, needed};
use super::layout::Layout;
use super::missing::is_posix_shell;
use super::paths::join;
use super::rules;
use super::scope::{PROXY_ARGS, Resolved, Scope};
use super::{BaseImage, CheckContext, Findings, secrets};
use crate::build::dockerfile::{Dockerfile, Instruction, InstructionKind, Stage, Word};

/// The walk, and the stage it is in.
pub(super) struct Stages<'a, 'f> {
    pub(super) dockerfile: &'a Dockerfile,
    pub(super) context: &'a CheckContext<'a>,
    pub(super) findings: &'f mut Findings<'a>,
    pub(super) globals: Scope,
    /// States at the end of the stages that were walked.
    pub(super) done: BTreeMap<usize, State>,
    pub(super) state: State,
}

/// What is known of a stage.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) scope: Scope,
    pub(super) workdir: String,
    /// An absolute WORKDIR was given, here or in a base that is known.
    pub(super) workdir_known: bool,
    pub(super) base: Base,
    pub(super) layout: Layout,
    /// The layout without the mounts of the RUN that is looked at.
    pub(super) unmounted: Layout,
    pub(super) shell_is_posix: bool,
    /// SHELL was given: then shell forms are meant.
    shell_given: bool,
    pub(super) apt_updated: bool,
    /// Copies to a relative path while no WORKDIR was set.
    pub(super) early_copies: Vec<EarlyCopy>,
    /// Copies whose files a RUN uses from the working directory, by stage and instruction.
    pub(super) used: BTreeSet<(usize, usize)>,
}

/// A copy to a relative path while no WORKDIR was set.
#[derive(Clone, Debug)]
pub(super) struct EarlyCopy {
    pub(super) step: Step,
    pub(super) destination: Span,
    pub(super) message: String,
}

/// What a chain of stages begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Scratch,
    /// An image, whose files are not known here.
    Image,
}

/// The instruction that is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) stage: usize,
    pub(super) instruction: usize,
    pub(super) line: u32,
    pub(super) span: Span,
}

/// Runs all checks.
pub(super) fn check<'a>(
    dockerfile: &'a Dockerfile,
    context: &'a CheckContext<'a>,
    findings: &mut Findings<'a>,
) {
    rules::stage_names(dockerfile, findings);
    let needed = needed(dockerfile, context.target, findings);
    let globals = globals(&dockerfile.globals, context.build_args, dockerfile.directives.escape);
    for arg in dockerfile.globals.iter().flat_map(|global| &global.args) {
        secrets::arg(arg, findings);
    }
    let mut stages = Stages {
        dockerfile,
        context,
        findings,
        globals,
        done: BTreeMap::new(),
        state: State::new(Base::Image, None),
    };
    for index in needed {
        stages.stage(index, &dockerfile.stages[index]);
    }
}

impl State {
    /// A stage on an image; `known` is what is known of its configuration.
    pub(super) fn new(base: Base, known: Option<BaseImage>) -> Self {
        let mut scope = Scope::new(known.is_some() || base == Base::Scratch);
        for name in PROXY_ARGS {
            scope.set_arg(name, None);
        }
        scope.set_arg("PATH", None);
        let known = known.unwrap_or_default();
        for pair in &known.env {
            if let Some((name, value)) = pair.split_once('=') {
                scope.set_env(name, Some(value.to_owned()));
            }
        }
        let workdir_known = base == Base::Scratch || known.workdir.starts_with('/') && known.workdir != "/";
        Self {
            scope,
            workdir: join("/", &known.workdir),
            workdir_known,
            base,
            layout: Layout::default(),
            unmounted: Layout::default(),
            shell_is_posix: true,
            shell_given: false,
            apt_updated: false,
            early_copies: Vec::new(),
            used: BTreeSet::new(),
        }
    }
}

impl<'a> Stages<'a, '_> {
    pub(super) fn escape(&self) -> char {
        self.dockerfile.directives.escape
    }

    /// The value of a word, where it is known.
    pub(super) fn resolve(&self, word: &str) -> Option<String> {
        self.state.scope.resolve(word, self.escape()).value
    }

    /// The value of a word; variables that nobody sets are reported.
    pub(super) fn expand(&mut self, step: Step, word: &Word) -> Option<String> {
        let Resolved { value, unset } = self.state.scope.resolve(&word.text, self.escape());
        for (name, place) in unset {
            self.undefined(step, word, &name, place);
        }
        value
    }

    fn stage(&mut self, index: usize, stage: &'a Stage) {
        self.state = self.base(index, stage);
        let mut cmd: Option<&Instruction> = None;
        let mut entrypoint: Option<&Instruction> = None;
        let mut healthcheck: Option<&Instruction> = None;
        for (number, instruction) in stage.instructions.iter().enumerate() {
            let step =
                Step { stage: index, instruction: number, line: instruction.line, span: instruction.span };
            match &instruction.kind {
                InstructionKind::Run(run) => self.run(step, run),
                InstructionKind::Copy(copy) => self.copy(step, copy, false),
                InstructionKind::Add(copy) => self.copy(step, copy, true),
                InstructionKind::Env(pairs) => self.env(step, pairs),
                InstructionKind::Arg(args) => self.arg(step, args),
                InstructionKind::Label(pairs) => {
                    rules::legacy("LABEL", pairs, self.findings);
                    for pair in pairs {
                        self.expand(step, &pair.value);
                    }
                }
                InstructionKind::Workdir(word) => self.workdir(step, word),
                InstructionKind::User(word) | InstructionKind::StopSignal(word) => {
                    self.expand(step, word);
                }
                InstructionKind::Expose(words) | InstructionKind::Volume(words) => {
                    for word in words {
                        self.expand(step, word);
                    }
                }
                InstructionKind::Cmd(command) => {
                    rules::only_last(instruction, &mut cmd, self.findings);
                    rules::exec_form(instruction, command, self.state.shell_given, self.findings);
                }
                InstructionKind::Entrypoint(command) => {
                    rules::only_last(instruction, &mut entrypoint, self.findings);
                    rules::exec_form(instruction, command, self.state.shell_given, self.findings);
                }
                InstructionKind::Healthcheck(_) => {
                    rules::only_last(instruction, &mut healthcheck, self.findings);
                }
                InstructionKind::Shell(words) => {
                    self.state.shell_given = true;
                    self.state.shell_is_posix = is_posix_shell(words);
                }
                // It runs in another build, whose files and variables are not these.
                InstructionKind::Onbuild(_) => {}
                InstructionKind::Maintainer(name) => rules::maintainer(instruction, name, self.findings),
            }
        }
        self.report_early_copies();
        self.done.insert(index, self.state.clone());
    }

    fn workdir(&mut self, step: Step, word: &Word) {
        match self.expand(step, word) {
            Some(path) => {
                if path.starts_with('/') {
                    self.state.workdir_known = true;
                } else if !self.state.workdir_known {
                    self.findings.warn(
                        "relative-workdir",
                        word.span,
                        format!("`{path}` is relative, and where it begins is up to the base image"),
                        format!("write an absolute path: `WORKDIR {}`", join("/", &path)),
                    );
                }
                self.state.workdir = join(&self.state.workdir, &path);
                self.state.layout.empty_folder(self.state.workdir.clone());
            }
            None => {
                // Nobody knows where this is: nothing that follows can be judged.
                self.state.workdir_known = true;
                self.state.layout.anything("/".to_owned());
            }
        }
    }
}
