//! Patterns of `${NAME#pattern}` and its relatives: `*`, `?` and literals, without bracket expressions.

/// Longest pattern in characters that is matched; a longer one matches nothing.
const MAX_PATTERN: usize = 4096;

/// A compiled pattern.
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// Any one character but a line feed.
    One,
    /// Any run of characters without a line feed.
    Many,
}

impl Pattern {
    /// Reads a pattern whose escapes were left in. None when it escapes something other than `* ? \ } /`.
    pub(super) fn new(text: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Many,
                '?' => Token::One,
                '\\' => match chars.next()? {
                    c @ ('*' | '?' | '\\' | '}' | '/') => Token::Literal(c),
                    _ => return None,
                },
                c => Token::Literal(c),
            });
        }
        tokens.dedup_by(|a, b| *a == Token::Many && *b == Token::Many);
        (tokens.len() <= MAX_PATTERN).then_some(Self { tokens })
    }

    /// The value without the shortest or longest prefix that matches.
    pub(super) fn trim_prefix<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        let ends: Vec<usize> = char_ends(value);
        let chars: Vec<char> = value.chars().collect();
        match matched(&self.tokens, &chars, longest) {
            Some(length) => &value[ends[length]..],
            None => value,
        }
    }

    /// The value without the shortest or longest suffix that matches.
    pub(super) fn trim_suffix<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        let ends = char_ends(value);
        let chars: Vec<char> = value.chars().rev().collect();
        let tokens: Vec<Token> = self.tokens.iter().rev().copied().collect();
        match matched(&tokens, &chars, longest) {
            Some(length) => &value[..ends[chars.len() - length]],
            None => value,
        }
    }

    /// Replaces the first match, or all that do not overlap, each as long as possible. None when the result would
    /// be longer than `limit` bytes.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool, limit: usize) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut after_match = false;
        let mut searching = true;
        while at <= chars.len() {
            if out.len() > limit {
                return None;
            }
            let length = if searching { matched(&self.tokens, &chars[at..], true) } else { None };
            match length {
                // An empty match right behind another one does not count.
                Some(length) if length > 0 || !after_match => {
                    out.push_str(replacement);
                    searching = all;
                    at += length;
                    after_match = true;
                    if length > 0 {
                        continue;
                    }
                }
                _ => {}
            }
            match chars.get(at) {
                Some(&c) => out.push(c),
                None => break,
            }
            after_match = false;
            at += 1;
        }
        Some(out)
    }
}

/// Byte offsets at which 0, 1, 2, … characters end.
fn char_ends(value: &str) -> Vec<usize> {
    value.char_indices().map(|(at, _)| at).chain([value.len()]).collect()
}

/// The length in characters of the shortest or longest prefix of `chars` that matches.
///
/// Between two `*` a run of fixed width either matches at a place or does not; taking the first place for each run
/// leaves the most room for the rest, so the last run alone decides between shortest and longest.
fn matched(tokens: &[Token], chars: &[char], longest: bool) -> Option<usize> {
    let line_end = |from: usize| {
        chars[from..].iter().position(|&c| c == '\n').map_or(chars.len(), |length| from + length)
    };
    let mut runs = tokens.split(|&token| token == Token::Many);
    let first = runs.next()?;
    if !fits(first, chars) {
        return None;
    }
    let mut at = first.len();
    let mut runs = runs.peekable();
    while let Some(run) = runs.next() {
        let limit = line_end(at);
        let mut places = at..=limit;
        let place = if longest && runs.peek().is_none() {
            places.rev().find(|&place| fits(run, &chars[place..]))
        } else {
            places.find(|&place| fits(run, &chars[place..]))
        };
        at = place? + run.len();
    }
    Some(at)
}

fn fits(run: &[Token], chars: &[char]) -> bool {
    run.len() <= chars.len()
        && run.iter().zip(chars).all(|(token, &c)| match token {
            Token::Literal(literal) => *literal == c,
            Token::One => c != '\n',
            Token::Many => false,
        })
}
