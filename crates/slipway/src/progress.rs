//! Progress of builds and transfers, moving on a terminal and plain elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report};
use slipway_types::build::{BuildEvent, Diagnostic, Severity};
use slipway_types::image::{BlobState, TransferEvent};
use slipway_types::size::human_bytes;

use crate::printer::Printer;

/// Shows a build.
pub struct BuildProgress {
    printer: Printer,
    bar: Option<ProgressBar>,
    quiet: bool,
    dockerfile: PathBuf,
    source: String,
    partial: BTreeMap<u32, String>,
    titles: BTreeMap<u32, String>,
    shown: Vec<Diagnostic>,
}

impl BuildProgress {
    /// Shows the build of a Dockerfile with this text.
    pub fn new(printer: Printer, moving: bool, quiet: bool, dockerfile: &Path, source: String) -> Self {
        let bar = (moving && !quiet).then(spinner);
        Self {
            printer,
            bar,
            quiet,
            dockerfile: dockerfile.to_owned(),
            source,
            partial: BTreeMap::new(),
            titles: BTreeMap::new(),
            shown: Vec::new(),
        }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &BuildEvent) {
        match event {
            BuildEvent::Diagnostic(diagnostic) => self.diagnostic(diagnostic),
            BuildEvent::StepStarted { step, total, stage, instruction } => {
                let stage = if stage.is_empty() { String::new() } else { format!(" {stage}") };
                let title = format!("[{step}/{total}{stage}] {instruction}");
                if let Some(bar) = &self.bar {
                    bar.set_message(title.clone());
                }
                self.titles.insert(*step, title);
            }
            BuildEvent::Output { step, text, .. } => self.output(*step, text),
            BuildEvent::Progress { what, done, total, .. } => {
                if let Some(bar) = &self.bar {
                    let total = total.map(|t| format!(" of {}", human_bytes(t))).unwrap_or_default();
                    bar.set_message(format!("{what}: {}{total}", human_bytes(*done)));
                }
            }
            BuildEvent::StepFinished { step, cached, seconds } => {
                self.flush(*step);
                let title = self.titles.remove(step).unwrap_or_default();
                let note = if *cached { "CACHED".to_owned() } else { format!("{seconds:.1}s") };
                self.note(&format!("{title}  {}", self.printer.paint("2", &note)));
            }
            BuildEvent::Finished { image, tags, executed, cached } => {
                let names = if tags.is_empty() { String::new() } else { format!(" as {}", tags.join(", ")) };
                self.note(&format!(
                    "built {}{names}  ({executed} executed, {cached} cached)",
                    &image.as_str()[..19]
                ));
            }
            BuildEvent::Failed(failure) => {
                let steps: Vec<u32> = self.partial.keys().copied().collect();
                steps.into_iter().for_each(|step| self.flush(step));
                if let Some(diagnostic) = &failure.diagnostic {
                    self.diagnostic(diagnostic);
                }
                if self.quiet {
                    for line in &failure.last_output {
                        self.printer.note(format!("  | {line}"));
                    }
                }
            }
        }
    }

    /// Takes the moving line away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn output(&mut self, step: u32, text: &str) {
        let pending = self.partial.entry(step).or_default();
        pending.push_str(text);
        while let Some(end) = self.partial.get(&step).and_then(|p| p.find('\n')) {
            let Some(pending) = self.partial.get_mut(&step) else { return };
            let line: String = pending.drain(..=end).collect();
            // A carriage return redraws the line: what it ended with is what counts.
            let line = line.trim_end().rsplit('\r').next().unwrap_or("").to_owned();
            self.note(&format!("  {} {line}", self.printer.paint("2", &format!("{step}|"))));
        }
    }

    fn flush(&mut self, step: u32) {
        if let Some(rest) = self.partial.remove(&step)
            && !rest.trim().is_empty()
        {
            self.note(&format!("  {step}| {}", rest.trim_end()));
        }
    }

    fn note(&self, text: &str) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| self.printer.note(text)),
            None => self.printer.note(text),
        }
    }

    fn diagnostic(&mut self, diagnostic: &Diagnostic) {
        // A parse error comes as a finding and again as the reason of the failure.
        if self.shown.contains(diagnostic) {
            return;
        }
        self.shown.push(diagnostic.clone());
        let name = self.dockerfile.display().to_string();
        let text = render(diagnostic, &name, &self.source, self.printer.colour());
        match &self.bar {
            Some(bar) => bar.suspend(|| self.printer.note(text.trim_end())),
            None => self.printer.note(text.trim_end()),
        }
    }
}

