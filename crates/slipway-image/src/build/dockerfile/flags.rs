//! `--name=value` flags between an instruction's name and its arguments.

use slipway_types::build::Span;

use super::ast::Word;
use super::lines::Sink;
use super::logical::Text;
use super::suggest::nearest;

struct Flag {
    name: String,
    value: Option<String>,
    span: Span,
}

/// Flags of one instruction. Each is taken by its name; [`Flags::finish`] complains about the rest.
pub(super) struct Flags {
    keyword: &'static str,
    list: Vec<Flag>,
    known: Vec<&'static str>,
}

impl Flags {
    /// Takes the flags off the front of the arguments; `--` ends them.
    pub(super) fn take<'l>(keyword: &'static str, text: Text<'l>, escape: char) -> (Self, Text<'l>) {
        let mut list = Vec::new();
        let mut rest = text.trim();
        while rest.as_str().starts_with("--") {
            let (raw, value, after) = unquoted_word(rest, escape);
            rest = after.trim();
            if value == "--" {
                break;
            }
            let (name, value) = match value[2..].split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (value[2..].to_owned(), None),
            };
            list.push(Flag { name, value, span: raw.span() });
        }
        (Self { keyword, list, known: Vec::new() }, rest)
    }

    /// Every value of a flag that may be given several times.
    pub(super) fn values(&mut self, name: &'static str, sink: &mut Sink<'_>) -> Vec<Word> {
        self.known.push(name);
        let (mine, rest) = std::mem::take(&mut self.list).into_iter().partition(|flag| flag.name == name);
        self.list = rest;
        let mut values = Vec::new();
        for flag in mine as Vec<Flag> {
            match flag.value {
                Some(text) => values.push(Word { text, span: flag.span }),
                None => sink.error(
                    "invalid-flag",
                    flag.span,
                    format!("`--{name}` needs a value"),
                    format!("write `--{name}=…`"),
                ),
            }
        }
        values
    }

    /// The value of a flag that may be given once.
    pub(super) fn value(&mut self, name: &'static str, sink: &mut Sink<'_>) -> Option<Word> {
        let mut values = self.values(name, sink).into_iter();
        let value = values.next();
        for extra in values {
            sink.error("duplicate-flag", extra.span, format!("`--{name}` is given twice"), None);
        }
        value
    }

    /// A flag that is there or not; `=true` and `=false` are allowed.
    pub(super) fn switch(&mut self, name: &'static str, sink: &mut Sink<'_>) -> bool {
        for flag in self.list.iter_mut().filter(|flag| flag.name == name && flag.value.is_none()) {
            flag.value = Some("true".to_owned());
        }
        let Some(word) = self.value(name, sink) else { return false };
        match word.text.to_ascii_lowercase().as_str() {
            "true" => true,
            "false" => false,
            _ => {
                let message = format!("`--{name}` is true or false, not `{}`", word.text);
                sink.error("invalid-flag", word.span, message, None);
                false
            }
        }
    }

    /// A flag of Docker's that Slipway does not carry out.
    pub(super) fn unsupported(&mut self, name: &'static str, instead: &str, sink: &mut Sink<'_>) {
        for flag in self.list.extract_if(.., |flag| flag.name == name) {
            sink.error(
                "unsupported-flag",
                flag.span,
                format!("Slipway does not support `{} --{name}`", self.keyword),
                instead.to_owned(),
            );
        }
    }

    /// Complains about every flag that was not taken.
    pub(super) fn finish(self, sink: &mut Sink<'_>) {
        for flag in self.list {
            let hint = match nearest(&flag.name, &self.known) {
                Some(name) => format!("did you mean `--{name}`?"),
                None if self.known.is_empty() => format!("{} takes no flags", self.keyword),
                None => {
                    let known: Vec<String> = self.known.iter().map(|name| format!("--{name}")).collect();
                    format!("{} takes {}", self.keyword, known.join(", "))
                }
            };
            sink.error("unknown-flag", flag.span, format!("unknown flag `--{}`", flag.name), hint);
        }
    }
}

/// The first word of a text: as written, without quotes and escapes, and what follows it.
fn unquoted_word<'l>(text: Text<'l>, escape: char) -> (Text<'l>, String, Text<'l>) {
    let source = text.as_str();
    let mut word = String::new();
    let mut quote = None;
    let mut end = source.len();
    let mut chars = source.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c.is_whitespace() => {
                end = at;
                break;
            }
            None if matches!(c, '\'' | '"') => quote = Some(c),
            _ if c == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => word.push(c),
        }
    }
    (text.slice(0..end), word, text.slice(end..source.len()))
}
