//! Reads a Dockerfile line by line: directives, logical lines, heredoc bodies.

use std::ops::Range;

use slipway_types::build::Span;

use super::ast::{CheckDirective, Directives, Heredoc, Word};
use super::heredoc::Marker;
use super::lines::Sink;
use super::logical::Logical;

/// A position in a text, and the escape character in force.
pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
    pub(super) escape: char,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, at, escape: '\\' }
    }

    /// The byte after the last line that was read, less its line end.
    pub(super) fn end(&self) -> usize {
        self.text[..self.at].trim_end_matches(['\r', '\n']).len()
    }

    /// A part of the text.
    pub(super) fn between(&self, start: usize, end: usize) -> &'t str {
        &self.text[start..end]
    }

    /// The next physical line with its line end.
    fn line(&mut self) -> Option<Range<usize>> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let line = self.at..self.at + length;
        self.at = line.end;
        Some(line)
    }

    /// Parser directives: comments of the form `# name=value` before anything else.
    pub(super) fn directives(&mut self, sink: &mut Sink<'_>) -> Directives {
        let mut directives = Directives::default();
        let mut seen: Vec<String> = Vec::new();
        loop {
            let before = self.at;
            let Some(line) = self.line() else { return directives };
            let Some((name, value)) = directive(&self.text[line.clone()]) else {
                self.at = before;
                return directives;
            };
            let start = value.as_ptr() as usize - self.text.as_ptr() as usize;
            let span = Span { start, end: start + value.len() };
            if seen.contains(&name) {
                let hint = format!("keep one `# {name}=` line");
                sink.error("duplicate-directive", span, format!("a second `# {name}=` directive"), hint);
                continue;
            }
            match name.as_str() {
                "syntax" => directives.syntax = Some(Word { text: value.to_owned(), span }),
                "escape" => match value {
                    "\\" => directives.escape = '\\',
                    "`" => directives.escape = '`',
                    _ => sink.error(
                        "invalid-directive",
                        span,
                        format!("`{value}` cannot be the escape character"),
                        "write `# escape=\\` or `# escape=` followed by a backtick".to_owned(),
                    ),
                },
                _ => directives.check = check_directive(value, span, sink),
            }
            seen.push(name);
            self.escape = directives.escape;
        }
    }

    /// The next instruction with its continuations, or nothing at the end of the text.
    pub(super) fn instruction(&mut self) -> Option<Logical> {
        loop {
            let mut logical = Logical::default();
            let mut line = self.line()?;
            let mut first = true;
            loop {
                let start = line.start;
                let content = self.text[line].trim_end_matches(['\r', '\n']);
                let trimmed = content.trim_start();
                let skip = trimmed.starts_with('#') || trimmed.is_empty();
                if skip && first {
                    break;
                }
                if skip {
                    if trimmed.is_empty() {
                        let end = start + content.len();
                        logical.blank_line.get_or_insert(Span { start, end });
                    }
                } else {
                    let indent = if first { content.len() - trimmed.len() } else { 0 };
                    let (part, continues) = continuation(&content[indent..], self.escape);
                    logical.push(part, start + indent);
                    if !continues {
                        break;
                    }
                }
                first = false;
                match self.line() {
                    Some(next) => line = next,
                    None => break,
                }
            }
            if !logical.whole().is_empty() {
                return Some(logical);
            }
        }
    }

    /// The lines up to a heredoc's delimiter.
    pub(super) fn heredoc(&mut self, marker: &Marker, sink: &mut Sink<'_>) -> Heredoc {
        let start = self.at;
        let mut end = start;
        let mut terminated = false;
        while let Some(line) = self.line() {
            let mut content = self.text[line.clone()].trim_end_matches(['\r', '\n']);
            if marker.strip_tabs {
                content = content.trim_start_matches('\t');
            }
            if content == marker.name {
                terminated = true;
                break;
            }
            end = line.end;
        }
        if !terminated {
            sink.error(
                "unterminated-heredoc",
                marker.span,
                format!("the heredoc is not closed: no line consists of `{}`", marker.name),
                format!("write `{}` on a line of its own, with nothing before or after it", marker.name),
            );
        }
        Heredoc {
            name: marker.name.clone(),
            content: self.text[start..end].to_owned(),
            expand: marker.expand,
            strip_tabs: marker.strip_tabs,
            span: marker.span,
            body: Span { start, end },
        }
    }
}

/// A line without its continuation character, and whether it had one: the escape character, not itself escaped,
/// with nothing but blanks behind it.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(part) if !part.ends_with(escape) => (part, true),
        _ => (line, false),
    }
}

/// Name and value of a directive's line; nothing when it is none.
fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    let value = value.trim();
    (matches!(name.as_str(), "syntax" | "escape" | "check") && !value.is_empty()).then_some((name, value))
}

fn check_directive(value: &str, span: Span, sink: &mut Sink<'_>) -> CheckDirective {
    let mut check = CheckDirective::default();
    for option in value.split(';').map(str::trim).filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match (key.trim().to_ascii_lowercase().as_str(), value.trim()) {
            ("skip", rules) => {
                for rule in rules.split(',').map(str::trim).filter(|rule| !rule.is_empty()) {
                    if rule.eq_ignore_ascii_case("all") {
                        check.skip_all = true;
                    } else {
                        check.skip.push(rule.to_owned());
                    }
                }
            }
            ("error", truth) if truth.eq_ignore_ascii_case("true") => check.error = true,
            ("error", truth) if truth.eq_ignore_ascii_case("false") => check.error = false,
            // Docker has rules that must be switched on; Slipway has none, so there is nothing to do.
            ("experimental", _) => {}
            _ => sink.warning(
                "invalid-directive",
                span,
                format!("`{option}` is not an option of `# check=`"),
                "write `# check=skip=rule,rule` or `# check=error=true`, or both with `;` between".to_owned(),
            ),
        }
    }
    check
}
