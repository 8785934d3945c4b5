//! The first process of a container inherits every orphan in it, and must wait for them.

use std::future::Future;
use std::io;

use rustix::process::{Pid, WaitOptions, waitpid};
use slipway_serving::worker::WorkerPids;
use tokio::signal::unix::{SignalKind, signal};

/// Waits for ended children that are not workers, for ever.
pub(crate) fn orphans(workers: WorkerPids) -> io::Result<impl Future<Output = ()> + Send> {
    let mut ended = signal(SignalKind::child())?;
    Ok(async move {
        while ended.recv().await.is_some() {
            for pid in zombies() {
                if !workers.contains(pid.as_raw_nonzero().get().unsigned_abs()) {
                    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
                }
            }
        }
    })
}

/// Children of this process that have ended.
fn zombies() -> Vec<Pid> {
    let own = rustix::process::getpid();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw)
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
                .is_ok_and(|stat| is_zombie_of(&stat, own))
        })
        .collect()
}

/// Reads `pid (name) state parent …`; the name may hold spaces and parentheses.
fn is_zombie_of(stat: &str, parent: Pid) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_ascii_whitespace();
    fields.next() == Some("Z")
        && fields.next().and_then(|p| p.parse().ok()).and_then(Pid::from_raw) == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stat() {
        let one = Pid::from_raw(1).unwrap();
        assert!(is_zombie_of("12 (a) b (c)) Z 1 12 12 0", one));
        assert!(!is_zombie_of("12 (a) Z 2 12 12 0", one));
        assert!(!is_zombie_of("12 (a) S 1 12 12 0", one));
        assert!(!is_zombie_of("", one));
    }

    #[test]
    fn sees_an_ended_child() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while !zombies().contains(&pid) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.wait().unwrap();
        assert!(!zombies().contains(&pid));
    }
}
