//! From any name of a user's to a name that Kubernetes accepts, so that two names never share an object.

use sha2::{Digest as _, Sha256};

use crate::validate::dns_1035_label;

/// Annotation that keeps the name as the user wrote it.
pub const NAME_ANNOTATION: &str = "slipway.dev/name";
/// Longest readable part of a mapped name, and longest name that stays as it is. With a dash and eight digits it leaves
/// 14 of a label's 63 characters for suffixes such as `-public`, a content hash, or an attempt and the index of a pod
/// (`-a12-9999`).
const MAX_READABLE: usize = 40;
/// Longest name that is mapped, in bytes.
const MAX_ORIGINAL: usize = 1024;
const HASH_DIGITS: usize = 8;

/// Why a name cannot be mapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing to map.
    #[error("a name must not be empty")]
    Empty,
    /// It is too long to be kept in an annotation that people read.
    #[error("a name of {0} bytes is too long: expected at most {MAX_ORIGINAL}")]
    TooLong(usize),
    /// The suffix leaves no valid name.
    #[error("`{name}` with `{suffix}` is no valid name of at most 63 characters")]
    Suffix {
        /// The mapped name.
        name: String,
        /// What was to follow it.
        suffix: String,
    },
}

/// The name of the objects of something called `original`: a DNS-1035 label of at most 49 characters.
///
/// A valid name of at most 40 characters stays, unless it ends as a mapped one does. Every other becomes
/// its readable characters, a dash, and eight digits of its SHA-256. A name that stayed therefore never equals one that
/// was mapped. Two that were mapped are alike only if their readable parts and 32 bits of hash are: whoever applies
/// objects compares [`NAME_ANNOTATION`] as well, and refuses.
///
/// ```
/// use slipway_kubernetes::names::map;
/// assert_eq!(map("digits").unwrap(), "digits");
/// assert_eq!(map("my_model").unwrap(), "my-model-535d4cfe");
/// assert_ne!(map("my.model").unwrap(), map("my_model").unwrap());
/// ```
pub fn map(original: &str) -> Result<String, NameError> {
    if original.is_empty() {
        return Err(NameError::Empty);
    }
    if original.len() > MAX_ORIGINAL {
        return Err(NameError::TooLong(original.len()));
    }
    if original.len() <= MAX_READABLE && dns_1035_label(original).is_ok() && !looks_mapped(original) {
        return Ok(original.to_owned());
    }
    Ok(format!("{}-{}", readable(original), short_hash(original.as_bytes())))
}

/// A mapped name with a suffix that we add ourselves, such as `-public`; a DNS-1035 label.
pub fn with_suffix(name: &str, suffix: &str) -> Result<String, NameError> {
    let whole = format!("{name}{suffix}");
    match dns_1035_label(&whole) {
        Ok(()) => Ok(whole),
        Err(_) => Err(NameError::Suffix { name: name.to_owned(), suffix: suffix.to_owned() }),
    }
}

/// The name of an object of ours beside the one called [`map`]`(original)`: readable, a role, eight digits. `owner` is the
/// kind of thing that it belongs to, since a service and a run may have one name, and `content` what the object holds,
/// where a change of it shall make another. No mapped name and no other owner's, role's or content's equals it.
///
/// ```
/// use slipway_kubernetes::names::derived;
/// let pods = derived("serving", "digits", "pods", b"").unwrap();
/// assert!(pods.starts_with("digits-pods-"));
/// assert_ne!(pods, derived("training", "digits", "pods", b"").unwrap());
/// ```
pub fn derived(owner: &str, original: &str, role: &str, content: &[u8]) -> Result<String, NameError> {
    let name = map(original)?;
    let end = name.len().min(MAX_READABLE);
    let readable = name[..end].trim_end_matches('-');
    let mut hashed = format!("{owner}\0{original}\0{role}\0").into_bytes();
    hashed.extend_from_slice(content);
    with_suffix(readable, &format!("-{role}-{}", short_hash(&hashed)))
}

/// The name of the objects of something called `original` that belongs to one daemon, `owner`, where another's may be called
/// the same: as [`map`] gives it, with eight digits of a hash of both in any case.
///
/// ```
/// use slipway_kubernetes::names::owned;
/// let name = owned("0a1b2c3d", "digits-7").unwrap();
/// assert!(name.starts_with("digits-7-") && name.len() == 17);
/// assert_ne!(name, owned("4e5f6071", "digits-7").unwrap());
/// ```
pub fn owned(owner: &str, original: &str) -> Result<String, NameError> {
    // Refuses what cannot be mapped.
    map(original)?;
    let hash = short_hash(format!("{owner}\0{original}").as_bytes());
    Ok(format!("{}-{hash}", readable(original)))
}

