//! Why an operation on a container failed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use slipway_types::container::ExitInfo;

use crate::attach::AttachError;
use crate::cgroup::CgroupError;
use crate::config::ConfigError;
use crate::log::LogError;
use crate::shim::SpawnError;

/// Why an operation on a container failed.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of its folder.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The shim did not come up.
    #[error("the shim of container {id} did not start")]
    Spawn {
        /// The container.
        id: String,
        /// Cause.
        source: SpawnError,
    },
    /// It ended before its process ran.
    #[error("container {id} did not start: {}", exit.error.as_deref().unwrap_or("it was ended before"))]
    NotStarted {
        /// The container.
        id: String,
        /// Code and reason.
        exit: ExitInfo,
    },
    /// The shim is gone and left no exit status: [`crate::Container::recover`] it.
    #[error("the shim of container {id} is gone")]
    ShimGone {
        /// The container.
        id: String,
    },
    /// It took longer than the caller allowed.
    #[error("container {id} did not {what} within {waited:?}")]
    Timeout {
        /// The container.
        id: String,
        /// `start` or `end`.
        what: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// The operation needs a running container.
    #[error("container {id} is not running")]
    NotRunning {
        /// The container.
        id: String,
    },
    /// The operation needs a container that does not run.
    #[error("container {id} is still running")]
    StillRunning {
        /// The container.
        id: String,
    },
    /// An exec request that no shim could serve.
    #[error("exec in container {id}: {reason}")]
    InvalidExec {
        /// The container.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// The conversation with the shim.
    #[error("container {id}")]
    Attach {
        /// The container.
        id: String,
        /// Cause.
        source: AttachError,
    },
    /// Its cgroup.
    #[error("container {id}")]
    Cgroup {
        /// The container.
        id: String,
        /// Cause.
        source: CgroupError,
    },
    /// Its log.
    #[error("container {id}")]
    Log {
        /// The container.
        id: String,
        /// Cause.
        source: LogError,
    },
}
