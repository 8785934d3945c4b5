//! Writes JSON as YAML for people: block style, `name` and its like first, a comment wherever one is due.
//!
//! Only what JSON has is written, so that every YAML 1.1 and 1.2 reader reads the same: texts are plain only where no
//! reader takes them for anything else, literal blocks where they have lines, and quoted as JSON otherwise.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Keys that come before their neighbours, in this order.
const FIRST: [&str; 5] = ["apiVersion", "kind", "metadata", "name", "namespace"];
/// A text that begins with this is written without it, and never quoted: the action of a template.
pub(crate) const RAW: &str = "\u{1}raw:";

/// A whole document, without its `---`.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(map, 0, &mut text),
        Value::Array(items) if !items.is_empty() => sequence(items, 0, &mut text),
        other => {
            scalar(other, 0, &mut text);
            text.push('\n');
        }
    }
    text
}

fn mapping(map: &Map<String, Value>, indent: usize, text: &mut String) {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_by_key(|key| (FIRST.iter().position(|f| f == key).unwrap_or(FIRST.len()), key.as_str()));
    for (at, key) in keys.into_iter().enumerate() {
        if at > 0 {
            pad(indent, text);
        }
        plain_or_quoted(key, text);
        text.push(':');
        entry(&map[key], indent, text);
    }
}

fn sequence(items: &[Value], indent: usize, text: &mut String) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            pad(indent, text);
        }
        text.push('-');
        match item {
            Value::Object(map) if !map.is_empty() => {
                text.push(' ');
                mapping(map, indent + 2, text);
            }
            Value::Array(inner) if !inner.is_empty() => {
                text.push(' ');
                sequence(inner, indent + 2, text);
            }
            other => {
                text.push(' ');
                scalar(other, indent + 2, text);
                text.push('\n');
            }
        }
    }
}

fn entry(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            pad(indent + 2, text);
            mapping(map, indent + 2, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            pad(indent, text);
            sequence(items, indent, text);
        }
        other => {
            text.push(' ');
            scalar(other, indent + 2, text);
            text.push('\n');
        }
    }
}

fn pad(indent: usize, text: &mut String) {
    text.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::String(string) => match string.strip_prefix(RAW) {
            Some(raw) => text.push_str(raw),
            None if is_block(string) => block(string, indent, text),
            None => plain_or_quoted(string, text),
        },
        // Numbers, booleans, null, and empty lists and maps are the same in both languages.
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

/// Lines that a literal block gives back exactly.
fn is_block(string: &str) -> bool {
    string.contains('\n')
        && !string.starts_with([' ', '\n', '\t'])
        && !string.ends_with("\n\n")
        && string.chars().all(|c| {
            c == '\n'
                || (!c.is_control()
                    && c != '\u{85}'
                    && c != '\u{2028}'
                    && !matches!(c, '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'))
        })
        && string.lines().all(|line| !line.ends_with(' ') || !line.trim().is_empty())
}

fn block(string: &str, indent: usize, text: &mut String) {
    text.push_str(if string.ends_with('\n') { "|" } else { "|-" });
    for line in string.lines() {
        text.push('\n');
        if !line.is_empty() {
            pad(indent, text);
            text.push_str(line);
        }
    }
}

fn plain_or_quoted(string: &str, text: &mut String) {
    if is_plain(string) {
        text.push_str(string);
    } else {
        // A JSON string is a double-quoted YAML scalar, but for characters that YAML wants escaped.
        let mut quoted = Value::from(string).to_string();
        for (raw, escaped) in [
            ('\u{7f}', "\\u007f"),
            ('\u{85}', "\\u0085"),
            ('\u{2028}', "\\u2028"),
            ('\u{2029}', "\\u2029"),
            ('\u{feff}', "\\ufeff"),
            ('\u{fffe}', "\\ufffe"),
            ('\u{ffff}', "\\uffff"),
        ] {
            if quoted.contains(raw) {
                quoted = quoted.replace(raw, escaped);
            }
        }
        let escaped: String = quoted
            .chars()
            .map(|c| {
                if ('\u{80}'..'\u{a0}').contains(&c) { format!("\\u{:04x}", c as u32) } else { c.to_string() }
            })
            .collect();
        text.push_str(&escaped);
    }
}

/// Whether no reader takes an unquoted text for anything but itself: a letter or a slash first, harmless characters, and
/// no word that some version of YAML reads as a boolean or as nothing.
fn is_plain(string: &str) -> bool {
    const WORDS: [&str; 11] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];
    let mut chars = string.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '/')
        && chars.all(|c| {
            c.is_ascii_alphanumeric()
                || matches!(c, '-' | '_' | '.' | '/' | ':' | '@' | ' ' | ',' | '(' | ')' | '=')
        })
        && !string.contains(": ")
        && !string.ends_with([':', ' '])
        && !WORDS.contains(&string.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_well() {
        let value = json!({
            "spec": {"replicas": 2, "empty": {}, "none": [], "list": [{"b": "x", "name": "n"}, ["p", 1], true]},
            "kind": "A", "apiVersion": "v1",
            "text": "line one\n  two\n\nthree\n", "quoted": ["yes", "1", "", "a: b", "é", "tab\there", "x\r\ny"],
        });
        let expected = "\
apiVersion: v1
kind: A
quoted:
- \"yes\"
- \"1\"
- \"\"
- \"a: b\"
- \"é\"
- \"tab\\there\"
- \"x\\r\\ny\"
spec:
  empty: {}
  list:
  - name: \"n\"
    b: x
  - - p
    - 1
  - true
  none: []
  replicas: 2
text: |
  line one
    two

  three
";
        assert_eq!(to_yaml(&value), expected);
    }

    /// Reads it back with the parser that `import` uses.
    fn back(text: &str) -> Value {
        let analysis = crate::import::analyze(text);
        let syntax: Vec<_> = analysis.findings.iter().filter(|f| matches!(f.code, "yaml" | "tab")).collect();
        assert!(syntax.is_empty(), "{text:?}: {syntax:?}");
        analysis.documents.first().map(|document| document.root.json()).unwrap_or_default()
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC{0,40}", lines in "[a-z\\- \\n:#\\t]{0,40}", any in ".{0,20}") {
            let value = json!({"a": {"b": [text, {"c": lines}]}, "k": any});
            proptest::prop_assert_eq!(back(&to_yaml(&value)), value);
        }

        #[test]
        fn any_key_comes_back(key in "\\PC{1,30}") {
            let value = json!({"x": {key: 1}});
            proptest::prop_assert_eq!(back(&to_yaml(&value)), value);
        }
    }
}
