//! Lines, columns and diagnostics: where a byte of a Dockerfile is.

use slipway_types::build::{Diagnostic, Severity, Span};

/// Where the lines of a text start.
#[derive(Clone, Debug)]
pub struct LineIndex<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    /// Reads a text once.
    pub fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1))
            .collect();
        Self { text, starts }
    }

    /// 1-based line of a byte offset.
    pub fn line(&self, offset: usize) -> u32 {
        self.starts.partition_point(|&start| start <= offset) as u32
    }

    /// 1-based line and column (in characters) of a byte offset. A byte-order mark has no column.
    pub fn position(&self, offset: usize) -> (u32, u32) {
        let offset = self.floor(offset);
        let line = self.line(offset);
        let start = self.starts[line as usize - 1];
        let before = self.text[start..offset].trim_start_matches('\u{feff}');
        (line, before.chars().count() as u32 + 1)
    }

    /// A diagnostic about a span. A span that leaves the text or cuts a character is narrowed to one that does not.
    pub fn diagnostic(
        &self,
        severity: Severity,
        code: &str,
        span: Span,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Diagnostic {
        let start = self.floor(span.start);
        let span = Span { start, end: self.floor(span.end).max(start) };
        let (line, column) = self.position(start);
        Diagnostic { severity, code: code.to_owned(), message: message.into(), hint, span, line, column }
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

/// Diagnostics as they are found, at most [`Sink::MAX`] of them.
pub(super) struct Sink<'t> {
    pub(super) index: LineIndex<'t>,
    pub(super) found: Vec<Diagnostic>,
}

impl<'t> Sink<'t> {
    /// More than this help nobody.
    const MAX: usize = 200;

    pub(super) fn new(text: &'t str) -> Self {
        Self { index: LineIndex::new(text), found: Vec::new() }
    }

    pub(super) fn error(
        &mut self,
        code: &str,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) {
        self.push(Severity::Error, code, span, message.into(), hint.into());
    }

    pub(super) fn warning(
        &mut self,
        code: &str,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) {
        self.push(Severity::Warning, code, span, message.into(), hint.into());
    }

    fn push(&mut self, severity: Severity, code: &str, span: Span, message: String, hint: Option<String>) {
        // The first error must not be lost behind warnings: it decides whether a build goes on.
        let full = self.found.len() >= Self::MAX;
        if full && (severity == Severity::Warning || self.has_errors()) {
            return;
        }
        self.found.push(self.index.diagnostic(severity, code, span, message, hint));
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}
