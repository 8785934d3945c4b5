//! What a step writes: bytes to text, and the last lines kept for the failure.

use std::collections::VecDeque;

/// Lines that a failure shows.
const KEPT_LINES: usize = 50;
/// Longest line that is kept, in bytes.
const MAX_LINE: usize = 4096;

/// Turns the pieces of one stream into text. A character that is cut between two pieces is held back.
#[derive(Default)]
pub(super) struct Decoder {
    held: Vec<u8>,
}

impl Decoder {
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest: &[u8] = &self.held;
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        // The end may still become a character.
                        None => {
                            rest = after;
                            break;
                        }
                        Some(bad) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &after[bad..];
                        }
                    }
                }
            }
        }
        self.held = rest.to_vec();
        text
    }

    /// What is left at the end.
    pub(super) fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

/// The last lines of a step's output, both streams together.
#[derive(Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    current: String,
    /// The cursor is back at the start of the current line.
    returned: bool,
}

impl Tail {
    pub(super) fn push(&mut self, text: &str) {
        for piece in text.split_inclusive('\n') {
            let line = piece.strip_suffix('\n');
            for c in line.unwrap_or(piece).chars() {
                if c == '\r' {
                    self.returned = true;
                    continue;
                }
                // A progress bar that is drawn anew counts as one line.
                if std::mem::take(&mut self.returned) {
                    self.current.clear();
                }
                if self.current.len() < MAX_LINE {
                    self.current.push(c);
                }
            }
            if line.is_some() {
                self.returned = false;
                let line = std::mem::take(&mut self.current);
                self.add(line);
            }
        }
    }

    fn add(&mut self, line: String) {
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(super) fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            let line = std::mem::take(&mut self.current);
            self.add(line);
        }
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_not_cut() {
        let mut decoder = Decoder::default();
        let bytes = "häß".as_bytes();
        assert_eq!(decoder.push(&bytes[..2]), "h");
        assert_eq!(decoder.push(&bytes[2..]), "äß");
        assert_eq!(decoder.push(b"a\xffb\xe2\x82"), "a\u{fffd}b");
        assert_eq!(decoder.finish(), "\u{fffd}");
    }

    #[test]
    fn the_last_lines_are_kept() {
        let mut tail = Tail::default();
        for number in 0..60 {
            tail.push(&format!("line {number}\n"));
        }
        tail.push("10%\r20%\r30%");
        let lines = tail.finish();
        assert_eq!((lines.len(), lines[0].as_str(), lines[49].as_str()), (50, "line 11", "30%"));
    }

    #[test]
    fn windows_line_ends_lose_nothing() {
        let mut tail = Tail::default();
        tail.push("error\r\n");
        assert_eq!(tail.finish(), ["error"]);
    }
}
