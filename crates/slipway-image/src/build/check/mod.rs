//! Build checks: what will go wrong, said before anything is executed.
//!
//! Rules (stable names, skipped with `# check=skip=rule,rule`): `run-missing-file`, `copy-missing-source`,
//! `copy-relative-before-workdir`, `floating-base`, `invalid-base`, `undefined-arg-in-from`, `undefined-variable`,
//! `duplicate-stage-name`, `stage-name-reserved`, `unknown-from-stage`, `unknown-target`, `multiple-cmd`,
//! `multiple-entrypoint`, `multiple-healthcheck`, `json-args-recommended`, `relative-workdir`,
//! `maintainer-deprecated`, `legacy-key-value`, `secret-in-env`, `secret-in-arg`, `apt-without-update`,
//! `apt-without-yes`. Docker's names of the same rules are understood too.

mod bases;
mod commands;
mod copies;
mod early;
mod files;
mod glob;
mod hints;
mod layout;
mod missing;
mod paths;
mod rules;
mod scope;
mod secrets;
mod shell;
mod stages;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::BTreeMap;

use slipway_types::build::{Diagnostic, Severity, Span};

pub use files::{ContextFiles, Entry, FileKind, IgnoredBy, OnDisk};

use super::dockerfile::{CheckDirective, Dockerfile, LineIndex};

/// More warnings than this help nobody.
const MAX_DIAGNOSTICS: usize = 200;
/// Findings that are kept before they are sorted and cut.
const MAX_FOUND: usize = 2000;

/// What the checks may look at.
pub struct CheckContext<'a> {
    /// The text that the Dockerfile was parsed from.
    pub text: &'a str,
    /// Files of the context.
    pub files: &'a dyn ContextFiles,
    /// `--build-arg` values.
    pub build_args: &'a BTreeMap<String, String>,
    /// Stage to build; the last when absent.
    pub target: Option<&'a str>,
    /// What is known, without asking a registry, of a base image (by its reference as written).
    pub bases: &'a dyn Fn(&str) -> Option<BaseImage>,
}

/// What the checks need of a base image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseImage {
    /// Working directory; empty means `/`.
    pub workdir: String,
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
}

/// Runs all checks on the stages that the target needs. In the order of the text; at most a few hundred.
pub fn check(dockerfile: &Dockerfile, context: &CheckContext<'_>) -> Vec<Diagnostic> {
    let mut findings = Findings {
        index: LineIndex::new(context.text),
        directive: &dockerfile.directives.check,
        found: Vec::new(),
    };
    stages::check(dockerfile, context, &mut findings);
    let mut found = findings.found;
    found.sort_by_key(|diagnostic| diagnostic.span.start);
    // Errors decide whether a build goes on: they are kept first.
    let errors = found.iter().filter(|d| d.severity == Severity::Error).count().min(MAX_DIAGNOSTICS);
    let mut warnings_left = MAX_DIAGNOSTICS - errors;
    found.retain(|diagnostic| {
        diagnostic.severity == Severity::Error || {
            let keep = warnings_left > 0;
            warnings_left = warnings_left.saturating_sub(1);
            keep
        }
    });
    found
}

/// Diagnostics as they are found.
struct Findings<'a> {
    index: LineIndex<'a>,
    directive: &'a CheckDirective,
    found: Vec<Diagnostic>,
}

impl Findings<'_> {
    fn warn(&mut self, rule: &str, span: Span, message: impl Into<String>, hint: impl Into<Option<String>>) {
        let severity = if self.directive.error { Severity::Error } else { Severity::Warning };
        self.add(severity, rule, span, message.into(), hint.into());
    }

    fn error(&mut self, rule: &str, span: Span, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.add(Severity::Error, rule, span, message.into(), hint.into());
    }

    fn is_full(&self) -> bool {
        self.found.len() >= MAX_FOUND
    }

    fn add(&mut self, severity: Severity, rule: &str, span: Span, message: String, hint: Option<String>) {
        if self.is_full() {
            return;
        }
        let skipped =
            self.directive.skip_all || self.directive.skip.iter().any(|name| rules::same(name, rule));
        if !skipped {
            self.found.push(self.index.diagnostic(severity, rule, span, message, hint));
        }
    }
}
