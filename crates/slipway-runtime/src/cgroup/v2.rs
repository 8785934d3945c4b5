//! cgroup v2: one hierarchy for all.

use std::path::Path;

use slipway_types::container::Limits;

use super::{
    CPU_PERIOD, CgroupError, PARENT, Result, Stats, cpu_quota, devices, keyed, make_folder, number, read,
    write,
};
use crate::sys;

/// What limits and counts need.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];

pub(super) fn create(mount: &Path, name: &str) -> Result<()> {
    let parent = mount.join(PARENT);
    make_folder(&parent)?;
    for folder in [mount, &parent] {
        let available = read(&folder.join("cgroup.controllers")).unwrap_or_default();
        for controller in
            CONTROLLERS.iter().filter(|known| available.split_whitespace().any(|c| c == **known))
        {
            // One that cannot be enabled is missed only by a limit that needs it, which then says so.
            let _ = write(&folder.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
    }
    make_folder(&parent.join(name))
}

pub(super) fn limit(folder: &Path, limits: &Limits) -> Result<()> {
    let set = |controller: &'static str, file: &str, text: String| {
        let path = folder.join(file);
        if path.exists() { write(&path, &text) } else { Err(CgroupError::NoController { controller }) }
    };
    if let Some(bytes) = limits.memory {
        set("memory", "memory.max", bytes.to_string())?;
        let swap = folder.join("memory.swap.max");
        if swap.exists() {
            write(&swap, "0")?;
        }
    }
    if let Some(millis) = limits.cpu_millis {
        set("cpu", "cpu.max", format!("{} {CPU_PERIOD}", cpu_quota(millis)))?;
    }
    if let Some(count) = limits.pids {
        set("pids", "pids.max", count.to_string())?;
    }
    Ok(())
}

pub(super) fn limit_devices(folder: &Path) -> Result<()> {
    let program = devices::program(&devices::ALLOWED);
    std::fs::File::open(folder)
        .and_then(|opened| sys::attach_device_program(&opened, &program))
        .map_err(|source| CgroupError::Io { action: "limit the devices of", path: folder.to_owned(), source })
}

pub(super) fn stats(folder: &Path) -> Stats {
    let text = |name: &str| read(&folder.join(name)).unwrap_or_default();
    let count = |name: &str| number(&folder.join(name));
    let (cpu, memory, events) = (text("cpu.stat"), text("memory.stat"), text("memory.events"));
    Stats {
        cpu_usec: keyed(&cpu, "usage_usec").unwrap_or(0),
        throttled_periods: keyed(&cpu, "nr_throttled").unwrap_or(0),
        throttled_usec: keyed(&cpu, "throttled_usec").unwrap_or(0),
        memory_current: count("memory.current").unwrap_or(0),
        memory_inactive_file: keyed(&memory, "inactive_file").unwrap_or(0),
        memory_limit: count("memory.max"),
        memory_peak: count("memory.peak"),
        pids: count("pids.current").unwrap_or(0),
        oom_kills: keyed(&events, "oom_kill").unwrap_or(0),
    }
}

/// At once where the kernel can (5.14).
pub(super) fn kill(folder: &Path, pids: &[u32]) {
    if write(&folder.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let freeze = folder.join("cgroup.freeze");
    let _ = write(&freeze, "1");
    super::kill_each(pids);
    let _ = write(&freeze, "0");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_counts_by_files() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { memory: Some(1 << 20), cpu_millis: Some(500), pids: Some(9) };
        assert!(matches!(
            limit(dir.path(), &limits),
            Err(CgroupError::NoController { controller: "memory" })
        ));
        for name in ["memory.max", "memory.swap.max", "cpu.max", "pids.max"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        limit(dir.path(), &limits).unwrap();
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(text("memory.max"), "1048576");
        assert_eq!(text("memory.swap.max"), "0");
        assert_eq!(text("cpu.max"), "50000 100000");
        assert_eq!(text("pids.max"), "9");
        for (name, text) in [
            ("cpu.stat", "usage_usec 77\nnr_throttled 2\nthrottled_usec 5\n"),
            ("memory.current", "10\n"),
            ("memory.stat", "anon 1\ninactive_file 4\n"),
            ("memory.max", "max\n"),
            ("memory.peak", "20\n"),
            ("memory.events", "low 0\noom 3\noom_kill 1\noom_group_kill 0\n"),
            ("pids.current", "2\n"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let expected = Stats {
            cpu_usec: 77,
            throttled_periods: 2,
            throttled_usec: 5,
            memory_current: 10,
            memory_inactive_file: 4,
            memory_limit: None,
            memory_peak: Some(20),
            pids: 2,
            oom_kills: 1,
        };
        assert_eq!(stats(dir.path()), expected);
    }

    #[test]
    fn devices_are_limited_by_the_kernel() {
        let Some(mount) = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .map(Path::new)
            .into_iter()
            .find(|mount| mount.join("cgroup.procs").exists())
        else {
            return super::super::tests::skip("no cgroup v2 on this host");
        };
        let name = format!("test-devices-{}", std::process::id());
        create(mount, &name).unwrap();
        let folder = mount.join(PARENT).join(&name);
        limit_devices(&folder).unwrap();
        // A shell in there may open /dev/null, not a disk or /dev/kmsg.
        let script = format!(
            "echo $$ > {}/cgroup.procs && : > /dev/null && head -c1 /dev/zero >/dev/null && ! head -c1 /dev/kmsg 2>/dev/null",
            folder.display()
        );
        let status = std::process::Command::new("sh").args(["-c", &script]).status().unwrap();
        super::super::remove(&folder).unwrap();
        assert!(status.success());
    }
}
