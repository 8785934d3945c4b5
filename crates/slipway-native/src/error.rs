//! What goes wrong between an image and a running container.

use std::path::PathBuf;

use slipway_image::store::StoreError;
use slipway_runtime::ContainerError;
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
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                ErrorCode::ResourceExhausted
            }
            Self::Store(_) | Self::Runtime { .. } | Self::Io { .. } => ErrorCode::Internal,
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

pub(crate) fn io<'a>(
    action: &'static str,
    path: &'a std::path::Path,
) -> impl FnOnce(std::io::Error) -> NativeError + 'a {
    move |source| NativeError::Io { action, path: path.to_owned(), source }
}
