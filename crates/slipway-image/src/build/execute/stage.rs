//! One stage on its way: its configuration, its arguments, and the instructions that are left.

use std::borrow::Cow;
use std::collections::VecDeque;

use jiff::Timestamp;
use slipway_types::build::Span;

use super::Build;
use crate::build::dockerfile::{Instruction, InstructionKind, Word, parse_trigger};
use crate::build::error::{BuildError, Fault, StepErrorKind};
use crate::build::image_config::ImageConfig;
use crate::build::plan::{Base, PlannedStage, StageArg, find_stage, fits, from_texts, is_step, plan_stage};
use crate::build::words;

/// What a stage is at a point.
#[derive(Clone, Debug)]
pub(super) struct StageState {
    pub(super) config: ImageConfig,
    pub(super) args: Vec<StageArg>,
    /// Whether CMD stands in this stage, so that ENTRYPOINT leaves it.
    pub(super) cmd_set: bool,
    /// When the newest step in it was executed.
    pub(super) created: Option<Timestamp>,
    pub(super) escape: char,
}

impl StageState {
    /// The value of a variable: what ENV set, else what ARG declared.
    pub(super) fn lookup(&self, name: &str) -> Option<String> {
        if let Some(value) = self.config.config.variable(name) {
            return Some(value.to_owned());
        }
        self.args.iter().rev().find(|arg| arg.name == name).and_then(|arg| arg.value.clone())
    }

    pub(super) fn expand(&self, word: &Word) -> Result<String, Fault> {
        words::expand(&word.text, &|name| self.lookup(name), self.escape).map_err(|source| {
            Fault::from(StepErrorKind::Expand { word: word.text.clone(), source }).at(word.span)
        })
    }

    /// Arguments in scope that have a value and that ENV does not hide, in the order of their declaration.
    pub(super) fn visible_args(&self) -> Vec<(&str, &str)> {
        let mut visible: Vec<(&str, &str)> = Vec::new();
        for arg in &self.args {
            let Some(value) = &arg.value else { continue };
            if self.config.config.variable(&arg.name).is_some() {
                continue;
            }
            match visible.iter_mut().find(|(name, _)| *name == arg.name) {
                Some(old) => old.1 = value,
                None => visible.push((&arg.name, value)),
            }
        }
        visible
    }

    /// The configuration of the image that this stage is.
    pub(super) fn finished(&self) -> ImageConfig {
        ImageConfig { created: self.created, ..self.config.clone() }
    }
}

/// A stage that is being executed.
pub(super) struct Cursor<'a> {
    pub(super) number: usize,
    state: Option<StageState>,
    left: VecDeque<Queued<'a>>,
}

/// An instruction to execute.
struct Queued<'a> {
    instruction: Cow<'a, Instruction>,
    /// Where to point: the instruction, or FROM for a trigger of the base.
    span: Span,
    /// A trigger's own spans count in its own text, which is not at hand.
    trigger: bool,
}

/// How far a stage came.
pub(super) enum Advance {
    Done(Box<StageState>),
    /// The stage with this number must be done first.
    Needs(usize),
}

impl<'a> Cursor<'a> {
    pub(super) fn new(number: usize) -> Self {
        Self { number, state: None, left: VecDeque::new() }
    }

    /// Executes steps until the stage is done or needs another one.
    pub(super) fn advance(&mut self, build: &Build<'a>) -> Result<Advance, BuildError> {
        let stage = &build.parts.dockerfile.stages[self.number];
        let mut state = match self.state.take() {
            Some(state) => state,
            None => match self.begin(build).map_err(|fault| fault.place(&build.parts.lines, stage.span))? {
                Ok(state) => state,
                Err(number) => return Ok(Advance::Needs(number)),
            },
        };
        while let Some(queued) = self.left.front() {
            let needs = from_texts(&queued.instruction.kind)
                .into_iter()
                .filter_map(|text| find_stage(build.parts.dockerfile, text, self.number))
                .find(|&number| build.finished_stage(number).is_none());
            if let Some(number) = needs {
                self.state = Some(state);
                return Ok(Advance::Needs(number));
            }
            let (span, trigger) = (queued.span, queued.trigger);
            let result = build
                .check_cancel()
                .and_then(|()| build.execute(self.number, &mut state, &queued.instruction));
            if let Err(mut fault) = result {
                if trigger {
                    fault.span = None;
                }
                return Err(fault.place(&build.parts.lines, span));
            }
            self.left.pop_front();
        }
        Ok(Advance::Done(Box::new(state)))
    }

