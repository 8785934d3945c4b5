//! The cgroup of a container: `/slipway/ID` in every hierarchy, by the kernel's files alone.
//!
//! On a host with cgroup v1 (legacy or hybrid) it is a folder per controller; with v2 it is one. libcontainer has no part
//! in it.

mod devices;
mod v1;
mod v2;
mod visit;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use slipway_types::container::{ContainerId, Limits};

use crate::files;

pub(crate) use visit::{make_stand_in, prime, stand_in_path};

/// Folder of all of Slipway's containers, relative to a hierarchy's root.
pub(crate) const PARENT: &str = "slipway";
/// Attribute of a cgroup that names its container's folder, so that instances with different folders on one host leave
/// each other's alone.
const OWNER: &str = "trusted.slipway.dir";
/// Where cgroups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// Period of CPU limits, in microseconds: the kernel's default.
const CPU_PERIOD: u64 = 100_000;
/// Smallest quota that the kernel takes, in microseconds.
const MIN_CPU_QUOTA: u64 = 1_000;
/// How long killed processes may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// Pauses grow from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LAST_PAUSE: Duration = Duration::from_millis(20);
/// Largest file that is read: process lists of large containers are the longest.
const MAX_FILE: u64 = 16 << 20;

/// What the cgroup of a container counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time used, in microseconds.
    pub cpu_usec: u64,
    /// Periods of 100 ms in which it used up its CPU limit.
    pub throttled_periods: u64,
    /// Time for which it was held back by its CPU limit, in microseconds.
    pub throttled_usec: u64,
    /// Memory in use, in bytes, page cache included.
    pub memory_current: u64,
    /// Of that, page cache that the kernel would drop first.
    pub memory_inactive_file: u64,
    /// Limit of memory, in bytes.
    pub memory_limit: Option<u64>,
    /// Most memory that was in use; absent where the kernel does not tell (v2 before 5.19).
    pub memory_peak: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Processes that the kernel killed for lack of memory.
    pub oom_kills: u64,
}

/// Why an operation on a cgroup failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroups are mounted where they are everywhere.
    #[error("no cgroups at {ROOT}")]
    NotMounted(#[source] io::Error),
    /// A file or folder of the cgroup.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The host cannot limit this.
    #[error("this host has no `{controller}` cgroup controller, which a limit asks for")]
    NoController {
        /// Its name.
        controller: &'static str,
    },
    /// Something cannot be killed.
    #[error("{count} processes of the cgroup {path} did not die within {waited:?}")]
    Undead {
        /// The cgroup.
        path: PathBuf,
        /// How many are left.
        count: usize,
        /// How long was waited.
        waited: Duration,
    },
}

type Result<T> = std::result::Result<T, CgroupError>;

/// How this host mounts cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hierarchy {
    /// Mount points with the controllers that each has.
    V1(Vec<v1::Mount>),
    /// The mount point.
    V2(PathBuf),
}

/// One container's cgroup. Making a value makes no folder.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    hierarchy: Hierarchy,
    name: String,
}

impl Cgroup {
    /// Of a container.
    pub(crate) fn of(id: &ContainerId) -> Result<Self> {
        Self::named(id.as_str())
    }

    fn named(name: &str) -> Result<Self> {
        Ok(Self { hierarchy: detect()?, name: name.to_owned() })
    }

    /// Its folders.
    fn folders(&self) -> Vec<PathBuf> {
        let at = |mount: &Path| mount.join(PARENT).join(&self.name);
        match &self.hierarchy {
            Hierarchy::V1(mounts) => mounts.iter().map(|mount| at(&mount.point)).collect(),
            Hierarchy::V2(mount) => vec![at(mount)],
        }
    }

    /// Whether any of it exists.
    pub(crate) fn exists(&self) -> bool {
        self.folders().iter().any(|folder| folder.exists())
    }

    /// Makes it, on behalf of the container in `owner`.
    pub(crate) fn create(&self, owner: &Path) -> Result<()> {
        match &self.hierarchy {
            Hierarchy::V1(mounts) => v1::create(mounts, &self.name)?,
            Hierarchy::V2(mount) => v2::create(mount, &self.name)?,
        }
        for folder in self.folders() {
            use std::os::unix::ffi::OsStrExt;
            let value = owner.as_os_str().as_bytes();
            // Only a help for sweeping.
            let _ = rustix::fs::setxattr(&folder, OWNER, value, rustix::fs::XattrFlags::empty());
        }
        Ok(())
    }

    /// Sets limits, and the list of devices that may be used.
    pub(crate) fn limit(&self, limits: &Limits) -> Result<()> {
        match &self.hierarchy {
            Hierarchy::V1(mounts) => {
                v1::limit(mounts, &self.name, limits)?;
                v1::limit_devices(mounts, &self.name)
            }
            Hierarchy::V2(mount) => {
                let folder = mount.join(PARENT).join(&self.name);
                v2::limit(&folder, limits)?;
                v2::limit_devices(&folder)
            }
        }
    }

