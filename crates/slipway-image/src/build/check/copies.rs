//! COPY and ADD: whether their sources exist, and where their files land.

use super::bases::find_stage;
use super::files::{Entry, FileKind};
use super::glob;
use super::layout::CopyRef;
use super::paths::{clean, join, name, parent};
use super::stages::{EarlyCopy, Stages, Step};
use crate::build::dockerfile::suggest::nearest;
use crate::build::dockerfile::{Copy, Source, Word};
use crate::build::fetch::{is_git, is_remote};

/// Endings of files that ADD unpacks.
const ARCHIVES: [&str; 9] =
    [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst"];

impl Stages<'_, '_> {
    /// Follows a COPY or an ADD.
    pub(super) fn copy(&mut self, step: Step, copy: &Copy, is_add: bool) {
        let destination = self.expand(step, &copy.destination);
        if let Some(chown) = &copy.chown {
            self.expand(step, chown);
        }
        let Some(destination) = destination else {
            // Nobody knows where the files land; the sources can still be judged.
            if copy.from.is_none() {
                self.sources(step, copy, is_add);
            }
            self.state.layout.anything("/".to_owned());
            return;
        };
        if !destination.starts_with('/') && !self.state.workdir_known {
            let place = join(&self.state.workdir, &destination);
            self.state.early_copies.push(EarlyCopy {
                step,
                destination: copy.destination.span,
                message: format!(
                    "`{destination}` is relative, but no WORKDIR is set here: the files land in {place} \
                     (or below the base image's own working directory)"
                ),
            });
        }
        let at = join(&self.state.workdir, &destination);
        if let Some(from) = &copy.from {
            self.from(step, from);
            self.state.layout.anything(at);
            return;
        }
        let sources = self.sources(step, copy, is_add);
        if copy.parents {
            self.state.layout.anything(at);
            return;
        }
        let into_folder = destination.ends_with('/')
            || matches!(name(&destination), "." | "..")
            || copy.sources.len() > 1
            || sources.len() > 1
            || self.state.layout.is_folder(&at);
        let reference = CopyRef {
            stage: step.stage,
            instruction: step.instruction,
            workdir: self.state.workdir.clone(),
            is_mount: false,
        };
        for (path, entry) in sources {
            let archive = is_add && ARCHIVES.iter().any(|ending| path.to_ascii_lowercase().ends_with(ending));
            match entry {
                // A URL, or an archive whose files are not known.
                None => self.state.layout.anything(at.clone()),
                Some(_) if archive => self.state.layout.anything(at.clone()),
                Some(FileKind::Folder) => self.state.layout.folder(at.clone(), &path, &reference),
                Some(FileKind::File) => {
                    let inside = join(&at, name(&path));
                    if into_folder {
                        self.state.layout.file(inside, &path, &reference);
                    } else {
                        // Without a slash it is the file's own name, unless the base image has such a folder.
                        self.state.layout.anything(inside);
                        self.state.layout.file(at.clone(), &path, &reference);
                    }
                }
            }
        }
        for source in &copy.sources {
            if let Source::Heredoc(heredoc) = source {
                let file = if into_folder { join(&at, &heredoc.name) } else { at.clone() };
                self.state.layout.anything(file);
            }
        }
    }

    /// Paths of the context that a copy takes, each with what it is; a URL has no kind. Reports sources that match
    /// nothing.
    fn sources(&mut self, step: Step, copy: &Copy, is_add: bool) -> Vec<(String, Option<FileKind>)> {
        let mut found = Vec::new();
        for source in &copy.sources {
            let Source::Path(word) = source else { continue };
            let Some(text) = self.expand(step, word) else {
                // What is not known may be anything.
                found.push((String::new(), None));
                continue;
            };
            if is_add && (is_remote(&text) || is_git(&text)) {
                found.push((text, None));
                continue;
            }
            let path = clean(text.trim_start_matches('/'));
            if copy.parents && glob::is_pattern(&path) {
                // Its `**` and the folders that it keeps are followed by the build alone.
                found.push((String::new(), None));
                continue;
            }
            if glob::is_pattern(&path) {
                self.pattern(word, &path, &mut found);
                continue;
            }
            match self.context.files.entry(&path) {
                Some(Entry { kind, ignored_by: None }) => found.push((path, Some(kind))),
                Some(Entry { ignored_by: Some(ignored), .. }) => self.findings.error(
                    "copy-missing-source",
                    word.span,
                    format!(
                        "`{path}` is in the context but .dockerignore excludes it (line {}: `{}`)",
                        ignored.line, ignored.pattern
                    ),
                    format!("remove that line from .dockerignore, or add `!{path}` behind it"),
                ),
                None => {
                    let hint = self.missing_source_hint(&text, &path);
                    let message = format!("`{text}` is not in the build context");
                    self.findings.error("copy-missing-source", word.span, message, hint);
                }
            }
        }
        found
    }

    fn pattern(&mut self, word: &Word, path: &str, found: &mut Vec<(String, Option<FileKind>)>) {
        let matches = glob::find(path, self.context.files);
        let visible: Vec<(String, Option<FileKind>)> = matches
            .iter()
            .filter(|(_, entry)| entry.ignored_by.is_none())
            .map(|(path, entry)| (path.clone(), Some(entry.kind)))
            .collect();
        if !visible.is_empty() {
            found.extend(visible);
            return;
        }
        let (message, hint) = match matches
            .iter()
            .find_map(|(path, entry)| Some((path, entry.ignored_by.as_ref()?)))
        {
            Some((first, ignored)) => (
                format!(
                    "everything that `{}` matches is excluded by .dockerignore (`{first}`, line {}: `{}`)",
                    word.text, ignored.line, ignored.pattern
                ),
                format!("add `!{path}` to the end of .dockerignore"),
            ),
            None => (
                format!("`{}` matches nothing in the build context", word.text),
                "sources are looked up in the context folder, the last argument of `slipway build`"
                    .to_owned(),
            ),
        };
        self.findings.warn("copy-missing-source", word.span, message, hint);
    }

    fn missing_source_hint(&self, text: &str, path: &str) -> String {
        let files = self.context.files;
        if text.starts_with("../") || text.contains("/../") {
            return "a source cannot leave the context: build with the parent folder as context (`-f` names the \
                    Dockerfile)"
                .to_owned();
        }
        let siblings: Vec<String> = files
            .list(parent(path))
            .into_iter()
            .filter(|(_, entry)| entry.ignored_by.is_none())
            .map(|(name, _)| name)
            .collect();
        if let Some(near) = nearest(name(path), &siblings) {
            let folder = parent(path);
            let near = if folder.is_empty() { near.to_owned() } else { format!("{folder}/{near}") };
            return format!("did you mean `{near}`?");
        }
        if text.starts_with('/') {
            return format!(
                "sources are looked up in the context folder, also with a leading `/`: there is no `{path}` in it"
            );
        }
        format!("create `{path}` in the context folder, or take it out of this line")
    }

    /// Judges `COPY --from=`.
    fn from(&mut self, step: Step, from: &Word) {
        let stages = &self.dockerfile.stages;
        let text = from.text.as_str();
        if text.is_empty() || from.has_variable() || find_stage(stages, text, step.stage).is_some() {
            return;
        }
        if let Ok(number) = text.parse::<usize>() {
            let (message, hint) = if number == step.stage {
                (format!("stage {number} cannot copy from itself"), None)
            } else if number < stages.len() {
                let line = stages[number].line;
                (
                    format!("stage {number} comes only later (line {line})"),
                    Some("a stage can copy from stages before it only: move it up".to_owned()),
                )
            } else {
                (
                    format!(
                        "there is no stage {number}: this Dockerfile has stages 0 to {}",
                        stages.len() - 1
                    ),
                    Some("name the stage with `FROM … AS name` and use the name".to_owned()),
                )
            };
            self.findings.error("unknown-from-stage", from.span, message, hint);
            return;
        }
        let named = |stage: &crate::build::dockerfile::Stage| {
            stage.name.as_ref().is_some_and(|name| name.text.eq_ignore_ascii_case(text))
        };
        if let Some(later) = stages.iter().position(named) {
            let (message, hint) = if later == step.stage {
                (format!("the stage `{text}` cannot copy from itself"), None)
            } else {
                (
                    format!("the stage `{text}` comes only later (line {})", stages[later].line),
                    Some("a stage can copy from stages before it only: move it up".to_owned()),
                )
            };
            self.findings.error("unknown-from-stage", from.span, message, hint);
            return;
        }
        // Anything else is an image; but a name like a stage's is more likely a slip.
        let names: Vec<&str> = stages[..step.stage]
            .iter()
            .filter_map(|stage| stage.name.as_ref().map(|name| name.text.as_str()))
            .collect();
        if let Some(near) = nearest(text, &names) {
            self.findings.warn(
                "unknown-from-stage",
                from.span,
                format!("no stage is called `{text}`: this copies from an image of that name"),
                format!("did you mean `--from={near}`?"),
            );
        }
    }
}
