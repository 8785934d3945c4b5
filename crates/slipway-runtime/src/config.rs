//! What a container is made of: the content of `config.json`.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use slipway_types::container::{ContainerId, Limits, Mount, NetworkMode};

use crate::files;

/// File that holds the configuration.
pub(crate) const CONFIG_FILE: &str = "config.json";
/// Largest configuration that is read, in bytes.
const MAX_CONFIG: u64 = 8 << 20;
/// Bytes after which a log is rotated, once.
const DEFAULT_LOG_BYTES: u64 = 64 << 20;
/// Size of `/dev/shm`, as Docker has it.
const DEFAULT_SHM_BYTES: u64 = 64 << 20;

/// Everything that the shim needs to run one container.
///
/// The image's configuration is already merged in: the runtime adds only `HOME` (from the image's `/etc/passwd`), `PATH` and
/// `HOSTNAME` to the environment, where they are missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerConfig {
    /// Id; names the cgroup `/slipway/ID`.
    pub id: ContainerId,
    /// Host name inside: at most 64 letters, digits, `-`, `.`.
    pub hostname: String,
    /// Layers of the root file system.
    pub rootfs: Rootfs,
    /// Mounts the root file system read-only; `upper` then stays untouched.
    #[serde(default)]
    pub read_only: bool,
    /// What to execute.
    pub process: Process,
    /// Bind and tmpfs mounts. One at a default's place (say `/dev/shm`) replaces it.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// `none`: a network namespace with loopback up; `host`: the host's, with its `resolv.conf` and `hosts` read-only.
    #[serde(default)]
    pub network: NetworkMode,
    /// Limits of the cgroup.
    #[serde(default)]
    pub limits: Limits,
    /// Signal that asks it to stop, a name or a number; `SIGTERM` when absent. Used by [`crate::Container::stop`].
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// The process starts only when a client has attached, or after 30 seconds.
    #[serde(default)]
    pub wait_for_attach: bool,
    /// Kills the container when its last attached client is gone (or none came in 30 seconds).
    #[serde(default)]
    pub kill_on_detach: bool,
    /// Standard input is connected to attached clients; `/dev/null` otherwise.
    #[serde(default)]
    pub interactive: bool,
    /// Keeps the output in `log`.
    #[serde(default)]
    pub log: bool,
    /// Bytes after which `log` becomes `log.1`.
    #[serde(default = "default_log_bytes")]
    pub log_bytes: u64,
    /// Bytes of `/dev/shm`.
    #[serde(default = "default_shm_bytes")]
    pub shm_bytes: u64,
    /// Nothing of it must survive a crash of the machine (build steps, `--rm`): the overlay is mounted `volatile`, so
    /// sync calls inside do nothing, and `exit.json` is not synced. Whoever keeps `upper` syncs it.
    #[serde(default)]
    pub ephemeral: bool,
}

/// An overlay's folders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rootfs {
    /// Read-only layers, lowest first; at least one.
    pub lowers: Vec<PathBuf>,
    /// Takes every change; an OCI layer in overlay's own notation (whiteouts are 0:0 character devices).
    pub upper: PathBuf,
    /// Overlay's work folder, on the file system of `upper`.
    pub work: PathBuf,
}

/// A program and its surroundings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Program and arguments. A program without `/` is looked up in the container's own `PATH`.
    pub args: Vec<String>,
    /// `KEY=value` pairs.
    pub env: Vec<String>,
    /// Absolute working directory; made when missing, as Docker does.
    pub cwd: PathBuf,
    /// `user[:group]`, names or numbers of the container's `/etc/passwd` and `/etc/group`; empty for root.
    #[serde(default)]
    pub user: String,
}

/// Why a configuration is refused, or cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A field holds what no container can have.
    #[error("{field} of the container's configuration: {reason}")]
    Invalid {
        /// Path of the field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {path}")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// It is no configuration.
    #[error("{path} is not a container's configuration")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: serde_json::Error,
    },
}

