//! Patterns in one path component, as Go's `filepath.Match` reads them: `*`, `?`, `[a-z]`, `[^a]` and `\`.

/// A pattern that no name can match because it is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadPattern;

/// Whether a component has a wildcard that is not escaped.
pub(crate) fn has_wildcard(component: &str) -> bool {
    let mut chars = component.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

enum Piece {
    Any,
    One,
    Literal(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// A compiled pattern of one component.
pub(crate) struct Glob(Vec<Piece>);

impl Glob {
    pub(crate) fn new(pattern: &str) -> Result<Self, BadPattern> {
        let mut pieces = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            pieces.push(match c {
                '*' => Piece::Any,
                '?' => Piece::One,
                '\\' => Piece::Literal(chars.next().ok_or(BadPattern)?),
                '[' => {
                    let negated = chars.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    loop {
                        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
                            break;
                        }
                        let low = class_char(&mut chars)?;
                        let high =
                            if chars.next_if_eq(&'-').is_some() { class_char(&mut chars)? } else { low };
                        ranges.push((low, high));
                    }
                    Piece::Class { negated, ranges }
                }
                c => Piece::Literal(c),
            });
        }
        Ok(Self(pieces))
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut piece) = (0, 0);
        // Where to go on when a later piece fails: the last star, one more character taken.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let fits = match self.0.get(piece) {
                None => at == name.len(),
                Some(Piece::Any) => {
                    retry = Some((at, piece));
                    piece += 1;
                    continue;
                }
                Some(other) => name.get(at).is_some_and(|&c| other.accepts(c)),
            };
            if fits {
                if piece == self.0.len() {
                    return true;
                }
                at += 1;
                piece += 1;
                continue;
            }
            match retry {
                Some((from, star)) if from < name.len() => {
                    retry = Some((from + 1, star));
                    at = from + 1;
                    piece = star + 1;
                }
                _ => return false,
            }
        }
    }
}

impl Piece {
    fn accepts(&self, c: char) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Literal(literal) => *literal == c,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated
            }
        }
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, BadPattern> {
    match chars.next() {
        Some('\\') => chars.next().ok_or(BadPattern),
        None | Some('-' | ']') => Err(BadPattern),
        Some(c) => Ok(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a pattern of literals, `?` and `*` matches, by definition.
    fn naive(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|taken| naive(rest, &name[taken..])),
            Some((c, rest)) => {
                name.split_first().is_some_and(|(first, name)| (*c == '?' || c == first) && naive(rest, name))
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn stars_match_by_definition(pattern in "[ab?*]{0,8}", name in "[ab]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let matches = Glob::new(&pattern).map(|glob| glob.matches(&name));
            proptest::prop_assert_eq!(matches, Ok(naive(&chars(&pattern), &chars(&name))));
        }

        #[test]
        fn no_pattern_panics(pattern in ".{0,12}", name in ".{0,12}") {
            if let Ok(glob) = Glob::new(&pattern) {
                glob.matches(&name);
            }
        }
    }

    /// Cases in the manner of Go's `path/filepath` tests, written anew.
    #[test]
    fn matches_as_go_does() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*b*c*d", "axbxcxd", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("[\\]a]", "]", true),
            ("[x\\-]", "-", true),
            ("*", "", true),
            ("?", "", false),
            ("*x", "xxx", true),
        ] {
            assert_eq!(Glob::new(pattern).map(|glob| glob.matches(name)), Ok(expected), "{pattern} {name}");
        }
        for bad in ["[]a]", "[-]", "[x-]", "[-x]", "a[", "[a", "[^", "a\\", "[^bc"] {
            assert!(Glob::new(bad).is_err(), "{bad}");
        }
        assert!(has_wildcard("a*") && !has_wildcard("a\\*"));
    }
}
