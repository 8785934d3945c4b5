//! Compiled patterns of `.dockerignore`.

/// Most tokens of one pattern; a set of them fits into [`States`].
const MAX_TOKENS: usize = 1024;

/// One pattern.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    tokens: Vec<Token>,
    shape: Shape,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`: any one character but the slash.
    One,
    /// `*`: any run without a slash.
    Many,
    /// `**/`: nothing, or anything that ends with a slash.
    Folders,
    /// `**` at the end, or `**` at the front of a suffix: anything.
    All,
    /// `[…]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Shapes of patterns that are matched without looking at every character.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    /// Matches nothing: the pattern is empty once cleaned.
    Never,
    /// No wildcard: the path itself.
    Literal(String),
    /// `name/**`: everything that starts with this.
    Prefix(String),
    /// `**/name`: a run of whole components.
    Components(String),
    /// `*.pyc`: a first component that ends with this.
    FirstEndsWith(String),
    /// `**/*.pyc`: any component that ends with this.
    AnyEndsWith(String),
    Other,
}

impl Matcher {
    /// Compiles a cleaned pattern; the error says what is wrong with it.
    pub(super) fn new(pattern: &str) -> Result<Self, &'static str> {
        let tokens = tokens(pattern)?;
        if tokens.len() > MAX_TOKENS {
            return Err("it is too long");
        }
        let shape = shape(&tokens);
        Ok(Self { tokens, shape })
    }

    /// Whether it matches a path or one of the folders that the path lies in.
    pub(super) fn matches_path_or_parent(&self, path: &str) -> bool {
        match &self.shape {
            Shape::Never => false,
            Shape::Literal(literal) => path
                .strip_prefix(literal.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Shape::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Shape::Components(name) => ends(path).any(|end| {
                path[..end]
                    .strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
            }),
            Shape::FirstEndsWith(suffix) => {
                let first = path.split('/').next().unwrap_or_default();
                first.ends_with(suffix.as_str())
            }
            Shape::AnyEndsWith(suffix) => path.split('/').any(|part| part.ends_with(suffix.as_str())),
            Shape::Other => self.simulate(path),
        }
    }

    /// Whether it can match something inside a folder.
    pub(super) fn can_match_below(&self, folder: &str) -> bool {
        let mut states = States::new(&self.tokens);
        for c in folder.chars().chain(['/']) {
            states.step(&self.tokens, c);
            if states.is_empty() {
                return false;
            }
        }
        states.can_go_on(&self.tokens)
    }

    fn simulate(&self, path: &str) -> bool {
        // Most patterns fail at their first character, before anything is allocated.
        if matches!(self.tokens.first(), Some(Token::Char(first)) if !path.starts_with(*first)) {
            return false;
        }
        let mut states = States::new(&self.tokens);
        for c in path.chars() {
            if c == '/' && states.accepts(&self.tokens) {
                return true;
            }
            states.step(&self.tokens, c);
            if states.is_empty() {
                return false;
            }
        }
        states.accepts(&self.tokens)
    }
}

/// Offsets in a path at which a component ends.
fn ends(path: &str) -> impl Iterator<Item = usize> + '_ {
    path.match_indices('/').map(|(at, _)| at).chain([path.len()])
}

/// Where in the pattern a match may stand, as a set. Twice the number of the next token; one more inside a run of
/// folders, which is left only after a slash.
struct States {
    list: Vec<usize>,
    next: Vec<usize>,
    /// For each state, the step at which it was last added.
    seen: Vec<u32>,
    step: u32,
}

impl States {
    fn new(tokens: &[Token]) -> Self {
        let seen = vec![0; 2 * tokens.len() + 2];
        let mut states = Self { list: Vec::new(), next: Vec::new(), seen, step: 1 };
        states.enter(tokens, 0);
        std::mem::swap(&mut states.list, &mut states.next);
        states
    }

    fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn accepts(&self, tokens: &[Token]) -> bool {
        self.list.contains(&(2 * tokens.len()))
    }

