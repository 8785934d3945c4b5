//! A Slipway of the benchmark's own, with its state in a temporary folder.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::error::Error;
use super::process::{Running, clean_up, free_port, kill_leftovers, run, wait_until};
use crate::error::chain;

/// For commands that are done at once.
pub const QUICK: Duration = Duration::from_secs(60);

/// The two programs, side by side.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Those of a folder.
    pub fn in_folder(folder: &Path) -> Result<Self, Error> {
        let folder = folder.canonicalize().map_err(Error::io("open", folder))?;
        let programs = Self { folder };
        for program in [programs.slipway(), programs.runner()] {
            std::fs::metadata(&program).map_err(Error::io("open", &program))?;
        }
        Ok(programs)
    }

    /// The static runner.
    pub fn runner(&self) -> PathBuf {
        self.folder.join("slipway-runner")
    }

    /// The version, and how it was built when the folder tells.
    pub fn version(&self) -> Result<String, Error> {
        let text = run(Command::new(self.slipway()).arg("--version"), QUICK)?.output;
        let profile =
            self.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(format!("{} ({profile})", text.trim().trim_start_matches("slipway ")))
    }

    fn slipway(&self) -> PathBuf {
        self.folder.join("slipway")
    }
}

/// A running daemon and its command line.
#[derive(Debug)]
pub struct Slipway {
    daemon: Running,
    program: PathBuf,
    root: PathBuf,
    settings: PathBuf,
    gateway: SocketAddr,
}

impl Slipway {
    /// Starts a daemon with its state in `root`.
    pub fn start(programs: &Programs, scratch: &Path, root: &Path) -> Result<Self, Error> {
        Self::start_logging(programs, scratch, root, None)
    }

    /// The same, with a filter of its log.
    pub fn start_logging(
        programs: &Programs,
        scratch: &Path,
        root: &Path,
        filter: Option<&str>,
    ) -> Result<Self, Error> {
        let gateway = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let settings = scratch.join("settings.toml");
        std::fs::write(&settings, format!("[gateway]\nlisten = \"{gateway}\"\n"))
            .map_err(Error::io("write", &settings))?;
        let mut command = base_command(&programs.slipway(), root, &settings);
        command.envs(filter.map(|filter| ("SLIPWAY_LOG", filter)));
        let daemon = Running::start(command.arg("daemon"), &scratch.join("slipway-daemon.log"))?;
        let slipway = Self { daemon, program: programs.slipway(), root: root.to_owned(), settings, gateway };
        wait_until(Some(&slipway.daemon), "slipway daemon", QUICK, || {
            run(slipway.command().args(["daemon", "status"]), QUICK).is_ok()
        })?;
        Ok(slipway)
    }

    /// The command line.
    pub fn command(&self) -> Command {
        base_command(&self.program, &self.root, &self.settings)
    }

    /// Runs the command line to its end.
    pub fn call(&self, arguments: &[&str], limit: Duration) -> Result<String, Error> {
        Ok(run(self.command().args(arguments), limit)?.output.trim().to_owned())
    }

    /// Where the gateway listens while a service is deployed.
    pub fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// What `slipway system check` finds; nothing may be left behind by a benchmark.
    pub fn check(&self) -> Option<String> {
        match self.call(&["system", "check"], QUICK) {
            Ok(_) => None,
            Err(error) => Some(format!("`slipway system check` after the benchmark: {}", chain(&error))),
        }
    }

    fn names(&self, arguments: &[&str], key: &str) -> Vec<String> {
        let text =
            clean_up(self.command().args(arguments), QUICK).map(|done| done.output).unwrap_or_default();
        names_in(&text, key)
    }
}

impl Drop for Slipway {
    fn drop(&mut self) {
        // Containers and the gateway outlive the daemon by design, so they are ended through it first.
        if self.daemon.check().is_err() && clean_up(self.command().args(["daemon", "status"]), QUICK).is_err()
        {
            eprintln!("warning: the Slipway daemon is gone");
        } else {
            for service in self.names(&["services", "--format", "json"], "/spec/name") {
                let _ = clean_up(self.command().arg("delete").arg(service), QUICK);
            }
            for container in self.names(&["ps", "--all", "--format", "json"], "/id") {
                let _ = clean_up(self.command().args(["rm", "--force"]).arg(container), QUICK);
            }
            // The daemon ends the gateway, a moment after the last service is gone.
            let until = Instant::now() + Duration::from_secs(5);
            while TcpStream::connect(self.gateway).is_ok() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = clean_up(self.command().args(["daemon", "stop"]), QUICK);
        }
        self.daemon.stop();
        for line in kill_leftovers(&self.root, &["slipway", "slipway-runner"]) {
            eprintln!("warning: Slipway left a process behind, which was killed: {line}");
        }
    }
}

fn base_command(program: &Path, root: &Path, settings: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--root").arg(root).env("SLIPWAY_SETTINGS", settings);
    command.env_remove("SLIPWAY_ROOT").env_remove("SLIPWAY_LOG");
    command
}

fn names_in(json: &str, pointer: &str) -> Vec<String> {
    let list: Vec<Value> = serde_json::from_str(json).unwrap_or_default();
    list.iter().filter_map(|item| item.pointer(pointer)?.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_names() {
        assert_eq!(
            names_in(r#"[{"spec":{"name":"a"}},{"spec":{}},{"spec":{"name":"b"}}]"#, "/spec/name"),
            ["a", "b"]
        );
        assert_eq!(names_in("not json", "/id"), Vec::<String>::new());
    }
}
