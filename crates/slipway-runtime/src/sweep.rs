//! What containers left behind, on a host that lost power or killed a shim: found, named, removed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags};

use crate::cgroup::{self, CgroupError};
use crate::config::CONFIG_FILE;
use crate::container::{Container, ContainerError};
use crate::files::{self, LockState};
use crate::shim::{self, SHIM_ROLE};
use crate::sys;

/// A folder younger than this may be one that its container is just being made in.
const SETTLED: Duration = Duration::from_secs(60);

/// Something that no living container accounts for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leak {
    /// A container whose shim died without a word; it is recovered.
    Container {
        /// Its folder.
        dir: PathBuf,
    },
    /// A cgroup without a living container; its processes are killed.
    Cgroup {
        /// Below `/slipway`.
        name: String,
        /// What runs in it.
        pids: Vec<u32>,
    },
    /// A mount in this mount namespace, where containers make none.
    Mount {
        /// Where.
        path: PathBuf,
    },
    /// A folder without a container's configuration.
    Folder {
        /// Where.
        path: PathBuf,
    },
    /// A socket or request file of a shim that is gone.
    Socket {
        /// Where.
        path: PathBuf,
    },
    /// A shim whose container's folder is gone.
    Shim {
        /// Its process id.
        pid: u32,
        /// The folder.
        dir: PathBuf,
    },
}

impl std::fmt::Display for Leak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Container { dir } => write!(f, "container without its shim: {}", dir.display()),
            Self::Cgroup { name, pids } => write!(f, "cgroup /slipway/{name} with {} processes", pids.len()),
            Self::Mount { path } => write!(f, "mount at {}", path.display()),
            Self::Folder { path } => write!(f, "folder without a container: {}", path.display()),
            Self::Socket { path } => write!(f, "file of a shim that is gone: {}", path.display()),
            Self::Shim { pid, dir } => write!(f, "shim {pid} of a container that is gone: {}", dir.display()),
        }
    }
}

/// Why leaks cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A folder or file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Cgroups cannot be listed.
    #[error("cannot list cgroups")]
    Cgroup(#[source] CgroupError),
}

