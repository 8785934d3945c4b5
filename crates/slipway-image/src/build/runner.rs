//! What the builder needs from the machine: a way to run a step, and a way to get base images.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slipway_types::container::{Mount, NetworkMode, OutputStream};
use slipway_types::{ApiError, Digest, Reference};

/// Asks a build to stop. Clones share one flag; once set it stays set.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag {
    set: Arc<AtomicBool>,
    parent: Option<Arc<CancelFlag>>,
}

impl CancelFlag {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag.
    pub fn cancel(&self) {
        self.set.store(true, Ordering::SeqCst);
    }

    /// Whether the flag is set.
    pub fn is_cancelled(&self) -> bool {
        self.set.load(Ordering::SeqCst) || self.parent.as_ref().is_some_and(|parent| parent.is_cancelled())
    }

    /// A flag that is also set when this one is, and can be set alone.
    pub fn child(&self) -> Self {
        Self { set: Arc::default(), parent: Some(Arc::new(self.clone())) }
    }
}

/// One process to run on a writable view of a stage's file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunStep {
    /// Unpacked layers, topmost first as overlayfs lists them; never empty.
    pub lowers: Vec<PathBuf>,
    /// Folder that receives the changes (overlayfs `upperdir`); empty but for a missing working directory.
    pub upper: PathBuf,
    /// Empty folder on the same file system (overlayfs `workdir`).
    pub work: PathBuf,
    /// Program and arguments. A program without `/` is searched in the `PATH` of `env`.
    pub args: Vec<String>,
    /// The whole environment as `KEY=value`. The runner adds `HOME` from the image's `/etc/passwd`
    /// when it is absent, and nothing else.
    pub env: Vec<String>,
    /// Absolute working directory inside; it exists in `lowers` or `upper`.
    pub cwd: String,
    /// `user[:group]`, names or numbers, looked up inside the image; root when absent.
    pub user: Option<String>,
    /// Network. With the host's, the runner also gives the host's name resolution files.
    pub network: NetworkMode,
    /// Mounts over the default ones (`/proc`, `/dev` as a tmpfs, `/sys`), in order. A mount point that is
    /// missing inside is created by the runner and taken out of `upper` by the builder afterwards.
    pub mounts: Vec<Mount>,
}

/// How a step's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepExit {
    /// Exit status as a shell shows it: 128 + n after signal n, 127 and 126 when the program could not start.
    pub code: u8,
    /// The kernel ended it for lack of memory.
    pub oom_killed: bool,
}

/// Why a step has no exit status.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The flag was set; every process of the step is gone.
    #[error("the step was cancelled")]
    Cancelled,
    /// The step could not be started. The text says why and names the program, user or path concerned.
    #[error("the step could not start: {reason}")]
    Start {
        /// Why.
        reason: String,
        /// What to do about it, where that is known.
        hint: Option<String>,
    },
    /// Something of this host failed.
    #[error("{what}")]
    Host {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Runs steps. The native engine implements it.
pub trait StepRunner: Send + Sync {
    /// An overlay of the layers (topmost first, never empty) with `upper` on top, mounted nowhere: relative
    /// calls on the descriptor see the merged tree, and it is gone once the descriptor is closed. Mounted without
    /// `redirect_dir`, `metacopy`, `index` and `userxattr`, so that `upper` is a layer as it lies.
    fn open_root(&self, lowers: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd>;

    /// Runs a step to its end and hands over what it writes as it comes. Nothing of it is left when this
    /// returns: no process, no mount, no cgroup.
    fn run(
        &self,
        step: &RunStep,
        output: &mut dyn FnMut(OutputStream, &[u8]),
        cancel: &CancelFlag,
    ) -> Result<StepExit, StepError>;
}

/// What moves while a base image is fetched: the blob or layer, bytes done, bytes in all when known.
pub type BaseProgress<'a> = dyn Fn(&str, u64, Option<u64>) + Sync + 'a;

/// Finds base images: in the local store, else in a registry.
pub trait BaseImages: Send + Sync {
    /// The id (digest of the configuration) of an image that is in the store when this returns.
    ///
    /// `platform` is `os/architecture[/variant]`. With `pull` the registry is asked even when a local image has
    /// that name. The result need not match the platform: the builder checks the configuration.
    fn resolve(
        &self,
        reference: &Reference,
        platform: &str,
        pull: bool,
        progress: &BaseProgress<'_>,
        cancel: &CancelFlag,
    ) -> Result<ResolvedBase, ApiError>;
}

/// A base image that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedBase {
    /// Digest of its configuration.
    pub id: Digest,
    /// Whether anything was transferred for it.
    pub pulled: bool,
}
