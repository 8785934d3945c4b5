//! The JSON (exec) form of arguments.

use super::ast::Word;
use super::logical::Text;

/// What an instruction's arguments are as JSON.
pub(super) enum Json {
    /// An array of strings.
    Strings(Vec<Word>),
    /// An array that holds something else.
    NotStrings,
    /// No JSON array; `looks_like_one` when it was probably meant to be.
    Other { looks_like_one: bool },
}

/// Reads arguments as a JSON array of strings.
pub(super) fn read(text: Text<'_>) -> Json {
    let source = text.as_str();
    if !source.starts_with('[') {
        return Json::Other { looks_like_one: false };
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(source) else {
        return Json::Other { looks_like_one: looks_like_json(source) };
    };
    let mut words = Vec::with_capacity(values.len());
    let mut at = 0;
    for value in values {
        let serde_json::Value::String(string) = value else {
            return Json::NotStrings;
        };
        // A flat array of strings: the next quote opens the next string.
        let open = at + source[at..].find('"').unwrap_or(0);
        let close = string_end(source.as_bytes(), open);
        words.push(Word { text: string, span: text.slice(open..close).span() });
        at = close;
    }
    Json::Strings(words)
}

fn string_end(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `[ -f x ]` is a command of the shell and always has a space behind its bracket; `['python', 'x.py']` is a mistake.
fn looks_like_json(source: &str) -> bool {
    let inner = &source[1..];
    match inner.chars().next() {
        None | Some('[') => false,
        Some('"' | '\'') => true,
        Some(c) if c.is_whitespace() => {
            inner.trim_start().starts_with(['"', '\'']) && (inner.contains("\",") || inner.contains("',"))
        }
        Some(_) => inner.trim_end().ends_with(']') && inner.contains(','),
    }
}