/// Why a leak is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove: {leak}")]
pub struct PruneError {
    /// The leak.
    pub leak: Leak,
    /// Cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Looks for what is left of containers whose folders are in `containers_root`. Changes nothing.
///
/// Containers of other instances, with other folders, are left alone: each cgroup names the folder that it is for.
///
/// # Errors
/// When the folder, the mounts or the cgroups cannot be listed.
pub fn check(containers_root: &Path) -> Result<Vec<Leak>, SweepError> {
    let root = std::fs::canonicalize(containers_root)
        .map_err(|source| SweepError::Read { path: containers_root.to_owned(), source })?;
    let mut leaks = Vec::new();
    for dir in folders(&root)? {
        check_folder(&dir, &mut leaks);
    }
    for found in cgroup::list().map_err(SweepError::Cgroup)? {
        // One without an owner is ours when there is a folder for it here.
        let named = root.join(&found.name);
        let Some(dir) = found.owner.or_else(|| named.is_dir().then_some(named)) else { continue };
        let lock = files::lock_state(&dir);
        // A dead shim's container is reported as such, and its cgroup goes with it.
        let reported = leaks.contains(&Leak::Container { dir: dir.clone() });
        if !dir.starts_with(&root) || matches!(lock, Ok(LockState::Held)) || reported {
            continue;
        }
        let pids = cgroup::by_name(&found.name).and_then(|cgroup| cgroup.processes()).unwrap_or_default();
        leaks.push(Leak::Cgroup { name: found.name, pids });
    }
    leaks.extend(mounts(&root)?);
    leaks.extend(shims(&root));
    leaks.sort();
    Ok(leaks)
}

/// Removes leaks, all that can be; what cannot is returned with the reason.
pub fn prune(leaks: &[Leak]) -> Vec<PruneError> {
    // Processes first, then what they hold: mounts, cgroups, folders.
    let order = |leak: &Leak| match leak {
        Leak::Shim { .. } => 0,
        Leak::Container { .. } => 1,
        Leak::Cgroup { .. } => 2,
        Leak::Mount { .. } => 3,
        Leak::Socket { .. } => 4,
        Leak::Folder { .. } => 5,
    };
    let mut leaks: Vec<&Leak> = leaks.iter().collect();
    // Deeper mounts first.
    leaks.sort_by(|one, other| order(one).cmp(&order(other)).then(other.cmp(one)));
    leaks
        .into_iter()
        .filter_map(|leak| remove(leak).err().map(|source| PruneError { leak: leak.clone(), source }))
        .collect()
}

fn remove(leak: &Leak) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match leak {
        Leak::Container { dir } => match Container::open(dir)?.recover() {
            // Someone was faster, or it lives after all.
            Ok(_) | Err(ContainerError::StillRunning { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        },
        Leak::Cgroup { name, .. } => Ok(cgroup::by_name(name)?.destroy()?),
        Leak::Mount { path } => Ok(rustix::mount::unmount(path, UnmountFlags::DETACH)?),
        Leak::Folder { path } => Ok(std::fs::remove_dir_all(path)?),
        Leak::Socket { path } => match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        },
        Leak::Shim { pid, dir } => kill_shim(*pid, dir),
    }
}

fn folders(root: &Path) -> Result<Vec<PathBuf>, SweepError> {
    let entries =
        std::fs::read_dir(root).map_err(|source| SweepError::Read { path: root.to_owned(), source })?;
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}

fn check_folder(dir: &Path, leaks: &mut Vec<Leak>) {
    if !dir.join(CONFIG_FILE).exists() {
        let settled = std::fs::metadata(dir)
            .and_then(|found| found.modified())
            .is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > SETTLED));
        if settled && !matches!(files::lock_state(dir), Ok(LockState::Held)) {
            leaks.push(Leak::Folder { path: dir.to_owned() });
        }
        return;
    }
    let Ok(container) = Container::open(dir) else { return };
    let Ok(observed) = container.observe() else { return };
    if observed.needs_recovery {
        leaks.push(Leak::Container { dir: dir.to_owned() });
    } else if !observed.shim_alive && observed.exit.is_some() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(shim::is_ephemeral) {
                leaks.push(Leak::Socket { path: entry.path() });
            }
        }
    }
}

fn mounts(root: &Path) -> Result<Vec<Leak>, SweepError> {
    let path = Path::new("/proc/self/mountinfo");
    let text =
        std::fs::read_to_string(path).map_err(|source| SweepError::Read { path: path.to_owned(), source })?;
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point != root && point.starts_with(root))
        .map(|path| Leak::Mount { path })
        .collect())
}

/// `mountinfo` writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code =
            tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Shims below `root` whose folder is gone.
fn shims(root: &Path) -> Vec<Leak> {
    let mut leaks = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(dir) = shim_folder(pid)
            && dir.starts_with(root)
            && !dir.exists()
        {
            leaks.push(Leak::Shim { pid, dir });
        }
    }
    leaks
}

/// The container's folder, if the process is a shim.
fn shim_folder(pid: u32) -> Option<PathBuf> {
    let line = files::read_capped(Path::new(&format!("/proc/{pid}/cmdline")), 1 << 20).ok()?;
    let mut args = line.split(|byte| *byte == 0).skip(1);
    let (role, _kind, dir) = (args.next()?, args.next()?, args.next()?);
    (role == SHIM_ROLE.as_bytes()).then(|| PathBuf::from(String::from_utf8_lossy(dir).into_owned()))
}

fn kill_shim(pid: u32, dir: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let Ok(pidfd) = rustix::process::pidfd_open(id, PidfdFlags::empty()) else { return Ok(()) };
    // Looked at again: the number may be another's by now.
    if shim_folder(pid).as_deref() == Some(dir) {
        use std::os::fd::AsFd;
        sys::signal_pidfd(pidfd.as_fd(), libc::SIGKILL)?;
    }
    Ok(())
}
