use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn values(name: &str) -> Option<String> {
    let known = BTreeMap::from([
        ("HOME", "/home/ada"),
        ("EMPTY", ""),
        ("FILE", "model.tar.gz"),
        ("SPACED", "a  b"),
        ("STARS", "x*y*z"),
        ("WÖRT", "ü"),
        ("LINES", "one\ntwo"),
    ]);
    known.get(name).map(|value| (*value).to_owned())
}

#[test]
fn expands_as_docker_does() {
    for (word, expected) in [
        ("plain", "plain"),
        ("", ""),
        ("$HOME", "/home/ada"),
        ("${HOME}/x", "/home/ada/x"),
        ("$HOMEx", ""),
        ("${HOME}x", "/home/adax"),
        ("$", "$"),
        ("a$", "a$"),
        ("$.", "$."),
        ("$1x", "x"),
        ("$$", ""),
        ("\\$HOME", "$HOME"),
        ("\\\\$HOME", "\\/home/ada"),
        ("'$HOME'", "$HOME"),
        ("\"$HOME\"", "/home/ada"),
        ("\"a\\tb\"", "a\\tb"),
        ("\"a\\\"b\"", "a\"b"),
        ("a\\tb", "atb"),
        ("ends\\", "ends"),
        ("a\"b c\"'d e'f", "ab cd ef"),
        ("'it\\'", "it\\"),
        ("$SPACED", "a  b"),
        ("${WÖRT}", "ü"),
        // Defaults and alternatives.
        ("${NONE:-d}", "d"),
        ("${NONE-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${HOME:-d}", "/home/ada"),
        ("${NONE:+a}", ""),
        ("${NONE+a}", ""),
        ("${EMPTY:+a}", ""),
        ("${EMPTY+a}", "a"),
        ("${HOME:+a}", "a"),
        ("${HOME:?no}", "/home/ada"),
        ("${EMPTY?no}", ""),
        ("${NONE:-${EMPTY:-${HOME}}}", "/home/ada"),
        ("${NONE:-'a}b'}", "a}b"),
        ("${NONE:-\"x $HOME\"}", "x /home/ada"),
        ("${NONE:-a\\}b}", "a}b"),
        // Patterns.
        ("${FILE#*.}", "tar.gz"),
        ("${FILE##*.}", "gz"),
        ("${FILE%.*}", "model.tar"),
        ("${FILE%%.*}", "model"),
        ("${FILE#nothing}", "model.tar.gz"),
        ("${FILE#}", "model.tar.gz"),
        ("${FILE%}", "model.tar.gz"),
        ("${FILE#?}", "odel.tar.gz"),
        ("${FILE%??}", "model.tar."),
        ("${FILE##*}", ""),
        ("${FILE#*}", "model.tar.gz"),
        ("${STARS#*\\*}", "y*z"),
        ("${STARS%%\\**}", "x"),
        ("${NONE#x}", ""),
        ("${FILE/tar/zip}", "model.zip.gz"),
        ("${FILE/./_}", "model_tar.gz"),
        ("${FILE//./_}", "model_tar_gz"),
        ("${FILE//[/_}", "model.tar.gz"),
        ("${FILE/*tar/x}", "x.gz"),
        ("${HOME//\\//-}", "-home-ada"),
        ("${FILE/$EMPTY/new-}", "new-model.tar.gz"),
        ("${LINES#*w}", "one\ntwo"),
    ] {
        assert_eq!(expand(word, &values, '\\').as_deref(), Ok(expected), "{word}");
    }
    assert_eq!(expand("`$HOME \\x", &values, '`').as_deref(), Ok("$HOME \\x"));
}

#[test]
fn says_what_is_wrong_and_where() {
    use ExpandErrorKind::*;
    for (word, start, end, kind) in [
        ("ab'c", 2, 4, UnclosedQuote('\'')),
        ("ab\"c", 2, 4, UnclosedQuote('"')),
        ("x${HOME", 1, 7, UnclosedBrace),
        ("x${", 1, 3, UnclosedBrace),
        ("x${HOME:", 1, 8, UnclosedBrace),
        ("x${HOME:-a", 1, 10, UnclosedBrace),
        ("${}", 0, 3, BadSubstitution),
        ("${:-x}", 0, 3, BadSubstitution),
        ("${{HOME}}", 0, 3, BadSubstitution),
        ("${HOME:=x}", 0, 8, UnsupportedModifier(":=".to_owned())),
        ("${HOME:#x}", 0, 8, UnsupportedModifier(":#".to_owned())),
        ("${HOME^}", 0, 7, UnsupportedModifier("^".to_owned())),
        ("${HOME/x}", 0, 9, MissingReplacement("HOME".to_owned())),
        ("${HOME//x}", 0, 10, MissingReplacement("HOME".to_owned())),
        ("${HOME#\\x}", 0, 10, InvalidPattern("\\x".to_owned())),
        ("a${NONE:?give it}", 1, 17, Required { name: "NONE".to_owned(), message: "give it".to_owned() }),
        (
            "${EMPTY:?}",
            0,
            10,
            Required { name: "EMPTY".to_owned(), message: "is not allowed to be empty".to_owned() },
        ),
    ] {
        let error = expand(word, &values, '\\').unwrap_err();
        assert_eq!((error.span.start, error.span.end, error.kind), (start, end, kind), "{word}");
    }
    let deep = "${A:-".repeat(MAX_NESTING + 1) + &"}".repeat(MAX_NESTING + 1);
    assert_eq!(expand(&deep, &values, '\\').unwrap_err().kind, TooDeep);
    let long = |_: &str| Some("x".repeat(MAX_EXPANSION / 2 + 1));
    assert_eq!(expand("$A$A", &long, '\\').unwrap_err().kind, TooLong);
    assert_eq!(expand("${A//x/y}", &long, '\\').unwrap_err().kind, ValueTooLong("A".to_owned()));
    assert!(validate("${NONE:?message}", '\\').is_ok());
    assert!(validate("${NONE", '\\').is_err());
}

