//! cgroup v1: a hierarchy per controller, or per few.

use std::path::{Path, PathBuf};

use slipway_types::container::Limits;

use super::{
    CPU_PERIOD, CgroupError, PARENT, Result, Stats, cpu_quota, devices, keyed, make_folder, number, read,
    write,
};

/// Controllers that libcontainer puts a process into, so those that a container has a folder in.
const CONTROLLERS: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "hugetlb",
    "memory",
    "pids",
    "perf_event",
    "blkio",
    "net_prio",
    "net_cls",
    "freezer",
];
/// The kernel shows "no limit" as the largest multiple of a page.
const UNLIMITED: u64 = 1 << 62;

/// One hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    pub(super) controllers: Vec<String>,
}

/// Hierarchies below `root` with a controller of [`CONTROLLERS`], from the text of a `mountinfo`.
pub(super) fn mounts(mountinfo: &str, root: &Path) -> Vec<Mount> {
    let mut found: Vec<Mount> = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(point) = before.split(' ').nth(4).map(Path::new) else { continue };
        let mut after = after.split(' ');
        if after.next() != Some("cgroup") || point.parent() != Some(root) {
            continue;
        }
        let options = after.nth(1).unwrap_or("");
        let controllers: Vec<String> =
            options.split(',').filter(|option| CONTROLLERS.contains(option)).map(str::to_owned).collect();
        if !controllers.is_empty() && !found.iter().any(|mount| mount.point == point) {
            found.push(Mount { point: point.to_owned(), controllers });
        }
    }
    found
}

fn folder(mounts: &[Mount], controller: &str, name: &str) -> Option<PathBuf> {
    let mount = mounts.iter().find(|mount| mount.controllers.iter().any(|known| known == controller))?;
    Some(mount.point.join(PARENT).join(name))
}

pub(super) fn create(mounts: &[Mount], name: &str) -> Result<()> {
    for mount in mounts {
        let parent = mount.point.join(PARENT);
        let own = parent.join(name);
        let cpuset = mount.controllers.iter().any(|known| known == "cpuset");
        for (folder, above) in [(&parent, &mount.point), (&own, &parent)] {
            make_folder(folder)?;
            if cpuset {
                inherit_cpuset(above, folder)?;
            }
        }
    }
    Ok(())
}

/// A cpuset without CPUs or memory nodes takes no process.
fn inherit_cpuset(from: &Path, to: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (source, target) = (from.join(file), to.join(file));
        if read(&target).is_ok_and(|text| text.trim().is_empty()) {
            let text = read(&source).map_err(|error| CgroupError::Io {
                action: "read",
                path: source,
                source: error,
            })?;
            write(&target, text.trim())?;
        }
    }
    Ok(())
}

pub(super) fn limit(mounts: &[Mount], name: &str, limits: &Limits) -> Result<()> {
    let need = |controller| folder(mounts, controller, name).ok_or(CgroupError::NoController { controller });
    if let Some(bytes) = limits.memory {
        let folder = need("memory")?;
        write(&folder.join("memory.limit_in_bytes"), &bytes.to_string())?;
        // Memory and swap together; absent where swap is not accounted. It cannot be below the limit of memory.
        let both = folder.join("memory.memsw.limit_in_bytes");
        if both.exists() {
            write(&both, &bytes.to_string())?;
        }
    }
    if let Some(millis) = limits.cpu_millis {
        let folder = need("cpu")?;
        write(&folder.join("cpu.cfs_period_us"), &CPU_PERIOD.to_string())?;
        write(&folder.join("cpu.cfs_quota_us"), &cpu_quota(millis).to_string())?;
    }
    if let Some(count) = limits.pids {
        write(&need("pids")?.join("pids.max"), &count.to_string())?;
    }
    Ok(())
}

pub(super) fn limit_devices(mounts: &[Mount], name: &str) -> Result<()> {
    let folder =
        folder(mounts, "devices", name).ok_or(CgroupError::NoController { controller: "devices" })?;
    write(&folder.join("devices.deny"), "a")?;
    devices::ALLOWED.iter().try_for_each(|device| write(&folder.join("devices.allow"), &device.line()))
}

