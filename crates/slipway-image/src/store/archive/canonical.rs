//! The canonical archive of a directory: the same tree gives the same bytes on every machine.
//!
//! Rules: entries sorted by name as bytes, directories with a final `/`, the root left out; ustar headers, an extended
//! header only for what ustar cannot hold (its records sorted by keyword); times in whole seconds, no atime and ctime;
//! no user and group names; of several names of one file the first has the data and the others are hard links;
//! deletions are empty files with all numbers 0; two zero blocks at the end and no further padding.

use std::collections::HashMap;
use std::io::{self, Write};

use rustix::fs::OFlags;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use slipway_types::Digest;
use tar::Header;

use super::error::{ArchiveError, lossy};
use super::pax::push_record;
use super::tree::{Node, NodeKind, Tree, open_beneath};

const BLOCK: usize = 512;
/// Large enough that hashing takes the time and not system calls, small enough to be hashed while it is in the L2 cache.
const BUFFER: usize = 256 * 1024;
/// The largest numbers of a ustar header: seven and eleven octal digits.
const MAX_ID: u32 = 0o7_777_777;
const MAX_LONG: u64 = 0o77_777_777_777;

/// What was written.
#[derive(Debug)]
pub(in crate::store) struct Written {
    /// Digest of the archive.
    pub(in crate::store) diff_id: Digest,
    /// Its length.
    pub(in crate::store) tar_size: u64,
    /// Bytes of file contents.
    pub(in crate::store) size: u64,
    /// Entries.
    pub(in crate::store) entries: u64,
}

/// Why a tree was not written.
#[derive(Debug)]
pub(in crate::store) enum WriteError {
    /// The tree could not be read.
    Tree(ArchiveError),
    /// The receiver failed.
    Output(io::Error),
}

impl From<ArchiveError> for WriteError {
    fn from(error: ArchiveError) -> Self {
        Self::Tree(error)
    }
}

/// Writes the canonical archive of a tree.
pub(in crate::store) fn write_tree(tree: &Tree, output: &mut impl Write) -> Result<Written, WriteError> {
    let mut out = Output {
        output,
        sha: Sha256::new(),
        count: 0,
        buffer: vec![0; BUFFER].into_boxed_slice(),
        filled: 0,
    };
    let mut first_names: HashMap<(u64, u64), &[u8]> = HashMap::new();
    let mut size = 0;
    for node in &tree.nodes {
        if let Some(inode) = node.shared {
            if let Some(first) = first_names.get(&inode) {
                out.header(node, Some(first))?;
                continue;
            }
            first_names.insert(inode, &node.name);
        }
        out.header(node, None)?;
        if let NodeKind::File { size: length } = node.kind {
            out.contents(tree, node, length)?;
            size += length;
        }
    }
    out.put(&[0; 2 * BLOCK])?;
    out.flush()?;
    Ok(Written {
        diff_id: Digest::from_sha256(out.sha.finalize().into()),
        tar_size: out.count,
        size,
        entries: tree.nodes.len() as u64,
    })
}

struct Output<'a, W> {
    output: &'a mut W,
    sha: Sha256,
    count: u64,
    buffer: Box<[u8]>,
    filled: usize,
}

