//! Ending a cluster.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::cgroups;
use super::error::Error;
use super::programs::output;
use super::state::{Cluster, State};
use crate::error::chain;

/// How long the kernel may take to end everything in a PID namespace.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends a cluster and removes what it had. Goes on where something fails, and then says all that stayed.
pub fn down(state: &State) -> Result<(), Error> {
    let Some(cluster) = state.read()? else {
        eprintln!("==> no cluster was started in {}", state.folder().display());
        return Ok(());
    };
    let mut left = Vec::new();
    end(&cluster, &mut left);
    left.extend(cgroups::remove(&cluster.cgroup()));
    // The kernel removes it with the network namespace, but not at once.
    if Path::new("/sys/class/net").join(cluster.link()).exists()
        && let Err(error) = output(Command::new("ip").args(["link", "delete", &cluster.link()]))
        && Path::new("/sys/class/net").join(cluster.link()).exists()
    {
        left.push(chain(&error));
    }
    // The folder says what else there is to remove, so it goes last.
    if left.is_empty()
        && let Err(error) = std::fs::remove_dir_all(state.folder())
    {
        left.push(format!("folder {}: {error}", state.folder().display()));
    }
    if left.is_empty() { Ok(()) } else { Err(Error::Left(left)) }
}

/// Kills the first process of the namespace, and with it all others: programs, shims, containers. Their mounts go with
/// the last of them.
fn end(cluster: &Cluster, left: &mut Vec<String>) {
    if !cluster.lives() {
        return;
    }
    if let Some(pid) = Pid::from_raw(cluster.pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
    let deadline = Instant::now() + PATIENCE;
    while cluster.lives() {
        if Instant::now() > deadline {
            left.push(format!("process {}", cluster.pid));
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
