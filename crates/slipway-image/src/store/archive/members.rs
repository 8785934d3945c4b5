//! The entries of a tar stream, read one after the other.

use std::io::{self, BufRead, BufReader, Read};

use sha2::{Digest as _, Sha256};
use slipway_types::Digest;
use tar::{EntryType, Header};

use super::entry_path::EntryPath;
use super::error::{ArchiveError, Refusal};
use super::pax::{Pax, Time};
use super::{MAX_PATH, UnpackLimits, Xattrs};

const BLOCK: usize = 512;
/// Bytes of one extended header or long name. Go's reader has the same limit.
const MAX_EXTENSION: u64 = 1 << 20;
const BUFFER: usize = 256 * 1024;

/// One entry, checked. A file's data follows in the stream.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) path: EntryPath,
    pub(super) kind: MemberKind,
    /// Permission bits, set-id bits and the sticky bit.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) xattrs: Xattrs,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum MemberKind {
    File { size: u64 },
    Directory,
    Symlink { target: Vec<u8> },
    HardLink { target: EntryPath },
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

/// Reads entries, hashing every byte of the stream.
pub(super) struct Members<R: Read> {
    input: BufReader<Hashing<R>>,
    limits: UnpackLimits,
    count: u64,
    /// Data of the current entry that was not read yet, and the padding after it.
    data_left: u64,
    padding_left: u64,
}

struct Hashing<R> {
    inner: R,
    sha: Sha256,
    count: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.sha.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

impl<R: Read> Members<R> {
    pub(super) fn new(reader: R, limits: &UnpackLimits) -> Self {
        let hashing = Hashing { inner: reader, sha: Sha256::new(), count: 0 };
        Self {
            input: BufReader::with_capacity(BUFFER, hashing),
            limits: limits.clone(),
            count: 0,
            data_left: 0,
            padding_left: 0,
        }
    }

    /// The next entry; `None` at the end of the archive. What was not read of the last one is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Member>, ArchiveError> {
        self.skip_data()?;
        let mut pax: Option<Pax> = None;
        let mut long_name: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        loop {
            let offset = self.offset();
            let bad = |reason| ArchiveError::BadHeader { offset, reason };
            let Some(header) = self.header()? else {
                if pax.is_some() || long_name.is_some() || long_link.is_some() {
                    return Err(bad("an extended header has no entry after it"));
                }
                return Ok(None);
            };
            self.count += 1;
            if self.count > self.limits.max_entries {
                return Err(ArchiveError::TooManyEntries { limit: self.limits.max_entries });
            }
            let size = unsigned(&header.as_old().size).ok_or_else(|| bad("its size is malformed"))?;
            match header.as_old().linkflag[0] {
                b'x' => {
                    let data = self.extension(size, offset)?;
                    let parsed = Pax::parse(&data).map_err(bad)?;
                    if pax.replace(parsed).is_some() {
                        return Err(bad("two extended headers for one entry"));
                    }
                }
                b'g' => {
                    let data = self.extension(size, offset)?;
                    // Archives of `git archive` carry a comment so. Anything that would name or measure later entries is
                    // read differently by different programs.
                    if Pax::parse(&data).map_err(bad)?.shapes_entries() {
                        return Err(bad("a global header changes the names or sizes of entries"));
                    }
                }
                b'L' => {
                    let name = self.long_text(size, offset)?;
                    if long_name.replace(name).is_some() {
                        return Err(bad("two long names for one entry"));
                    }
                }
                b'K' => {
                    let name = self.long_text(size, offset)?;
                    if long_link.replace(name).is_some() {
                        return Err(bad("two long link names for one entry"));
                    }
                }
                // A volume label of GNU tar: no file.
                b'V' => self.set_data(size),
                _ => {
                    let member =
                        self.member(&header, size, offset, pax.unwrap_or_default(), long_name, long_link)?;
                    return Ok(Some(member));
                }
            }
        }
    }

    /// The next bytes of the current file, at most what the buffer holds. Empty: all was read.
    pub(super) fn data(&mut self) -> Result<&[u8], ArchiveError> {
        if self.data_left == 0 {
            return Ok(&[]);
        }
        let left = usize::try_from(self.data_left).unwrap_or(usize::MAX);
        let chunk = self.fill()?;
        if chunk.is_empty() {
            return Err(ArchiveError::Truncated);
        }
        Ok(&chunk[..chunk.len().min(left)])
    }

    /// Marks bytes of [`Self::data`] as used.
    pub(super) fn consume(&mut self, n: usize) {
        self.input.consume(n);
        self.data_left -= n as u64;
    }

