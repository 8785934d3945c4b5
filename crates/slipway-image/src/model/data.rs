//! A digest over a folder of training data, for a model version's lineage.

use std::io::Read;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use slipway_types::Digest;

use super::tree::{FileKind, Links, Tree, TreeError};

/// The most files of a data folder.
const MAX_DATA_FILES: usize = 2_000_000;

/// The digest of a data folder: over the paths of its files, whether they are executable, and what they hold.
/// Times, owners, other permissions and empty folders do not count. A symbolic link counts as its own text: what
/// lies elsewhere is not part of the folder.
///
/// The SHA-256 of one record for each file, sorted by the bytes of the paths: a letter (`f` file, `x` executable file, `l` link), the
/// path, a zero byte, and the SHA-256 of the content or of the link's text.
///
/// # Errors
/// A file cannot be read, is a device, a socket or a pipe, or has a name that is not UTF-8; or there are too many.
pub fn data_digest(dir: &Path) -> Result<Digest, TreeError> {
    let tree = Tree::open(dir, Links::Keep)?;
    let mut whole = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    for file in tree.files(MAX_DATA_FILES)? {
        let (letter, content): (u8, [u8; 32]) = match &file.kind {
            FileKind::Link { target } => (b'l', Sha256::digest(target).into()),
            FileKind::Regular { executable, .. } => {
                let mut reader = tree.read(&file.path)?;
                let mut sha = Sha256::new();
                loop {
                    let n = reader
                        .read(&mut buffer)
                        .map_err(|source| TreeError::Io { path: dir.join(&file.path), source })?;
                    if n == 0 {
                        break;
                    }
                    sha.update(&buffer[..n]);
                }
                (if *executable { b'x' } else { b'f' }, sha.finalize().into())
            }
        };
        whole.update([letter]);
        whole.update(file.path.as_bytes());
        whole.update([0]);
        whole.update(content);
    }
    Ok(Digest::from_sha256(whole.finalize().into()))
}
