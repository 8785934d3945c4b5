//! ADD of a local archive: a tar, plain or compressed with gzip, zstd, bzip2 or xz, extracted into a folder.
//!
//! Names are taken apart before anything is made, `..` is refused, and every folder on the way is resolved inside
//! the image, so links in the archive or in the image lead nowhere else.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps};
use tar::{Archive, EntryType};

use super::{CopyError, Writer, create_file, stat_kind};
use crate::build::root::{Found, Owner, make_dir, set_owner};
use crate::build::tree::{MAX_ENTRIES, TreeError};

/// Most bytes that one archive may extract to.
const MAX_BYTES: u64 = 1 << 40;
/// Most memory that an xz stream may ask for, in KiB.
const XZ_MEMORY: u32 = 512 << 10;
const BLOCK: usize = 512;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// What becomes of devices and named pipes in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Make,
    Skip,
}

/// Why an archive cannot be extracted.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read, or is damaged.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// A name leads out of the folder.
    #[error("the entry `{0}` has a path that leads out of the destination")]
    Escapes(PathBuf),
    /// A hard link to nothing.
    #[error("the entry `{entry}` links to `{target}`, which the archive did not bring before")]
    NoTarget {
        /// The link.
        entry: PathBuf,
        /// What it links to.
        target: PathBuf,
    },
    /// Too much in it.
    #[error("the archive has more than {MAX_ENTRIES} entries or {MAX_BYTES} bytes")]
    TooLarge,
}

impl ArchiveError {
    pub(super) fn io_source(&self) -> Option<&io::Error> {
        match self {
            Self::Read(source) => Some(source),
            _ => None,
        }
    }
}

/// Tells whether a file is a tar, by its content, and how it is compressed. The file is at its start afterwards.
pub(crate) fn sniff(file: &mut File) -> io::Result<Option<Compression>> {
    let mut start = [0_u8; 6];
    let length = read_full(file, &mut start)?;
    file.rewind()?;
    let compression = match &start[..length] {
        [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Compression::Xz,
        _ => Compression::None,
    };
    let mut block = [0_u8; BLOCK];
    // A compressed file of another kind, or a damaged one, is copied as it is.
    let is_tar = match decompress(&mut *file, compression) {
        Ok(mut reader) => read_full(&mut reader, &mut block).is_ok_and(|n| n == BLOCK) && is_header(&block),
        Err(_) => false,
    };
    file.rewind()?;
    Ok(is_tar.then_some(compression))
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Whether a block is a tar header: its checksum (POSIX `ustar`, bytes 148 to 155) is right.
fn is_header(block: &[u8; BLOCK]) -> bool {
    let sum: u32 = (0..BLOCK).map(|i| if (148..156).contains(&i) { 32 } else { u32::from(block[i]) }).sum();
    let field = String::from_utf8_lossy(&block[148..156]);
    let field = field.trim_matches(|c: char| c == '\0' || c == ' ');
    block[0] != 0 && u32::from_str_radix(field, 8) == Ok(sum)
}

fn decompress<'a>(file: impl Read + 'a, compression: Compression) -> io::Result<Box<dyn Read + 'a>> {
    let file = BufReader::with_capacity(256 << 10, file);
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(file, true, XZ_MEMORY)),
    })
}

impl Writer<'_> {
    /// Extracts an archive into the folder `destination`. `shown` is its name for messages.
    pub(crate) fn extract(
        &self,
        file: File,
        compression: Compression,
        shown: &str,
        destination: &str,
        special: Special,
    ) -> Result<(), CopyError> {
        let fail = |source| CopyError::Archive { path: shown.to_owned(), source };
        let base = self.ensure_dir(Path::new(destination))?.path;
        let reader = decompress(file, compression).map_err(|error| fail(ArchiveError::Read(error)))?;
        let mut extraction =
            Extraction { writer: self, base, shown, special, folders: BTreeMap::new(), bytes: 0 };
        let mut archive = Archive::new(reader);
        let entries = archive.entries().map_err(|error| fail(ArchiveError::Read(error)))?;
        for (count, entry) in entries.enumerate() {
            if self.cancel.is_cancelled() {
                return Err(TreeError::Cancelled.into());
            }
            if count >= MAX_ENTRIES {
                return Err(fail(ArchiveError::TooLarge));
            }
            extraction.entry(entry.map_err(|error| fail(ArchiveError::Read(error)))?)?;
        }
        extraction.finish()
    }
}

