//! `shim run DIR`: one container, from its configuration to its exit status.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jiff::Timestamp;
use libcontainer::container::Container as OciContainer;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitOptions};
use slipway_types::container::ExitInfo;

use super::launch::Launch;
use super::prepare::{self, Prepared};
use super::session::{Ended, Options, Session, Workload};
use super::{Ready, SHIM_SOCKET};
use crate::attach::StartedFrame;
use crate::cgroup::Cgroup;
use crate::config::ContainerConfig;
use crate::exit::{self, CODE_RUNTIME, Failure, RunState};
use crate::files::{self, ShimLock};
use crate::log::LogWriter;
use crate::{rootfs, sys};

/// The whole life of a container's shim.
pub(super) fn main(dir: &Path, ready: Ready) -> u8 {
    let (config, _lock, mut session, cgroup) = match begin(dir) {
        Ok(begun) => begun,
        Err(reason) => return ready.failed(&reason),
    };
    ready.done();
    let ended = supervise(dir, &config, &cgroup, &mut session);
    let exit = settle(dir, &config, &cgroup, ended);
    session.finish(&exit, config.wait_for_attach);
    let _ = std::fs::remove_file(dir.join(SHIM_SOCKET));
    0
}

/// Takes the container; fails when it is not there, has run, or has a shim.
fn begin(dir: &Path) -> Result<(ContainerConfig, ShimLock, Session, Cgroup), String> {
    let text = |what: &str, error: io::Error| format!("cannot {what} of {}: {error}", dir.display());
    let config = ContainerConfig::load(dir).map_err(|error| exit::chain(&error))?;
    let lock = ShimLock::acquire(dir).map_err(|error| text("take the lock", error))?;
    let lock = lock.ok_or_else(|| "another shim has the container".to_owned())?;
    let started = exit::read_state(dir).map_err(|error| text("read the state", error))?.is_some();
    let ended = exit::read_exit(dir).map_err(|error| text("read the exit", error))?.is_some();
    if started || ended {
        return Err("the container has run; containers run once".to_owned());
    }
    let cgroup = Cgroup::of(&config.id).map_err(|error| exit::chain(&error))?;
    let log = config
        .log
        .then(|| LogWriter::open(dir, config.log_bytes))
        .transpose()
        .map_err(|error| text("open the log", error))?;
    let listener = files::bind(dir, SHIM_SOCKET).map_err(|error| text("listen on the socket", error))?;
    let session = Session::new(dir, listener, log);
    Ok((config, lock, session, cgroup))
}

fn supervise(dir: &Path, config: &ContainerConfig, cgroup: &Cgroup, session: &mut Session) -> Ended {
    let options = Options {
        wait_for_attach: config.wait_for_attach,
        abandon: config.kill_on_detach,
        kill_on_detach: config.kill_on_detach,
    };
    match Init::prepare(dir, config, cgroup, session) {
        Ok(mut init) => {
            let ended = session.run(&mut init, options);
            init.end();
            ended
        }
        Err(failure) => failure.into(),
    }
}

/// Leaves nothing of the container but its folder, and writes how it ended.
fn settle(dir: &Path, config: &ContainerConfig, cgroup: &Cgroup, ended: Ended) -> ExitInfo {
    let finished_at = Timestamp::now();
    let stats = cgroup.stats().unwrap_or_default();
    let destroyed = cgroup.destroy();
    // Before the exit is written: whoever reads that may use the upper folder.
    let _ = rootfs::unmount(&prepare::rootfs_dir(dir));
    let mut exit = ExitInfo {
        code: ended.code,
        oom_killed: ended.code != 0 && stats.oom_kills > 0,
        error: ended.error,
        peak_memory: stats.memory_peak,
        finished_at,
    };
    if let (Err(error), None) = (destroyed, &exit.error) {
        exit.error = Some(exit::chain(&error));
    }
    if let Err(error) = exit::write_exit(dir, &exit, !config.ephemeral) {
        // Without the file, the container counts as one whose shim died; clients hear the truth.
        exit.error = Some(format!("the exit status could not be written: {error}"));
    }
    exit
}

/// The container's first process.
struct Init {
    dir: std::path::PathBuf,
    container: OciContainer,
    launch: Launch,
    pid: Pid,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Init {
    fn prepare(
        dir: &Path,
        config: &ContainerConfig,
        cgroup: &Cgroup,
        session: &mut Session,
    ) -> Result<Self, Failure> {
        let (pipes, child) = prepare::stdio(config.interactive)?;
        let connected = session.connect(pipes);
        connected.map_err(|error| Failure::runtime("cannot use the pipes", error))?;
        let Prepared { container, launch } = prepare::prepare(dir, config, cgroup, child)?;
        let pid = container.pid().and_then(|pid| Pid::from_raw(pid.as_raw()));
        let pid = pid.ok_or_else(|| Failure::runtime("libcontainer", "it made no process"))?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|errno| Failure::runtime("the container's process died at once", errno))?;
        Ok(Self { dir: dir.to_owned(), container, launch, pid, pidfd, reaped: false })
    }

    /// Kills what did not end by itself, and reaps.
    fn end(&mut self) {
        if !self.reaped {
            let _ = sys::signal_pidfd(self.pidfd.as_fd(), libc::SIGKILL);
            self.reap();
        }
        // Orphans that came to this process as their reaper.
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
}

impl Workload for Init {
    fn start(&mut self) -> Result<StartedFrame, Failure> {
        self.container.start().map_err(|error| Failure::from_error(&error))?;
        if let Some(failure) = self.launch.outcome() {
            return Err(failure);
        }
        let pid = self.pid.as_raw_nonzero().get() as u32;
        let started_at = Timestamp::now();
        let state = RunState { pid, start_ticks: exit::start_ticks(pid).unwrap_or(0), started_at };
        exit::write_state(&self.dir, &state)
            .map_err(|error| Failure::runtime("cannot write the state", error))?;
        Ok(StartedFrame { pid, started_at })
    }

    fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.pidfd.as_fd())
    }

    fn signal(&mut self, number: i32) -> io::Result<()> {
        sys::signal_pidfd(self.pidfd.as_fd(), number)
    }

    fn reap(&mut self) -> u8 {
        self.reaped = true;
        reap(&self.pidfd)
    }
}

/// The exit code of a child, as a shell shows it.
pub(super) fn reap(pidfd: &OwnedFd) -> u8 {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) | Ok(None) => return CODE_RUNTIME,
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(|number| 128 + number);
                return status
                    .exit_status()
                    .or(signal)
                    .and_then(|code| u8::try_from(code).ok())
                    .unwrap_or(u8::MAX);
            }
        }
    }
}
