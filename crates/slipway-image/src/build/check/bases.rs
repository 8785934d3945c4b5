//! FROM: which stages a target needs, and what each begins with.

use std::collections::{BTreeMap, BTreeSet};

use slipway_types::Reference;
use slipway_types::build::Span;

use super::Findings;
use super::scope::{PLATFORM_ARGS, Resolved, Scope};
use super::stages::{Base, Stages, State};
use super::variables::within;
use crate::build::dockerfile::suggest::nearest;
use crate::build::dockerfile::{Dockerfile, GlobalArg, InstructionKind, MountKind, Stage};

/// Stages that the target needs, in order.
pub(super) fn needed(
    dockerfile: &Dockerfile,
    target: Option<&str>,
    findings: &mut Findings<'_>,
) -> BTreeSet<usize> {
    let stages = &dockerfile.stages;
    let last = match target {
        None => stages.len().checked_sub(1),
        Some(target) => {
            let found = find_stage(stages, target, stages.len());
            if found.is_none() && !stages.is_empty() {
                let names: Vec<&str> = stages
                    .iter()
                    .filter_map(|stage| stage.name.as_ref())
                    .map(|name| name.text.as_str())
                    .collect();
                let hint = match nearest(target, &names) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if names.is_empty() => {
                        "no stage has a name; give one with `FROM … AS name`".to_owned()
                    }
                    None => format!("stages are {}", names.join(", ")),
                };
                let message = format!("no stage is called `{target}`");
                findings.error("unknown-target", Span::default(), message, hint);
            }
            found
        }
    };
    let mut needed = BTreeSet::new();
    let mut open: Vec<usize> = last.into_iter().collect();
    while let Some(index) = open.pop() {
        if !needed.insert(index) {
            continue;
        }
        let stage = &stages[index];
        open.extend(find_stage(stages, &stage.image.text, index));
        for instruction in &stage.instructions {
            let from: Vec<&str> = match &instruction.kind {
                InstructionKind::Copy(copy) => copy.from.iter().map(|from| from.text.as_str()).collect(),
                InstructionKind::Run(run) => run
                    .mounts
                    .iter()
                    .filter_map(|mount| match &mount.kind {
                        MountKind::Bind { from, .. } | MountKind::Cache { from, .. } => from.as_deref(),
                        _ => None,
                    })
                    .collect(),
                _ => Vec::new(),
            };
            open.extend(from.iter().filter_map(|from| find_stage(stages, from, index)));
        }
    }
    needed
}

/// The stage before `limit` that a name or number means.
pub(super) fn find_stage(stages: &[Stage], name: &str, limit: usize) -> Option<usize> {
    let named = stages[..limit]
        .iter()
        .rposition(|stage| stage.name.as_ref().is_some_and(|given| given.text.eq_ignore_ascii_case(name)));
    named.or_else(|| name.parse::<usize>().ok().filter(|&number| number < limit))
}

pub(super) fn globals(args: &[GlobalArg], build_args: &BTreeMap<String, String>, escape: char) -> Scope {
    let mut scope = Scope::new(true);
    for name in PLATFORM_ARGS {
        scope.set_arg(name, build_args.get(name).cloned());
    }
    for arg in args.iter().flat_map(|global| &global.args) {
        let name = &arg.name.text;
        match (build_args.get(name), &arg.default) {
            (Some(value), _) => scope.set_arg(name, Some(value.clone())),
            (None, Some(default)) => {
                let value = scope.resolve(&default.text, escape).value;
                scope.set_arg(name, value);
            }
            (None, None) => scope.declare(name),
        }
    }
    scope
}

impl Stages<'_, '_> {
    /// The state that a stage begins with; complains about its FROM.
    pub(super) fn base(&mut self, index: usize, stage: &Stage) -> State {
        let Resolved { value, unset } = self.globals.resolve(&stage.image.text, self.escape());
        let broken = value.as_deref().is_none_or(|image| image.parse::<Reference>().is_err());
        let incomplete = !unset.is_empty();
        for (name, place) in unset {
            let span = within(&stage.image, place);
            if self.globals.is_declared(&name) {
                self.findings.error(
                    "undefined-arg-in-from",
                    span,
                    format!("the build argument `{name}` has no value"),
                    format!("give it a default, `ARG {name}=…`, or pass `--build-arg {name}=…`"),
                );
                continue;
            }
            let names: Vec<&String> = self.globals.names().collect();
            let hint = match nearest(&name, &names) {
                Some(near) => format!("did you mean `${near}`?"),
                None => format!("write `ARG {name}=…` before the first FROM"),
            };
            let message = format!("FROM uses `{name}`, which no ARG before the first FROM declares");
            if broken {
                self.findings.error("undefined-arg-in-from", span, message, hint);
            } else {
                self.findings.warn("undefined-arg-in-from", span, message, hint);
            }
        }
        let unusable = incomplete && broken;
        let Some(image) = value.filter(|image| !image.is_empty() && !unusable) else {
            return State::new(Base::Image, None);
        };
        if let Some(parent) = find_stage(&self.dockerfile.stages, &image, index) {
            let mut state = self.done.get(&parent).cloned().unwrap_or_else(|| State::new(Base::Image, None));
            state.early_copies.clear();
            return state;
        }
        if image == "scratch" {
            return State::new(Base::Scratch, None);
        }
        let later = self.dockerfile.stages[index..]
            .iter()
            .find(|later| later.name.as_ref().is_some_and(|name| name.text.eq_ignore_ascii_case(&image)));
        match image.parse::<Reference>() {
            _ if later.is_some_and(|later| later.span != stage.span) => {
                let line = later.map_or(0, |later| later.line);
                self.findings.warn(
                    "unknown-from-stage",
                    stage.image.span,
                    format!("the stage `{image}` comes only later (line {line}): this FROM means an image of that name"),
                    format!("move the stage of line {line} before this one"),
                );
            }
            Ok(reference) if reference.is_floating() => {
                let name = image.trim_end_matches(":latest");
                self.findings.warn(
                    "floating-base",
                    stage.image.span,
                    format!("`{image}` means another image every time its `latest` tag moves"),
                    format!("name the version that you tested, such as `{name}:<version>`, or a digest"),
                );
            }
            Ok(_) => {}
            Err(error) => self.findings.error("invalid-base", stage.image.span, error.to_string(), None),
        }
        State::new(Base::Image, (self.context.bases)(&image))
    }
}
