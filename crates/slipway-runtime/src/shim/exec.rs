//! `shim exec DIR ID`: one more process in a running container.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::mount::MountPropagationFlags;
use rustix::process::{Pid, PidfdFlags};
use slipway_types::container::{ExecSpec, ExitInfo};

use super::launch::Launch;
use super::prepare::{self, ChildStdio};
use super::session::{Options, Session, Workload};
use super::{Ready, exec_file, exec_process, exec_socket, run};
use crate::attach::StartedFrame;
use crate::cgroup::Cgroup;
use crate::config::{ContainerConfig, Process};
use crate::exit::{self, Failure};
use crate::files::{self, LockState};
use crate::{spec, sys, user};

/// Largest request that is read.
const MAX_SPEC: u64 = 4 << 20;

/// The whole life of an exec's shim.
pub(super) fn main(dir: &Path, id: &str, ready: Ready) -> u8 {
    let process_file = prepare::run_dir(dir).join(format!("exec-{id}.process"));
    let begun = begin(dir, id, process_file.clone());
    let clean = || {
        for path in [dir.join(exec_file(id)), dir.join(exec_socket(id)), process_file.clone()] {
            let _ = std::fs::remove_file(path);
        }
    };
    let (mut tenant, mut session) = match begun {
        Ok(begun) => begun,
        Err(reason) => {
            clean();
            return ready.failed(&reason);
        }
    };
    ready.done();
    let options = Options { wait_for_attach: true, abandon: true, kill_on_detach: false };
    let ended = session.run(&mut tenant, options);
    if let Some(pidfd) = tenant.pidfd.as_ref().filter(|_| !tenant.reaped) {
        let _ = sys::signal_pidfd(pidfd.as_fd(), libc::SIGKILL);
    }
    let exit = ExitInfo {
        code: ended.code,
        oom_killed: false,
        error: ended.error,
        peak_memory: None,
        finished_at: Timestamp::now(),
    };
    clean();
    session.finish(&exit, false);
    0
}

fn begin(dir: &Path, id: &str, process_file: PathBuf) -> Result<(Tenant, Session), String> {
    let text = |what: &str, error: io::Error| format!("cannot {what}: {error}");
    let config = ContainerConfig::load(dir).map_err(|error| exit::chain(&error))?;
    let bytes =
        files::read_capped(&dir.join(exec_file(id)), MAX_SPEC).map_err(|e| text("read the request", e))?;
    let spec: ExecSpec = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let process = exec_process(&config, &spec);
    process.validate().map_err(|error| error.to_string())?;
    let anchor = find_init(dir)?;
    let cgroup = Cgroup::of(&config.id).map_err(|error| exit::chain(&error))?;
    sys::clear_groups().map_err(|error| text("drop groups", error))?;
    let (pipes, stdio) = prepare::stdio(spec.interactive).map_err(|failure| failure.error)?;
    let listener = files::bind(dir, &exec_socket(id)).map_err(|error| text("listen on the socket", error))?;
    let mut session = Session::new(dir, listener, None);
    session.connect(pipes).map_err(|error| text("use the pipes", error))?;
    join_shim(dir).map_err(|error| text("join the container's shim", error))?;
    let tenant = Tenant {
        dir: dir.to_owned(),
        config,
        process,
        process_file,
        interactive: spec.interactive,
        stdio: Some(stdio),
        anchor,
        cgroup,
        pidfd: None,
        reaped: false,
    };
    Ok((tenant, session))
}

/// The container's first process.
struct Anchor {
    pid: u32,
    pidfd: OwnedFd,
}

/// Finds it such that its number cannot have become another's: the descriptor was made between two looks at a process
/// that started when the container's did, and is asked again right before the program is executed.
fn find_init(dir: &Path) -> Result<Anchor, String> {
    let gone = || "the container is not running".to_owned();
    let state = exit::read_state(dir).ok().flatten().ok_or_else(gone)?;
    let pid = i32::try_from(state.pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    let same = exit::start_ticks(state.pid) == Some(state.start_ticks);
    let alive = files::lock_state(dir).is_ok_and(|lock| lock == LockState::Held);
    if same && alive { Ok(Anchor { pid: state.pid, pidfd }) } else { Err(gone()) }
}

/// Enters a copy of the mount namespace of the container's shim, where libcontainer's files are.
fn join_shim(dir: &Path) -> io::Result<()> {
    let pid = || files::shim_pid(dir)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
    let shim = pid()?;
    let namespace = std::fs::File::open(format!("/proc/{shim}/ns/mnt"))?;
    // It still lives, so the number was its own all the time.
    if pid()? != shim {
        return Err(io::ErrorKind::NotFound.into());
    }
    sys::enter_mounts(&namespace)?;
    // A copy: what is mounted here must not get in the shim's way.
    sys::unshare(libc::CLONE_NEWNS)?;
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    Ok(rustix::mount::mount_change("/", private)?)
}

struct Tenant {
    dir: PathBuf,
    config: ContainerConfig,
    process: Process,
    process_file: PathBuf,
    interactive: bool,
    stdio: Option<ChildStdio>,
    anchor: Anchor,
    cgroup: Cgroup,
    pidfd: Option<OwnedFd>,
    reaped: bool,
}

impl Workload for Tenant {
    fn start(&mut self) -> Result<StartedFrame, Failure> {
        let runtime = |what: &str, error: io::Error| Failure::runtime(what, error);
        let stdio = self.stdio.take().ok_or_else(|| Failure::runtime("exec", "it was started before"))?;
        let root = files::open_dir(Path::new(&format!("/proc/{}/root", self.anchor.pid)))
            .map_err(|error| runtime("cannot open the container's root", error))?;
        let user =
            user::resolve(root.as_fd(), &self.process.user).map_err(|error| Failure::from_error(&error))?;
        drop(root);
        stdio.give_to(&user, self.interactive)?;
        let env = spec::environment(&self.process.env, &self.config.hostname, &user);
        let value = spec::process(&self.process, &env, &user);
        let name = self.process_file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        files::write_json(&prepare::run_dir(&self.dir), name, &value, false)
            .map_err(|error| runtime("cannot write the process", error))?;
        let (mut launch, launcher) = Launch::new(&self.process.args, &env, Some(&self.anchor.pidfd))?;
        let builder = stdio.builder(self.config.id.as_str(), &self.dir, launcher)?;
        let process = self.process_file.clone();
        let built = prepare::in_cgroup(&self.cgroup, || {
            builder.as_tenant().with_process(Some(process)).with_detach(true).build()
        });
        // The launcher knows better than libcontainer why a program does not run.
        if let Some(failure) = launch.outcome() {
            return Err(failure);
        }
        let pid =
            Pid::from_raw(built?.as_raw()).ok_or_else(|| Failure::runtime("exec", "it made no process"))?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|errno| Failure::runtime("the process died at once", errno))?;
        self.pidfd = Some(pidfd);
        Ok(StartedFrame { pid: pid.as_raw_nonzero().get() as u32, started_at: Timestamp::now() })
    }

    fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    fn signal(&mut self, number: i32) -> io::Result<()> {
        match &self.pidfd {
            Some(pidfd) => sys::signal_pidfd(pidfd.as_fd(), number),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn reap(&mut self) -> u8 {
        self.reaped = true;
        self.pidfd.as_ref().map_or(exit::CODE_RUNTIME, run::reap)
    }
}
