//! Environment that nobody shall read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Environment variables whose values are secret. Its `Debug` shows their names alone.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(pub BTreeMap<String, String>);

impl Secrets {
    /// Most bytes of all values together: a Secret of Kubernetes holds no more.
    pub const MAX: usize = 1 << 20;

    /// What of them cannot be.
    pub fn fault(&self) -> Option<String> {
        let bad = self.0.keys().find(|name| !valid_name(name));
        if let Some(name) = bad {
            return Some(format!("`{name}` is no name of an environment variable"));
        }
        if let Some((name, _)) = self.0.iter().find(|(_, value)| value.contains('\0')) {
            return Some(format!("the value of `{name}` holds a NUL"));
        }
        let bytes: usize = self.0.values().map(String::len).sum();
        (bytes > Self::MAX).then(|| format!("they have more than {} bytes together", Self::MAX))
    }
}

/// Whether every engine can set a variable of this name, and a Secret can have it as a key.
fn valid_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(plain) && !name.as_bytes()[0].is_ascii_digit()
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Secrets {
        Secrets([(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn values_are_not_shown() {
        let text = format!("{:?}", one("HF_TOKEN", "hf_s3cret"));
        assert!(text.contains("HF_TOKEN") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn what_no_engine_can_set_is_refused() {
        assert_eq!(one("HF_TOKEN", "x").fault(), None);
        for (name, value) in [("", "x"), ("1A", "x"), ("A-B", "x"), ("A=B", "x"), ("A", "a\0b")] {
            assert!(one(name, value).fault().is_some(), "{name}");
        }
        assert!(one("A", &"x".repeat(Secrets::MAX + 1)).fault().is_some());
    }
}
