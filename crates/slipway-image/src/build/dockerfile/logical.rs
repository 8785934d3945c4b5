//! Logical lines: an instruction with its continuations joined, and the way back to the source.

use std::ops::Range;

use slipway_types::build::Span;

use super::ast::Word;

/// One instruction's text. Comments, continuation characters and line ends between its parts are left out.
#[derive(Debug, Default)]
pub(super) struct Logical {
    pub(super) text: String,
    /// Where each part starts: here, and in the source.
    parts: Vec<(usize, usize)>,
    /// First blank line inside a continuation.
    pub(super) blank_line: Option<Span>,
}

impl Logical {
    pub(super) fn push(&mut self, part: &str, source: usize) {
        if !part.is_empty() {
            self.parts.push((self.text.len(), source));
            self.text.push_str(part);
        }
    }

    /// The whole text without white space around it.
    pub(super) fn whole(&self) -> Text<'_> {
        Text { logical: self, start: 0, end: self.text.len() }.trim()
    }

    fn source(&self, at: usize) -> usize {
        let part = self.parts.partition_point(|&(start, _)| start <= at).saturating_sub(1);
        self.parts.get(part).map_or(0, |&(start, source)| source + (at - start))
    }

    fn span(&self, start: usize, end: usize) -> Span {
        let first = self.source(start);
        if start >= end {
            return Span { start: first, end: first };
        }
        Span { start: first, end: self.source(end - 1) + 1 }
    }
}

/// A part of a logical line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'l> {
    logical: &'l Logical,
    start: usize,
    end: usize,
}

impl<'l> Text<'l> {
    pub(super) fn as_str(&self) -> &'l str {
        &self.logical.text[self.start..self.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    pub(super) fn slice(&self, range: Range<usize>) -> Text<'l> {
        Text { logical: self.logical, start: self.start + range.start, end: self.start + range.end }
    }

    pub(super) fn trim(&self) -> Text<'l> {
        let text = self.as_str();
        let start = text.len() - text.trim_start().len();
        self.slice(start..start + text.trim().len())
    }

    pub(super) fn span(&self) -> Span {
        self.logical.span(self.start, self.end)
    }

    pub(super) fn word(&self) -> Word {
        Word { text: self.as_str().to_owned(), span: self.span() }
    }

    /// The first word and what follows it, without the white space between.
    pub(super) fn split_first(&self) -> (Text<'l>, Text<'l>) {
        let text = self.trim();
        let split = text.as_str().find(is_space).unwrap_or(text.as_str().len());
        (text.slice(0..split), text.slice(split..text.as_str().len()).trim())
    }

    /// Words between white space, with no regard to quotes.
    pub(super) fn split_space(&self) -> Vec<Text<'l>> {
        let text = self.as_str();
        let mut words = Vec::new();
        let mut start = None;
        for (at, c) in text.char_indices() {
            match (is_space(c), start) {
                (true, Some(from)) => {
                    words.push(self.slice(from..at));
                    start = None;
                }
                (false, None) => start = Some(at),
                _ => {}
            }
        }
        if let Some(from) = start {
            words.push(self.slice(from..text.len()));
        }
        words
    }

    /// Words between white space that is neither quoted nor escaped. Quotes and escapes stay.
    pub(super) fn split_quoted(&self, escape: char) -> Vec<Text<'l>> {
        let text = self.as_str();
        let mut words = Vec::new();
        let mut start = None;
        let mut quote = None;
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match quote {
                Some(open) => {
                    if c == open {
                        quote = None;
                    } else if c == escape && open != '\'' {
                        chars.next();
                    }
                }
                None if c.is_whitespace() => {
                    if let Some(from) = start.take() {
                        words.push(self.slice(from..at));
                    }
                }
                None => {
                    start.get_or_insert(at);
                    if matches!(c, '\'' | '"') {
                        quote = Some(c);
                    } else if c == escape {
                        chars.next();
                    }
                }
            }
        }
        if let Some(from) = start {
            words.push(self.slice(from..text.len()));
        }
        words
    }
}

fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | '\n' | ' ')
}