pub(super) fn stats(mounts: &[Mount], name: &str) -> Stats {
    let file =
        |controller: &str, file: &str| folder(mounts, controller, name).map(|folder| folder.join(file));
    let count = |controller, name| file(controller, name).and_then(|path| number(&path));
    let text =
        |controller, name| file(controller, name).and_then(|path| read(&path).ok()).unwrap_or_default();
    let (cpu, memory, oom) =
        (text("cpu", "cpu.stat"), text("memory", "memory.stat"), text("memory", "memory.oom_control"));
    Stats {
        cpu_usec: count("cpuacct", "cpuacct.usage").unwrap_or(0) / 1000,
        throttled_periods: keyed(&cpu, "nr_throttled").unwrap_or(0),
        throttled_usec: keyed(&cpu, "throttled_time").unwrap_or(0) / 1000,
        memory_current: count("memory", "memory.usage_in_bytes").unwrap_or(0),
        memory_inactive_file: keyed(&memory, "total_inactive_file").unwrap_or(0),
        memory_limit: count("memory", "memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED),
        memory_peak: count("memory", "memory.max_usage_in_bytes"),
        pids: count("pids", "pids.current").unwrap_or(0),
        oom_kills: keyed(&oom, "oom_kill").unwrap_or(0),
    }
}

/// Frozen, they cannot fork while they are killed one by one.
pub(super) fn kill(mounts: &[Mount], name: &str, pids: &[u32]) {
    let state = folder(mounts, "freezer", name).map(|folder| folder.join("freezer.state"));
    if let Some(state) = &state {
        let _ = write(state, "FROZEN");
    }
    super::kill_each(pids);
    if let Some(state) = &state {
        let _ = write(state, "THAWED");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_by_mountinfo() {
        let text = "\
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 24 0:30 / /elsewhere/memory rw - cgroup cgroup rw,memory
";
        let found = mounts(text, Path::new("/sys/fs/cgroup"));
        let shown: Vec<_> =
            found.iter().map(|m| (m.point.to_str().unwrap(), m.controllers.join("+"))).collect();
        assert_eq!(
            shown,
            [
                ("/sys/fs/cgroup/cpu,cpuacct", "cpu+cpuacct".to_owned()),
                ("/sys/fs/cgroup/memory", "memory".to_owned())
            ]
        );
        assert_eq!(folder(&found, "cpuacct", "x"), Some("/sys/fs/cgroup/cpu,cpuacct/slipway/x".into()));
        assert_eq!(folder(&found, "pids", "x"), None);
        let limits = Limits { pids: Some(1), ..Limits::default() };
        assert!(matches!(limit(&found, "x", &limits), Err(CgroupError::NoController { controller: "pids" })));
    }

    #[test]
    fn counts_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let mount = Mount {
            point: dir.path().to_owned(),
            controllers: ["cpu", "cpuacct", "memory", "pids"].map(str::to_owned).to_vec(),
        };
        let own = dir.path().join("slipway/x");
        std::fs::create_dir_all(&own).unwrap();
        for (name, text) in [
            ("cpuacct.usage", "5000000\n"),
            ("cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 3000\n"),
            ("memory.usage_in_bytes", "100\n"),
            ("memory.stat", "cache 1\ninactive_file 7\ntotal_inactive_file 8\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.max_usage_in_bytes", "200\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("pids.current", "3\n"),
        ] {
            std::fs::write(own.join(name), text).unwrap();
        }
        let expected = Stats {
            cpu_usec: 5000,
            throttled_periods: 4,
            throttled_usec: 3,
            memory_current: 100,
            memory_inactive_file: 8,
            memory_limit: None,
            memory_peak: Some(200),
            pids: 3,
            oom_kills: 2,
        };
        assert_eq!(stats(&[mount], "x"), expected);
    }
}
