//! The handle that a daemon holds on a container: its folder, and the conversation with its shim.
//!
//! Every method blocks; none forks, none keeps state, so a handle made after a restart is as good as the first.

mod error;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use slipway_types::container::{ContainerState, ExecSpec, ExitInfo};

use crate::attach::{self, AttachClient, AttachError, Event};
use crate::cgroup::{Cgroup, Stats};
use crate::config::ContainerConfig;
use crate::exit;
use crate::files::{self, LockState, RecoveryLock};
use crate::log::{LogOptions, LogReader};
use crate::shim::{self, SHIM_SOCKET};

pub use error::ContainerError;

/// Default of `stop_signal`.
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// How long a killed container may take to be gone: its memory is freed, its output drained.
const KILL_WAIT: Duration = Duration::from_secs(60);
/// Pause between looks at files, where nothing can be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long another recovery of the same container may take.
const RECOVERY_WAIT: Duration = Duration::from_secs(15);

/// One container.
#[derive(Clone, Debug)]
pub struct Container {
    dir: PathBuf,
    config: ContainerConfig,
}

/// That its process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// Process id on this host.
    pub pid: u32,
    /// Since when.
    pub started_at: Timestamp,
}

/// What files and locks tell about a container, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its state.
    pub state: ContainerState,
    /// Host pid of its first process, once it ran; dead when `state` is `Exited`.
    pub pid: Option<u32>,
    /// When its process started.
    pub started_at: Option<Timestamp>,
    /// How it ended.
    pub exit: Option<ExitInfo>,
    /// Its shim lives.
    pub shim_alive: bool,
    /// Its shim died without writing how the container ended: call [`Container::recover`].
    pub needs_recovery: bool,
}

type Result<T> = std::result::Result<T, ContainerError>;

impl Container {
    /// Makes the folder `dir` a container, by writing its configuration there. Nothing runs yet.
    ///
    /// # Errors
    /// When the configuration is invalid or cannot be written.
    pub fn create(dir: &Path, config: &ContainerConfig) -> Result<Self> {
        config.store(dir)?;
        Ok(Self { dir: dir.to_owned(), config: config.clone() })
    }

    /// The container in `dir`.
    ///
    /// # Errors
    /// When there is none, or its configuration is damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self { dir: dir.to_owned(), config: ContainerConfig::load(dir)? })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its configuration.
    pub fn config(&self) -> &ContainerConfig {
        &self.config
    }

    /// The socket of its shim, for [`AttachClient::connect`].
    pub fn socket(&self) -> PathBuf {
        self.dir.join(SHIM_SOCKET)
    }

    /// Starts its shim: `exe shim run DIR`, where `exe` calls [`crate::shim_main`] with what follows `shim`.
    ///
    /// The shim is in its own session, belongs to init (the caller has no child to reap), and inherits neither
    /// descriptors nor environment. When this returns it holds its lock and its socket accepts clients.
    ///
    /// # Errors
    /// When the shim cannot be started, or refuses because the container has run or another shim has it.
    pub fn spawn_shim(&self, exe: &Path) -> Result<()> {
        shim::spawn(exe, "run", &self.dir, None)
            .map_err(|source| ContainerError::Spawn { id: self.id(), source })
    }

    /// Waits until the process runs.
    ///
    /// # Errors
    /// [`ContainerError::NotStarted`] with exit code 125 to 127 and the reason; a timeout; a dead shim.
    pub fn wait_started(&self, timeout: Duration) -> Result<Started> {
        let deadline = Instant::now() + timeout;
        loop {
            // The lock first: a shim that dies after this look has written its exit before it released the lock.
            let alive = self.lock()? != LockState::Free;
            if let Some(state) = self.read("read", exit::STATE_FILE, exit::read_state)? {
                return Ok(Started { pid: state.pid, started_at: state.started_at });
            }
            if let Some(exit) = self.read_exit()? {
                return Err(ContainerError::NotStarted { id: self.id(), exit });
            }
            if !alive {
                return Err(ContainerError::ShimGone { id: self.id() });
            }
            match self.next_of(deadline, |event| matches!(event, Event::Started { .. } | Event::Exit(_)))? {
                Some(Event::Started { pid, started_at }) => return Ok(Started { pid, started_at }),
                Some(_) | None if Instant::now() < deadline => {}
                _ => return Err(self.timeout("start", timeout)),
            }
        }
    }

    /// Waits until it ended; for ever without a timeout.
    ///
    /// # Errors
    /// A timeout, or [`ContainerError::ShimGone`].
    pub fn wait_exit(&self, timeout: Option<Duration>) -> Result<ExitInfo> {
        // A century stands for `ever`.
        let timeout = timeout.unwrap_or(Duration::from_secs(3_000_000_000));
        let deadline = Instant::now() + timeout;
        loop {
            let alive = self.lock()? != LockState::Free;
            if let Some(exit) = self.read_exit()? {
                return Ok(exit);
            }
            if !alive {
                return Err(ContainerError::ShimGone { id: self.id() });
            }
            match self.next_of(deadline, |event| matches!(event, Event::Exit(_)))? {
                Some(Event::Exit(exit)) => return Ok(exit),
                _ if Instant::now() < deadline => {}
                _ => return Err(self.timeout("end", timeout)),
            }
        }
    }