    /// Reads the stream to its end. Its digest, length, and how many headers it had.
    pub(super) fn finish(mut self) -> Result<(Digest, u64), ArchiveError> {
        loop {
            let n = self.fill()?.len();
            if n == 0 {
                break;
            }
            self.input.consume(n);
        }
        let hashing = self.input.into_inner();
        Ok((Digest::from_sha256(hashing.sha.finalize().into()), hashing.count))
    }

    fn member(
        &mut self,
        header: &Header,
        ustar_size: u64,
        offset: u64,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Member, ArchiveError> {
        let bad = |reason| ArchiveError::BadHeader { offset, reason };
        let raw_path = pax.path.or(long_name).unwrap_or_else(|| header.path_bytes().into_owned());
        let refused = |reason| ArchiveError::refused(&raw_path, reason);
        let raw_target =
            pax.link_path.or(long_link).or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
        // The extended header's size is the entry's size, whatever the ustar field says: programs that follow the
        // other one find entries inside the data of files.
        let size = pax.size.unwrap_or(ustar_size);
        let type_byte = header.as_old().linkflag[0];
        if pax.sparse || type_byte == b'S' {
            return Err(refused(Refusal::Sparse));
        }
        let path = EntryPath::of_entry(&raw_path).map_err(refused)?;
        let old = header.as_old();
        let device = || {
            let field = |field: Option<&[u8; 8]>| {
                field
                    .and_then(|f| unsigned(f))
                    .and_then(|n| u32::try_from(n).ok())
                    .ok_or(Refusal::BadAttribute)
            };
            let (ustar, gnu) = (header.as_ustar(), header.as_gnu());
            let major = field(ustar.map(|h| &h.dev_major).or(gnu.map(|h| &h.dev_major)))?;
            let minor = field(ustar.map(|h| &h.dev_minor).or(gnu.map(|h| &h.dev_minor)))?;
            if major > 0xfff || minor > 0xf_ffff {
                return Err(Refusal::BadAttribute); // what a device number of the kernel holds
            }
            Ok((major, minor))
        };
        let target = || match &raw_target {
            Some(target) if target.len() > MAX_PATH => Err(Refusal::PathTooLong),
            Some(target) if target.contains(&0) => Err(Refusal::Nul),
            Some(target) if !target.is_empty() => Ok(target.clone()),
            _ => Err(Refusal::BadLinkTarget),
        };
        let kind = match EntryType::new(type_byte) {
            // Archives older than POSIX mark directories only by the slash.
            EntryType::Regular if raw_path.ends_with(b"/") => MemberKind::Directory,
            EntryType::Regular | EntryType::Continuous => MemberKind::File { size },
            EntryType::Directory => MemberKind::Directory,
            EntryType::Symlink => MemberKind::Symlink { target: target().map_err(refused)? },
            EntryType::Link => {
                let target = target().and_then(|t| EntryPath::of_link_target(&t)).map_err(refused)?;
                if target.is_root() {
                    return Err(refused(Refusal::BadLinkTarget));
                }
                MemberKind::HardLink { target }
            }
            EntryType::Char => {
                let (major, minor) = device().map_err(refused)?;
                MemberKind::Char { major, minor }
            }
            EntryType::Block => {
                let (major, minor) = device().map_err(refused)?;
                MemberKind::Block { major, minor }
            }
            EntryType::Fifo => MemberKind::Fifo,
            _ => return Err(refused(Refusal::UnknownType)),
        };
        match kind {
            MemberKind::File { size } => self.set_data(size),
            _ if size != 0 => return Err(refused(Refusal::UnexpectedData)),
            _ => {}
        }
        if path.is_root() && kind != MemberKind::Directory {
            return Err(refused(Refusal::NoName));
        }
        let id = |from_pax: Option<u64>, field: &[u8]| {
            let id = from_pax.or_else(|| unsigned(field)).and_then(|n| u32::try_from(n).ok());
            id.filter(|id| *id != u32::MAX).ok_or_else(|| refused(Refusal::BadAttribute))
        };
        let mtime = match pax.mtime {
            Some(time) => time,
            None => Time {
                seconds: signed(&old.mtime).ok_or_else(|| bad("its modification time is malformed"))?,
                nanos: 0,
            },
        };
        let mode = unsigned(&old.mode).ok_or_else(|| bad("its mode is malformed"))?;
        Ok(Member {
            uid: id(pax.uid, &old.uid)?,
            gid: id(pax.gid, &old.gid)?,
            mode: (mode & 0o7777) as u32,
            path,
            kind,
            mtime,
            xattrs: pax.xattrs,
        })
    }

    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let offset = self.offset();
        let mut header = Header::new_old();
        match self.fill_block(header.as_mut_bytes())? {
            0 => return Ok(None), // some writers leave the end marker out
            BLOCK => {}
            _ => return Err(ArchiveError::Truncated),
        }
        if header.as_bytes().iter().all(|b| *b == 0) {
            let mut second = [0; BLOCK];
            let n = self.fill_block(&mut second)?;
            if n != 0 && second[..n].iter().any(|b| *b != 0) {
                return Err(ArchiveError::BadHeader {
                    offset,
                    reason: "one zero block where two end the archive",
                });
            }
            return Ok(None);
        }
        let stored = unsigned(&header.as_old().cksum);
        let bytes = header.as_bytes();
        let sums = bytes.iter().enumerate().fold((0u64, 0i64), |(plain, signed), (at, byte)| {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            (plain + u64::from(byte), signed + i64::from(byte.cast_signed()))
        });
        // Historic writers summed signed bytes.
        if stored.is_none() || (stored != Some(sums.0) && stored.map(u64::cast_signed) != Some(sums.1)) {
            return Err(ArchiveError::BadHeader { offset, reason: "its checksum is wrong" });
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64, offset: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > MAX_EXTENSION {
            return Err(ArchiveError::BadHeader {
                offset,
                reason: "an extended header is longer than 1 MiB",
            });
        }
        self.set_data(size);
        let mut data = Vec::with_capacity(size as usize);
        loop {
            let chunk = self.data()?;
            if chunk.is_empty() {
                break;
            }
            let n = chunk.len();
            data.extend_from_slice(chunk);
            self.consume(n);
        }
        self.skip_data()?;
        Ok(data)
    }

    fn long_text(&mut self, size: u64, offset: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut text = self.extension(size, offset)?;
        if let Some(end) = text.iter().position(|b| *b == 0) {
            text.truncate(end);
        }
        Ok(text)
    }

    fn set_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding_left = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip_data(&mut self) -> Result<(), ArchiveError> {
        // The sum cannot overflow in practice; where a header claims so, the stream's limit ends the loop first.
        let mut left = self.data_left.saturating_add(self.padding_left);
        self.data_left = 0;
        self.padding_left = 0;
        while left > 0 {
            let n = self.fill()?.len();
            if n == 0 {
                return Err(ArchiveError::Truncated);
            }
            let n = n.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.input.consume(n);
            left -= n as u64;
        }
        Ok(())
    }

    fn fill_block(&mut self, block: &mut [u8; BLOCK]) -> Result<usize, ArchiveError> {
        let mut have = 0;
        while have < BLOCK {
            let chunk = self.fill()?;
            if chunk.is_empty() {
                break;
            }
            let n = chunk.len().min(BLOCK - have);
            block[have..have + n].copy_from_slice(&chunk[..n]);
            self.input.consume(n);
            have += n;
        }
        Ok(have)
    }

    fn fill(&mut self) -> Result<&[u8], ArchiveError> {
        let limit = self.limits.max_bytes;
        let result = self.input.fill_buf().map(<[u8]>::len).map_err(ArchiveError::Read)?;
        if self.input.get_ref().count > limit {
            return Err(ArchiveError::TooLong { limit });
        }
        Ok(&self.input.buffer()[..result])
    }

    fn offset(&self) -> u64 {
        self.input.get_ref().count - self.input.buffer().len() as u64
    }
}

/// A number field: octal digits in spaces or NULs, or base 256 with the top bit of the first byte set (GNU).
fn signed(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // Two's complement in all bits but the marker.
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = match (at, negative) {
                (0, false) => byte & 0x7f,
                (0, true) => byte | 0x80,
                _ => *byte,
            };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if !rest.iter().all(blank) {
        return None;
    }
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn unsigned(field: &[u8]) -> Option<u64> {
    signed(field).and_then(|n| u64::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers() {
        let table: &[(&[u8], Option<i64>)] = &[
            (b"0000644\0", Some(0o644)),
            (b"  644 \0\0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"77777777777", Some(0o77_777_777_777)),
            (b"0000648\0", None),
            (b"12 34\0", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\0\x02\0\0\0\0\0\0\0", Some(0x02 << 56)),
            (b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ];
        for (field, expected) in table {
            assert_eq!(signed(field), *expected, "{field:?}");
        }
        assert_eq!(unsigned(b"\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..2000), kind in any::<u8>(), size in any::<u32>()) {
            let mut header = Header::new_ustar();
            header.set_size(u64::from(size));
            header.as_mut_bytes()[..noise.len().min(140)].copy_from_slice(&noise[..noise.len().min(140)]);
            header.as_old_mut().linkflag = [kind];
            header.set_cksum();
            let stream = [&header.as_bytes()[..], &noise].concat();
            let limits = UnpackLimits { max_entries: 100, max_bytes: 1 << 20 };
            let mut members = Members::new(&stream[..], &limits);
            while let Ok(Some(_)) = members.next() {}
        }
    }
}
