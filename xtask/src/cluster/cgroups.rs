//! The cgroups of a cluster, in every mounted hierarchy of either version.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long processes that were killed may take to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// Memory of a cluster in bytes.
#[derive(Debug)]
pub struct Usage {
    pub now: u64,
    pub most: u64,
}

/// What the cluster used, its pods included; `None` where the kernel does not count.
pub fn memory(name: &str) -> Option<Usage> {
    let read = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    folders(name).iter().find_map(|folder| {
        [("memory.usage_in_bytes", "memory.max_usage_in_bytes"), ("memory.current", "memory.peak")]
            .iter()
            .find_map(|(now, most)| {
                Some(Usage { now: read(&folder.join(now))?, most: read(&folder.join(most))? })
            })
    })
}

/// Kills what is in them and removes them; gives what stayed.
pub fn remove(name: &str) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut left = Vec::new();
        for top in folders(name) {
            for folder in innermost_first(&top) {
                for pid in processes(&folder) {
                    // Gone meanwhile is what is wanted.
                    let _ = kill_process(pid, Signal::KILL);
                }
                match std::fs::remove_dir(&folder) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        left.push(format!("cgroup {}: {error}", folder.display()));
                    }
                    _ => {}
                }
            }
        }
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn folders(name: &str) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    roots(&table).map(|root| root.join(name)).filter(|folder| folder.is_dir()).collect()
}

fn roots(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn innermost_first(top: &Path) -> Vec<PathBuf> {
    walkdir::WalkDir::new(top)
        .contents_first(true)
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_dir())
        .map(walkdir::DirEntry::into_path)
        .collect()
}

fn processes(folder: &Path) -> Vec<Pid> {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_hierarchies_of_both_versions() {
        let table = "1 0 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                     2 1 0:2 / /sys/fs/cgroup/cpu rw shared:1 - cgroup cgroup rw,cpu\n\
                     3 1 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let expected = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(roots(table).collect::<Vec<_>>(), expected);
    }
}