/// A diagnostic with its file, line and a caret under the place.
pub fn render(diagnostic: &Diagnostic, name: &str, source: &str, colour: bool) -> String {
    let severity = match diagnostic.severity {
        Severity::Warning => miette::Severity::Warning,
        Severity::Error => miette::Severity::Error,
    };
    let mut shown =
        MietteDiagnostic::new(&diagnostic.message).with_code(&diagnostic.code).with_severity(severity);
    if let Some(hint) = &diagnostic.hint {
        shown = shown.with_help(hint);
    }
    let (start, end) = (diagnostic.span.start.min(source.len()), diagnostic.span.end.min(source.len()));
    shown = shown.with_label(LabeledSpan::underline(start..end.max(start)));
    let report = Report::new(shown).with_source_code(NamedSource::new(name, source.to_owned()));
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let mut text = String::new();
    let written = GraphicalReportHandler::new_themed(theme)
        .with_width(110)
        .with_context_lines(1)
        .render_report(&mut text, report.as_ref());
    if written.is_err() {
        text = format!("{name}:{}:{}: {}", diagnostic.line, diagnostic.column, diagnostic.message);
    }
    text
}

/// Shows a pull or a push.
pub struct TransferProgress {
    printer: Printer,
    bar: Option<ProgressBar>,
    seen: BTreeMap<String, BlobState>,
    verb: &'static str,
}

impl TransferProgress {
    /// Shows a transfer; `verb` says which, such as `pulled`.
    pub fn new(printer: Printer, verb: &'static str) -> Self {
        Self { printer, bar: printer.is_terminal().then(spinner), seen: BTreeMap::new(), verb }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &TransferEvent) {
        let TransferEvent::Blob { digest, state, done, total } = event else { return };
        let changed = self.seen.insert(digest.short().to_owned(), *state) != Some(*state);
        let word = match state {
            BlobState::Exists => "exists",
            BlobState::Moving => "moving",
            BlobState::Compressing => "compressing",
            BlobState::Unpacking => "unpacking",
            BlobState::Done => self.verb,
        };
        let size = total.unwrap_or(*done);
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!(
                    "{} {word} {} of {}",
                    digest.short(),
                    human_bytes(*done),
                    human_bytes(size)
                ));
                if changed && matches!(state, BlobState::Done | BlobState::Exists) {
                    bar.suspend(|| {
                        self.printer.note(format!("{} {word} {}", digest.short(), human_bytes(size)))
                    });
                }
            }
            None if changed => self.printer.note(format!("{} {word} {}", digest.short(), human_bytes(size))),
            None => {}
        }
    }

    /// Takes the moving line away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_style(
        ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_types::build::Span;

    #[test]
    fn a_diagnostic_shows_file_line_and_caret() {
        let source = "FROM debian\nRUN pip install -r requirements.txt\n";
        let start = source.find("requirements").unwrap();
        let text = render(
            &Diagnostic {
                severity: Severity::Warning,
                code: "run-missing-file".into(),
                message: "requirements.txt is not in the image".into(),
                hint: Some("add `COPY requirements.txt ./` before line 2".into()),
                span: Span { start, end: start + 16 },
                line: 2,
                column: 20,
            },
            "Dockerfile",
            source,
            false,
        );
        for part in
            ["Dockerfile:2:20", "requirements.txt is not in the image", "COPY requirements.txt ./", "─"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
