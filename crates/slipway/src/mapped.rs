//! From any name of a user's to names that file systems and registries take, so that two names never share one.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

/// Longest name, in bytes, that is the name of a file as it is. File systems take 255.
const MAX_FILE: usize = 200;
/// Longest part of a name that stays before its hash, in bytes, in the name of a file.
const MAX_FILE_READABLE: usize = 180;
/// Longest readable part of a repository's name that has a hash.
const MAX_READABLE: usize = 100;
/// Digits of the hash in a repository's name.
const HASH_DIGITS: usize = 16;

/// The name of the file or folder of something that is called so, which has no `/` and is neither `.` nor `..`. One that is
/// too long ends in its hash, and is longer than any that stays.
pub fn file_name(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_FILE {
        return Cow::Borrowed(name);
    }
    let readable = &name[..name.floor_char_boundary(MAX_FILE_READABLE)];
    Cow::Owned(format!("{readable}~{}", hash(name)))
}

/// The part of a repository's name that a project's name becomes. Repositories know lower case and little punctuation:
/// a name that has to change for that gets a hash of what it was.
pub fn repository(name: &str) -> String {
    let mut readable = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            readable.push(c.to_ascii_lowercase());
        } else if !readable.is_empty() && !readable.ends_with('-') {
            readable.push('-');
        }
    }
    let looks_hashed = name.rsplit_once('-').is_some_and(|(_, end)| {
        end.len() == HASH_DIGITS && end.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    if readable == name && !name.ends_with('-') && !looks_hashed {
        return readable;
    }
    readable.truncate(MAX_READABLE);
    let readable = match readable.trim_end_matches('-') {
        "" => "x",
        readable => readable,
    };
    format!("{readable}-{}", &hash(name)[..HASH_DIGITS])
}

fn hash(name: &str) -> String {
    slipway_types::Digest::from_sha256(Sha256::digest(name.as_bytes()).into()).hex().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use slipway_types::{Reference, name};

    use super::*;

    #[test]
    fn what_fits_stays() {
        for unchanged in ["digits", "my-model", "a", "2fast", &"x".repeat(200)] {
            assert_eq!((&*repository(unchanged), &*file_name(unchanged)), (unchanged, unchanged));
        }
        assert_eq!(file_name("My Model-12"), "My Model-12");
        for (name, readable) in [
            ("My_Model", "my-model-"),
            ("My Model", "my-model-"),
            ("模型", "x-"),
            ("模型 v2", "v2-"),
            ("a-", "a-"),
            ("a--b", "a-b-"),
            ("my-model-0123456789abcdef", "my-model-0123456789abcdef-"),
        ] {
            let mapped = repository(name);
            assert_eq!(mapped.strip_prefix(readable).map(str::len), Some(HASH_DIGITS), "{name}: {mapped}");
        }
    }

    /// Names near each other, long ones that differ at their ends, and the results of mapping them, fed back.
    fn alike() -> impl Strategy<Value = Vec<String>> {
        let short = "[a-cA-C0-1 _.\\-é模]{1,6}";
        let long = ("[xX模é]", 150_usize..200, "[a-b _]{1,2}");
        let long = long.prop_map(|(c, count, end)| format!("{}{end}", c.repeat(count)));
        let names = proptest::collection::vec(prop_oneof![short.prop_map(String::from), long], 1..60);
        names.prop_map(|mut names| {
            names.retain(|name| name::is_valid(name));
            let mapped: Vec<String> =
                names.iter().flat_map(|name| [repository(name), file_name(name).into_owned()]).collect();
            names.extend(mapped);
            names
        })
    }

    proptest! {
        #[test]
        fn no_two_names_share_a_repository_or_a_file(names in alike()) {
            let (mut repositories, mut files) = (HashMap::new(), HashMap::new());
            for name in names {
                let repository = repository(&name);
                let image = format!("slipway/{repository}:latest");
                prop_assert!(image.parse::<Reference>().is_ok(), "{} -> {}", name, image);
                let other = repositories.insert(repository, name.clone());
                prop_assert!(other.is_none_or(|other| other == name));
                let file = file_name(&name).into_owned();
                prop_assert!(file.len() <= 255 && !file.contains('/'));
                let other = files.insert(file, name.clone());
                prop_assert!(other.is_none_or(|other| other == name));
            }
        }
    }
}
