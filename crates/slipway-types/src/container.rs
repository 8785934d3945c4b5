//! Containers: what is asked for, what is seen, and how one ends.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The random id of a container: 24 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// Why a text is no container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a container id")]
pub struct InvalidContainerId(pub String);

impl ContainerId {
    /// An id from twelve random bytes.
    pub fn from_random(bytes: [u8; 12]) -> Self {
        use fmt::Write;
        let mut text = String::with_capacity(24);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as listings show them.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidContainerId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let valid = text.len() == 24 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if valid { Ok(Self(text)) } else { Err(InvalidContainerId(text)) }
    }
}

impl FromStr for ContainerId {
    type Err = InvalidContainerId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a container's name may be, for error messages.
pub const NAME_RULE: &str =
    "expected 1 to 128 of the characters A-Z a-z 0-9 _ . -, starting with a letter or a digit";

/// Whether a text may name a container: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 128 characters.
pub fn valid_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    (1..=128).contains(&name.len())
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// What a user asks for with `slipway run`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainerSpec {
    /// Name for people; made from the id when absent.
    pub name: Option<String>,
    /// Image reference or id.
    pub image: String,
    /// Replaces the image's entrypoint; an empty list removes it.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments; replace the image's command when given.
    pub command: Vec<String>,
    /// `KEY=value` pairs over the image's environment.
    pub env: Vec<String>,
    /// Working directory inside the container.
    pub workdir: Option<String>,
    /// `user[:group]`, names or numbers, looked up inside the image.
    pub user: Option<String>,
    /// What of this host is visible inside.
    pub mounts: Vec<Mount>,
    /// Absolute paths inside of folders that the container keeps outside its root file system: `-v PATH`, and VOLUME
    /// of the image. Each starts with what the image has there, and goes with the container.
    pub volumes: Vec<PathBuf>,
    /// Network namespace.
    pub network: NetworkMode,
    /// Resource limits.
    pub limits: Limits,
    /// Mounts the root file system read-only.
    pub read_only: bool,
    /// Removes the container once it ended.
    pub auto_remove: bool,
    /// Keeps standard input open and connected.
    pub interactive: bool,
    /// Signal that asks it to stop; the image's, else `SIGTERM`.
    pub stop_signal: Option<String>,
    /// Free-form labels.
    pub labels: BTreeMap<String, String>,
}

/// A host folder or file, or a temporary file system, inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Mount {
    /// A folder or file of this host.
    Bind {
        /// Absolute path here.
        source: PathBuf,
        /// Absolute path inside.
        target: PathBuf,
        /// Whether writes are refused.
        #[serde(default)]
        read_only: bool,
    },
    /// Memory, gone with the container.
    Tmpfs {
        /// Absolute path inside.
        target: PathBuf,
        /// Most bytes that it holds; half of memory when absent.
        #[serde(default)]
        size: Option<u64>,
    },
}

/// Which network a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Loopback and nothing else.
    #[default]
    None,
    /// This host's own network.
    Host,
}

impl FromStr for NetworkMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            _ => Err(format!("`{text}` is not a network: expected `none` or `host`")),
        }
    }
}

/// Resource limits; what is absent is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory in bytes, swap included.
    pub memory: Option<u64>,
    /// Thousandths of a CPU: 1500 is one and a half.
    pub cpu_millis: Option<u32>,
    /// Most processes and threads.
    pub pids: Option<u32>,
}

/// The life of a container. `Created → Running → Exited`; `Created → Exited` when it cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Recorded; its process does not run yet.
    Created,
    /// Its first process runs.
    Running,
    /// Its first process ended, or could not start.
    Exited,
}

impl ContainerState {
    /// Every state, for exhaustive tests.
    pub const ALL: [Self; 3] = [Self::Created, Self::Running, Self::Exited];

    /// Whether a container may go from this state to `next`.
    pub fn can_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Created, Self::Running | Self::Exited) | (Self::Running, Self::Exited))
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitInfo {
    /// Exit status as a shell shows it: 128 + n after signal n; 125–127 when it could not start.
    pub code: u8,
    /// The kernel ended it for lack of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// Why it could not start, or was ended by Slipway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Most memory that it held, in bytes, where the kernel told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// When it ended.
    pub finished_at: jiff::Timestamp,
}

/// One container as `ps` and `inspect` show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Id.
    pub id: ContainerId,
    /// Name.
    pub name: String,
    /// Image reference as asked for.
    pub image: String,
    /// Digest of the image's configuration.
    pub image_id: crate::Digest,
    /// What runs: entrypoint and command.
    pub command: Vec<String>,
    /// State.
    pub state: ContainerState,
    /// Host process id while it runs.
    pub pid: Option<u32>,
    /// When it was recorded.
    pub created_at: jiff::Timestamp,
    /// When its process started.
    pub started_at: Option<jiff::Timestamp>,
    /// How it ended.
    pub exit: Option<ExitInfo>,
    /// Its specification.
    pub spec: ContainerSpec,
}

/// Answer to `POST /v1/containers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedContainer {
    /// Id.
    pub id: ContainerId,
    /// Name.
    pub name: String,
    /// Unix socket of its shim, which carries stdio and the exit status.
    pub attach_socket: PathBuf,
    /// How it ended, when it was to run in the background and could not be started; then it is removed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<ExitInfo>,
}

/// Body of `POST /v1/containers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateContainer {
    /// What to run.
    pub spec: ContainerSpec,
    /// The caller will attach at once: the process starts only when it has, so no output is lost.
    #[serde(default)]
    pub wait_for_attach: bool,
}

/// Body of `POST /v1/containers/{id}/exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Extra `KEY=value` pairs.
    pub env: Vec<String>,
    /// Working directory; the container's when absent.
    pub workdir: Option<String>,
    /// `user[:group]`; the container's when absent.
    pub user: Option<String>,
    /// Keeps standard input connected.
    pub interactive: bool,
}

/// Answer to an exec request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedExec {
    /// Unix socket that carries stdio and the exit status.
    pub attach_socket: PathBuf,
}

/// Which of a process's outputs a piece of log or build output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a container's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the line was complete.
    pub time: jiff::Timestamp,
    /// Which output.
    pub stream: OutputStream,
    /// The text without its newline; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// Which lines of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Not those before.
    pub since: Option<jiff::Timestamp>,
    /// Only so many of the last.
    pub tail: Option<usize>,
    /// Waits for more until the container has ended.
    pub follow: bool,
}

/// What a look at a log gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogNext {
    /// A line.
    Line(LogLine),
    /// None yet; ask again.
    Idle,
    /// There will be none.
    End,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_only_move_forward() {
        use ContainerState::{Created, Exited, Running};
        let allowed = [(Created, Running), (Created, Exited), (Running, Exited)];
        for from in ContainerState::ALL {
            for to in ContainerState::ALL {
                assert_eq!(from.can_become(to), allowed.contains(&(from, to)), "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn ids_and_names_cannot_leave_their_folder() {
        for bad in ["", "..", "../../../../../etc/passwd", "0123456789abcdef0123456G"] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
        assert!(valid_name("my_model-1.2"));
        for bad in ["", ".x", "-x", "a/b", "ü"] {
            assert!(!valid_name(bad), "{bad}");
        }
    }
}