impl ContainerConfig {
    /// A container of these layers and this process, and the default of everything else: no network, no limits, no
    /// log, writable, named after its id.
    pub fn new(id: ContainerId, rootfs: Rootfs, process: Process) -> Self {
        Self {
            hostname: id.short().to_owned(),
            id,
            rootfs,
            read_only: false,
            process,
            mounts: Vec::new(),
            network: NetworkMode::None,
            limits: Limits::default(),
            stop_signal: None,
            wait_for_attach: false,
            kill_on_detach: false,
            interactive: false,
            log: false,
            log_bytes: DEFAULT_LOG_BYTES,
            shm_bytes: DEFAULT_SHM_BYTES,
            ephemeral: false,
        }
    }

    /// Reads and checks `DIR/config.json`.
    ///
    /// # Errors
    /// When it is missing, too large, malformed or invalid.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(CONFIG_FILE);
        let bytes = files::read_capped(&path, MAX_CONFIG).map_err(|source| ConfigError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let config: Self =
            serde_json::from_slice(&bytes).map_err(|source| ConfigError::Parse { path, source })?;
        config.validate()?;
        Ok(config)
    }

    /// Checks and writes `DIR/config.json`; synced unless the container is ephemeral.
    pub(crate) fn store(&self, dir: &Path) -> Result<(), ConfigError> {
        self.validate()?;
        files::write_json(dir, CONFIG_FILE, self, !self.ephemeral).map_err(|source| ConfigError::Io {
            action: "write",
            path: dir.join(CONFIG_FILE),
            source,
        })
    }

    /// Checks what the types allow but no container can have.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], naming the field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |field, reason: String| Err(ConfigError::Invalid { field, reason });
        let name = &self.hostname;
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
        if name.is_empty() || name.len() > 64 || !plain {
            return invalid("hostname", format!("`{name}` is not 1 to 64 letters, digits, `-` and `.`"));
        }
        if self.rootfs.lowers.is_empty() {
            return invalid("rootfs.lowers", "no layer".to_owned());
        }
        for path in self.rootfs.lowers.iter().chain([&self.rootfs.upper, &self.rootfs.work]) {
            if !path.is_absolute() {
                return invalid("rootfs", format!("`{}` is not absolute", path.display()));
            }
        }
        self.process.validate()?;
        for mount in &self.mounts {
            let target = match mount {
                Mount::Bind { source, target, .. } => {
                    if !source.is_absolute() {
                        return invalid("mounts", format!("source `{}` is not absolute", source.display()));
                    }
                    target
                }
                Mount::Tmpfs { target, .. } => target,
            };
            check_target(target).or_else(|reason| invalid("mounts", reason))?;
        }
        let mut targets: Vec<PathBuf> = self.mounts.iter().map(|m| lexical(target_of(m))).collect();
        targets.sort();
        if let Some(pair) = targets.windows(2).find(|pair| pair[0] == pair[1]) {
            return invalid("mounts", format!("two mounts at `{}`", pair[0].display()));
        }
        if let Some(signal) = &self.stop_signal
            && crate::parse_signal(signal).is_none()
        {
            return invalid("stop_signal", format!("`{signal}` is not a signal"));
        }
        Ok(())
    }
}

impl Process {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |field, reason: String| Err(ConfigError::Invalid { field, reason });
        if self.args.first().is_none_or(|program| program.is_empty()) {
            return invalid("process.args", "no program".to_owned());
        }
        if self.args.iter().chain(&self.env).any(|text| text.contains('\0')) {
            return invalid("process", "an argument or variable holds a NUL byte".to_owned());
        }
        // A variable's value may be a secret: which one it is must do.
        if let Some(at) = self.env.iter().position(|pair| pair.find('=').is_none_or(|at| at == 0)) {
            return invalid("process.env", format!("variable {} is not KEY=value", at + 1));
        }
        if !self.cwd.is_absolute() {
            return invalid("process.cwd", format!("`{}` is not absolute", self.cwd.display()));
        }
        Ok(())
    }
}

