use proptest::prelude::*;

use super::*;

fn ignore(text: &str) -> Ignore {
    Ignore::parse(text).unwrap()
}

#[test]
fn matches_as_docker_does() {
    for (pattern, path, ignored) in [
        ("a.txt", "a.txt", true),
        ("a.txt", "b/a.txt", false),
        ("/a.txt", "a.txt", true),
        ("./a.txt", "a.txt", true),
        ("x/../a.txt", "a.txt", true),
        ("a//b/", "a/b", true),
        ("data", "data/x/y", true),
        ("data/", "data/x", true),
        ("data", "database", false),
        ("../a", "a", false),
        ("/../a", "a", true),
        (".", "a", false),
        ("*", "a", true),
        ("*", "a/b", true),
        ("*.pyc", "x.pyc", true),
        ("*.pyc", "a/x.pyc", false),
        ("*.pyc", "x.pyc/inside", true),
        ("**/*.pyc", "x.pyc", true),
        ("**/*.pyc", "a/b/x.pyc", true),
        ("**/*.pyc", "a/b/x.pyo", false),
        ("**/__pycache__", "a/b/__pycache__/x", true),
        ("**/__pycache__", "__pycache__", true),
        ("**/__pycache__", "a__pycache__", false),
        ("**", "a/b", true),
        ("**/", "a/b", true),
        ("**/**", "a/b", true),
        ("a/**", "a", false),
        ("a/**", "a/b", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "a/xb", false),
        ("a**b", "a/b", true),
        ("a**b", "axb", false),
        ("**name", "my-name", true),
        ("**name", "a/my-name", true),
        ("a/*/c", "a/b/c", true),
        ("a/*/c", "a/b/d/c", false),
        ("?.txt", "ü.txt", true),
        ("?.txt", "/.txt", false),
        ("a?b", "a/b", false),
        ("[a-c].txt", "b.txt", true),
        ("[^a-c].txt", "b.txt", false),
        ("[^a-c].txt", "d.txt", true),
        ("[\\]\\-].txt", "-.txt", true),
        ("\\*.txt", "*.txt", true),
        ("\\*.txt", "a.txt", false),
        ("\\#x", "#x", true),
        (" padded ", "padded", true),
        ("a.b", "axb", false),
        ("a+(b)|{c}$", "a+(b)|{c}$", true),
    ] {
        assert_eq!(ignore(pattern).is_ignored(path), ignored, "{pattern} {path}");
    }
}

#[test]
fn the_last_match_decides() {
    let rules = ignore("# comment\n\n*.md\n!README.md\ndocs\n!docs/keep\ndocs/keep/not\n");
    for (path, ignored) in [
        ("a.md", true),
        ("README.md", false),
        ("docs", true),
        ("docs/a", true),
        ("docs/keep", false),
        ("docs/keep/x", false),
        ("docs/keep/not/x", true),
        ("src/a.md", false),
        ("# comment", false),
        ("", false),
    ] {
        assert_eq!(rules.is_ignored(path), ignored, "{path}");
    }
    let by = rules.ignored_by("docs/keep/not/x").unwrap();
    assert_eq!((by.text.as_str(), by.line), ("docs/keep/not", 7));
    assert!(rules.ignored_by("README.md").is_none());
}

#[test]
fn a_walker_skips_what_nothing_takes_back() {
    let rules = ignore("node_modules\ndata\n!data/**/*.csv\n*.egg\nout\n!out/keep/this\n.git\n!.github\n");
    for (folder, skip) in [
        ("node_modules", true),
        ("data", false),
        ("data/deep", false),
        ("x.egg", true),
        ("out", false),
        ("out/keep", false),
        ("out/other", true),
        (".git", true),
        (".github", false),
        ("src", false),
    ] {
        assert_eq!(rules.may_skip_folder(folder), skip, "{folder}");
    }
    assert!(!ignore("*\n!src/*.py\n").may_skip_folder("src"));
    assert!(ignore("*\n!src/*.py\n").may_skip_folder("src/deep"));
    assert!(ignore("!a/b\n*\n").may_skip_folder("a"), "what comes before is overruled");
}

