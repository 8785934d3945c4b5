//! What a request asks for: which stages, on which bases, in which order.

mod args;
mod platform;

use slipway_types::build::Span;
use slipway_types::image::Platform;
use slipway_types::reference::Reference;

use super::dockerfile::{Copy, Dockerfile, InstructionKind, MountKind, Run, Stage, Word};
use super::error::{Fault, StepErrorKind};
use super::words;

pub(crate) use args::{Globals, StageArg, declared_args, is_predefined};
pub(crate) use platform::{fits, parse_platform};

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Scratch,
    /// An earlier stage.
    Stage(usize),
    Image(Reference),
}

/// One stage that the target needs.
#[derive(Clone, Debug)]
pub(crate) struct PlannedStage {
    pub(crate) base: Base,
    pub(crate) platform: Platform,
    /// Its name, or its number.
    pub(crate) name: String,
}

/// The stages of a build.
#[derive(Debug)]
pub(crate) struct Plan {
    /// By number; `None` for those that nothing needs.
    pub(crate) stages: Vec<Option<PlannedStage>>,
    pub(crate) target: usize,
    /// Steps of the needed stages, as far as they are known before the bases are.
    pub(crate) steps: u32,
}

/// A failure and the FROM or instruction that it is about.
pub(crate) type Located = (Fault, Span);

/// The number of the stage that a text names, by name or number, among the first `before`.
pub(crate) fn find_stage(dockerfile: &Dockerfile, text: &str, before: usize) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let named = dockerfile.stages[..before]
        .iter()
        .rposition(|stage| stage.name.as_ref().is_some_and(|name| name.text.eq_ignore_ascii_case(&lower)));
    named.or_else(|| lower.parse().ok().filter(|&number: &usize| number < before))
}

/// The stage that a request's target names; the last without one.
pub(crate) fn find_target(dockerfile: &Dockerfile, target: Option<&str>) -> Option<usize> {
    match target.filter(|target| !target.is_empty()) {
        None => dockerfile.stages.len().checked_sub(1),
        Some(target) => find_stage(dockerfile, target, dockerfile.stages.len()),
    }
}

/// Whether an instruction is shown and counted: it may change files.
pub(crate) fn is_step(kind: &InstructionKind) -> bool {
    matches!(
        kind,
        InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_)
    )
}

