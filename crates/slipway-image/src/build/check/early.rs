//! `copy-relative-before-workdir`: relative copies while no WORKDIR is set.

use super::paths::{as_folder, join};
use super::stages::{Stages, Step};
use crate::build::dockerfile::{InstructionKind, Source};

impl Stages<'_, '_> {
    /// Relative copies without a WORKDIR, but for those whose files a RUN then used from just there.
    pub(super) fn report_early_copies(&mut self) {
        for early in std::mem::take(&mut self.state.early_copies) {
            if self.state.used.contains(&(early.step.stage, early.step.instruction)) {
                continue;
            }
            let hint = self.early_copy_hint(early.step);
            self.findings.warn("copy-relative-before-workdir", early.destination, early.message, hint);
        }
    }

    fn early_copy_hint(&self, step: Step) -> String {
        let stage = &self.dockerfile.stages[step.stage];
        let workdir = stage.instructions.iter().skip(step.instruction + 1).find_map(|instruction| {
            match &instruction.kind {
                InstructionKind::Workdir(word) if word.text.starts_with('/') => {
                    Some((instruction.line, word))
                }
                _ => None,
            }
        });
        let (InstructionKind::Copy(copy) | InstructionKind::Add(copy)) =
            &stage.instructions[step.instruction].kind
        else {
            return String::new();
        };
        let destination = &copy.destination.text;
        let is_folder = destination.ends_with('/') || matches!(destination.as_str(), "." | "./" | "..");
        let absolute = |base: &str| {
            let path = join(base, destination);
            if is_folder { as_folder(&path) } else { path }
        };
        let has_path = copy.sources.iter().any(|source| matches!(source, Source::Path(_)));
        match workdir {
            Some((line, word)) if has_path => format!(
                "move `WORKDIR {}` (line {line}) before line {}, or write an absolute destination such as `{}`",
                word.text,
                step.line,
                absolute(&word.text)
            ),
            _ => format!(
                "add a WORKDIR such as `WORKDIR /app` before line {}, or write the destination as `{}`",
                step.line,
                absolute("/")
            ),
        }
    }
}