#[test]
fn names_the_line_of_a_bad_pattern() {
    for (text, line) in [
        ("ok\n[", 2),
        ("[]a]", 1),
        ("[^]", 1),
        ("[-]", 1),
        ("[x-]", 1),
        ("[a-b-c]", 1),
        ("[b-a]", 1),
        ("a[", 1),
        ("\r\n\r\na\\", 3),
        ("!", 1),
        ("a\n! ", 2),
    ] {
        let error = Ignore::parse(text).unwrap_err();
        assert!(
            matches!(error, IgnoreError::InvalidPattern { line: at, .. } if at == line),
            "{text:?}: {error}"
        );
    }
    assert_eq!(Ignore::parse(&"a\n".repeat(MAX_PATTERNS + 1)).unwrap_err(), IgnoreError::TooLong);
    assert_eq!(Ignore::parse(&"#".repeat(MAX_TEXT + 1)).unwrap_err(), IgnoreError::TooLong);
}

#[test]
fn reads_a_byte_order_mark_and_windows_lines() {
    let rules = ignore("\u{feff}# comment\r\na.txt\r\n");
    assert!(rules.is_ignored("a.txt") && !rules.is_ignored("b.txt"));
}

/// A slow matcher that follows Docker's translation to regular expressions literally.
fn naive(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*', rest @ ..] => {
            let rest = rest.strip_prefix(&['/']).unwrap_or(rest);
            if rest.is_empty() {
                return true;
            }
            naive(rest, path) || (1..=path.len()).any(|n| path[n - 1] == '/' && naive(rest, &path[n..]))
        }
        ['*', rest @ ..] => {
            let limit = path.iter().position(|&c| c == '/').unwrap_or(path.len());
            (0..=limit).any(|n| naive(rest, &path[n..]))
        }
        ['?', rest @ ..] => path.first().is_some_and(|&c| c != '/') && naive(rest, &path[1..]),
        [c, rest @ ..] => path.first() == Some(c) && naive(rest, &path[1..]),
    }
}

proptest! {
    #[test]
    fn agrees_with_the_slow_matcher(pattern in "(\\*\\*/)?[ab*?/]{1,6}", path in "[ab]{1,2}(/[ab]{1,2}){0,3}") {
        let cleaned = clean(&pattern);
        // `**name` at the front is a case of its own.
        prop_assume!(!cleaned.is_empty() && (!cleaned.starts_with("**") || cleaned.starts_with("**/") || cleaned == "**"));
        let rules = ignore(&pattern);
        let chars: Vec<char> = cleaned.chars().collect();
        let expected = path
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([path.len()])
            .any(|end| naive(&chars, &path[..end].chars().collect::<Vec<_>>()));
        prop_assert_eq!(rules.is_ignored(&path), expected, "{} {}", cleaned, path);
    }

    #[test]
    fn a_skipped_folder_holds_nothing_that_is_wanted(
        lines in prop::collection::vec("!?(\\*\\*/)?[ab*]{1,3}(/[ab*]{1,2}){0,2}", 1..5),
        folder in "[ab]{1,2}(/[ab]{1,2}){0,1}",
        below in "[ab]{1,2}(/[ab]{1,2}){0,2}",
    ) {
        let Ok(rules) = Ignore::parse(&lines.join("\n")) else { return Ok(()) };
        if rules.may_skip_folder(&folder) {
            let path = format!("{folder}/{below}");
            prop_assert!(rules.is_ignored(&path), "{:?} {}", lines, path);
        }
    }

    #[test]
    fn never_panics(text in "\\PC{0,60}", path in "\\PC{0,20}") {
        if let Ok(rules) = Ignore::parse(&text) {
            rules.is_ignored(&path);
            rules.may_skip_folder(&path);
        }
    }
}