    /// Whether more characters can lead to a match.
    fn can_go_on(&self, tokens: &[Token]) -> bool {
        // Every token that is left can be satisfied by some characters.
        self.list.iter().any(|&state| state / 2 < tokens.len())
    }

    fn insert(&mut self, state: usize) -> bool {
        let new = self.seen[state] != self.step;
        if new {
            self.seen[state] = self.step;
            self.next.push(state);
        }
        new
    }

    /// Adds a token and those behind it that are reached without a character.
    fn enter(&mut self, tokens: &[Token], mut at: usize) {
        while self.insert(2 * at) && matches!(tokens.get(at), Some(Token::Many | Token::Folders | Token::All))
        {
            at += 1;
        }
    }

    fn step(&mut self, tokens: &[Token], c: char) {
        self.step += 1;
        self.next.clear();
        for position in 0..self.list.len() {
            let at = self.list[position] / 2;
            match tokens.get(at) {
                Some(Token::Char(wanted)) if *wanted == c => self.enter(tokens, at + 1),
                Some(Token::One) if c != '/' => self.enter(tokens, at + 1),
                Some(Token::Many) if c != '/' => self.enter(tokens, at),
                Some(Token::All) => self.enter(tokens, at),
                Some(Token::Folders) => {
                    self.insert(2 * at + 1);
                    if c == '/' {
                        self.enter(tokens, at + 1);
                    }
                }
                Some(Token::Class { negated, ranges })
                    if ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated =>
                {
                    self.enter(tokens, at + 1);
                }
                _ => {}
            }
        }
        std::mem::swap(&mut self.list, &mut self.next);
    }
}

fn tokens(pattern: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                let slash = chars.next_if_eq(&'/').is_some();
                let leads_suffix = tokens.is_empty() && !slash;
                if chars.peek().is_none() || leads_suffix && is_plain(chars.clone()) {
                    tokens.push(Token::All);
                } else {
                    tokens.push(Token::Folders);
                }
            }
            '*' => tokens.push(Token::Many),
            '?' => tokens.push(Token::One),
            '\\' => match chars.next() {
                Some(escaped) => tokens.push(Token::Char(escaped)),
                None => return Err("it ends with a backslash that escapes nothing"),
            },
            '[' => tokens.push(class(&mut chars)?),
            _ => tokens.push(Token::Char(c)),
        }
    }
    Ok(tokens)
}

/// Docker matches `**name` as a suffix of the whole path, but only when nothing else in it is special.
fn is_plain(mut rest: impl Iterator<Item = char>) -> bool {
    rest.all(|c| !matches!(c, '*' | '?' | '[' | ']' | '\\'))
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, &'static str> {
    const OPEN: &str = "a `[` is not closed, or its class is empty or has a stray `-`";
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Ok(Token::Class { negated, ranges });
        }
        let low = class_char(chars).ok_or(OPEN)?;
        let high = match chars.next_if_eq(&'-') {
            Some(_) => class_char(chars).ok_or(OPEN)?,
            None => low,
        };
        if low > high {
            return Err("a range in its class is backwards");
        }
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

fn shape(tokens: &[Token]) -> Shape {
    let literal = |tokens: &[Token]| {
        tokens
            .iter()
            .map(|token| if let Token::Char(c) = token { Some(*c) } else { None })
            .collect::<Option<String>>()
    };
    match tokens {
        [] => Shape::Never,
        [Token::All] => Shape::Prefix(String::new()),
        [Token::Many, rest @ ..] => match literal(rest) {
            Some(suffix) if !suffix.contains('/') => Shape::FirstEndsWith(suffix),
            _ => Shape::Other,
        },
        [Token::Folders, Token::Many, rest @ ..] => match literal(rest) {
            Some(suffix) if !suffix.contains('/') => Shape::AnyEndsWith(suffix),
            _ => Shape::Other,
        },
        [Token::Folders, rest @ ..] => literal(rest).map_or(Shape::Other, Shape::Components),
        [rest @ .., Token::All] => literal(rest).map_or(Shape::Other, Shape::Prefix),
        _ => literal(tokens).map_or(Shape::Other, Shape::Literal),
    }
}
