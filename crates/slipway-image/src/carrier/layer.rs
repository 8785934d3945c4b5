//! The one layer: a tar that is written from its files as often as it is needed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use slipway_types::Digest;
use tar::{Builder, EntryType, Header};

use super::CarrierError;
use crate::registry::{Descriptor, OCI_LAYER};

/// Deepest folder that is listed.
const MAX_DEPTH: usize = 32;

/// What is in the archive, by name; names of folders end with `/`, so each comes before what is in it.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(super) entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) mode: u32,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Folder,
    /// A file of this host with this length.
    File {
        size: u64,
        path: PathBuf,
    },
    /// A symbolic link, kept as it is.
    Link(PathBuf),
}

/// What of a folder is listed.
pub(super) struct Rules<'a> {
    /// Whether a path below the folder is wanted; a folder that is not wanted is not looked into.
    pub(super) wanted: &'a dyn Fn(&str) -> bool,
    /// Whether links are kept and what is no content (sockets, pipes, devices) is left out; else both are refused.
    pub(super) links: bool,
    /// Most entries.
    pub(super) most: usize,
}

/// Adds the files and folders in `folder` under the name `at`; `inside` is the folder's path for the rules.
pub(super) fn list(
    folder: &Path,
    at: &str,
    inside: &str,
    rules: &Rules<'_>,
    entries: &mut BTreeMap<String, Entry>,
) -> Result<(), CarrierError> {
    if inside.split('/').count() > MAX_DEPTH {
        return Err(CarrierError::Special(folder.to_owned()));
    }
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| CarrierError::Read { path, source }
    };
    for entry in fs::read_dir(folder).map_err(read(folder))? {
        let entry = entry.map_err(read(folder))?;
        let path = entry.path();
        let about = entry.metadata().map_err(read(&path))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { return Err(CarrierError::Special(path)) };
        let below = if inside.is_empty() { name.to_owned() } else { format!("{inside}/{name}") };
        if !(rules.wanted)(&below) {
            continue;
        }
        let name = format!("{at}/{name}");
        if entries.len() >= rules.most {
            return Err(CarrierError::TooMany { limit: rules.most });
        }
        if about.is_dir() {
            list(&path, &name, &below, rules, entries)?;
            entries.insert(format!("{name}/"), Entry { mode: 0o755, content: Content::Folder });
        } else if about.is_file() {
            // Not the host's umask: whether it runs is all that matters.
            let mode = if about.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
            entries.insert(name, Entry { mode, content: Content::File { size: about.len(), path } });
        } else if about.is_symlink() && rules.links {
            let target = fs::read_link(&path).map_err(read(&path))?;
            entries.insert(name, Entry { mode: 0o777, content: Content::Link(target) });
        } else if !rules.links {
            return Err(CarrierError::Special(path));
        }
    }
    Ok(())
}

impl Layer {
    /// Writes the archive. On an error what was written is worth nothing.
    pub(crate) fn write_to(&self, out: &mut impl Write) -> Result<(), CarrierError> {
        let mut archive = Builder::new(out);
        for (name, entry) in &self.entries {
            let mut header = Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            match &entry.content {
                Content::Folder => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_size(0);
                    archive.append_data(&mut header, name, io::empty()).map_err(CarrierError::Layer)?;
                }
                Content::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_size(0);
                    archive.append_link(&mut header, name, target).map_err(CarrierError::Layer)?;
                }
                Content::File { size, path } => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(*size);
                    let file = File::open(path)
                        .map_err(|source| CarrierError::Read { path: path.clone(), source })?;
                    // One byte more tells a file that grew; the archive must hold what its header says.
                    let mut exact =
                        Exact { file: file.take(size.saturating_add(1)), left: *size, off: false };
                    let written = archive.append_data(&mut header, name, &mut exact);
                    if exact.off || (written.is_ok() && exact.left > 0) {
                        return Err(CarrierError::Changed { path: name.clone() });
                    }
                    written.map_err(CarrierError::Layer)?;
                }
            }
        }
        archive.into_inner().and_then(|out| out.flush()).map_err(CarrierError::Layer)
    }

    /// Digest and length of the archive.
    pub(super) fn measure(&self) -> Result<Descriptor, CarrierError> {
        let mut meter = Meter { sha: Sha256::new(), size: 0 };
        self.write_to(&mut meter)?;
        Ok(Descriptor {
            media_type: OCI_LAYER.to_owned(),
            digest: Digest::from_sha256(meter.sha.finalize().into()),
            size: meter.size,
            annotations: BTreeMap::new(),
        })
    }
}

/// Reads a file and notices when it is longer than it was said to be.
struct Exact {
    file: io::Take<File>,
    left: u64,
    off: bool,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if count as u64 > self.left {
            self.off = true;
            return Err(io::Error::other("the file grew"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

struct Meter {
    sha: Sha256,
    size: u64,
}

impl Write for Meter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sha.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
