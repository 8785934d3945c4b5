//! Layer archives: reading tars into directories and writing directories as canonical tars.
//!
//! Formats: POSIX.1-2017 `pax` (ustar and extended headers), the GNU long-name entries, and the whiteouts of the OCI
//! image specification (`layer.md`). Directories hold whiteouts in the form of overlayfs (kernel documentation,
//! `filesystems/overlayfs.rst`): a character device 0:0, and `trusted.overlay.opaque`.

mod canonical;
mod entry_path;
mod error;
mod members;
mod pax;
mod root;
mod tree;
mod unpack;

pub use error::{ArchiveError, Refusal};
pub use unpack::UnpackLimits;

pub(super) use canonical::{WriteError, Written, write_tree};
pub(super) use root::{file_type, is_whiteout};
pub(super) use tree::{Overlay, Tree, is_opaque, scan};
pub(super) use unpack::{Unpacked, unpack};

/// Extended attributes: names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Prefix of a whiteout's name in an archive.
const WHITEOUT: &[u8] = b".wh.";
/// Name of the entry that hides everything which lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of names that only AUFS gives a meaning to.
const AUFS: &[u8] = b".wh..wh.";
/// The attribute by which overlayfs knows an opaque directory.
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// The longest path that system calls take, without the final NUL.
const MAX_PATH: usize = 4095;
/// The longest name of one file.
const MAX_NAME: usize = 255;
/// Directories inside each other. The walk holds one descriptor for each.
const MAX_DEPTH: usize = 255;

/// Whether layers carry this extended attribute: what packages and users set, never what a file system or a security
/// module of one host means. `trusted.overlay.*` from an archive could redirect a lookup out of its layer.
fn carries_xattr(name: &[u8]) -> bool {
    name == b"security.capability"
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}
