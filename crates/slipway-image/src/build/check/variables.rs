//! ARG and ENV, and variables that nobody sets.

use slipway_types::build::Span;

use super::scope::PLATFORM_ARGS;
use super::stages::{Stages, Step};
use super::{rules, secrets};
use crate::build::dockerfile::suggest::nearest;
use crate::build::dockerfile::{Arg, InstructionKind, KeyValue, Word};

impl Stages<'_, '_> {
    pub(super) fn env(&mut self, step: Step, pairs: &[KeyValue]) {
        rules::legacy("ENV", pairs, self.findings);
        // Every pair sees the environment from before the instruction.
        let values: Vec<(Option<String>, Option<String>)> =
            pairs.iter().map(|pair| (self.expand(step, &pair.key), self.expand(step, &pair.value))).collect();
        for (pair, (key, value)) in pairs.iter().zip(values) {
            secrets::env(pair, value.as_deref(), self.findings);
            if let Some(key) = key {
                self.state.scope.set_env(&key, value);
            }
        }
    }

    pub(super) fn arg(&mut self, step: Step, args: &[Arg]) {
        for arg in args {
            secrets::arg(arg, self.findings);
            let name = &arg.name.text;
            let default = arg.default.as_ref().map(|default| self.expand(step, default));
            match (self.context.build_args.get(name), default) {
                (Some(value), _) => self.state.scope.set_arg(name, Some(value.clone())),
                (None, Some(value)) => self.state.scope.set_arg(name, value),
                (None, None) if PLATFORM_ARGS.contains(&name.as_str()) => {
                    self.state.scope.set_arg(name, None)
                }
                (None, None) => match self.globals.get(name) {
                    Some(value) => self.state.scope.set_arg(name, Some(value)),
                    None => self.state.scope.declare(name),
                },
            }
        }
    }

    pub(super) fn undefined(&mut self, step: Step, word: &Word, name: &str, place: Span) {
        let scope = &self.state.scope;
        if scope.is_declared(name) || self.findings.is_full() {
            return;
        }
        let here =
            self.dockerfile.stages.get(step.stage).and_then(|stage| stage.instructions.get(step.instruction));
        let itself = here.is_some_and(|instruction| match &instruction.kind {
            InstructionKind::Env(pairs) => pairs.iter().any(|pair| pair.key.text == name),
            _ => false,
        });
        let names: Vec<&String> = scope.names().filter(|known| *known != "PATH").collect();
        let later = self.set_later(step, name);
        let hint = if self.globals.is_declared(name) {
            format!("ARG before FROM holds for FROM only: write `ARG {name}` in this stage too")
        } else if itself {
            "it is set by this same ENV, which counts from the next instruction on: write two ENVs".to_owned()
        } else if let Some(line) = later {
            format!("it is set only in line {line}; move this behind it")
        } else if let Some(near) = nearest(name, &names).filter(|near| is_typing_error(name, near)) {
            format!("did you mean `${near}`?")
        } else if scope.is_complete() {
            format!("set it with `ENV {name}=…` or `ARG {name}=…`, or give a default: `${{{name}:-…}}`")
        } else {
            // The base image may set it.
            return;
        };
        let span = within(word, place);
        let message = format!("the variable `{name}` is not set here and expands to nothing");
        self.findings.warn("undefined-variable", span, message, hint);
    }

    /// The line of the same stage that sets a variable after a step.
    fn set_later(&self, step: Step, name: &str) -> Option<u32> {
        let stage = self.dockerfile.stages.get(step.stage)?;
        stage.instructions.iter().skip(step.instruction + 1).find_map(|instruction| {
            let sets = match &instruction.kind {
                InstructionKind::Env(pairs) => pairs.iter().any(|pair| pair.key.text == name),
                InstructionKind::Arg(args) => args.iter().any(|arg| arg.name.text == name),
                _ => false,
            };
            sets.then_some(instruction.line)
        })
    }
}

/// A place inside a word, in the Dockerfile.
pub(super) fn within(word: &Word, place: Span) -> Span {
    if word.span.end - word.span.start == word.text.len() {
        Span { start: word.span.start + place.start, end: word.span.start + place.end }
    } else {
        word.span
    }
}

/// Whether one name is the other with a slip of the finger; short names differ too easily by intent.
fn is_typing_error(name: &str, near: &str) -> bool {
    name.len() >= 4 && strsim::osa_distance(&name.to_lowercase(), &near.to_lowercase()) <= 1
}