    /// What its files and locks tell.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn observe(&self) -> Result<Observed> {
        let lock = self.lock()?;
        let run = self.read("read", exit::STATE_FILE, exit::read_state)?;
        let exit = self.read_exit()?;
        let state = match (&run, &exit) {
            (_, Some(_)) => ContainerState::Exited,
            (Some(_), None) => ContainerState::Running,
            (None, None) => ContainerState::Created,
        };
        Ok(Observed {
            state,
            pid: run.as_ref().map(|run| run.pid),
            started_at: run.map(|run| run.started_at),
            shim_alive: lock == LockState::Held,
            needs_recovery: lock == LockState::Free && exit.is_none(),
            exit,
        })
    }

    /// Sends a signal to its first process, through the shim, so that no reused pid can be hit. A container whose
    /// process waits for a client is ended by `SIGKILL`, `SIGTERM`, `SIGINT` and `SIGQUIT`.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`] when it has ended; what the shim refuses.
    pub fn signal(&self, number: i32) -> Result<()> {
        match attach::signal(&self.socket(), number) {
            Ok(()) => Ok(()),
            Err(source) => {
                let observed = self.observe()?;
                if observed.exit.is_some() || !observed.shim_alive {
                    return Err(ContainerError::NotRunning { id: self.id() });
                }
                Err(ContainerError::Attach { id: self.id(), source })
            }
        }
    }

    /// Asks it to end with `signal` (its stop signal when `None`), and kills it after `grace`.
    ///
    /// # Errors
    /// When it is not running, or does not die.
    pub fn stop(&self, signal: Option<i32>, grace: Duration) -> Result<ExitInfo> {
        let configured = self.config.stop_signal.as_deref().and_then(crate::parse_signal);
        self.signal(signal.or(configured).unwrap_or(SIGTERM))?;
        match self.wait_exit(Some(grace)) {
            Err(ContainerError::Timeout { .. }) => {}
            other => return other,
        }
        match self.signal(SIGKILL) {
            // It may have ended by itself in this moment.
            Ok(()) | Err(ContainerError::NotRunning { .. }) => self.wait_exit(Some(KILL_WAIT)),
            Err(error) => Err(error),
        }
    }

    /// Starts a shim for one more process in the running container, and returns its socket. The process starts when
    /// the first client attached; nobody in 30 seconds, and nothing is run. Exit codes are Docker's: 126 and 127.
    ///
    /// `exec_id` is unique within the container: 1 to 64 letters, digits, `-`, `_`.
    ///
    /// # Errors
    /// When the container is not running, the request is malformed, or the shim does not start.
    pub fn exec(&self, exe: &Path, exec_id: &str, spec: &ExecSpec) -> Result<PathBuf> {
        let invalid = |reason: String| Err(ContainerError::InvalidExec { id: self.id(), reason });
        let plain = exec_id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !(1..=64).contains(&exec_id.len()) || !plain {
            return invalid(format!("`{exec_id}` is not an exec id"));
        }
        if let Err(error) = shim::exec_process(&self.config, spec).validate() {
            return invalid(error.to_string());
        }
        let observed = self.observe()?;
        if observed.state != ContainerState::Running || !observed.shim_alive {
            return Err(ContainerError::NotRunning { id: self.id() });
        }
        let file = shim::exec_file(exec_id);
        let path = self.dir.join(&file);
        if path.exists() {
            return invalid(format!("the exec id `{exec_id}` is in use"));
        }
        files::write_json(&self.dir, &file, spec, false).map_err(|source| ContainerError::Io {
            action: "write",
            path: path.clone(),
            source,
        })?;
        shim::spawn(exe, "exec", &self.dir, Some(exec_id)).map_err(|source| {
            let _ = std::fs::remove_file(&path);
            ContainerError::Spawn { id: self.id(), source }
        })?;
        Ok(self.dir.join(shim::exec_socket(exec_id)))
    }

    /// Its log, from the oldest line that `options` ask for.
    ///
    /// # Errors
    /// When it cannot be read. A container without a log has an empty one.
    pub fn logs(&self, options: LogOptions) -> Result<LogReader> {
        LogReader::open(&self.dir, options).map_err(|source| ContainerError::Log { id: self.id(), source })
    }

    /// What its cgroup counts.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`] when there is no cgroup (any more).
    pub fn stats(&self) -> Result<Stats> {
        let cgroup = self.cgroup()?;
        if !cgroup.exists() {
            return Err(ContainerError::NotRunning { id: self.id() });
        }
        cgroup.stats().map_err(|source| ContainerError::Cgroup { id: self.id(), source })
    }

    /// Ends a container whose shim died: kills what is left in its cgroup, removes that, and writes exit code 137.
    ///
    /// Returns how it ended, also when that was known before; `None` when no shim was ever started.
    ///
    /// # Errors
    /// [`ContainerError::StillRunning`] when its shim lives; what cannot be killed, removed or written.
    pub fn recover(&self) -> Result<Option<ExitInfo>> {
        let deadline = Instant::now() + RECOVERY_WAIT;
        let _lock = loop {
            if self.lock()? == LockState::Absent {
                return Ok(None);
            }
            let lock = RecoveryLock::acquire(&self.dir).map_err(|source| ContainerError::Io {
                action: "lock",
                path: self.dir.join(files::LOCK_FILE),
                source,
            })?;
            if let Some(lock) = lock {
                break lock;
            }
            if let Some(exit) = self.read_exit()? {
                return Ok(Some(exit));
            }
            // A shim answers; another recovery does not.
            if files::connect(&self.socket()).is_ok() || Instant::now() >= deadline {
                return Err(ContainerError::StillRunning { id: self.id() });
            }
            std::thread::sleep(LOOK_AGAIN);
        };
        let cgroup = self.cgroup()?;
        let known = self.read_exit()?;
        let usage = cgroup.stats().ok();
        cgroup.destroy().map_err(|source| ContainerError::Cgroup { id: self.id(), source })?;
        shim::remove_sockets(&self.dir);
        if known.is_some() {
            return Ok(known);
        }
        let info = ExitInfo {
            code: exit::CODE_KILLED,
            oom_killed: usage.as_ref().is_some_and(|usage| usage.oom_kills > 0),
            error: Some("the shim was killed".to_owned()),
            peak_memory: usage.and_then(|usage| usage.memory_peak),
            finished_at: Timestamp::now(),
        };
        exit::write_exit(&self.dir, &info, true).map_err(|source| ContainerError::Io {
            action: "write",
            path: self.dir.join(exit::EXIT_FILE),
            source,
        })?;
        Ok(Some(info))
    }

    /// Removes a container that has ended, or was never started: its cgroup, and its folder with all that is in it.
    ///
    /// # Errors
    /// [`ContainerError::StillRunning`]; what cannot be removed.
    pub fn remove(self) -> Result<()> {
        let observed = self.observe()?;
        if observed.exit.is_none() {
            if observed.shim_alive {
                return Err(ContainerError::StillRunning { id: self.id() });
            }
            if observed.needs_recovery {
                return Err(ContainerError::ShimGone { id: self.id() });
            }
        }
        self.remove_folder()
    }

    fn remove_folder(self) -> Result<()> {
        let cgroup = self.cgroup()?;
        cgroup.destroy().map_err(|source| ContainerError::Cgroup { id: self.id(), source })?;
        std::fs::remove_dir_all(&self.dir).map_err(|source| ContainerError::Io {
            action: "remove",
            path: self.dir.clone(),
            source,
        })
    }

    /// Ends and removes a container whose shim does not live, also on a full disk, where its end cannot be recorded.
    ///
    /// # Errors
    /// [`ContainerError::StillRunning`]; what cannot be killed or removed.
    pub fn destroy(self) -> Result<()> {
        match self.recover() {
            Ok(_) => self.remove(),
            Err(ContainerError::Io { action: "write", .. }) => self.remove_folder(),
            Err(error) => Err(error),
        }
    }

    fn id(&self) -> String {
        self.config.id.short().to_owned()
    }

    fn cgroup(&self) -> Result<Cgroup> {
        Cgroup::of(&self.config.id).map_err(|source| ContainerError::Cgroup { id: self.id(), source })
    }

    fn lock(&self) -> Result<LockState> {
        files::lock_state(&self.dir).map_err(|source| ContainerError::Io {
            action: "look at the lock",
            path: self.dir.join(files::LOCK_FILE),
            source,
        })
    }

    fn read_exit(&self) -> Result<Option<ExitInfo>> {
        self.read("read", exit::EXIT_FILE, exit::read_exit)
    }

    fn read<T>(&self, action: &'static str, name: &str, read: fn(&Path) -> io::Result<T>) -> Result<T> {
        read(&self.dir).map_err(|source| ContainerError::Io { action, path: self.dir.join(name), source })
    }

    fn timeout(&self, what: &'static str, waited: Duration) -> ContainerError {
        ContainerError::Timeout { id: self.id(), what, waited }
    }

    /// The shim's first event that is `wanted` before the deadline; `None` when the shim is not there (any more) or
    /// the time is over: then files know more.
    fn next_of(&self, deadline: Instant, wanted: fn(&Event) -> bool) -> Result<Option<Event>> {
        let Ok(mut client) = AttachClient::connect(&self.socket()) else {
            // It has not started to listen, or just stopped.
            std::thread::sleep(LOOK_AGAIN.min(deadline.saturating_duration_since(Instant::now())));
            return Ok(None);
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let event = client.set_timeout(Some(left)).and_then(|()| client.next_event());
            match event {
                Ok(Some(event)) if wanted(&event) => return Ok(Some(event)),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                // Also a connection that broke: files know more.
                Err(AttachError::Io(_)) => return Ok(None),
                Err(source) => return Err(ContainerError::Attach { id: self.id(), source }),
            }
        }
    }
}
