//! `run-missing-file`: a RUN that opens a file which nothing brought into the image.

use slipway_types::build::Span;

use super::commands::{Apt, Effect, Goes, Makes, Read, effect};
use super::files::FileKind;
use super::layout::CopyRef;
use super::paths::{clean, join, name, parent};
use super::shell::{ShellWord, Simple, read};
use super::stages::{Base, Stages, Step};
use crate::build::dockerfile::{Command, MountKind, Run, RunProgram, Word};

/// Shells whose scripts are read.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "zsh", "ksh"];
/// How deep `sh -c` is followed.
const MAX_SCRIPTS: usize = 3;

/// A text with commands, and where its bytes are in the Dockerfile.
struct Code<'a> {
    text: &'a str,
    /// The part of the Dockerfile that it comes from.
    span: Span,
}

impl Code<'_> {
    /// Where a part of the text is in the Dockerfile. Joined lines shift it, so it is looked up by its content: the
    /// n-th occurrence here is the n-th there.
    fn span(&self, start: usize, end: usize, source: &str) -> Span {
        let Some(part) = self.text.get(start..end).filter(|part| !part.is_empty()) else {
            return self.span;
        };
        let before = self.text[..start].matches(part).count();
        let Some(region) = source.get(self.span.start..self.span.end) else { return self.span };
        match region.match_indices(part).nth(before) {
            Some((at, _)) => Span { start: self.span.start + at, end: self.span.start + at + part.len() },
            None => self.span,
        }
    }
}

impl Stages<'_, '_> {
    /// Follows a RUN: reports files that it will miss, and notes what it makes.
    pub(super) fn run(&mut self, step: Step, run: &Run) {
        self.mounts(step, run);
        let before = self.state.layout.len();
        let program = run.program();
        match (&run.command, &program) {
            (Command::Exec(words), _) => {
                let command = exec(words);
                let spans: Vec<Span> = words.iter().map(|word| word.span).collect();
                let cwd = Some(self.state.workdir.clone());
                self.command(step, &command, &cwd, &|at| spans.get(at).copied(), 0);
            }
            (Command::Shell(word), RunProgram::Shell(text)) if self.state.shell_is_posix => {
                // A line that is nothing but a heredoc is a script; other heredocs are input of their commands.
                let code = match run.heredocs.first() {
                    Some(heredoc) if heredoc.span == word.span => Code { text, span: heredoc.body },
                    _ => Code { text: &word.text, span: word.span },
                };
                self.script(step, &code, 0);
            }
            (_, RunProgram::Script { content, .. }) if is_shell_script(content) => {
                let span = run.heredocs.first().map_or(step.span, |heredoc| heredoc.body);
                self.script(step, &Code { text: content, span }, 0);
            }
            _ => self.state.layout.anything("/".to_owned()),
        }
        // Mounts are gone after their RUN; what it made stays.
        if !run.mounts.is_empty() {
            let made = self.state.layout.since(before);
            self.state.layout = std::mem::take(&mut self.state.unmounted);
            self.state.layout.extend(made);
        }
    }

    /// Files that mounts show during this RUN.
    fn mounts(&mut self, step: Step, run: &Run) {
        if run.mounts.is_empty() {
            return;
        }
        self.state.unmounted = self.state.layout.clone();
        for mount in &run.mounts {
            let (target, source) = match &mount.kind {
                MountKind::Bind { from: None, source, target, .. } => (Some(target), source.as_deref()),
                MountKind::Bind { target, .. } => (Some(target), None),
                MountKind::Cache { target, .. } | MountKind::Tmpfs { target, .. } => (Some(target), None),
                MountKind::Secret { target, .. } | MountKind::Ssh { target, .. } => (target.as_ref(), None),
            };
            let at = match target.map(|target| self.resolve(target)) {
                Some(Some(target)) => join(&self.state.workdir, &target),
                Some(None) => "/".to_owned(),
                None => "/run/secrets".to_owned(),
            };
            // A source that is not in the context makes the mount fail, which is another matter.
            let known = source
                .and_then(|source| self.resolve(source))
                .map(|source| clean(source.trim_start_matches('/')));
            match known.as_deref().map(|source| (source, self.context.files.entry(source))) {
                Some((source, Some(entry))) if entry.ignored_by.is_none() => {
                    let copy = CopyRef {
                        stage: step.stage,
                        instruction: step.instruction,
                        workdir: self.state.workdir.clone(),
                        is_mount: true,
                    };
                    if entry.kind == FileKind::File {
                        self.state.layout.file(at, source, &copy);
                    } else {
                        self.state.layout.folder(at, source, &copy);
                    }
                }
                _ => self.state.layout.anything(at),
            }
        }
    }

