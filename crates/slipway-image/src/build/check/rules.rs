//! Rules that need nothing but one instruction or the list of stages.

use std::collections::BTreeMap;

use super::Findings;
use crate::build::dockerfile::{Command, Dockerfile, Instruction, KeyValue, Word};

/// Docker's names of rules, and ours.
const DOCKER_NAMES: [(&str, &str); 11] = [
    ("CopyIgnoredFile", "copy-missing-source"),
    ("DuplicateStageName", "duplicate-stage-name"),
    ("JSONArgsRecommended", "json-args-recommended"),
    ("LegacyKeyValueFormat", "legacy-key-value"),
    ("MaintainerDeprecated", "maintainer-deprecated"),
    ("ReservedStageName", "stage-name-reserved"),
    ("UndefinedArgInFrom", "undefined-arg-in-from"),
    ("InvalidDefaultArgInFrom", "undefined-arg-in-from"),
    ("UndefinedVar", "undefined-variable"),
    ("WorkdirRelativePath", "relative-workdir"),
    ("MultipleInstructionsDisallowed", "multiple-"),
];

/// Whether a name in `# check=skip=` means a rule.
pub(super) fn same(name: &str, rule: &str) -> bool {
    name.eq_ignore_ascii_case(rule)
        || name.eq_ignore_ascii_case("SecretsUsedInArgOrEnv") && rule.starts_with("secret-in-")
        || DOCKER_NAMES.iter().any(|&(docker, ours)| {
            name.eq_ignore_ascii_case(docker)
                && (rule == ours || ours.ends_with('-') && rule.starts_with(ours))
        })
}

/// Names of stages: unique, and none that means something else.
pub(super) fn stage_names(dockerfile: &Dockerfile, findings: &mut Findings<'_>) {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for stage in &dockerfile.stages {
        let Some(name) = &stage.name else { continue };
        if matches!(name.text.as_str(), "scratch" | "context") {
            findings.warn(
                "stage-name-reserved",
                name.span,
                format!("`{}` has a meaning of its own and should not name a stage", name.text),
                "choose another name".to_owned(),
            );
        }
        if let Some(line) = seen.insert(&name.text, stage.line) {
            findings.warn(
                "duplicate-stage-name",
                name.span,
                format!("the stage of line {line} has the name `{}` too", name.text),
                "give every stage a name of its own".to_owned(),
            );
        }
    }
}

/// CMD, ENTRYPOINT and HEALTHCHECK: of several, the last one counts.
pub(super) fn only_last<'a>(
    instruction: &'a Instruction,
    before: &mut Option<&'a Instruction>,
    findings: &mut Findings<'_>,
) {
    if let Some(earlier) = before.replace(instruction) {
        let name = earlier.keyword.text.to_uppercase();
        findings.warn(
            &format!("multiple-{}", name.to_lowercase()),
            earlier.keyword.span,
            format!("this {name} has no effect: line {} replaces it", instruction.line),
            format!("remove it; a stage has one {name}"),
        );
    }
}

/// CMD and ENTRYPOINT in shell form: the shell gets the signals, not the program.
pub(super) fn exec_form(
    instruction: &Instruction,
    command: &Command,
    shell_given: bool,
    findings: &mut Findings<'_>,
) {
    let Command::Shell(word) = command else { return };
    if shell_given {
        return;
    }
    let name = instruction.keyword.text.to_uppercase();
    let plain = !word.text.contains([
        '$', '|', '&', ';', '<', '>', '*', '?', '(', '`', '\\', '"', '\'', '~', '[', '{', '=', '#',
    ]);
    let hint = if plain {
        let words: Vec<String> = word.text.split_whitespace().map(|word| format!("\"{word}\"")).collect();
        format!("write `{name} [{}]`", words.join(", "))
    } else {
        format!(
            "write `{name} [\"program\", \"argument\"]`; if the shell is needed, begin its text with `exec`"
        )
    };
    findings.warn(
        "json-args-recommended",
        word.span,
        format!("{name} in shell form: a shell stands between the program and its signals, so stopping takes longer"),
        hint,
    );
}

/// MAINTAINER.
pub(super) fn maintainer(instruction: &Instruction, name: &Word, findings: &mut Findings<'_>) {
    findings.warn(
        "maintainer-deprecated",
        instruction.keyword.span,
        "MAINTAINER is deprecated",
        format!("write `LABEL org.opencontainers.image.authors={:?}`", name.text),
    );
}

/// `ENV name value`.
pub(super) fn legacy(keyword: &str, pairs: &[KeyValue], findings: &mut Findings<'_>) {
    for pair in pairs.iter().filter(|pair| pair.legacy) {
        let value = &pair.value.text;
        let quoted = value.contains(char::is_whitespace) && !value.contains(['"', '\'']);
        let value = if quoted { format!("\"{value}\"") } else { value.clone() };
        findings.warn(
            "legacy-key-value",
            pair.key.span,
            format!("`{keyword} name value` is the old form"),
            format!("write `{keyword} {}={value}`", pair.key.text),
        );
    }
}
