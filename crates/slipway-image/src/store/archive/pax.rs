//! Extended headers (POSIX.1-2017, `pax`, "Extended Header"): `LENGTH KEYWORD=VALUE\n`, LENGTH counting itself.

use super::{Xattrs, carries_xattr};

/// What one extended header says about the entry after it. `None`: nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Xattrs,
    /// It describes a sparse file, in one of the forms of GNU tar.
    pub(super) sparse: bool,
}

/// Seconds since the epoch and nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Pax {
    /// Reads the records of an extended header; says what is wrong where it cannot.
    pub(super) fn parse(mut data: &[u8]) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        while !data.is_empty() {
            let (key, value, rest) = record(data)?;
            pax.apply(key, value)?;
            data = rest;
        }
        Ok(pax)
    }

    /// Whether it sets what names or measures an entry. A global header that does would change every later entry.
    pub(super) fn shapes_entries(&self) -> bool {
        self.path.is_some() || self.link_path.is_some() || self.size.is_some() || self.sparse
    }

    // An empty value takes an earlier one back; the last of several records wins.
    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let number = || match value {
            b"" => Ok(None),
            _ => decimal(value).map(Some).ok_or("a number in an extended header is malformed"),
        };
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link_path = text(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => {
                self.mtime = match value {
                    b"" => None,
                    _ => Some(time(value).ok_or("a time in an extended header is malformed")?),
                }
            }
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR)
                    && carries_xattr(name)
                {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Appends one record.
pub(super) fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3; // space, `=`, newline
    let mut length = body + digits(body);
    if digits(length) != digits(body) {
        length = body + digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(n: usize) -> usize {
    n.to_string().len()
}

/// Keyword, value, and what follows the record.
type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn record(data: &[u8]) -> Result<Record<'_>, &'static str> {
    const BAD: &str = "an extended header record is malformed";
    let space = data.iter().take(20).position(|b| *b == b' ').ok_or(BAD)?;
    let length = decimal(&data[..space]).and_then(|n| usize::try_from(n).ok()).ok_or(BAD)?;
    if length > data.len() || length < space + 4 || data[length - 1] != b'\n' {
        return Err(BAD);
    }
    let body = &data[space + 1..length - 1];
    let equals = body.iter().position(|b| *b == b'=').ok_or(BAD)?;
    if equals == 0 {
        return Err(BAD);
    }
    Ok((&body[..equals], &body[equals + 1..], &data[length..]))
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`; digits after the ninth are dropped.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let whole = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = (0..9).fold(0, |n, i| n * 10 + u32::from(fraction.get(i).map_or(0, |b| b - b'0')));
    Some(match (negative, nanos) {
        (false, _) => Time { seconds: whole, nanos },
        (true, 0) => Time { seconds: -whole, nanos: 0 },
        (true, _) => Time { seconds: -whole - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_read() {
        let pax = Pax::parse(
            b"12 path=a b\n16 size=1234567\n22 mtime=1700000000.5\n34 SCHILY.xattr.user.k=\0\n=\xff end x\n",
        )
        .unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a b"[..]));
        assert_eq!(pax.size, Some(1_234_567));
        assert_eq!(pax.mtime, Some(Time { seconds: 1_700_000_000, nanos: 500_000_000 }));
        assert_eq!(pax.xattrs, vec![(b"user.k".to_vec(), b"\0\n=\xff end x".to_vec())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"11 path=abc"[..],
            b"5 path=a\n",
            b"99 path=a\n",
            b"x path=a\n",
            b"9 path\n\n\n\n",
            b"-1 path=a\n",
            b"9 =abcde\n",
            b"12 size=-12\n",
            b"12 size=1x2\n",
            b"14 mtime=1.x2\n",
            b"99999999999999999999 path=a\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn foreign_attributes_are_dropped_and_empty_values_take_back() {
        let mut data = Vec::new();
        push_record(&mut data, b"SCHILY.xattr.trusted.overlay.redirect", b"/etc");
        push_record(&mut data, b"SCHILY.xattr.security.selinux", b"x");
        push_record(&mut data, b"path", b"first");
        push_record(&mut data, b"path", b"");
        let pax = Pax::parse(&data).unwrap();
        assert_eq!(pax, Pax::default());
    }

    #[test]
    fn times() {
        assert_eq!(time(b"-1.25"), Some(Time { seconds: -2, nanos: 750_000_000 }));
        assert_eq!(time(b"-3"), Some(Time { seconds: -3, nanos: 0 }));
        assert_eq!(time(b"7.1234567899"), Some(Time { seconds: 7, nanos: 123_456_789 }));
        assert_eq!(time(b"99999999999999999999"), None);
        assert_eq!(time(b""), None);
    }

    proptest! {
        #[test]
        fn written_records_are_read_back(value in prop::collection::vec(any::<u8>(), 1..2000)) {
            let mut data = Vec::new();
            push_record(&mut data, b"path", &value);
            push_record(&mut data, b"SCHILY.xattr.user.x", &value);
            let pax = Pax::parse(&data).unwrap();
            prop_assert_eq!(pax.path.as_deref(), Some(&value[..]));
            prop_assert_eq!(&pax.xattrs[0].1, &value);
        }

        #[test]
        fn noise_never_panics(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Pax::parse(&data);
        }
    }
}