    fn script(&mut self, step: Step, code: &Code<'_>, depth: usize) {
        let scope = &self.state.scope;
        let script = read(code.text, &|name| scope.get(name));
        // Where each open subshell began.
        let mut cwds: Vec<Option<String>> = vec![Some(self.state.workdir.clone())];
        let source = self.context.text;
        for command in &script.commands {
            while cwds.len() > command.subshell + 1 {
                cwds.pop();
            }
            while cwds.len() < command.subshell + 1 {
                cwds.push(cwds.last().cloned().flatten());
            }
            let cwd = cwds.last().cloned().flatten();
            let span = |at: usize| {
                command.words.get(at).map(|word: &ShellWord| code.span(word.start, word.end, source))
            };
            let done = self.command(step, command, &cwd, &span, depth);
            if let (Some(goes), Some(last)) = (done.goes, cwds.last_mut()) {
                *last = match (goes, &cwd) {
                    (Goes::To(path), Some(cwd)) if !command.guarded => Some(join(cwd, &path)),
                    (Goes::To(path), None) if path.starts_with('/') && !command.guarded => Some(clean(&path)),
                    _ => None,
                };
            }
        }
        if script.unclear {
            self.state.layout.anything("/".to_owned());
        }
    }

    fn command(
        &mut self,
        step: Step,
        command: &Simple,
        cwd: &Option<String>,
        span: &dyn Fn(usize) -> Option<Span>,
        depth: usize,
    ) -> Effect {
        let done = effect(command);
        if let Some(at) = done.script {
            let text = command.words.get(at).and_then(|word| word.value.as_deref());
            match text {
                // Paths inside are judged from here; after a `cd` they would be judged wrongly.
                Some(text)
                    if depth < MAX_SCRIPTS
                        && !command.guarded
                        && *cwd == Some(self.state.workdir.clone()) =>
                {
                    let code = Code { text, span: span(at).unwrap_or(step.span) };
                    self.script(step, &code, depth + 1);
                }
                _ => self.state.layout.anything("/".to_owned()),
            }
        }
        if !command.guarded {
            for read in &done.reads {
                let place = || span(read.word.unwrap_or(0)).unwrap_or(step.span);
                self.read(step, command, cwd, read, &place);
            }
        }
        if let Some(apt) = done.apt {
            self.apt(apt, command, span(0).unwrap_or(step.span));
        }
        match &done.makes {
            Makes::Nothing => {}
            Makes::Paths(paths) => {
                for path in paths {
                    match cwd {
                        Some(cwd) => self.state.layout.anything(join(cwd, path)),
                        None if path.starts_with('/') => self.state.layout.anything(clean(path)),
                        None => self.state.layout.anything("/".to_owned()),
                    }
                }
            }
            Makes::Anything => self.state.layout.anything("/".to_owned()),
        }
        done
    }

    fn apt(&mut self, apt: Apt, command: &Simple, span: Span) {
        match apt {
            Apt::Update => self.state.apt_updated = true,
            Apt::Install { assumes_yes } if !command.guarded => {
                if !assumes_yes && !command.piped {
                    self.findings.warn(
                        "apt-without-yes",
                        span,
                        "apt asks before it installs, and nobody can answer during a build",
                        "add `-y`: `apt-get install -y …`".to_owned(),
                    );
                }
                let may_have_lists =
                    self.state.apt_updated || self.state.layout.may_have("/var/lib/apt/lists/x");
                if !may_have_lists && !matches!(self.state.base, Base::Scratch) {
                    self.findings.warn(
                        "apt-without-update",
                        span,
                        "no package list was fetched before this, and images come without one: \
                         apt will not find the packages (unless the base image has the lists)",
                        "write `apt-get update && apt-get install -y …` in one RUN".to_owned(),
                    );
                    // Once is enough for a stage.
                    self.state.apt_updated = true;
                }
            }
            Apt::Install { .. } => {}
        }
    }

    /// Judges one file that a command opens.
    fn read(
        &mut self,
        step: Step,
        command: &Simple,
        cwd: &Option<String>,
        read: &Read,
        place: &dyn Fn() -> Span,
    ) {
        let path = match (cwd, read.path.starts_with('/')) {
            (_, true) => clean(&read.path),
            (Some(cwd), false) => join(cwd, &read.path),
            (None, false) => return,
        };
        if let Some(copy) = self.state.layout.find(&path, self.context.files) {
            let instruction = copy.filter(|copy| !copy.is_mount).map(|copy| (copy.stage, copy.instruction));
            self.state.used.extend(instruction);
            return;
        }
        let absolute = read.path.starts_with('/');
        if absolute && !self.state.layout.is_ours(parent(&path)) {
            return;
        }
        let here = cwd.clone().unwrap_or_else(|| self.state.workdir.clone());
        let wanted = read.path.strip_prefix("./").unwrap_or(&read.path);
        match self.state.layout.elsewhere(wanted, &path, self.context.files) {
            Some(elsewhere) => self.misplaced(step, command, read, place(), &path, &here, elsewhere),
            None => self.absent(step, read, place(), &path, &here, wanted),
        }
    }
}

/// An exec form as a command: its words mean what they say.
fn exec(words: &[Word]) -> Simple {
    let words = words
        .iter()
        .map(|word| ShellWord { value: Some(word.text.clone()), start: word.span.start, end: word.span.end })
        .collect();
    Simple { words, ..Simple::default() }
}

fn is_shell_script(content: &str) -> bool {
    let first = content.lines().next().unwrap_or_default();
    first.trim_start_matches("#!").split_whitespace().any(|word| SHELLS.contains(&name(word)))
}

/// Whether the words of SHELL start a POSIX shell.
pub(super) fn is_posix_shell(words: &[Word]) -> bool {
    words.first().is_some_and(|word| SHELLS.contains(&name(&word.text)))
}
