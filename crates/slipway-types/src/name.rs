//! Names of projects, models and services: what they may be, and how they are written in URLs, shells and metrics.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Most characters of a name.
pub const MAX_CHARS: usize = 200;

/// What a project, model or service name may be, for error messages.
pub const RULE: &str = "expected 1 to 200 characters of any script, without `/`, `:`, `@`, control characters and marks of \
                        writing direction, no space at either end, no `-` at the start, and not `.` or `..`";

/// What stays as it is in a segment of a path and in a query.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Whether a text may name a project, a model or a service. Names are compared byte for byte.
///
/// `/` would make it several segments of a path, `:` and `@` end a name in URLs and references (`m:predict`, `m@3`), a `-`
/// begins a flag, and marks of direction and what is not to be seen make one name look like another on a terminal.
pub fn is_valid(name: &str) -> bool {
    let refused = |c: char| {
        c.is_control()
            || matches!(
                c,
                '/' | ':'
                    | '@'
                    | '\u{ad}'
                    | '\u{61c}'
                    | '\u{200b}'
                    | '\u{200e}'
                    | '\u{200f}'
                    | '\u{2060}'
                    | '\u{feff}'
            )
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    (1..=MAX_CHARS).contains(&name.chars().count())
        && name.trim() == name
        && !name.starts_with('-')
        && !matches!(name, "." | "..")
        && !name.contains(refused)
}

/// A text as one segment of a path or a value of a query.
///
/// ```
/// use slipway_types::name::{decoded, segment};
/// assert_eq!(segment("My Model"), "My%20Model");
/// assert_eq!(decoded("My%20Model"), "My Model");
/// ```
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// What a segment of a path means; as it is where it means no text.
pub fn decoded(segment: &str) -> Cow<'_, str> {
    percent_decode_str(segment).decode_utf8().unwrap_or(Cow::Borrowed(segment))
}

/// A text as one argument on a shell's command line.
pub fn argument(text: &str) -> Cow<'_, str> {
    let plain =
        |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '@' | '+' | '%' | ',');
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', "'\\''")))
}

/// A text between the quotes of a label in Prometheus' text format.
pub fn label_value(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn any_name_but_a_few() {
        let longest = "模".repeat(MAX_CHARS);
        for good in [
            "digits",
            "my_model",
            "My Model",
            "模型",
            "2fast",
            "a.b",
            ".hidden",
            "a",
            "%41",
            "a?b#c",
            "it's",
            "\"q\"",
            "{{x}}",
            "a,b",
            "e\u{301}",
            "\u{e9}",
            "👩\u{200d}🔬",
            &longest,
        ] {
            assert!(is_valid(good), "{good}");
        }
        let too_long = "x".repeat(MAX_CHARS + 1);
        for bad in [
            "",
            ".",
            "..",
            " a",
            "a ",
            "a/b",
            "a:b",
            "a@b",
            "-a",
            "a\nb",
            "a\tb",
            "a\0b",
            "\u{a0}a",
            "a\u{202e}b",
            "a\u{2066}b",
            "\u{feff}a",
            "a\u{85}b",
            "a\u{2028}b",
            &too_long,
        ] {
            assert!(!is_valid(bad), "{bad:?}");
        }
    }

    #[test]
    fn writes_names_elsewhere() {
        for (name, url, shell, label) in [
            ("a-b_c.d~", "a-b_c.d~", "'a-b_c.d~'", "a-b_c.d~"),
            ("My Model", "My%20Model", "'My Model'", "My Model"),
            ("模型", "%E6%A8%A1%E5%9E%8B", "模型", "模型"),
            ("it's", "it%27s", "'it'\\''s'", "it's"),
            ("a\"\\", "a%22%5C", "'a\"\\'", "a\\\"\\\\"),
            ("$(x)", "%24%28x%29", "'$(x)'", "$(x)"),
        ] {
            assert_eq!((&*segment(name), &*argument(name), &*label_value(name)), (url, shell, label));
        }
        assert_eq!(argument(""), "''");
        assert_eq!(decoded("%41%zz%"), "A%zz%");
        assert_eq!(decoded("%ff"), "%ff", "no text");
    }

    proptest! {
        #[test]
        fn a_segment_means_its_text(name in "\\PC{0,40}") {
            let written = segment(&name);
            prop_assert_eq!(decoded(&written), name);
            prop_assert!(written.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%".contains(&b)));
        }
    }
}