#[test]
fn splits_fields_at_unquoted_space() {
    for (word, expected) in [
        ("", vec![]),
        ("  a  b ", vec!["a", "b"]),
        ("$SPACED", vec!["a", "b"]),
        ("x$SPACED", vec!["xa", "b"]),
        ("\"$SPACED\"", vec!["a  b"]),
        ("a\\ b", vec!["a b"]),
        ("'a b'c d", vec!["a bc", "d"]),
        ("abc${NONE:-y}", vec!["abcy"]),
        ("${NONE}", vec![]),
    ] {
        assert_eq!(expand_words(word, &values, '\\').unwrap(), expected, "{word}");
    }
}

#[test]
fn tells_which_variables_were_asked_for() {
    let expansion = expand_fully("$HOME ${NONE} $NONE ${A:-x} ${B:+y} $C", &values, '\\').unwrap();
    assert_eq!(expansion.used, BTreeSet::from(["HOME".to_owned()]));
    assert_eq!(
        expansion.unset,
        [("NONE".to_owned(), Span { start: 6, end: 13 }), ("C".to_owned(), Span { start: 36, end: 38 })]
    );
    assert_eq!(expansion.defaulted, BTreeSet::from(["A".to_owned(), "B".to_owned()]));
}

#[test]
fn heredocs_keep_their_quotes() {
    let expansion = expand_heredoc("user = \"$HOME\"\nit's \\$HOME\n", &values).unwrap();
    assert_eq!(expansion.text, "user = \"/home/ada\"\nit's $HOME\n");
}

/// The obvious way to match a pattern, exponential and short.
fn naive(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=text.len()).any(|taken| naive(rest, &text[taken..])),
        (['?', rest @ ..], [_, more @ ..]) => naive(rest, more),
        ([c, rest @ ..], [d, more @ ..]) => c == d && naive(rest, more),
        _ => false,
    }
}

proptest! {
    #[test]
    fn never_panics(word in "\\PC{0,40}", escape in prop::sample::select(vec!['\\', '`'])) {
        if let Err(error) = expand_fully(&word, &values, escape) {
            prop_assert!(error.span.start <= error.span.end && error.span.end <= word.len());
            prop_assert!(word.is_char_boundary(error.span.start) && word.is_char_boundary(error.span.end));
        }
        let _ = expand_heredoc(&word, &values);
    }

    #[test]
    fn never_panics_on_what_looks_like_a_word(word in "[${}:#%/?*+\\-'\"\\\\A-C ]{0,24}") {
        let look = |name: &str| (name != "B").then(|| "a/b.c".to_owned());
        if let Ok(expansion) = expand_fully(&word, &look, '\\') {
            for (_, span) in &expansion.unset {
                prop_assert!(span.start < span.end && span.end <= word.len());
            }
        }
    }

    #[test]
    fn plain_text_stays(word in "[a-zA-Z0-9_./:=-]{0,40}") {
        prop_assert_eq!(expand(&word, &|_| None, '\\').unwrap(), word);
    }

    #[test]
    fn trims_what_the_naive_matcher_matches(pattern in "[ab*?]{0,5}", value in "[ab]{0,8}") {
        let look = |name: &str| (name == "V").then(|| value.clone());
        let tokens: Vec<char> = pattern.chars().collect();
        let chars: Vec<char> = value.chars().collect();
        let prefixes: Vec<usize> = (0..=chars.len()).filter(|&n| naive(&tokens, &chars[..n])).collect();
        let suffixes: Vec<usize> = (0..=chars.len()).filter(|&n| naive(&tokens, &chars[n..])).collect();
        let ask = |form: &str| expand(&format!("${{V{form}{pattern}}}"), &look, '\\').unwrap();
        prop_assert_eq!(ask("#"), &value[prefixes.first().copied().unwrap_or(0)..]);
        prop_assert_eq!(ask("##"), &value[prefixes.last().copied().unwrap_or(0)..]);
        prop_assert_eq!(ask("%"), &value[..suffixes.last().copied().unwrap_or(value.len())]);
        prop_assert_eq!(ask("%%"), &value[..suffixes.first().copied().unwrap_or(value.len())]);
    }
}