    /// What a container sees of it at `/sys/fs/cgroup`.
    pub(crate) fn view(&self) -> View {
        match &self.hierarchy {
            Hierarchy::V1(mounts) => View::Folders(
                mounts
                    .iter()
                    .filter_map(|mount| {
                        let name = mount.point.file_name()?.to_str()?.to_owned();
                        Some((name, mount.point.join(PARENT).join(&self.name)))
                    })
                    .collect(),
            ),
            Hierarchy::V2(mount) => View::Unified(mount.join(PARENT).join(&self.name)),
        }
    }

    /// What it counts; zeros where a controller is missing.
    pub(crate) fn stats(&self) -> Result<Stats> {
        match &self.hierarchy {
            Hierarchy::V1(mounts) => Ok(v1::stats(mounts, &self.name)),
            Hierarchy::V2(mount) => Ok(v2::stats(&mount.join(PARENT).join(&self.name))),
        }
    }

    /// Processes in it.
    pub(crate) fn processes(&self) -> Result<Vec<u32>> {
        let mut found = Vec::new();
        for folder in self.folders() {
            found.extend(processes(&folder)?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Kills all that is in it, and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + KILL_WAIT;
        let mut pause = FIRST_PAUSE;
        let mut left = self.processes()?;
        while !left.is_empty() {
            match &self.hierarchy {
                Hierarchy::V1(mounts) => v1::kill(mounts, &self.name, &left),
                Hierarchy::V2(mount) => v2::kill(&mount.join(PARENT).join(&self.name), &left),
            }
            if Instant::now() >= deadline {
                let path = self.folders().swap_remove(0);
                return Err(CgroupError::Undead { path, count: left.len(), waited: KILL_WAIT });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
            left = self.processes()?;
        }
        Ok(())
    }

    /// Kills all that is in it, and removes it. Nothing to do when it does not exist.
    pub(crate) fn destroy(&self) -> Result<()> {
        self.kill()?;
        self.folders().iter().try_for_each(|folder| remove(folder))
    }
}

/// How a container sees its cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// A folder per controller: its name, and what is bound there.
    Folders(Vec<(String, PathBuf)>),
    /// One folder.
    Unified(PathBuf),
}

/// One cgroup below [`PARENT`], as a sweep finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    /// Folder of the container that it was made for.
    pub(crate) owner: Option<PathBuf>,
}

/// All of Slipway's cgroups on this host, whoever made them.
pub(crate) fn list() -> Result<Vec<Found>> {
    let parents: Vec<PathBuf> = match detect()? {
        Hierarchy::V1(mounts) => mounts.iter().map(|mount| mount.point.join(PARENT)).collect(),
        Hierarchy::V2(mount) => vec![mount.join(PARENT)],
    };
    let mut found: Vec<Found> = Vec::new();
    for parent in parents {
        let entries = match std::fs::read_dir(&parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => {
                other.map_err(|source| CgroupError::Io { action: "list", path: parent.clone(), source })?
            }
        };
        for entry in entries.flatten() {
            let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else { continue };
            if !kind.is_dir() {
                continue;
            }
            let owner = owner(&entry.path());
            match found.iter_mut().find(|other| other.name == name) {
                Some(other) => other.owner = other.owner.take().or(owner),
                None => found.push(Found { name, owner }),
            }
        }
    }
    Ok(found)
}

fn owner(folder: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut value = vec![0; 4096];
    let count = rustix::fs::getxattr(folder, OWNER, &mut value).ok()?;
    value.truncate(count);
    Some(PathBuf::from(std::ffi::OsString::from_vec(value)))
}

/// The cgroup of that name, for a sweep to end.
pub(crate) fn by_name(name: &str) -> Result<Cgroup> {
    Cgroup::named(name)
}

fn detect() -> Result<Hierarchy> {
    let root = Path::new(ROOT);
    if is_v2(root) {
        return Ok(Hierarchy::V2(root.to_owned()));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(CgroupError::NotMounted)?;
    let mounts = v1::mounts(&mounts, root);
    if mounts.is_empty() {
        return Err(CgroupError::NotMounted(io::ErrorKind::NotFound.into()));
    }
    Ok(Hierarchy::V1(mounts))
}

/// Whether the root of cgroup v2 is mounted there.
fn is_v2(path: &Path) -> bool {
    const CGROUP2: u64 = 0x6367_7270;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == CGROUP2)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|source| CgroupError::Io { action: "write", path: path.to_owned(), source })
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = files::read_capped(path, MAX_FILE)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The number in a file of one number; `max` and what is missing are `None`.
fn number(path: &Path) -> Option<u64> {
    read(path).ok()?.trim().parse().ok()
}

/// The number behind `key` in a file of `key number` lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn make_folder(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|source| CgroupError::Io { action: "make", path: path.to_owned(), source }),
    }
}

