//! The two facts that outlive the shim: `state.json` (it runs) and `exit.json` (it ended).

use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use slipway_types::container::ExitInfo;

use crate::files;

/// File that says that the process runs, or ran.
pub(crate) const STATE_FILE: &str = "state.json";
/// File that says how it ended.
pub(crate) const EXIT_FILE: &str = "exit.json";
/// Exit code when Slipway could not start a container, as Docker has it.
pub(crate) const CODE_RUNTIME: u8 = 125;
/// Exit code when a program cannot be executed.
pub(crate) const CODE_CANNOT_EXECUTE: u8 = 126;
/// Exit code when a program does not exist.
pub(crate) const CODE_NOT_FOUND: u8 = 127;
/// Exit code after `SIGKILL`.
pub(crate) const CODE_KILLED: u8 = 137;

const MAX_FILE: u64 = 1 << 20;

/// Content of `state.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunState {
    /// Process id on this host.
    pub(crate) pid: u32,
    /// Field 22 of `/proc/PID/stat`: with the pid, names one process until the next boot.
    pub(crate) start_ticks: u64,
    /// When it started.
    pub(crate) started_at: Timestamp,
}

/// Why a container did not start, and the exit code that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) error: String,
}

impl Failure {
    /// A fault of the runtime or of what it was asked for.
    pub(crate) fn runtime(what: impl std::fmt::Display, cause: impl std::fmt::Display) -> Self {
        Self { code: CODE_RUNTIME, error: format!("{what}: {cause}") }
    }

    /// A fault of the runtime, told by an error and its causes.
    pub(crate) fn from_error(error: &dyn std::error::Error) -> Self {
        Self { code: CODE_RUNTIME, error: chain(error) }
    }
}

/// An error and its causes, joined by `: `. A cause that the text already ends with is left out.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}

/// `DIR/state.json`, if the process was started.
pub(crate) fn read_state(dir: &Path) -> io::Result<Option<RunState>> {
    read(dir, STATE_FILE)
}

/// `DIR/exit.json`, if it ended.
pub(crate) fn read_exit(dir: &Path) -> io::Result<Option<ExitInfo>> {
    read(dir, EXIT_FILE)
}

/// Never synced: a pid means nothing after a crash of the machine.
pub(crate) fn write_state(dir: &Path, state: &RunState) -> io::Result<()> {
    files::write_json(dir, STATE_FILE, state, false)
}

pub(crate) fn write_exit(dir: &Path, exit: &ExitInfo, sync: bool) -> io::Result<()> {
    files::write_json(dir, EXIT_FILE, exit, sync)
}

fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    match files::read_capped(&dir.join(name), MAX_FILE) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Start time of a process in clock ticks since boot; `None` when there is none.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold anything, also `) `: fields count from the last parenthesis, which ends field 2.
    let rest = stat.get(stat.rfind(')')? + 2..)?;
    rest.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_state(dir.path()).unwrap(), None);
        assert_eq!(read_exit(dir.path()).unwrap(), None);
        let state = RunState { pid: 7, start_ticks: 9, started_at: Timestamp::UNIX_EPOCH };
        write_state(dir.path(), &state).unwrap();
        assert_eq!(read_state(dir.path()).unwrap(), Some(state));
        let exit = ExitInfo {
            code: 3,
            oom_killed: false,
            error: None,
            peak_memory: Some(5),
            finished_at: Timestamp::UNIX_EPOCH,
        };
        write_exit(dir.path(), &exit, true).unwrap();
        assert_eq!(read_exit(dir.path()).unwrap(), Some(exit));
        std::fs::write(dir.path().join(EXIT_FILE), b"{").unwrap();
        assert!(read_exit(dir.path()).is_err(), "a damaged file is an error, never `still running`");
    }

    #[test]
    fn knows_when_a_process_started() {
        let mine = start_ticks(std::process::id()).expect("this process runs");
        assert!(mine > 0);
        assert_eq!(start_ticks(std::process::id()), Some(mine));
        assert_eq!(start_ticks(u32::MAX), None);
    }

    #[test]
    fn causes_are_told_once() {
        let inner = io::Error::other("inner");
        let outer = crate::ConfigError::Io { action: "read", path: "/x".into(), source: inner };
        assert_eq!(chain(&outer), "cannot read /x: inner");
    }
}
