mod beginner;
mod copies;
mod files;
mod fuzz;
mod missing;
mod rules;
mod stages;
mod variables;

use std::collections::BTreeSet;

use super::*;
use crate::build::dockerfile::parse;
use crate::build::ignore::Ignore;

/// A context in memory: file paths, and a `.dockerignore`.
struct Files {
    files: BTreeSet<String>,
    ignore: Ignore,
}

impl Files {
    fn new(files: &[&str], ignore: &str) -> Self {
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        Self { files, ignore: Ignore::parse(ignore).unwrap() }
    }
}

impl ContextFiles for Files {
    fn entry(&self, path: &str) -> Option<Entry> {
        let inside = format!("{path}/");
        let kind = if self.files.contains(path) {
            FileKind::File
        } else if path.is_empty() || self.files.iter().any(|file| file.starts_with(&inside)) {
            FileKind::Folder
        } else {
            return None;
        };
        let hidden = match kind {
            FileKind::File => self.ignore.is_ignored(path),
            FileKind::Folder => self.ignore.may_skip_folder(path),
        };
        let pattern = self.ignore.ignored_by(path).filter(|_| hidden);
        let ignored_by = pattern.map(|p| IgnoredBy { pattern: p.text.clone(), line: p.line });
        Some(Entry { kind, ignored_by })
    }

    fn list(&self, folder: &str) -> Vec<(String, Entry)> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let names: BTreeSet<&str> =
            self.files.iter().filter_map(|file| file.strip_prefix(&prefix)?.split('/').next()).collect();
        names
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), self.entry(&format!("{prefix}{name}"))?)))
            .collect()
    }
}

struct Case<'a> {
    files: &'a [&'a str],
    ignore: &'a str,
    build_args: &'a [(&'a str, &'a str)],
    target: Option<&'a str>,
    base: Option<BaseImage>,
}

const PLAIN: Case<'static> = Case { files: &[], ignore: "", build_args: &[], target: None, base: None };

fn run(text: &str, case: &Case<'_>) -> Vec<Diagnostic> {
    let parsed = parse(text);
    assert_eq!(parsed.diagnostics, [], "{text}");
    let files = Files::new(case.files, case.ignore);
    let build_args =
        case.build_args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let context = CheckContext {
        text,
        files: &files,
        build_args: &build_args,
        target: case.target,
        bases: &|_| case.base.clone(),
    };
    check(&parsed.dockerfile, &context)
}

/// `code:line` of everything found.
fn codes(text: &str, case: &Case<'_>) -> Vec<String> {
    run(text, case).iter().map(|found| format!("{}:{}", found.code, found.line)).collect()
}

/// Findings of one rule in a Dockerfile whose base is pinned.
fn only(rule: &str, body: &str, files: &[&str]) -> Vec<Diagnostic> {
    let text = format!("FROM python:3.12\n{body}");
    let found = run(&text, &Case { files, ..PLAIN });
    found.into_iter().filter(|found| found.code == rule).collect()
}