/// The first eight hexadecimal digits of a SHA-256.
pub fn short_hash(bytes: &[u8]) -> String {
    let mut text = hash(bytes);
    text.truncate(HASH_DIGITS);
    text
}

/// All hexadecimal digits of a SHA-256.
pub(crate) fn hash(bytes: &[u8]) -> String {
    slipway_types::Digest::from_sha256(digest(bytes)).hex().to_owned()
}

/// A SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn looks_mapped(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, end)| {
        end.len() == HASH_DIGITS && end.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Lower-case letters, digits and single dashes, beginning with a letter; `x` where nothing is readable.
fn readable(original: &str) -> String {
    let mut slug = String::with_capacity(MAX_READABLE);
    for c in original.chars() {
        let c = c.to_ascii_lowercase();
        if slug.len() == MAX_READABLE {
            break;
        }
        match c {
            'a'..='z' => slug.push(c),
            '0'..='9' => {
                if slug.is_empty() {
                    slug.push_str("x-");
                }
                slug.push(c);
            }
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    if slug.is_empty() { "x".to_owned() } else { slug }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const MAX_MAPPED: usize = MAX_READABLE + 1 + HASH_DIGITS;

    #[test]
    fn valid_names_stay() {
        for name in ["a", "digits", "my-model", "x2", &"a".repeat(40)] {
            assert_eq!(map(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn others_keep_what_is_readable() {
        for (name, readable) in [
            ("my_model", "my-model-"),
            ("My Model", "my-model-"),
            ("My-Model", "my-model-"),
            ("2fast", "x-2fast-"),
            ("模型", "x-"),
            ("模型 v2", "v2-"),
            ("--", "x-"),
            (&"a".repeat(41), &format!("{}-", "a".repeat(40))),
            (&"é".repeat(200), "x-"),
        ] {
            let mapped = map(name).unwrap();
            let end = mapped.strip_prefix(readable).unwrap_or_else(|| panic!("{name}: {mapped}"));
            assert_eq!(end.len(), 8, "{name}: {mapped}");
        }
        assert_eq!(map(""), Err(NameError::Empty));
        assert_eq!(map(&"a".repeat(2000)), Err(NameError::TooLong(2000)));
    }

    #[test]
    fn a_name_that_looks_mapped_is_mapped() {
        let mapped = map("my_model").unwrap();
        let again = map(&mapped).unwrap();
        assert_ne!(mapped, again);
        assert!(again.starts_with(&format!("{mapped}-")));
    }

    #[test]
    fn owners_names_are_apart() {
        let long = "Z".repeat(300);
        let mut seen = std::collections::HashSet::new();
        for name in ["digits-7", "digits_7", "Digits 7", "模型-7", &long] {
            assert!(seen.insert(map(name).unwrap()), "{name}");
            for owner in ["0a1b2c3d", "4e5f6071"] {
                let owned = owned(owner, name).unwrap();
                assert!(dns_1035_label(&owned).is_ok() && owned.len() <= MAX_MAPPED, "{owned}");
                assert!(seen.insert(owned), "{owner} {name}");
            }
        }
        assert_eq!(owned("a", ""), Err(NameError::Empty));
    }

    #[test]
    fn suffixes_fit() {
        let longest = map(&"Z".repeat(300)).unwrap();
        assert_eq!(longest.len(), MAX_MAPPED);
        assert_eq!(with_suffix(&longest, "-a9999-99999").unwrap().len(), 61);
        assert!(with_suffix(&longest, &"-x".repeat(10)).is_err());
        assert!(with_suffix("a", "-").is_err());
    }

    proptest! {
        #[test]
        fn always_a_label(name in "\\PC{1,120}") {
            let mapped = map(&name).unwrap();
            prop_assert!(dns_1035_label(&mapped).is_ok(), "{name:?} -> {mapped}");
            prop_assert!(mapped.len() <= MAX_MAPPED);
            prop_assert_eq!(map(&name).unwrap(), mapped);
        }

        /// Names near each other, and the results of mapping them, fed back.
        #[test]
        fn never_the_same_twice(names in proptest::collection::hash_set("[a-cA-C0-1 _.\\-é模]{1,6}", 1..60)) {
            let mut seen: HashMap<String, String> = HashMap::new();
            let fed_back: Vec<String> = names.iter().map(|n| map(n).unwrap()).collect();
            for name in names.into_iter().chain(fed_back) {
                if let Some(other) = seen.insert(map(&name).unwrap(), name.clone()) {
                    prop_assert_eq!(other, name);
                }
            }
        }

        #[test]
        fn never_the_same_for_any_unicode(names in proptest::collection::hash_set(".{1,12}", 2..40)) {
            let mapped: std::collections::HashSet<String> = names.iter().map(|n| map(n).unwrap()).collect();
            prop_assert_eq!(mapped.len(), names.len());
        }
    }
}
