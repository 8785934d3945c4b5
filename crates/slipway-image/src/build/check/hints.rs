//! What to write instead, for a file that a RUN will miss.

use slipway_types::build::Span;

use super::commands::Read;
use super::files::FileKind;
use super::layout::{CopyRef, Elsewhere};
use super::paths::{as_folder, clean, name, parent};
use super::shell::Simple;
use super::stages::{Base, Stages, Step};
use crate::build::dockerfile::suggest::nearest;
use crate::build::dockerfile::{Copy, InstructionKind, Source};

impl<'a> Stages<'a, '_> {
    /// The file is in the image, in another place.
    #[expect(clippy::too_many_arguments, reason = "each is one fact that the message names")]
    pub(super) fn misplaced(
        &mut self,
        step: Step,
        command: &Simple,
        read: &Read,
        span: Span,
        path: &str,
        here: &str,
        elsewhere: Elsewhere,
    ) {
        let copied = self.copy_of(&elsewhere.copy);
        let (line, copy) = match copied {
            Some((line, copy)) => (line, Some(copy)),
            None => (step.line, None),
        };
        let destination = copy.map_or("", |copy| copy.destination.text.as_str());
        let mut message = format!(
            "`{}` will not be found: it is at {} (line {line} copies it to `{destination}`",
            read.path, elsewhere.path
        );
        let relative = !destination.starts_with(['/', '$']);
        if relative && elsewhere.copy.workdir != here {
            message.push_str(&format!(" while WORKDIR is still {}", elsewhere.copy.workdir));
        }
        message.push(')');
        if read.path.starts_with('/') {
            message.push_str(&format!(", not at {path}"));
        } else {
            message.push_str(&format!(", and the working directory here is {here}"));
        }
        let single = copy.filter(|copy| copy.sources.len() == 1);
        let mut hint = match (single, &elsewhere.wanted_destination) {
            (Some(copy), Some(wanted)) => {
                let keyword = self.keyword_of(&elsewhere.copy);
                format!("change line {line} to `{}`", with_destination(keyword, copy, wanted))
            }
            _ => {
                let source = self.source_of(read, path);
                format!("add `COPY {source} {}` before line {}", folder_for(read, path), step.line)
            }
        };
        if read.is_replaceable {
            hint.push_str(&format!(", or run `{}` here", with_path(command, read, &elsewhere.path)));
        }
        self.findings.warn("run-missing-file", span, message, hint);
    }

    /// The file is nowhere in the image.
    pub(super) fn absent(
        &mut self,
        step: Step,
        read: &Read,
        span: Span,
        path: &str,
        here: &str,
        wanted: &str,
    ) {
        let caveat = match self.state.base {
            Base::Scratch => "",
            Base::Image => " (unless the base image has it)",
        };
        let place = if read.path.starts_with('/') { parent(path) } else { here };
        let message = format!(
            "`{}` is not in the image: no COPY before this RUN brings it to {place}{caveat}",
            read.path
        );
        let in_context = clean(wanted.trim_start_matches('/'));
        let files = self.context.files;
        let hint = match files.entry(&in_context) {
            Some(entry) => match entry.ignored_by {
                Some(ignored) => format!(
                    "`{in_context}` is excluded by .dockerignore (line {}: `{}`): remove that line or add \
                     `!{in_context}`, and add `COPY {in_context} {}` before line {}",
                    ignored.line,
                    ignored.pattern,
                    folder_for(read, path),
                    step.line
                ),
                None => {
                    format!("add `COPY {in_context} {}` before line {}", folder_for(read, path), step.line)
                }
            },
            None => match self.search(name(path)) {
                Some(found) => {
                    format!("add `COPY {found} {}` before line {}", folder_for(read, path), step.line)
                }
                None => {
                    let siblings: Vec<String> =
                        files.list(parent(&in_context)).into_iter().map(|(name, _)| name).collect();
                    let near = nearest(name(path), &siblings)
                        .map(|near| format!("; did you mean `{near}`?"))
                        .unwrap_or_default();
                    format!(
                        "the build context has no `{in_context}` either: create it there and add `COPY {in_context} \
                         {}` before line {}{near}",
                        folder_for(read, path),
                        step.line
                    )
                }
            },
        };
        self.findings.warn("run-missing-file", span, message, hint);
    }

    /// A path in the context, for a file that is to be copied.
    fn source_of(&self, read: &Read, path: &str) -> String {
        let in_context = clean(read.path.trim_start_matches('/'));
        if self.context.files.entry(&in_context).is_some() {
            return in_context;
        }
        self.search(name(path)).unwrap_or_else(|| name(path).to_owned())
    }

    /// A file of this name at the top of the context or one folder below.
    fn search(&self, file: &str) -> Option<String> {
        const MAX_FOLDERS: usize = 50;
        let files = self.context.files;
        let visible = |path: &str| {
            files.entry(path).is_some_and(|e| e.kind == FileKind::File && e.ignored_by.is_none())
        };
        if visible(file) {
            return Some(file.to_owned());
        }
        let mut folders: Vec<String> = files
            .list("")
            .into_iter()
            .filter(|(_, entry)| entry.kind == FileKind::Folder && entry.ignored_by.is_none())
            .map(|(name, _)| name)
            .collect();
        folders.sort();
        folders.truncate(MAX_FOLDERS);
        folders.into_iter().map(|folder| format!("{folder}/{file}")).find(|path| visible(path))
    }

    fn copy_of(&self, copy: &CopyRef) -> Option<(u32, &'a Copy)> {
        let instruction = self.dockerfile.stages.get(copy.stage)?.instructions.get(copy.instruction)?;
        match &instruction.kind {
            InstructionKind::Copy(copy) | InstructionKind::Add(copy) => Some((instruction.line, copy)),
            _ => None,
        }
    }

    fn keyword_of(&self, copy: &CopyRef) -> &'a str {
        let stage = self.dockerfile.stages.get(copy.stage);
        stage
            .and_then(|stage| stage.instructions.get(copy.instruction))
            .map_or("COPY", |instruction| instruction.keyword.text.as_str())
    }
}

/// Where a COPY must put a file so that the command finds it: relative as long as the command is.
pub(super) fn folder_for(read: &Read, path: &str) -> String {
    if read.path.starts_with('/') || read.path.contains("..") {
        return as_folder(parent(path));
    }
    match parent(&clean(&read.path)) {
        "" => "./".to_owned(),
        folder => as_folder(folder),
    }
}

/// A COPY as written, with another destination.
pub(super) fn with_destination(keyword: &str, copy: &Copy, destination: &str) -> String {
    let mut text = keyword.to_owned();
    for (flag, value) in [("from", &copy.from), ("chown", &copy.chown), ("chmod", &copy.chmod)] {
        if let Some(value) = value {
            text.push_str(&format!(" --{flag}={}", value.text));
        }
    }
    if copy.link {
        text.push_str(" --link");
    }
    for source in &copy.sources {
        if let Source::Path(word) = source {
            text.push_str(&format!(" {}", word.text));
        }
    }
    format!("{text} {destination}")
}

/// The command as far as its file, with another path for that.
pub(super) fn with_path(command: &Simple, read: &Read, path: &str) -> String {
    let mut words = Vec::new();
    for (at, word) in command.words.iter().enumerate() {
        if Some(at) == read.word {
            words.push(path.to_owned());
            break;
        }
        words.push(word.value.clone().unwrap_or_else(|| "…".to_owned()));
    }
    words.join(" ")
}
