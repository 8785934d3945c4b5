//! Putting a container's process into its cgroup, without libcontainer.
//!
//! The shim itself goes there, has libcontainer clone the process, which is thereby born in it, and goes back. With cgroup
//! v1 that is more than a matter of taste: a task that moves only itself needs no lock, whereas any other move waits for
//! a grace period of the kernel's RCU, 8 ms and more where the tick is 4 ms. And libcontainer would first look for each of
//! twelve controllers in the list of all mounts. It is shown a stand-in for a cgroup instead.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use super::{Cgroup, CgroupError, Hierarchy, PARENT, ROOT, Result, read};

/// Folder, in the shim's own, that libcontainer takes for the container's cgroup.
const STAND_IN: &str = "cgroup-stand-in";

/// What libcontainer is told to be the container's cgroup: it joins this with [`ROOT`], and finds the stand-in.
pub(crate) fn stand_in_path(scratch: &Path) -> PathBuf {
    let scratch = scratch.strip_prefix("/").unwrap_or(scratch);
    Path::new("/../../..").join(scratch).join(STAND_IN)
}

/// Makes the stand-in in `scratch`: what is written to its list of processes is dropped, and what is read there is nothing.
pub(crate) fn make_stand_in(scratch: &Path) -> std::io::Result<()> {
    let folder = scratch.join(STAND_IN);
    std::fs::create_dir(&folder)?;
    std::os::unix::fs::symlink("/dev/null", folder.join("cgroup.procs"))
}

/// This process is in a container's cgroup. Must be ended by [`Visit::leave`].
#[must_use]
#[derive(Debug)]
pub(crate) struct Visit {
    /// Where this process was, per hierarchy.
    back: Vec<(PathBuf, File)>,
    covered: bool,
}

impl Cgroup {
    /// Goes there, with this process, which has one thread and a mount namespace of its own.
    ///
    /// # Errors
    /// Also when the way back is not known; then this process has not moved.
    pub(crate) fn visit(&self) -> Result<Visit> {
        let own = read(Path::new("/proc/self/cgroup")).map_err(|source| CgroupError::Io {
            action: "read",
            path: "/proc/self/cgroup".into(),
            source,
        })?;
        let mut back = Vec::new();
        let mut there = Vec::new();
        match &self.hierarchy {
            Hierarchy::V1(mounts) => {
                for mount in mounts {
                    let controller = mount.controllers.first().map_or("", String::as_str);
                    let path = mount.point.join(own_path(&own, controller)).join("tasks");
                    back.push(open(path)?);
                    there.push(open(mount.point.join(PARENT).join(&self.name).join("tasks"))?);
                }
            }
            Hierarchy::V2(mount) => {
                back.push(open(mount.join(own_path(&own, "")).join("cgroup.procs"))?);
                there.push(open(mount.join(PARENT).join(&self.name).join("cgroup.procs"))?);
            }
        }
        let mut visit = Visit { back, covered: false };
        if let Err(error) = there.iter_mut().try_for_each(enter).and_then(|()| self.cover(&mut visit)) {
            visit.leave()?;
            return Err(error);
        }
        Ok(visit)
    }

    /// libcontainer uses cgroup v2, and then the stand-in, where it finds that file system.
    fn cover(&self, visit: &mut Visit) -> Result<()> {
        if let Hierarchy::V1(_) = self.hierarchy {
            cover().map_err(|errno| CgroupError::Io {
                action: "cover",
                path: ROOT.into(),
                source: errno.into(),
            })?;
            visit.covered = true;
        }
        Ok(())
    }
}

/// Puts cgroup v2 over v1, in this mount namespace.
fn cover() -> rustix::io::Result<()> {
    let unified = Path::new(ROOT).join("unified");
    if super::is_v2(&unified) {
        return rustix::mount::mount_bind(unified, ROOT);
    }
    // Only where nobody has it mounted: a new mount would set the flags of all, and waits for a grace period.
    rustix::mount::mount("cgroup2", ROOT, "cgroup2", MountFlags::RDONLY, None)
}

impl Visit {
    /// Goes back to where this process was.
    ///
    /// # Errors
    /// When that is not possible: it would then be killed with the container, and must not go on.
    pub(crate) fn leave(mut self) -> Result<()> {
        if self.covered {
            rustix::mount::unmount(ROOT, UnmountFlags::DETACH).map_err(|errno| CgroupError::Io {
                action: "uncover",
                path: ROOT.into(),
                source: errno.into(),
            })?;
        }
        self.back.iter_mut().try_for_each(enter)
    }
}

fn open(path: PathBuf) -> Result<(PathBuf, File)> {
    match std::fs::OpenOptions::new().write(true).open(&path) {
        Ok(file) => Ok((path, file)),
        Err(source) => Err(CgroupError::Io { action: "open", path, source }),
    }
}

/// Moves the process that writes.
fn enter((path, file): &mut (PathBuf, File)) -> Result<()> {
    file.write_all(b"0").map_err(|source| CgroupError::Io { action: "enter", path: path.clone(), source })
}

/// The path of this process in the hierarchy of a controller (none: that of v2), relative to where it is mounted.
fn own_path<'a>(own: &'a str, controller: &str) -> &'a str {
    own.lines()
        .find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            controllers.split(',').any(|known| known == controller).then(|| path.trim_start_matches('/'))
        })
        .unwrap_or("")
}

/// With cgroup v2: makes the next moves of processes quick, for a few milliseconds. The first after a pause waits for a
/// grace period of RCU, and those right after it do not. To be called by a process that can wait, while another does
/// something else: it moves the caller to where it is.
pub(crate) fn prime() {
    if let Ok(Hierarchy::V2(mount)) = super::detect() {
        let own = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let _ = super::write(&mount.join(own_path(&own, "")).join("cgroup.procs"), "0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_paths() {
        let own = "9:name=systemd:/\n4:memory:/some/where:odd\n2:cpu,cpuacct:/both\n0::/user.slice\n";
        for (controller, path) in
            [("memory", "some/where:odd"), ("cpuacct", "both"), ("", "user.slice"), ("pids", "")]
        {
            assert_eq!(own_path(own, controller), path, "{controller}");
        }
    }

    #[test]
    fn the_stand_in_is_found_from_the_root_of_cgroups() {
        let dir = tempfile::tempdir().unwrap();
        make_stand_in(dir.path()).unwrap();
        let path = stand_in_path(dir.path());
        // As libcontainer does it.
        let found = Path::new(ROOT).join(path.strip_prefix("/").unwrap()).join("cgroup.procs");
        std::fs::OpenOptions::new().write(true).open(&found).unwrap().write_all(b"1").unwrap();
        assert_eq!(std::fs::read(&found).unwrap(), b"");
    }
}
