//! What goes wrong between an image and a running container.

use std::error::Error;
use std::io::ErrorKind;
use std::path::PathBuf;

use slipway_image::build::CopyError;
use slipway_image::store::StoreError;
use slipway_runtime::{ContainerError, OverlayError};
use slipway_types::ErrorCode;
use slipway_types::container::ContainerId;

/// Why a container could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// The image cannot be read.
    #[error("the image cannot be used")]
    Store(#[from] StoreError),
    /// Neither the image nor the caller names a program.
    #[error("no command: neither the image nor the command line names a program")]
    NoCommand,
    /// A bind mount's source does not exist.
    #[error("the mount's source {0} does not exist")]
    MountSource(PathBuf),
    /// The runtime refused.
    #[error("container {id}")]
    Runtime {
        /// Which.
        id: ContainerId,
        /// Why.
        source: ContainerError,
    },
    /// A volume cannot be filled with what the image has there.
    #[error("cannot make the volume {target} of container {id}", target = target.display())]
    Volume {
        /// Which container.
        id: ContainerId,
        /// Where it is inside.
        target: PathBuf,
        /// Why.
        source: CopyError,
    },
    /// The root file system cannot be opened.
    #[error("cannot open the root file system of container {id}")]
    Root {
        /// Which container.
        id: ContainerId,
        /// Why.
        source: OverlayError,
    },
    /// The container does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// The container runs.
    #[error("container {0} is running")]
    Running(ContainerId),
    /// A folder or file cannot be made, read or removed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl NativeError {
    /// The public kind of this error.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Store(error) if error.is_not_found() => ErrorCode::NotFound,
            Self::Store(error) if error.is_out_of_space() => ErrorCode::ResourceExhausted,
            Self::NoCommand | Self::MountSource(_) => ErrorCode::InvalidArgument,
            Self::NotRunning(_) | Self::Running(_) => ErrorCode::Conflict,
            Self::Runtime { .. } | Self::Io { .. } | Self::Volume { .. } | Self::Root { .. }
                if is_full(io_kind(self)) =>
            {
                ErrorCode::ResourceExhausted
            }
            Self::Store(_)
            | Self::Runtime { .. }
            | Self::Io { .. }
            | Self::Volume { .. }
            | Self::Root { .. } => ErrorCode::Internal,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoCommand => Some("name a program after the image"),
            Self::Running(_) => Some("stop it first, or use `--force`"),
            _ => None,
        }
    }
}

/// The kind of the first IO error among an error and its causes.
pub(crate) fn io_kind(error: &(dyn Error + 'static)) -> ErrorKind {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| {
            error
                .downcast_ref::<std::io::Error>()
                .map(std::io::Error::kind)
                .or_else(|| error.downcast_ref::<rustix::io::Errno>().map(|errno| errno.kind()))
        })
        .unwrap_or(ErrorKind::Other)
}

/// An error as an IO error of the kind that it came from, so that whoever gets it can tell a full disk.
pub(crate) fn as_io(error: impl Error + Send + Sync + 'static) -> std::io::Error {
    std::io::Error::new(io_kind(&error), error)
}

/// Whether a file system, or a quota on it, is full.
pub(crate) fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

pub(crate) fn io<'a>(
    action: &'static str,
    path: &'a std::path::Path,
) -> impl FnOnce(std::io::Error) -> NativeError + 'a {
    move |source| NativeError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use slipway_runtime::OverlayError;

    use super::*;

    #[test]
    fn a_full_disk_is_told_however_deep_it_is() {
        let full = || std::io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        let overlay = OverlayError::Mount { layers: 2, detail: String::new(), source: full() };
        let seen = as_io(overlay);
        assert_eq!(seen.kind(), ErrorKind::StorageFull);
        assert!(seen.to_string().contains("2 layers"), "{seen}");
        let missing = OverlayError::Layer { path: "/a".into(), source: ErrorKind::NotFound.into() };
        assert_eq!(as_io(missing).kind(), ErrorKind::NotFound);
        assert_eq!(as_io(OverlayError::TooManyLayers(900)).kind(), ErrorKind::Other);

        let runtime = |source| NativeError::Runtime {
            id: ContainerId::from_random([1; 12]),
            source: ContainerError::Io { action: "write", path: "/c".into(), source },
        };
        assert_eq!(runtime(full()).code(), ErrorCode::ResourceExhausted);
        assert_eq!(runtime(ErrorKind::NotFound.into()).code(), ErrorCode::Internal);
        let quota =
            NativeError::Io { action: "make", path: "/c".into(), source: ErrorKind::QuotaExceeded.into() };
        assert_eq!(quota.code(), ErrorCode::ResourceExhausted);
    }
}
