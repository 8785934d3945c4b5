//! `secret-in-env` and `secret-in-arg`: names that are given to secrets. Values in ENV and ARG stay in the image.

use super::Findings;
use crate::build::dockerfile::{Arg, KeyValue};

/// Words of a name that make it a secret's.
const SECRET: [&str; 13] = [
    "PASSWORD",
    "PASSWD",
    "PWORD",
    "PASSPHRASE",
    "SECRET",
    "TOKEN",
    "APIKEY",
    "CREDENTIAL",
    "CREDENTIALS",
    "AUTH",
    "ACCESSTOKEN",
    "AUTHTOKEN",
    "SECRETKEY",
];
/// Words before `KEY` that make it a secret's.
const SECRET_KEYS: [&str; 8] = ["API", "ACCESS", "PRIVATE", "SECRET", "SIGNING", "ENCRYPTION", "AUTH", "SSH"];
/// Words that say it is none: something public, a place where the secret is, or a token of a language model.
const HARMLESS: [&str; 22] = [
    "PUBLIC", "FILE", "PATH", "DIR", "URL", "URI", "ENDPOINT", "NAME", "LENGTH", "LEN", "SIZE", "COUNT",
    "MAX", "MIN", "NUM", "PAD", "EOS", "BOS", "UNK", "SEP", "CLS", "MASK",
];

/// Whether a variable's name is one that secrets have.
pub(super) fn is_secret(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(['_', '-', '.']).filter(|word| !word.is_empty()).collect();
    if words.iter().any(|word| HARMLESS.contains(word)) {
        return false;
    }
    words.iter().any(|word| SECRET.contains(word) || word.ends_with("PASSWORD"))
        || words.windows(2).any(|pair| pair[1] == "KEY" && SECRET_KEYS.contains(&pair[0]))
}

/// Judges a pair of ENV.
pub(super) fn env(pair: &KeyValue, value: Option<&str>, findings: &mut Findings<'_>) {
    // An empty value is a place kept for one that comes when the container runs; a number or a word of truth is a
    // setting.
    let setting = value.is_some_and(|value| {
        value.is_empty()
            || value.parse::<f64>().is_ok()
            || matches!(
                value.to_ascii_lowercase().as_str(),
                "true" | "false" | "yes" | "no" | "on" | "off" | "none"
            )
    });
    let name = &pair.key.text;
    if setting || !is_secret(name) {
        return;
    }
    findings.warn(
        "secret-in-env",
        pair.key.span,
        format!("`{name}` looks like a secret: whoever has the image can read it"),
        format!("remove it here and pass it when the container runs: `slipway run -e {name}=…`"),
    );
}

/// Judges an argument of ARG.
pub(super) fn arg(arg: &Arg, findings: &mut Findings<'_>) {
    let name = &arg.name.text;
    if !is_secret(name) {
        return;
    }
    findings.warn(
        "secret-in-arg",
        arg.name.span,
        format!("`{name}` looks like a secret: build arguments stay in the image's history"),
        "give it to the one RUN that needs it as a secret mount, or pass it when the container runs"
            .to_owned(),
    );
}