/// What an instruction takes files from: the texts of `--from` and `from=`.
pub(crate) fn from_texts(kind: &InstructionKind) -> Vec<&str> {
    match kind {
        InstructionKind::Copy(Copy { from: Some(from), .. }) => vec![&from.text],
        InstructionKind::Run(Run { mounts, .. }) => mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Bind { from, .. } | MountKind::Cache { from, .. } => from.as_deref(),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Plans the stages that `target` needs.
pub(crate) fn plan(
    dockerfile: &Dockerfile,
    globals: &Globals,
    host: &Platform,
    target: usize,
) -> Result<Plan, Located> {
    let mut stages: Vec<Option<PlannedStage>> = vec![None; dockerfile.stages.len()];
    let mut steps = 0;
    let mut todo = vec![target];
    while let Some(number) = todo.pop() {
        if stages[number].is_some() {
            continue;
        }
        let stage = &dockerfile.stages[number];
        let planned = plan_stage(dockerfile, globals, host, number).map_err(|fault| (fault, stage.span))?;
        if let Base::Stage(base) = planned.base {
            todo.push(base);
        }
        steps += u32::from(matches!(planned.base, Base::Image(_)));
        stages[number] = Some(planned);
        for instruction in &stage.instructions {
            steps += u32::from(is_step(&instruction.kind));
            let from = from_texts(&instruction.kind).into_iter();
            todo.extend(from.filter_map(|text| find_stage(dockerfile, text, number)));
        }
    }
    // A stage built on another has its platform.
    for number in 0..stages.len() {
        let base = stages[number].as_ref().and_then(|stage| match stage.base {
            Base::Stage(base) => Some(base),
            _ => None,
        });
        if let Some(platform) =
            base.and_then(|base| stages[base].as_ref()).map(|stage| stage.platform.clone())
            && let Some(stage) = &mut stages[number]
        {
            stage.platform = platform;
        }
    }
    Ok(Plan { stages, target, steps })
}

/// Evaluates one FROM.
pub(crate) fn plan_stage(
    dockerfile: &Dockerfile,
    globals: &Globals,
    host: &Platform,
    number: usize,
) -> Result<PlannedStage, Fault> {
    let stage: &Stage = &dockerfile.stages[number];
    let escape = dockerfile.directives.escape;
    let expand = |word: &Word| -> Result<String, Fault> {
        words::expand(&word.text, &|name| globals.in_from(name), escape).map_err(|source| {
            Fault::from(StepErrorKind::Expand { word: word.text.clone(), source }).at(word.span)
        })
    };
    let platform = match &stage.platform {
        None => host.clone(),
        Some(word) => {
            let text = expand(word)?;
            if text.is_empty() {
                host.clone()
            } else {
                let parsed = parse_platform(&text);
                parsed.ok_or_else(|| Fault::from(StepErrorKind::Platform(text)).at(word.span))?
            }
        }
    };
    let text = expand(&stage.image)?;
    let base = if text.is_empty() {
        let raw = stage.image.text.clone();
        return Err(Fault::from(StepErrorKind::EmptyBase(raw))
            .at(stage.image.span)
            .hint("give the ARG a default before FROM, or pass it with `--build-arg`"));
    } else if text == "scratch" {
        Base::Scratch
    } else if let Some(base) = dockerfile.stages[..number]
        .iter()
        .rposition(|stage| stage.name.as_ref().is_some_and(|name| name.text.eq_ignore_ascii_case(&text)))
    {
        Base::Stage(base)
    } else {
        let reference = text
            .parse()
            .map_err(|source| Fault::from(StepErrorKind::Reference { text, source }).at(stage.image.span))?;
        Base::Image(reference)
    };
    let name = stage.name.as_ref().map_or_else(|| number.to_string(), |name| name.text.clone());
    Ok(PlannedStage { base, platform, name })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::build::dockerfile::parse;

    fn planned(text: &str, target: Option<&str>, args: &[(&str, &str)]) -> Result<Plan, String> {
        let dockerfile = parse(text).dockerfile;
        let args: BTreeMap<String, String> =
            args.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let host = parse_platform("linux/amd64").unwrap();
        let globals = Globals::new(&dockerfile, &args, &host).map_err(|(fault, _)| fault.kind.to_string())?;
        let target = find_target(&dockerfile, target).ok_or("no such stage")?;
        plan(&dockerfile, &globals, &host, target).map_err(|(fault, _)| fault.kind.to_string())
    }

    fn needed(plan: &Plan) -> Vec<usize> {
        (0..plan.stages.len()).filter(|&number| plan.stages[number].is_some()).collect()
    }

    #[test]
    fn only_what_the_target_needs() {
        let text = "FROM a AS one\nRUN x\nFROM b AS two\nRUN y\nFROM one AS three\nCOPY --from=0 /a /b\n\
                    FROM scratch\nCOPY --from=TWO /x /\nRUN --mount=type=bind,from=three,target=/m z\n";
        let all = planned(text, None, &[]).unwrap();
        assert_eq!((needed(&all), all.target), (vec![0, 1, 2, 3], 3));
        let three = planned(text, Some("Three"), &[]).unwrap();
        assert_eq!((needed(&three), three.steps), (vec![0, 2], 3));
        assert_eq!(three.stages[2].as_ref().unwrap().base, Base::Stage(0));
        assert_eq!(needed(&planned(text, Some("1"), &[]).unwrap()), [1]);
        assert!(planned(text, Some("4"), &[]).is_err());
    }

    #[test]
    fn from_is_expanded_with_global_args() {
        let text = "ARG V=1\nARG IMAGE=debian:${V}\nFROM --platform=$BUILDPLATFORM $IMAGE AS x\n";
        let base = |args: &[(&str, &str)]| match &planned(text, None, args).unwrap().stages[0] {
            Some(PlannedStage { base: Base::Image(reference), .. }) => reference.familiar(),
            other => panic!("{other:?}"),
        };
        assert_eq!(base(&[]), "debian:1");
        assert_eq!(base(&[("V", "2")]), "debian:2");
        assert_eq!(base(&[("IMAGE", "alpine")]), "alpine:latest");
        assert!(planned("FROM $NOPE\n", None, &[]).unwrap_err().contains("expands to nothing"));
        assert!(planned("FROM --platform=windows x\n", None, &[]).unwrap_err().contains("not a platform"));
        // What nothing needs may be wrong.
        assert!(planned("FROM $NOPE AS bad\nFROM scratch\n", None, &[]).is_ok());
    }
}
