//! Docker's word processing: variables, quotes and escapes in the arguments of Dockerfile instructions.
//!
//! The rules are those of BuildKit's `frontend/dockerfile/shell` (a subset of POSIX sh): `$NAME`, `${NAME}`, the
//! modifiers `:- - :+ + :? ?`, the pattern forms `# ## % %% / //`, single and double quotes, and one escape
//! character (`\`, or a backtick after `# escape=`).

mod pattern;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::CharIndices;

use slipway_types::build::Span;

/// Most bytes that one word may expand to.
pub const MAX_EXPANSION: usize = 1 << 20;
const MAX_NESTING: usize = 32;
/// Longest value in bytes that a pattern is tried on: matching takes time with the square of it.
const MAX_MATCHED: usize = 16 << 10;

/// Looks up the value of a variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ExpandError {
    /// Bytes of the word that it is about.
    pub span: Span,
    /// What is wrong.
    pub kind: ExpandErrorKind,
}

/// What is wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandErrorKind {
    /// A quote is not closed.
    #[error("the quote `{0}` is not closed")]
    UnclosedQuote(char),
    /// `${` without `}`.
    #[error("`${{` has no closing `}}`")]
    UnclosedBrace,
    /// `${NAME/pattern` without the second slash.
    #[error("`${{{0}/…}}` lacks the `/` between pattern and replacement")]
    MissingReplacement(String),
    /// `${}` and the like.
    #[error("bad substitution: a variable name belongs after `${{`")]
    BadSubstitution,
    /// A modifier that Docker does not know.
    #[error("unsupported modifier `{0}` in a substitution")]
    UnsupportedModifier(String),
    /// A pattern with a bad escape.
    #[error("the pattern `{0}` escapes a character that needs none")]
    InvalidPattern(String),
    /// `${NAME:?message}` with an unset (or empty) variable.
    #[error("variable `{name}`: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message of the word, or what Docker says without one.
        message: String,
    },
    /// Substitutions inside substitutions, too deep.
    #[error("substitutions are nested deeper than {MAX_NESTING}")]
    TooDeep,
    /// The value of a variable is too long for a pattern.
    #[error("the value of `{0}` has more than {MAX_MATCHED} bytes, too many for a pattern")]
    ValueTooLong(String),
    /// The result is too long.
    #[error("the word expands to more than {MAX_EXPANSION} bytes")]
    TooLong,
}

/// The result of an expansion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The text, without quotes and escapes.
    pub text: String,
    /// The text split into fields at white space that is not quoted. Empty fields are dropped.
    pub fields: Vec<String>,
    /// Variables that were asked for and had a value.
    pub used: BTreeSet<String>,
    /// Variables that were asked for and had none, with the bytes of their first use. Those with a default in the
    /// word (`${NAME:-word}`, `${NAME:+word}`) are in `defaulted` instead.
    pub unset: Vec<(String, Span)>,
    /// Unset variables for which the word itself provides.
    pub defaulted: BTreeSet<String>,
}

/// Expands variables and removes quotes and escapes: one word stays one word, whatever it holds.
pub fn expand(word: &str, lookup: Lookup<'_>, escape: char) -> Result<String, ExpandError> {
    Ok(expand_fully(word, lookup, escape)?.text)
}

/// Expands and then splits into fields at unquoted white space, as for EXPOSE.
pub fn expand_words(word: &str, lookup: Lookup<'_>, escape: char) -> Result<Vec<String>, ExpandError> {
    Ok(expand_fully(word, lookup, escape)?.fields)
}

/// Expands and tells which variables were asked for.
pub fn expand_fully(word: &str, lookup: Lookup<'_>, escape: char) -> Result<Expansion, ExpandError> {
    Expander::new(word, lookup, escape, true).run()
}

/// Expands variables in the content of a heredoc of COPY or ADD: quotes stay, `\` escapes.
pub fn expand_heredoc(content: &str, lookup: Lookup<'_>) -> Result<Expansion, ExpandError> {
    Expander::new(content, lookup, '\\', false).run()
}

/// Checks a word's syntax, without any variable at hand.
pub fn validate(word: &str, escape: char) -> Result<(), ExpandError> {
    let mut expander = Expander::new(word, &|_| None, escape, true);
    expander.validating = true;
    expander.run().map(|_| ())
}

/// What a nested part of a word ends at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    End,
    Char(char),
}

struct Expander<'a> {
    word: &'a str,
    chars: Peekable<CharIndices<'a>>,
    lookup: Lookup<'a>,
    escape: char,
    quotes: bool,
    validating: bool,
    depth: usize,
    result: Expansion,
}

/// Collects a text and, beside it, its fields.
#[derive(Default)]
struct Output {
    text: String,
    fields: Vec<String>,
    field: String,
}

impl Output {
    /// A character that is quoted or escaped.
    fn raw(&mut self, c: char) {
        self.text.push(c);
        self.field.push(c);
    }

