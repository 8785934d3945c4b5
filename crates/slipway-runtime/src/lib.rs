//! Containers on this host: namespaces, mounts, cgroups, seccomp and the shim.
//!
//! A container is a folder. [`Container::create`] writes its [`ContainerConfig`] there, [`Container::spawn_shim`] starts
//! the one process that owns it, and everything that anyone else needs to know is read from the folder's files, locks
//! and socket, so that it holds across restarts of the caller:
//!
//! | file | written by | what |
//! |---|---|---|
//! | `config.json` | `Container::create` | [`ContainerConfig`] |
//! | `shim.lock` | shim | locked (POSIX record lock) for as long as the shim lives |
//! | `shim.sock` | shim | the [`attach`] protocol |
//! | `state.json` | shim | pid and start time, once the process runs |
//! | `exit.json` | shim, or [`Container::recover`] | `ExitInfo`, once it ended |
//! | `log`, `log.1` | shim | output in the CRI log format, newest in `log` |
//! | `run` | shim | empty here; in the shim's mount namespace, generated files and the root file system |
//! | `exec-ID.json`, `exec-ID.sock` | `Container::exec`, its shim | one running `exec` |
//!
//! Nothing here takes an image, prints, or reads the environment. Everything needs root.

pub mod attach;
mod cgroup;
mod config;
mod container;
mod exit;
mod files;
mod log;
mod mountpoints;
mod rootfs;
mod seccomp;
mod shim;
mod signal;
mod spec;
mod sweep;
#[allow(unsafe_code, reason = "the one module that talks to the kernel where no safe wrapper exists")]
mod sys;
mod user;

pub use cgroup::{CgroupError, Stats};
pub use config::{ConfigError, ContainerConfig, Process, Rootfs};
pub use container::{Container, ContainerError, Observed, Started};
pub use log::{LogError, LogNext, LogOptions, LogReader, LogWriter};
pub use rootfs::{OverlayError, mount_detached};
pub use shim::{SpawnError, shim_main};
pub use signal::parse_signal;
pub use sweep::{Leak, PruneError, SweepError, check, prune};
pub use user::{UserError, user_ids};
