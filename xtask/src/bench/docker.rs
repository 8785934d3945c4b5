//! A Docker daemon of the benchmark's own: its state is in a temporary folder, and it ends with the benchmark.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::error::Error;
use super::packages::DOCKER;
use super::process::{Running, clean_up, find_program, kill_leftovers, run, wait_until};

const QUICK: Duration = Duration::from_secs(60);
/// What a daemon starts on the host.
const PROGRAMS: [&str; 5] = ["dockerd", "containerd", "containerd-shim-runc-v2", "runc", "docker-proxy"];

/// A running daemon and its client.
#[derive(Debug)]
pub struct Docker {
    daemon: Running,
    client: PathBuf,
    folder: PathBuf,
    cgroup: String,
}

impl Docker {
    /// Starts a daemon with everything in `folder`.
    pub fn start(folder: PathBuf) -> Result<Self, Error> {
        let program = find_program(DOCKER.programs).unwrap_or_else(|| "dockerd".into());
        // Debian's client before any other in PATH: it has the daemon's version.
        let client = find_program(&["/usr/bin/docker", "docker"]).unwrap_or_else(|| "docker".into());
        let cgroup = format!("slipway-bench-{}", std::process::id());
        // Its bridge, packet filter rules and mounts live in namespaces that end with it, so the host keeps none of them.
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--propagation", "private"]).arg(program);
        command.arg("--data-root").arg(folder.join("data"));
        command.arg("--exec-root").arg(folder.join("exec"));
        command.arg("--pidfile").arg(folder.join("pid"));
        command.arg("-H").arg(host(&folder));
        // From the root of the hierarchies, whatever cgroup this runs in.
        command.args([
            "--cgroup-parent",
            &format!("/{cgroup}"),
            "--exec-opt",
            "native.cgroupdriver=cgroupfs",
        ]);
        // A configuration of the machine's must not change what is measured.
        let config = folder.join("daemon.json");
        std::fs::write(&config, "{}").map_err(Error::io("write", &config))?;
        command.arg("--config-file").arg(&config);
        let daemon = Running::start(&mut command, &folder.join("dockerd.log"))?;
        let docker = Self { daemon, client, folder, cgroup };
        wait_until(Some(&docker.daemon), "dockerd", QUICK, || {
            docker.folder.join("docker.sock").exists() && run(docker.command().arg("version"), QUICK).is_ok()
        })?;
        Ok(docker)
    }

    /// The client, told where the daemon is and nothing else.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.client);
        for name in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
            command.env_remove(name);
        }
        command.env("DOCKER_HOST", host(&self.folder)).env("DOCKER_CONFIG", self.folder.join("config"));
        command.env("DOCKER_BUILDKIT", "1");
        command
    }

    /// Runs the client to its end.
    pub fn call(&self, arguments: &[&str], limit: Duration) -> Result<String, Error> {
        Ok(run(self.command().args(arguments), limit)?.output.trim().to_owned())
    }

    /// Makes an image of a root file system.
    pub fn import(&self, tar: &Path, name: &str) -> Result<(), Error> {
        run(self.command().arg("import").arg(tar).arg(name), QUICK).map(drop)
    }

    /// The daemon's version.
    pub fn version(&self) -> Result<String, Error> {
        self.call(&["version", "--format", "{{.Server.Version}}"], QUICK)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // The daemon leaves containers running when it is stopped while one starts.
        let ids =
            clean_up(self.command().args(["ps", "-aq"]), QUICK).map(|done| done.output).unwrap_or_default();
        if ids.split_whitespace().next().is_some() {
            let _ = clean_up(self.command().args(["rm", "-f"]).args(ids.split_whitespace()), QUICK);
        }
        self.daemon.stop();
        for line in kill_leftovers(&self.folder, &PROGRAMS) {
            eprintln!("warning: dockerd left a process behind, which was killed: {line}");
        }
        remove_cgroups(&self.cgroup);
    }
}

fn host(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}

/// Removes what is left of a cgroup in every hierarchy. Only empty ones can be removed.
fn remove_cgroups(name: &str) {
    let base = Path::new("/sys/fs/cgroup");
    let controllers = std::fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    for top in std::iter::once(base.to_owned()).chain(controllers) {
        for entry in walkdir::WalkDir::new(top.join(name)).contents_first(true).into_iter().flatten() {
            if entry.file_type().is_dir() {
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }
}