    /// A character that splits fields if it is white space.
    fn plain(&mut self, c: char) {
        self.text.push(c);
        if !c.is_whitespace() {
            self.field.push(c);
        } else if !self.field.is_empty() {
            self.fields.push(std::mem::take(&mut self.field));
        }
    }

    fn finish(mut self) -> (String, Vec<String>) {
        if !self.field.is_empty() {
            self.fields.push(self.field);
        }
        (self.text, self.fields)
    }
}

impl<'a> Expander<'a> {
    fn new(word: &'a str, lookup: Lookup<'a>, escape: char, quotes: bool) -> Self {
        Self {
            word,
            chars: word.char_indices().peekable(),
            lookup,
            escape,
            quotes,
            validating: false,
            depth: 0,
            result: Expansion::default(),
        }
    }

    fn run(mut self) -> Result<Expansion, ExpandError> {
        let (text, fields) = self.part(Stop::End, false, 0)?;
        self.result.text = text;
        self.result.fields = fields;
        Ok(self.result)
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|&(_, c)| c)
    }

    fn next(&mut self) -> Option<char> {
        self.chars.next().map(|(_, c)| c)
    }

    fn position(&mut self) -> usize {
        self.chars.peek().map_or(self.word.len(), |&(at, _)| at)
    }

    fn error(&mut self, start: usize, kind: ExpandErrorKind) -> ExpandError {
        ExpandError { span: Span { start, end: self.position() }, kind }
    }

    /// Reads up to `stop`, which is consumed. `keep_escapes` leaves escape characters in, for patterns.
    fn part(
        &mut self,
        stop: Stop,
        keep_escapes: bool,
        opened: usize,
    ) -> Result<(String, Vec<String>), ExpandError> {
        let mut out = Output::default();
        while let Some(c) = self.peek() {
            let at = self.position();
            if stop == Stop::Char(c) {
                self.next();
                return Ok(out.finish());
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| out.plain(c));
                }
                '\'' if self.quotes => {
                    self.next();
                    loop {
                        match self.next() {
                            Some('\'') => break,
                            Some(c) => out.raw(c),
                            None => return Err(self.error(at, ExpandErrorKind::UnclosedQuote('\''))),
                        }
                    }
                }
                '"' if self.quotes => self.double_quoted(at, keep_escapes, &mut out)?,
                _ => {
                    self.next();
                    if c != self.escape {
                        out.plain(c);
                    } else {
                        if keep_escapes {
                            out.raw(c);
                        }
                        match self.next() {
                            Some(escaped) => out.raw(escaped),
                            None => break,
                        }
                    }
                }
            }
            if out.text.len() > MAX_EXPANSION {
                return Err(self.error(at, ExpandErrorKind::TooLong));
            }
        }
        match stop {
            Stop::End => Ok(out.finish()),
            Stop::Char(_) => Err(self.error(opened, ExpandErrorKind::UnclosedBrace)),
        }
    }

    fn double_quoted(&mut self, at: usize, keep_escapes: bool, out: &mut Output) -> Result<(), ExpandError> {
        self.next();
        loop {
            match self.peek() {
                None => return Err(self.error(at, ExpandErrorKind::UnclosedQuote('"'))),
                Some('"') => {
                    self.next();
                    return Ok(());
                }
                Some('$') => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| out.raw(c));
                }
                Some(c) => {
                    self.next();
                    if c != self.escape {
                        out.raw(c);
                        continue;
                    }
                    if keep_escapes {
                        out.raw(c);
                    }
                    match self.peek() {
                        None => {}
                        Some(escaped) if matches!(escaped, '"' | '$') || escaped == self.escape => {
                            self.next();
                            out.raw(escaped);
                        }
                        Some(_) => out.raw(c),
                    }
                }
            }
            if out.text.len() > MAX_EXPANSION {
                return Err(self.error(at, ExpandErrorKind::TooLong));
            }
        }
    }

    /// A substitution; the next character is `$`.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.position();
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(self.value(&name, start).unwrap_or_default());
        }
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(self.error(start, ExpandErrorKind::TooDeep));
        }
        self.next();
        let value = self.braces(start);
        self.depth -= 1;
        value
    }

    /// A substitution in braces, after `${`.
    fn braces(&mut self, start: usize) -> Result<String, ExpandError> {
        match self.peek() {
            None => return Err(self.error(start, ExpandErrorKind::UnclosedBrace)),
            Some('{' | '}' | ':') => {
                self.next();
                return Err(self.error(start, ExpandErrorKind::BadSubstitution));
            }
            Some(_) => {}
        }
        let name = self.name();
        let Some(mut modifier) = self.next() else {
            return Err(self.error(start, ExpandErrorKind::UnclosedBrace));
        };
        match modifier {
            '}' => return Ok(self.value(&name, start).unwrap_or_default()),
            '/' => return self.replace(&name, start),
            _ => {}
        }
        let colon = modifier == ':';
        let mut shown = modifier.to_string();
        if colon {
            modifier = match self.next() {
                Some(c) => c,
                None => return Err(self.error(start, ExpandErrorKind::UnclosedBrace)),
            };
            shown.push(modifier);
        }
        let trims = matches!(modifier, '#' | '%');
        if !matches!(modifier, '-' | '+' | '?' | '#' | '%') || (colon && trims) {
            return Err(self.error(start, ExpandErrorKind::UnsupportedModifier(shown)));
        }
        if name.is_empty() {
            return Err(self.error(start, ExpandErrorKind::BadSubstitution));
        }
        let (word, _) = self.part(Stop::Char('}'), trims, start)?;
        match modifier {
            '-' => Ok(self.given(&name, colon).unwrap_or(word)),
            '+' => Ok(self.given(&name, colon).map(|_| word).unwrap_or_default()),
            '?' => {
                let value = (self.lookup)(&name);
                let problem = match &value {
                    None => "is not allowed to be unset",
                    Some(value) if colon && value.is_empty() => "is not allowed to be empty",
                    Some(_) => {
                        self.result.used.insert(name);
                        return Ok(value.unwrap_or_default());
                    }
                };
                if self.validating {
                    return Ok(String::new());
                }
                let message = if word.is_empty() { problem.to_owned() } else { word };
                Err(self.error(start, ExpandErrorKind::Required { name, message }))
            }
            side => {
                let (word, longest) = match word.strip_prefix(side) {
                    Some(rest) => (rest, true),
                    None => (word.as_str(), false),
                };
                let pattern = self.pattern(word, start)?;
                let value = self.matched_value(&name, start)?;
                let trimmed = if side == '#' {
                    pattern.trim_prefix(&value, longest)
                } else {
                    pattern.trim_suffix(&value, longest)
                };
                Ok(trimmed.to_owned())
            }
        }
    }

    /// `${NAME/pattern/replacement}` and `//`, after the first slash.
    fn replace(&mut self, name: &str, start: usize) -> Result<String, ExpandError> {
        if name.is_empty() {
            return Err(self.error(start, ExpandErrorKind::BadSubstitution));
        }
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let (pattern, _) = self.part(Stop::Char('/'), true, start).map_err(|error| match error.kind {
            ExpandErrorKind::UnclosedBrace if error.span.start == start => {
                ExpandError { kind: ExpandErrorKind::MissingReplacement(name.to_owned()), ..error }
            }
            _ => error,
        })?;
        let (replacement, _) = self.part(Stop::Char('}'), true, start)?;
        let pattern = self.pattern(&pattern, start)?;
        let value = self.matched_value(name, start)?;
        match pattern.replace(&value, &replacement, all, MAX_EXPANSION) {
            Some(text) => Ok(text),
            None => Err(self.error(start, ExpandErrorKind::TooLong)),
        }
    }

    fn pattern(&mut self, text: &str, start: usize) -> Result<pattern::Pattern, ExpandError> {
        match pattern::Pattern::new(text) {
            Some(pattern) => Ok(pattern),
            None => Err(self.error(start, ExpandErrorKind::InvalidPattern(text.to_owned()))),
        }
    }

    /// A variable's name: letters, digits and `_`, or digits only, or one special parameter of POSIX.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.peek().filter(|c| c.is_numeric()) {
                    name.push(c);
                    self.next();
                }
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                name.push(c);
                self.next();
            }
            _ => {
                while let Some(c) = self.peek().filter(|&c| c.is_alphanumeric() || c == '_') {
                    name.push(c);
                    self.next();
                }
            }
        }
        name
    }

    /// The value of a variable that a pattern is tried on.
    fn matched_value(&mut self, name: &str, start: usize) -> Result<String, ExpandError> {
        let value = self.value(name, start).unwrap_or_default();
        if value.len() > MAX_MATCHED {
            return Err(self.error(start, ExpandErrorKind::ValueTooLong(name.to_owned())));
        }
        Ok(value)
    }

    fn value(&mut self, name: &str, start: usize) -> Option<String> {
        let value = (self.lookup)(name);
        if value.is_some() {
            self.result.used.insert(name.to_owned());
        } else if !self.result.unset.iter().any(|(unset, _)| unset == name) {
            let span = Span { start, end: self.position() };
            self.result.unset.push((name.to_owned(), span));
        }
        value
    }

    /// The value of a variable for which the word provides a default; none also when it is empty and `colon`.
    fn given(&mut self, name: &str, colon: bool) -> Option<String> {
        match (self.lookup)(name) {
            Some(value) => {
                self.result.used.insert(name.to_owned());
                Some(value).filter(|value| !(colon && value.is_empty()))
            }
            None => {
                self.result.defaulted.insert(name.to_owned());
                None
            }
        }
    }
}