    /// FROM: the state that the stage begins with, or the stage that it waits for.
    fn begin(&mut self, build: &Build<'a>) -> Result<Result<StageState, usize>, Fault> {
        let stage = &build.parts.dockerfile.stages[self.number];
        let planned = build.planned(self.number)?;
        let escape = build.parts.dockerfile.directives.escape;
        let fresh = |config: ImageConfig| StageState {
            created: config.created,
            config,
            args: Vec::new(),
            cmd_set: false,
            escape,
        };
        let mut state = match &planned.base {
            Base::Scratch => fresh(ImageConfig::scratch(&planned.platform)),
            Base::Stage(base) => match build.finished_stage(*base) {
                None => return Ok(Err(*base)),
                Some(base) => StageState { cmd_set: false, ..(*base).clone() },
            },
            Base::Image(reference) => {
                let step = build.steps.begin(&planned.name, &stage.text);
                let (config, pulled) = build
                    .base(reference, &planned.platform, &step)
                    .map_err(|fault| fault.at(stage.image.span))?;
                build.steps.finish(&step, !pulled);
                fresh(config)
            }
        };
        for text in state.config.config.on_build.take().unwrap_or_default() {
            let instruction = parse_trigger(&text).map_err(|diagnostics| StepErrorKind::Trigger {
                trigger: text.clone(),
                reason: diagnostics.first().map(|first| first.message.clone()).unwrap_or_default(),
            })?;
            build.steps.add(u32::from(is_step(&instruction.kind)));
            self.left.push_back(Queued {
                instruction: Cow::Owned(instruction),
                span: stage.span,
                trigger: true,
            });
        }
        self.left.extend(stage.instructions.iter().map(|instruction| Queued {
            instruction: Cow::Borrowed(instruction),
            span: instruction.span,
            trigger: false,
        }));
        let foreign = !fits(build.parts.host, &planned.platform);
        let run = self.left.iter().find(|queued| matches!(queued.instruction.kind, InstructionKind::Run(_)));
        if let Some(run) = run.filter(|_| foreign) {
            let platform = planned.platform.to_string();
            let host = build.parts.host.to_string();
            return Err(Fault::from(StepErrorKind::ForeignPlatform { platform, host }).at(run.span));
        }
        Ok(Ok(state))
    }
}

impl<'a> Build<'a> {
    /// What a stage begins with. A trigger of a base may need one that was not planned.
    pub(super) fn planned(&self, number: usize) -> Result<Cow<'a, PlannedStage>, Fault> {
        let parts = &self.parts;
        match &parts.plan.stages[number] {
            Some(planned) => Ok(Cow::Borrowed(planned)),
            None => plan_stage(parts.dockerfile, parts.globals, parts.host, number).map(Cow::Owned),
        }
    }

    fn execute(&self, stage: usize, state: &mut StageState, instruction: &Instruction) -> Result<(), Fault> {
        if !is_step(&instruction.kind) {
            return self.change_config(stage, state, &instruction.kind);
        }
        let step = self.steps.begin(&self.planned(stage)?.name, &instruction.text);
        let cached = match &instruction.kind {
            InstructionKind::Run(run) => self.run_step(stage, state, run, instruction, &step),
            InstructionKind::Copy(copy) => self.copy_step(stage, state, copy, "COPY", &step),
            InstructionKind::Add(copy) => self.copy_step(stage, state, copy, "ADD", &step),
            InstructionKind::Workdir(path) => self.workdir_step(state, path),
            _ => Ok(true),
        }?;
        self.steps.finish(&step, cached);
        Ok(())
    }
}