struct Extraction<'a> {
    writer: &'a Writer<'a>,
    /// Path inside of the folder that receives everything.
    base: PathBuf,
    shown: &'a str,
    special: Special,
    /// Folders of the archive and the times that they get at the end.
    folders: BTreeMap<PathBuf, Timestamps>,
    bytes: u64,
}

impl Extraction<'_> {
    fn fail(&self, source: ArchiveError) -> CopyError {
        CopyError::Archive { path: self.shown.to_owned(), source }
    }

    /// A name of the archive as a path below the destination.
    fn inside(&self, raw: &[u8]) -> Result<PathBuf, CopyError> {
        let raw = Path::new(OsStr::from_bytes(raw));
        let mut path = PathBuf::new();
        for component in raw.components() {
            match component {
                Component::Normal(part) => path.push(part),
                Component::ParentDir => return Err(self.fail(ArchiveError::Escapes(raw.to_owned()))),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(path)
    }

    /// The folder of a path, made where it is missing, and the last name.
    fn parent(&self, path: &Path) -> Result<(Found, OsString), CopyError> {
        let name = path.file_name().unwrap_or_default().to_owned();
        let folder = self.base.join(path.parent().unwrap_or(Path::new("")));
        Ok((self.writer.ensure_dir(&folder)?, name))
    }

    fn entry(&mut self, mut entry: tar::Entry<'_, impl Read>) -> Result<(), CopyError> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let path = self.inside(&entry.path_bytes())?;
        let read = |error| ArchiveError::Read(error);
        let header = entry.header();
        let number = |value: io::Result<u64>| -> Result<u32, CopyError> {
            let invalid = |_| read(io::Error::from(io::ErrorKind::InvalidData));
            u32::try_from(value.map_err(|e| self.fail(read(e)))?).map_err(|e| self.fail(invalid(e)))
        };
        let stored = Owner { uid: number(header.uid())?, gid: number(header.gid())? };
        let owner = self.writer.owner.unwrap_or(stored);
        let mode = header.mode().map_err(|e| self.fail(read(e)))? & 0o7777;
        let seconds = header.mtime().map_err(|e| self.fail(read(e)))?;
        let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        if path.as_os_str().is_empty() {
            // The destination's own mode and owner are not the archive's business.
            return Ok(());
        }
        if self.special == Special::Skip
            && (kind.is_fifo() || kind.is_character_special() || kind.is_block_special())
        {
            return Ok(());
        }
        let (dir, name) = self.parent(&path)?;
        let whole = dir.path.join(&name);
        let io_error = |source: io::Error| CopyError::io(&whole, source);
        if kind == EntryType::Directory {
            if stat_kind(dir.fd.as_fd(), &name) == Some(FileType::Directory) {
                set_owner(dir.fd.as_fd(), &name, owner).map_err(io_error)?;
                rustix::fs::chmodat(&dir.fd, &name, Mode::from_raw_mode(mode), AtFlags::empty())
                    .map_err(|e| io_error(e.into()))?;
            } else {
                self.writer.clear(dir.fd.as_fd(), &name, &whole)?;
                make_dir(dir.fd.as_fd(), &name, owner, mode).map_err(io_error)?;
            }
            self.folders.insert(whole, times);
            return Ok(());
        }
        self.writer.clear(dir.fd.as_fd(), &name, &whole)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.bytes = self.bytes.saturating_add(entry.size());
                if self.bytes > MAX_BYTES {
                    return Err(self.fail(ArchiveError::TooLarge));
                }
                let mut file = create_file(dir.fd.as_fd(), &name).map_err(io_error)?;
                self.contents(&mut entry, &mut file, &whole)?;
                set_owner(dir.fd.as_fd(), &name, owner).map_err(io_error)?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(|e| io_error(e.into()))?;
                self.xattrs(&mut entry, &file, &whole)?;
                rustix::fs::futimens(&file, &times).map_err(|e| io_error(e.into()))?;
                return Ok(());
            }
            EntryType::Link => {
                let target = self.inside(&entry.link_name_bytes().unwrap_or_default())?;
                let missing =
                    || self.fail(ArchiveError::NoTarget { entry: path.clone(), target: target.clone() });
                let (folder, last) = self.parent(&target)?;
                return match rustix::fs::linkat(&folder.fd, &last, &dir.fd, &name, AtFlags::empty()) {
                    Ok(()) => Ok(()),
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::PERM) => Err(missing()),
                    Err(error) => Err(io_error(error.into())),
                };
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &dir.fd, &name)
                    .map_err(|e| io_error(e.into()))?;
            }
            EntryType::Char | EntryType::Block => {
                let part = |value: io::Result<Option<u32>>| {
                    value.map(Option::unwrap_or_default).map_err(|e| self.fail(read(e)))
                };
                let header = entry.header();
                let device = rustix::fs::makedev(part(header.device_major())?, part(header.device_minor())?);
                let file_type =
                    if kind == EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
                rustix::fs::mknodat(&dir.fd, &name, file_type, Mode::from_raw_mode(mode), device)
                    .map_err(|e| io_error(e.into()))?;
            }
            EntryType::Fifo => {
                rustix::fs::mknodat(&dir.fd, &name, FileType::Fifo, Mode::from_raw_mode(mode), 0)
                    .map_err(|e| io_error(e.into()))?;
            }
            _ => return Ok(()),
        }
        set_owner(dir.fd.as_fd(), &name, owner).map_err(io_error)?;
        if kind != EntryType::Symlink {
            rustix::fs::chmodat(&dir.fd, &name, Mode::from_raw_mode(mode), AtFlags::empty())
                .map_err(|e| io_error(e.into()))?;
        }
        rustix::fs::utimensat(&dir.fd, &name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| io_error(e.into()))
    }

    fn contents(&self, entry: &mut impl Read, file: &mut File, whole: &Path) -> Result<(), CopyError> {
        use std::io::Write;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let length = match entry.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.fail(ArchiveError::Read(error))),
            };
            file.write_all(&buffer[..length]).map_err(|source| CopyError::io(whole, source))?;
            if self.writer.cancel.is_cancelled() {
                return Err(TreeError::Cancelled.into());
            }
        }
    }

    fn xattrs<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        file: &File,
        whole: &Path,
    ) -> Result<(), CopyError> {
        let Ok(Some(extensions)) = entry.pax_extensions() else { return Ok(()) };
        for extension in extensions.flatten() {
            let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") else { continue };
            if !crate::build::tree::kept_xattr(name) {
                continue;
            }
            let flags = rustix::fs::XattrFlags::empty();
            match rustix::fs::fsetxattr(file, OsStr::from_bytes(name), extension.value_bytes(), flags) {
                Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
                Err(error) => return Err(CopyError::io(whole, error)),
            }
        }
        Ok(())
    }

    /// Sets the times of folders, which writing into them changed.
    fn finish(self) -> Result<(), CopyError> {
        for (path, times) in self.folders.iter().rev() {
            // A later entry may have put something else in its place.
            let found = self.writer.root.find(path).map_err(|source| CopyError::io(path, source))?;
            if found.is_some_and(|found| found.is_dir() && found.path == *path) {
                let fd = self.writer.root.open_dir(path).map_err(|source| CopyError::io(path, source))?;
                rustix::fs::futimens(&fd, times).map_err(|error| CopyError::io(path, error))?;
            }
        }
        Ok(())
    }
}
