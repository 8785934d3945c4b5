//! The rules of Kubernetes on names and values, which its schemas do not tell.

mod object;
mod pod;

pub use object::check_object;

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct Invalid {
    /// The text, shortened.
    pub text: String,
    /// What was expected.
    pub expected: &'static str,
}

/// Longest label, label value, and name of a Service.
pub const MAX_LABEL: usize = 63;
/// Longest subdomain, which most objects may be named by.
const MAX_SUBDOMAIN: usize = 253;
/// Most bytes of all annotations of one object, keys and values.
const MAX_ANNOTATIONS: usize = 256 << 10;
/// Most bytes in the values of a ConfigMap or Secret.
pub const MAX_CONFIG: usize = 1 << 20;

fn check(valid: bool, text: &str, expected: &'static str) -> Result<(), Invalid> {
    if valid { Ok(()) } else { Err(Invalid { text: text.chars().take(100).collect(), expected }) }
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=MAX_LABEL).contains(&bytes.len())
        && bytes.iter().all(|b| lower_alnum(*b) || *b == b'-')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

/// DNS-1123 label: containers, namespaces, volumes.
pub fn dns_1123_label(text: &str) -> Result<(), Invalid> {
    let expected =
        "a name of 1 to 63 lower-case letters, digits and `-`, with a letter or digit at both ends";
    check(is_label(text), text, expected)
}

/// DNS-1035 label: Services, and all that we name.
pub fn dns_1035_label(text: &str) -> Result<(), Invalid> {
    let expected = "a name of 1 to 63 lower-case letters, digits and `-`, beginning with a letter";
    check(is_label(text) && text.as_bytes()[0].is_ascii_lowercase(), text, expected)
}

/// DNS-1123 subdomain: most objects, and hosts.
pub fn dns_1123_subdomain(text: &str) -> Result<(), Invalid> {
    let parts = |part: &str| {
        let bytes = part.as_bytes();
        !bytes.is_empty()
            && bytes.iter().all(|b| lower_alnum(*b) || *b == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    let expected = "a name of at most 253 lower-case letters, digits, `-` and `.`";
    check(text.len() <= MAX_SUBDOMAIN && text.split('.').all(parts), text, expected)
}

/// A host of a route: a subdomain, whose first part may be `*`.
pub fn hostname(text: &str) -> Result<(), Invalid> {
    dns_1123_subdomain(text.strip_prefix("*.").unwrap_or(text))
}

fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=MAX_LABEL).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
}

/// Key of a label or an annotation: `name` or `prefix/name`.
pub fn label_key(text: &str) -> Result<(), Invalid> {
    let valid = match text.split_once('/') {
        None => is_qualified(text),
        Some((prefix, name)) => dns_1123_subdomain(prefix).is_ok() && is_qualified(name),
    };
    check(valid, text, "a key such as `example.com/name`")
}

/// Value of a label.
pub fn label_value(text: &str) -> Result<(), Invalid> {
    let expected =
        "a label value: at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends";
    check(text.is_empty() || is_qualified(text), text, expected)
}

/// Name of a port: at most 15 characters, at least one letter, no two dashes in a row.
pub fn port_name(text: &str) -> Result<(), Invalid> {
    let valid = text.len() <= 15
        && is_label(text)
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.contains("--");
    check(valid, text, "a port name: 1 to 15 lower-case letters, digits and single `-`, at least one letter")
}

/// Name of an environment variable, as every version accepts it.
pub fn env_name(text: &str) -> Result<(), Invalid> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let bytes = text.as_bytes();
    let valid = !bytes.is_empty()
        && bytes.len() <= 1024
        && bytes.iter().all(|b| fine(*b))
        && !bytes[0].is_ascii_digit()
        && text != "."
        && !text.starts_with("..");
    check(valid, text, "a name of an environment variable: letters, digits, `_`, `-` and `.`, no digit first")
}

/// Key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Result<(), Invalid> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let valid = (1..=MAX_SUBDOMAIN).contains(&text.len())
        && text.bytes().all(fine)
        && text != "."
        && !text.starts_with("..");
    check(valid, text, "a key of letters, digits, `-`, `_` and `.`")
}

/// A quantity: `500m`, `1.5`, `2Gi`, `1e3`.
pub fn quantity(text: &str) -> Result<(), Invalid> {
    const SUFFIXES: [&str; 15] =
        ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let number_ok = number.bytes().any(|b| b.is_ascii_digit()) && number.matches('.').count() <= 1;
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|e| {
        let digits = e.strip_prefix(['+', '-']).unwrap_or(e);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    let valid = number_ok && (SUFFIXES.contains(&suffix) || suffix == "Ei" || exponent);
    check(valid, text, "a quantity such as `500m`, `2` or `1.5Gi`")
}

/// Whether all annotations of one object fit.
pub fn annotations_fit<'a>(annotations: impl IntoIterator<Item = (&'a str, &'a str)>) -> bool {
    annotations.into_iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() <= MAX_ANNOTATIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rule = fn(&str) -> Result<(), Invalid>;

    #[test]
    fn accepts_and_refuses() {
        let long = "a".repeat(64);
        let cases: [(&str, Rule, &[&str], &[&str]); 9] = [
            ("1123 label", dns_1123_label, &["a", "1a", "a-b"], &["", "A", "a_b", "-a", "a-", "a.b", &long]),
            ("1035 label", dns_1035_label, &["a", "a1"], &["1a", "", "my_model", &long]),
            ("subdomain", dns_1123_subdomain, &["a.b-c.1", &long], &["a..b", ".a", "a_b", ""]),
            ("label key", label_key, &["a", "a.b/C_d"], &["", "/a", "a/", "A/b", "a/b/c"]),
            ("label value", label_value, &["", "A_b.c", "1"], &["-a", "a ", "é", &long]),
            ("port", port_name, &["http", "a-1"], &["80", "a--b", "", "abcdefghijklmnop", "A"]),
            ("env", env_name, &["A", "_a", "a.b-c"], &["", "1A", "A B", "A=", "..", "é"]),
            ("config key", config_key, &["runner.json", "A_b", ".x"], &["", ".", "..x", "a/b"]),
            (
                "quantity",
                quantity,
                &["0", "500m", "1.5", ".5", "2Gi", "1e3", "1E-2", "5E", "1Ei", "100M"],
                &["", "m", "1 Gi", "1gb", "1.2.3", "0x1", "1e", ".", "2GiB"],
            ),
        ];
        for (what, rule, good, bad) in cases {
            good.iter().for_each(|text| assert!(rule(text).is_ok(), "{what}: {text}"));
            bad.iter().for_each(|text| assert!(rule(text).is_err(), "{what}: {text:?}"));
        }
        assert!(hostname("*.example.com").is_ok() && hostname("a.*.com").is_err() && hostname("*").is_err());
    }

    #[test]
    fn annotations_have_a_total() {
        let big = "x".repeat(MAX_ANNOTATIONS - 1);
        assert!(annotations_fit([("k", big.as_str())]));
        assert!(!annotations_fit([("k", big.as_str()), ("l", "")]));
    }
}
