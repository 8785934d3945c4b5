//! Paths of archive entries, taken apart and checked before anything is done with them.

use super::error::Refusal;
use super::{MAX_DEPTH, MAX_NAME, MAX_PATH};

/// A checked relative path without `.`, `..` or empty parts. Empty means the root of the layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Checks the path of an entry; absolute ones are refused.
    pub(super) fn of_entry(raw: &[u8]) -> Result<Self, Refusal> {
        if raw.first() == Some(&b'/') {
            return Err(Refusal::Absolute);
        }
        Self::clean(raw)
    }

    /// Checks the target of a hard link. Some writers (kaniko) give it as seen in the container, with a leading `/`;
    /// it means the root of the layer.
    pub(super) fn of_link_target(raw: &[u8]) -> Result<Self, Refusal> {
        Self::clean(raw)
    }

    fn clean(raw: &[u8]) -> Result<Self, Refusal> {
        if raw.is_empty() {
            return Err(Refusal::NoName);
        }
        if raw.contains(&0) {
            return Err(Refusal::Nul);
        }
        let mut path = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for part in raw.split(|b| *b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(Refusal::ParentDir),
                _ if part.len() > MAX_NAME => return Err(Refusal::PathTooLong),
                _ => {}
            }
            depth += 1;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        if path.len() > MAX_PATH || depth > MAX_DEPTH {
            return Err(Refusal::PathTooLong);
        }
        Ok(Self(path))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory's path (empty for the root) and the last name. The root itself has no name.
    pub(super) fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (b"", &self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_or_refused() {
        let long = vec![b'a'; 256];
        let deep = b"a/".repeat(256);
        type Row<'a> = (&'a [u8], Result<&'a [u8], Refusal>);
        let table: &[Row<'_>] = &[
            (b"a", Ok(b"a")),
            (b"./a//b/./c/", Ok(b"a/b/c")),
            (b"./", Ok(b"")),
            (b"a\xff", Ok(b"a\xff")),
            (b"...", Ok(b"...")),
            (b"", Err(Refusal::NoName)),
            (b"/etc/passwd", Err(Refusal::Absolute)),
            (b"..", Err(Refusal::ParentDir)),
            (b"a/../b", Err(Refusal::ParentDir)),
            (b"a/..", Err(Refusal::ParentDir)),
            (b"a\0b", Err(Refusal::Nul)),
            (&long, Err(Refusal::PathTooLong)),
            (&deep, Err(Refusal::PathTooLong)),
        ];
        for (raw, expected) in table {
            let got = EntryPath::of_entry(raw);
            assert_eq!(got.as_ref().map(EntryPath::as_bytes).map_err(|e| *e), *expected, "{raw:?}");
        }
        assert_eq!(EntryPath::of_link_target(b"/bin/x").unwrap().as_bytes(), b"bin/x");
        assert_eq!(EntryPath::of_link_target(b"/../x"), Err(Refusal::ParentDir));
        assert_eq!(EntryPath::of_entry(b"a/b/c").unwrap().split(), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(EntryPath::of_entry(b"c").unwrap().split(), (&b""[..], &b"c"[..]));
    }
}