/// Where a mount appears inside.
pub(crate) fn target_of(mount: &Mount) -> &Path {
    match mount {
        Mount::Bind { target, .. } | Mount::Tmpfs { target, .. } => target,
    }
}

/// The path with `.`, `..` and doubled slashes resolved textually, always absolute.
pub(crate) fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

fn check_target(target: &Path) -> Result<(), String> {
    let shown = target.display();
    if !target.is_absolute() {
        return Err(format!("target `{shown}` is not absolute"));
    }
    let target = lexical(target);
    if target == Path::new("/") || target == Path::new("/dev") {
        return Err(format!("nothing can be mounted at `{shown}`"));
    }
    // What the kernel shows there is part of the container's isolation.
    if ["/proc", "/sys"].iter().any(|top| target.starts_with(top)) {
        return Err(format!("`{shown}` is inside a kernel file system, where nothing can be mounted"));
    }
    Ok(())
}

fn default_log_bytes() -> u64 {
    DEFAULT_LOG_BYTES
}

fn default_shm_bytes() -> u64 {
    DEFAULT_SHM_BYTES
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> ContainerConfig {
        ContainerConfig {
            id: ContainerId::from_random([7; 12]),
            hostname: "box".to_owned(),
            rootfs: Rootfs { lowers: vec!["/l".into()], upper: "/u".into(), work: "/w".into() },
            read_only: false,
            process: Process {
                args: vec!["true".to_owned()],
                env: vec!["PATH=/bin".to_owned()],
                cwd: "/".into(),
                user: String::new(),
            },
            mounts: Vec::new(),
            network: NetworkMode::None,
            limits: Limits::default(),
            stop_signal: None,
            wait_for_attach: false,
            kill_on_detach: false,
            interactive: false,
            log: false,
            log_bytes: default_log_bytes(),
            shm_bytes: default_shm_bytes(),
            ephemeral: true,
        }
    }

    #[test]
    fn round_trips_through_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let config = sample();
        config.store(dir.path()).unwrap();
        assert_eq!(ContainerConfig::load(dir.path()).unwrap(), config);
    }

    #[test]
    fn refuses_what_no_container_can_have() {
        type Change = fn(&mut ContainerConfig);
        let bind = |target: &str| Mount::Bind { source: "/s".into(), target: target.into(), read_only: true };
        let cases: [(&str, Change); 9] = [
            ("hostname", |c| c.hostname = "a/b".to_owned()),
            ("rootfs.lowers", |c| c.rootfs.lowers.clear()),
            ("rootfs", |c| c.rootfs.upper = "u".into()),
            ("process.args", |c| c.process.args.clear()),
            ("process", |c| c.process.args.push("a\0b".to_owned())),
            ("process.env", |c| c.process.env.push("=x".to_owned())),
            ("process.cwd", |c| c.process.cwd = "tmp".into()),
            ("stop_signal", |c| c.stop_signal = Some("SIGNOPE".to_owned())),
            ("mounts", |c| c.mounts = vec![Mount::Tmpfs { target: "/a/../proc/x".into(), size: None }]),
        ];
        for (expected, change) in cases {
            let mut config = sample();
            change(&mut config);
            match config.validate() {
                Err(ConfigError::Invalid { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
        let mut config = sample();
        config.mounts = vec![bind("/data"), bind("/x/../data/")];
        assert!(config.validate().is_err(), "the same place twice");
    }

    #[test]
    fn lexical_paths_never_leave_the_root() {
        for (given, expected) in
            [("/a/./b//c", "/a/b/c"), ("/../..", "/"), ("/a/../../b", "/b"), ("a/b", "/a/b")]
        {
            assert_eq!(lexical(Path::new(given)), Path::new(expected));
        }
    }
}
