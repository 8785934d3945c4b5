//! Single files of an image, found in its layers without mounting them.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;
use slipway_types::Digest;

use super::error::{Result, StoreError};
use super::{Store, archive};

/// As many links as Linux follows in one path.
const MAX_LINKS: u32 = 40;

/// What a name is in the layers, the upper ones before the lower ones.
enum Found {
    Nothing,
    /// Folders that merge to one.
    Folders(Vec<PathBuf>),
    Link(PathBuf),
    File(PathBuf),
}

impl Store {
    /// The content of a regular file of an image, as its containers see it; `None` where there is none. Links are followed
    /// inside of the image.
    pub fn read_image_file(&self, image: &Digest, path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        let _lease = self.lease();
        let mut roots = self.layer_paths(image)?;
        roots.reverse();
        let Some(found) = resolve(&roots, path)? else { return Ok(None) };
        let file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&found)
            .map_err(StoreError::io("read", &found))?;
        let mut bytes = Vec::new();
        file.take(max_bytes.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(StoreError::io("read", &found))?;
        if bytes.len() as u64 > max_bytes {
            return Err(StoreError::io("read", &found)(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has more than {max_bytes} bytes"),
            )));
        }
        Ok(Some(bytes))
    }
}

/// The file of a layer that a path of the image means.
fn resolve(roots: &[PathBuf], path: &Path) -> Result<Option<PathBuf>> {
    let mut rest = parts(path);
    // Folders from the root to where the walk is, so that `..` goes back up and never further than the root.
    let mut trail: Vec<Vec<PathBuf>> = vec![roots.to_vec()];
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            if trail.len() > 1 {
                trail.pop();
            }
            continue;
        }
        let Some(here) = trail.last() else { return Ok(None) };
        match look(here, &part)? {
            Found::Nothing => return Ok(None),
            Found::Folders(folders) => trail.push(folders),
            Found::File(file) => return Ok(rest.is_empty().then_some(file)),
            Found::Link(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Ok(None);
                }
                if target.is_absolute() {
                    trail.truncate(1);
                }
                for part in parts(&target).into_iter().rev() {
                    rest.push_front(part);
                }
            }
        }
    }
    Ok(None)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// One name in folders that merge, as overlayfs looks it up.
fn look(folders: &[PathBuf], name: &OsString) -> Result<Found> {
    let mut merged = Vec::new();
    for folder in folders {
        let path = folder.join(name);
        let stat = match rustix::fs::lstat(&path) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(StoreError::io("look up", &path)(e.into())),
        };
        let kind = archive::file_type(&stat);
        if kind == FileType::Directory {
            let hides = archive::is_opaque(&path);
            merged.push(path);
            if hides {
                break;
            }
        } else if !merged.is_empty() || archive::is_whiteout(&stat) {
            // A folder above it covers it; a deletion covers what is below.
            break;
        } else if kind == FileType::Symlink {
            return fs::read_link(&path).map(Found::Link).map_err(StoreError::io("read the link", &path));
        } else if kind == FileType::RegularFile {
            return Ok(Found::File(path));
        } else {
            return Ok(Found::Nothing);
        }
    }
    Ok(if merged.is_empty() { Found::Nothing } else { Found::Folders(merged) })
}
