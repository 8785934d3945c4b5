//! Finds `<<NAME` markers in an instruction.

use slipway_types::build::Span;

use super::logical::Text;

/// A `<<NAME` marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) name: String,
    pub(super) expand: bool,
    pub(super) strip_tabs: bool,
    pub(super) span: Span,
}

/// The markers of a text, in order. None at all when a quote in it is not closed: then nobody knows what is quoted.
pub(super) fn markers(text: Text<'_>) -> Vec<Marker> {
    if !text.as_str().contains("<<") {
        return Vec::new();
    }
    scan(text).unwrap_or_default()
}

fn scan(text: Text<'_>) -> Option<Vec<Marker>> {
    let source = text.as_str();
    let bytes = source.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    let mut token = 0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => at = close_quote(bytes, at, quote)?,
            b'\\' => at += 2,
            // Inside `$((…))` two angle brackets shift bits.
            b'$' if source[at..].starts_with("$((") => {
                at += source[at..].find("))").map_or(3, |length| length + 2);
            }
            b' ' | b'\t' | b'\r' => {
                at += 1;
                token = at;
            }
            b'<' if source[at..].starts_with("<<<") => {
                at += source[at..].bytes().take_while(|&byte| byte == b'<').count();
            }
            b'<' if source[at..].starts_with("<<") => {
                let starts_token = bytes[token..at].iter().all(u8::is_ascii_digit);
                at += 2;
                let strip_tabs = bytes.get(at) == Some(&b'-');
                at += usize::from(strip_tabs);
                at += bytes[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
                let (name, quoted, end) = delimiter(source, at)?;
                if starts_token && !name.is_empty() {
                    let span = text.slice(token..end).span();
                    found.push(Marker { name, expand: !quoted, strip_tabs, span });
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    Some(found)
}

/// The delimiter that starts at `at`: its text without quotes, whether it was quoted, and where it ends.
fn delimiter(source: &str, at: usize) -> Option<(String, bool, usize)> {
    let mut name = String::new();
    let mut quoted = false;
    let mut chars = source[at..].char_indices();
    while let Some((offset, c)) = chars.next() {
        match c {
            '\'' | '"' => {
                quoted = true;
                loop {
                    match chars.next()? {
                        (_, close) if close == c => break,
                        (_, inner) => name.push(inner),
                    }
                }
            }
            '\\' => {
                quoted = true;
                name.extend(chars.next().map(|(_, escaped)| escaped));
            }
            ' ' | '\t' | '\r' | '\n' | ';' | '|' | '&' | '<' | '>' | '(' | ')' => {
                return Some((name, quoted, at + offset));
            }
            _ => name.push(c),
        }
    }
    Some((name, quoted, source.len()))
}

fn close_quote(bytes: &[u8], open: usize, quote: u8) -> Option<usize> {
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            byte if byte == quote => return Some(at + 1),
            b'\\' if quote == b'"' => at += 2,
            _ => at += 1,
        }
    }
    None
}