impl<W: Write> Output<'_, W> {
    fn header(&mut self, node: &Node, link: Option<&[u8]>) -> Result<(), WriteError> {
        let mut pax: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut header = Header::new_ustar();
        let (kind, size, link) = match (&node.kind, link) {
            (_, Some(first)) => (b'1', 0, first),
            (NodeKind::File { size }, None) => (b'0', *size, &b""[..]),
            (NodeKind::Directory, None) => (b'5', 0, &b""[..]),
            (NodeKind::Symlink { target }, None) => (b'2', 0, &target[..]),
            (NodeKind::Char { .. }, None) => (b'3', 0, &b""[..]),
            (NodeKind::Block { .. }, None) => (b'4', 0, &b""[..]),
            (NodeKind::Fifo, None) => (b'6', 0, &b""[..]),
            (NodeKind::Deletion, None) => (b'0', 0, &b""[..]),
        };
        header.as_old_mut().linkflag = [kind];
        match split_name(&node.name) {
            Some((prefix, name)) => {
                header.as_old_mut().name[..name.len()].copy_from_slice(name);
                if let Some(ustar) = header.as_ustar_mut() {
                    ustar.prefix[..prefix.len()].copy_from_slice(prefix);
                }
            }
            None => {
                pax.push((b"path".to_vec(), node.name.clone()));
                put_text(&mut header.as_old_mut().name, &node.name);
            }
        }
        if link.len() > 100 || !link.is_ascii() {
            pax.push((b"linkpath".to_vec(), link.to_vec()));
        }
        put_text(&mut header.as_old_mut().linkname, link);
        let mode = if kind == b'2' { 0o777 } else { node.mode };
        put_octal(&mut header.as_old_mut().mode, mode.into());
        for (key, id) in [(&b"uid"[..], node.uid), (b"gid", node.gid)] {
            let fits = id <= MAX_ID;
            if !fits {
                pax.push((key.to_vec(), id.to_string().into_bytes()));
            }
            let field =
                if key == b"uid" { &mut header.as_old_mut().uid } else { &mut header.as_old_mut().gid };
            put_octal(field, if fits { id.into() } else { 0 });
        }
        if size > MAX_LONG {
            pax.push((b"size".to_vec(), size.to_string().into_bytes()));
        }
        put_octal(&mut header.as_old_mut().size, if size > MAX_LONG { 0 } else { size });
        let mtime = u64::try_from(node.mtime).ok().filter(|t| *t <= MAX_LONG);
        if mtime.is_none() {
            pax.push((b"mtime".to_vec(), node.mtime.to_string().into_bytes()));
        }
        put_octal(&mut header.as_old_mut().mtime, mtime.unwrap_or(0));
        let (major, minor) = match (&node.kind, kind) {
            (NodeKind::Char { major, minor }, b'3') | (NodeKind::Block { major, minor }, b'4') => {
                (*major, *minor)
            }
            _ => (0, 0),
        };
        if let Some(ustar) = header.as_ustar_mut() {
            put_octal(&mut ustar.dev_major, major.into());
            put_octal(&mut ustar.dev_minor, minor.into());
        }
        if kind != b'1' {
            let named =
                |(name, value): &(Vec<u8>, Vec<u8>)| ([b"SCHILY.xattr.", &name[..]].concat(), value.clone());
            pax.extend(node.xattrs.iter().map(named));
        }
        if !pax.is_empty() {
            pax.sort_unstable();
            self.extended_header(&node.name, &pax)?;
        }
        put_checksum(&mut header);
        self.put(header.as_bytes())
    }

    fn extended_header(&mut self, of: &[u8], records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), WriteError> {
        let mut data = Vec::new();
        for (key, value) in records {
            push_record(&mut data, key, value);
        }
        let mut header = Header::new_ustar();
        let old = header.as_old_mut();
        old.linkflag = [b'x'];
        // No reader uses this name; one that knows no extended headers makes a file of it.
        let last = of.split(|b| *b == b'/').rfind(|part| !part.is_empty()).unwrap_or(b"");
        let plain: Vec<u8> =
            last.iter().map(|b| if b.is_ascii_graphic() { *b } else { b'_' }).take(80).collect();
        put_text(&mut old.name, &[b"PaxHeaders.0/", &plain[..]].concat());
        put_octal(&mut old.mode, 0o644);
        put_octal(&mut old.uid, 0);
        put_octal(&mut old.gid, 0);
        put_octal(&mut old.mtime, 0);
        put_octal(&mut old.size, data.len() as u64);
        if let Some(ustar) = header.as_ustar_mut() {
            put_octal(&mut ustar.dev_major, 0);
            put_octal(&mut ustar.dev_minor, 0);
        }
        put_checksum(&mut header);
        self.put(header.as_bytes())?;
        self.put(&data)?;
        self.pad(data.len() as u64)
    }

    fn contents(&mut self, tree: &Tree, node: &Node, length: u64) -> Result<(), WriteError> {
        if length == 0 {
            return Ok(());
        }
        let fd = open_beneath(&tree.root, &node.name, OFlags::RDONLY | OFlags::NOFOLLOW)
            .map_err(ArchiveError::write("open", &node.name))?;
        let mut left = length;
        while left > 0 {
            if self.filled == BUFFER {
                self.flush()?;
            }
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER - self.filled);
            match rustix::io::read(&fd, &mut self.buffer[self.filled..self.filled + room]) {
                Ok(0) => return Err(ArchiveError::Changed { entry: lossy(&node.name) }.into()),
                Ok(n) => {
                    self.filled += n;
                    left -= n as u64;
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(ArchiveError::write("read", &node.name)(e).into()),
            }
        }
        self.pad(length)
    }

    fn pad(&mut self, length: u64) -> Result<(), WriteError> {
        let over = (length % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.put(&[0; BLOCK][over..]) }
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            if self.filled == BUFFER {
                self.flush()?;
            }
            let n = bytes.len().min(BUFFER - self.filled);
            self.buffer[self.filled..self.filled + n].copy_from_slice(&bytes[..n]);
            self.filled += n;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        let bytes = &self.buffer[..self.filled];
        self.sha.update(bytes);
        self.count += bytes.len() as u64;
        self.output.write_all(bytes).map_err(WriteError::Output)?;
        self.filled = 0;
        Ok(())
    }
}

