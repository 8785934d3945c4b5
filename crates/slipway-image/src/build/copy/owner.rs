//! `--chown`: names and numbers to ids.

use std::io;
use std::path::Path;

use crate::build::root::{Owner, Root};

/// Largest `/etc/passwd` or `/etc/group` that is read.
const MAX_NAMES: u64 = 8 << 20;

/// Why an owner cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The file has no such name.
    #[error("`{name}` is not in {file} of the image")]
    Unknown {
        /// User or group name.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// Nothing before or after the colon, or a number that is no id.
    #[error("`{0}` is not an owner: expected `user`, `user:group` or numbers")]
    Malformed(String),
    /// The file could not be read.
    #[error("cannot read {file} of the image")]
    Io {
        /// Which.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// `/etc/passwd` and `/etc/group` of a stage, read when a name asks for them.
pub(crate) struct UserNames<'a>(pub(crate) &'a Root);

impl UserNames<'_> {
    /// The fields of the first line whose first field is `name`.
    fn line(&self, file: &'static str, name: &str) -> Result<Vec<String>, OwnerError> {
        let bytes = self
            .0
            .read(Path::new(file), MAX_NAMES)
            .map_err(|source| OwnerError::Io { file, source })?
            .unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>())
            .find(|fields| fields[0] == name)
            .ok_or_else(|| OwnerError::Unknown { name: name.to_owned(), file })
    }

    fn id(&self, file: &'static str, name: &str, field: usize) -> Result<u32, OwnerError> {
        let fields = self.line(file, name)?;
        fields
            .get(field)
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| OwnerError::Unknown { name: name.to_owned(), file })
    }
}

/// Reads `user[:group]`. Without a group, a named user brings its own and a number is used for both.
pub(crate) fn resolve_owner(text: &str, names: &UserNames<'_>) -> Result<Owner, OwnerError> {
    const PASSWD: &str = "/etc/passwd";
    let malformed = || OwnerError::Malformed(text.to_owned());
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user.is_empty() && group.is_none_or(str::is_empty) {
        return Err(malformed());
    }
    let number = |id: &str| -> Result<Option<u32>, OwnerError> {
        if !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) {
            // The highest value means "unchanged" to the kernel.
            id.parse().ok().filter(|&id| id != u32::MAX).map(Some).ok_or_else(malformed)
        } else {
            Ok(None)
        }
    };
    let (uid, own_group) = match number(user)? {
        Some(id) => (id, Some(id)),
        None if user.is_empty() => (0, None),
        None => (names.id(PASSWD, user, 2)?, None),
    };
    let gid = match group.filter(|group| !group.is_empty()) {
        Some(group) => match number(group)? {
            Some(id) => id,
            None => names.id("/etc/group", group, 2)?,
        },
        None => match own_group {
            Some(id) => id,
            None => names.id(PASSWD, user, 3)?,
        },
    };
    Ok(Owner { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_by_name_and_number() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nstaff:x:50:app\n").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let names = UserNames(&root);
        for (text, uid, gid) in [
            ("app", 1000, 1001),
            ("app:staff", 1000, 50),
            ("7", 7, 7),
            ("7:8", 7, 8),
            ("app:9", 1000, 9),
            (":staff", 0, 50),
            ("app:", 1000, 1001),
        ] {
            assert_eq!(resolve_owner(text, &names).unwrap(), Owner { uid, gid }, "{text}");
        }
        for bad in ["", ":", "nobody", "app:nobody", "99999999999", "4294967295"] {
            assert!(resolve_owner(bad, &names).is_err(), "{bad}");
        }
    }
}
