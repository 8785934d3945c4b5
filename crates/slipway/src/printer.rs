//! The one place that writes to the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the printer")]

use std::io::{IsTerminal, Write};

use serde::Serialize;
use slipway_types::ApiError;
use unicode_width::UnicodeWidthStr;

use crate::env_vars;

/// How listings are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// Writes results to standard output and everything else to standard error.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    colour: bool,
    terminal: bool,
}

impl Printer {
    /// A printer for this process's terminal.
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let no_colour = std::env::var_os(env_vars::NO_COLOR).is_some_and(|v| !v.is_empty());
        Self { colour: terminal && !no_colour, terminal }
    }

    /// Whether standard error is a terminal, so progress may move.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether colours may be used on standard error.
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Whether colours may be used on standard output.
    pub fn colour_out(&self) -> bool {
        let no_colour = std::env::var_os(env_vars::NO_COLOR).is_some_and(|v| !v.is_empty());
        std::io::stdout().is_terminal() && !no_colour
    }

    /// A line of the result.
    pub fn line(&self, text: impl AsRef<str>) {
        // A reader that went away (`| head`) is no error of ours.
        let _ = writeln!(std::io::stdout().lock(), "{}", text.as_ref());
    }

    /// Bytes of the result, as they are.
    pub fn raw(&self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    }

    /// Bytes to standard error, as they are.
    pub fn raw_error(&self, bytes: &[u8]) {
        let _ = std::io::stderr().lock().write_all(bytes);
    }

    /// A line of progress or advice.
    pub fn note(&self, text: impl AsRef<str>) {
        let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
    }

    /// A JSON document.
    pub fn json(&self, value: &impl Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.line(text),
            Err(error) => self.note(format!("error: cannot write JSON: {error}")),
        }
    }

    /// Aligned columns under a heading.
    pub fn table(&self, headings: &[&str], rows: &[Vec<String>]) {
        for line in aligned(headings, rows) {
            self.line(line);
        }
    }

    /// A warning.
    pub fn warning(&self, text: impl AsRef<str>) {
        self.note(format!("{} {}", self.paint("33", "warning:"), text.as_ref()));
    }

    /// An error with its causes and hint.
    pub fn error(&self, error: &ApiError) {
        self.note(format!("{} {}", self.paint("31", "error:"), error.message));
        for cause in &error.causes {
            self.note(format!("  because: {cause}"));
        }
        if let Some(hint) = &error.hint {
            self.note(format!("  {} {hint}", self.paint("36", "hint:")));
        }
    }

    /// Text in an ANSI colour, where colours may be used.
    pub fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A heading and rows in columns as wide as a terminal shows their widest cells.
fn aligned(headings: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let lines = || {
        let rows = rows.iter().map(|row| row.iter().map(String::as_str).collect());
        std::iter::once(headings.to_vec()).chain(rows)
    };
    let mut widths = vec![0; headings.len()];
    for line in lines() {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.width().max(*width);
        }
    }
    let padded = |line: Vec<&str>| {
        let mut text = String::new();
        for (cell, width) in line.into_iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width - cell.width() + 3));
        }
        text.truncate(text.trim_end().len());
        text
    };
    lines().map(padded).collect()
}

/// How long ago a moment was, in its largest whole unit.
pub fn age(moment: jiff::Timestamp, now: jiff::Timestamp) -> String {
    let seconds = now.duration_since(moment).as_secs().max(0);
    let (count, unit) = match seconds {
        0..=59 => (seconds, "second"),
        60..=3599 => (seconds / 60, "minute"),
        3600..=86_399 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_as_a_terminal_shows_them() {
        let rows = [["模型 v2", "1/1"], ["My Model", "2/2"], ["e\u{301}", "0/1"]]
            .map(|row| row.map(String::from).to_vec());
        let lines = aligned(&["SERVICE", "READY"], &rows);
        assert_eq!(lines, ["SERVICE    READY", "模型 v2    1/1", "My Model   2/2", "e\u{301}          0/1"]);
    }

    #[test]
    fn ages_use_their_largest_unit() {
        let now: jiff::Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        for (then, text) in [
            ("2026-01-01T23:59:59Z", "1 second"),
            ("2026-01-01T23:00:00Z", "1 hour"),
            ("2025-12-30T00:00:00Z", "3 days"),
            ("2026-01-03T00:00:00Z", "0 seconds"),
        ] {
            assert_eq!(age(then.parse().unwrap(), now), text);
        }
    }
}