/// Splits a name for the two fields of a ustar header, at the last `/` that fits. `None`: it needs an extended header.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= 100 {
        return Some((b"", name));
    }
    let search = &name[..(name.len() - 1).min(156)];
    let slash = search.iter().rposition(|b| *b == b'/').filter(|at| *at > 0)?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (!rest.is_empty() && rest.len() <= 100).then_some((prefix, rest))
}

fn put_text(field: &mut [u8], text: &[u8]) {
    let n = text.len().min(field.len());
    field.fill(0);
    field[..n].copy_from_slice(&text[..n]);
}

/// Octal digits to the end of the field but one, then a NUL.
fn put_octal(field: &mut [u8], mut value: u64) {
    let last = field.len() - 1;
    field[last] = 0;
    for digit in field[..last].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

fn put_checksum(header: &mut Header) {
    header.as_old_mut().cksum = [b' '; 8];
    let sum: u64 = header.as_bytes().iter().map(|b| u64::from(*b)).sum();
    let mut field = [b' '; 8];
    put_octal(&mut field[..7], sum);
    header.as_old_mut().cksum = field;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_last_fitting_slash() {
        let long = |a: usize, b: usize| [vec![b'a'; a], vec![b'/'], vec![b'b'; b]].concat();
        assert_eq!(split_name(b"a/b").map(|(p, n)| (p.len(), n.len())), Some((0, 3)));
        for (a, b, fits) in
            [(50, 60, true), (155, 100, true), (156, 60, false), (60, 101, false), (0, 120, false)]
        {
            let name = long(a, b);
            assert_eq!(split_name(&name).map(|(p, n)| (p.len(), n.len())), fits.then_some((a, b)), "{a} {b}");
        }
        // The final slash of a directory is no place to split at.
        let directory = [long(50, 60), vec![b'/']].concat();
        assert_eq!(split_name(&directory).map(|(p, n)| (p.len(), n.len())), Some((50, 61)));
        assert_eq!(split_name("é".as_bytes()), None);
    }

    #[test]
    fn fields_hold_their_largest_numbers() {
        let mut id = [0; 8];
        put_octal(&mut id, MAX_ID.into());
        assert_eq!(&id, b"7777777\0");
        let mut long = [0; 12];
        put_octal(&mut long, MAX_LONG);
        assert_eq!(&long, b"77777777777\0");
    }
}
