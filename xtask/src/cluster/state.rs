//! The folder of a cluster.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::error::Error;
use crate::workspace::target;

/// Longest wait for the cluster's first process; it waits up to 15 s for a program that it ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a cluster keeps everything.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
}

/// How a cluster was started; written by its Go program.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub index: u32,
    pub kubelet: bool,
    pub registry_port: u16,
    pub pid: i32,
    started: u64,
}

impl Cluster {
    /// Whether its first process lives.
    pub fn lives(&self) -> bool {
        self.pid > 0 && start_time(self.pid) == Some(self.started)
    }

    /// Its cgroup, in every hierarchy.
    pub fn cgroup(&self) -> String {
        format!("slipway-cluster-{}", self.index)
    }

    /// Its interface on the host.
    pub fn link(&self) -> String {
        format!("slwc{}", self.index)
    }
}

impl State {
    /// The given folder, or the default.
    pub fn new(folder: Option<PathBuf>) -> Self {
        let folder = folder.unwrap_or_else(|| target().join("cluster"));
        Self { folder: std::path::absolute(&folder).unwrap_or(folder) }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The cluster that was started here, if one was.
    pub fn read(&self) -> Result<Option<Cluster>, Error> {
        let path = self.folder.join("cluster.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| Error::Malformed { path, source })
    }

    /// The cluster that runs here.
    pub fn running(&self) -> Result<Cluster, Error> {
        self.read()?.filter(Cluster::lives).ok_or_else(|| Error::Down(self.folder.clone()))
    }

    /// Sends a line to the cluster's first process.
    pub fn ask(&self, request: &str) -> Result<String, Error> {
        self.running()?;
        let socket = self.folder.join("control.sock");
        let exchange = || {
            // The path may be longer than the address of a socket may be.
            let folder = File::open(&self.folder)?;
            let mut stream =
                UnixStream::connect(format!("/proc/self/fd/{}/control.sock", folder.as_raw_fd()))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(format!("{request}\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = exchange().map_err(Error::io("ask", &socket))?;
        match answer.strip_prefix("error: ") {
            Some(answer) => Err(Error::Refused { request: request.into(), answer: answer.trim().into() }),
            None => Ok(answer),
        }
    }
}

/// Start of a process in clock ticks: tells it from a later one of the same number.
fn start_time(pid: i32) -> Option<u64> {
    parse_start_time(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The name may hold spaces and parentheses.
    let fields = stat.get(stat.rfind(')')? + 1..)?;
    // A zombie has ended; it is only not reaped yet.
    let mut fields = fields.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_start_of_a_process() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        assert_eq!(parse_start_time(stat), Some(4711));
        assert_eq!(parse_start_time(&stat.replace(" S ", " Z ")), None);
        assert_eq!(parse_start_time("nonsense"), None);
        assert!(start_time(std::process::id().cast_signed()).is_some());
    }

    #[test]
    fn a_process_with_another_start_is_another() {
        let pid = std::process::id().cast_signed();
        let started = start_time(pid).unwrap();
        let mut cluster = Cluster { index: 0, kubelet: true, registry_port: 1, pid, started };
        assert!(cluster.lives());
        cluster.started += 1;
        assert!(!cluster.lives());
    }
}