/// Processes in one folder; none when there is no such folder.
fn processes(folder: &Path) -> Result<Vec<u32>> {
    let path = folder.join("cgroup.procs");
    match read(&path) {
        // A process of another pid namespace is 0.
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) =>
        {
            Ok(Vec::new())
        }
        Err(source) => Err(CgroupError::Io { action: "read", path, source }),
    }
}

fn kill_each(pids: &[u32]) {
    for pid in pids.iter().filter_map(|pid| i32::try_from(*pid).ok().and_then(Pid::from_raw)) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Removes a folder and those below it, waiting while the kernel still lets go of dead processes.
fn remove(folder: &Path) -> Result<()> {
    let deadline = Instant::now() + KILL_WAIT;
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match std::fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        let busy = error.raw_os_error() == Some(libc::EBUSY);
        if !busy || Instant::now() >= deadline {
            return Err(CgroupError::Io { action: "remove", path: folder.to_owned(), source: error });
        }
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                kill_each(&processes(&entry.path())?);
                let _ = remove(&entry.path());
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Microseconds per [`CPU_PERIOD`] for thousandths of a CPU.
fn cpu_quota(millis: u32) -> u64 {
    (u64::from(millis) * CPU_PERIOD / 1000).max(MIN_CPU_QUOTA)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A cgroup of this test's own, gone at its end.
    struct Scratch(Cgroup);

    impl Scratch {
        fn new(hierarchy: Hierarchy) -> Self {
            let id = ContainerId::from_random(std::array::from_fn(|at| {
                (std::process::id() >> (at % 4 * 8)) as u8 ^ at as u8
            }));
            let name = format!("test-{}-{:?}", id.short(), std::thread::current().id());
            Self(Cgroup { hierarchy, name: name.replace(['(', ')'], "") })
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            self.0.destroy().unwrap();
        }
    }

    fn sleeper(cgroup: &Cgroup) -> Child {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        for folder in cgroup.folders() {
            write(&folder.join("cgroup.procs"), &child.id().to_string()).unwrap();
        }
        child
    }

    fn life(hierarchy: Hierarchy) {
        let scratch = Scratch::new(hierarchy);
        let cgroup = &scratch.0;
        assert!(!cgroup.exists());
        cgroup.destroy().expect("nothing to do");
        cgroup.create(Path::new("/some/container")).unwrap();
        cgroup.limit(&Limits::default()).unwrap();
        let mut child = sleeper(cgroup);
        assert_eq!(cgroup.processes().unwrap(), [child.id()]);
        assert!(
            cgroup
                .folders()
                .iter()
                .all(|folder| owner(folder).as_deref() == Some(Path::new("/some/container")))
        );
        // The parent must reap for the process to be gone.
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        cgroup.destroy().unwrap();
        assert!(!cgroup.exists());
        assert!(!reaper.join().unwrap().success());
    }

    #[test]
    fn life_of_a_cgroup_here() {
        life(detect().unwrap());
    }

    /// Says aloud that a test cannot run here; fails it where none may be skipped.
    #[expect(clippy::print_stderr, reason = "a skip is said aloud")]
    pub(super) fn skip(reason: &str) {
        eprintln!("SKIPPED: {reason}");
        assert!(std::env::var_os("SLIPWAY_TEST_NO_SKIP").is_none(), "no test may be skipped here: {reason}");
    }

    #[test]
    fn life_of_a_cgroup_v2() {
        // The second hierarchy of a hybrid host.
        let unified = Path::new("/sys/fs/cgroup/unified");
        match detect().unwrap() {
            Hierarchy::V1(_) if unified.join("cgroup.procs").exists() => {
                life(Hierarchy::V2(unified.to_owned()))
            }
            Hierarchy::V1(_) => skip("no cgroup v2 on this host"),
            // Then `life_of_a_cgroup_here` is this test.
            Hierarchy::V2(_) => {}
        }
    }

    #[test]
    fn quotas() {
        for (millis, quota) in [(1000, 100_000), (1500, 150_000), (1, 1_000), (0, 1_000), (64_000, 6_400_000)]
        {
            assert_eq!(cpu_quota(millis), quota);
        }
    }

    #[test]
    fn keys_are_whole_words() {
        let text = "oom 1\noom_kill 2\nx 3\n";
        assert_eq!(keyed(text, "oom"), Some(1));
        assert_eq!(keyed(text, "oom_kill"), Some(2));
        assert_eq!(keyed(text, "oom_"), None);
    }
}
