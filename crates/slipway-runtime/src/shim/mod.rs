//! The shim: the process that owns a container, or one `exec` in it.
//!
//! It is started anew for each, with one thread, because libcontainer clones processes of it. The starter waits only
//! until the shim has its lock and its socket; from then on it is in its own session and a child of init.

mod client;
mod exec;
mod launch;
mod mounts;
mod prepare;
mod run;
mod session;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::OpenTreeFlags;
use rustix::pipe::PipeFlags;
use slipway_types::container::ExecSpec;

use crate::config::{ContainerConfig, Process};
use crate::sys::{self, Fork};

/// Socket of a container's shim.
pub(crate) const SHIM_SOCKET: &str = "shim.sock";
/// First argument that makes a binary a shim; named here only for sweeps, the binary itself consumes it.
pub(crate) const SHIM_ROLE: &str = "shim";
/// Longest reason for which a shim refuses to start.
const MAX_REASON: u64 = 64 << 10;
/// Panics of a shim end up here.
const PANIC_FILE: &str = "shim.panic";

/// Why a shim did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program cannot be executed.
    #[error("cannot execute {exe}")]
    Execute {
        /// The program.
        exe: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The shim itself says why.
    #[error("{0}")]
    Refused(String),
}

/// Name of the file that describes an `exec`.
pub(crate) fn exec_file(id: &str) -> String {
    format!("exec-{id}.json")
}

/// Name of the socket of an `exec`.
pub(crate) fn exec_socket(id: &str) -> String {
    format!("exec-{id}.sock")
}

/// What an `exec` runs: the container's process where it does not say otherwise.
pub(crate) fn exec_process(config: &ContainerConfig, spec: &ExecSpec) -> Process {
    Process {
        args: spec.command.clone(),
        env: config.process.env.iter().chain(&spec.env).cloned().collect(),
        cwd: spec.workdir.as_ref().map_or_else(|| config.process.cwd.clone(), PathBuf::from),
        user: spec.user.clone().unwrap_or_else(|| config.process.user.clone()),
    }
}

/// Whether a name in a container's folder is that of a shim's socket, or describes an `exec`.
pub(crate) fn is_ephemeral(name: &str) -> bool {
    name == SHIM_SOCKET || name.starts_with("exec-")
}

/// Removes what dead shims left.
pub(crate) fn remove_sockets(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_ephemeral) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Starts `exe shim ROLE DIR [ID]` and waits until it is on its own feet.
///
/// The program is executed through a read-only mount of its file that is attached nowhere: what `/proc/PID/exe` leads
/// to, even from inside a container, cannot be written.
pub(crate) fn spawn(exe: &Path, role: &str, dir: &Path, id: Option<&str>) -> Result<(), SpawnError> {
    let failed = |source| SpawnError::Execute { exe: exe.to_owned(), source };
    // One name for the folder, in the process list and on the cgroup.
    let dir = std::fs::canonicalize(dir).map_err(failed)?;
    let sealed = seal(exe).ok();
    let program = match &sealed {
        Some(fd) => {
            use std::os::fd::AsRawFd;
            PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        }
        None => exe.to_owned(),
    };
    let mut command = Command::new(program);
    command
        .arg0(exe)
        .arg(SHIM_ROLE)
        .arg(role)
        .arg(dir)
        .args(id)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut reason = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MAX_REASON).read_to_end(&mut reason).map_err(failed)?;
    }
    if child.wait().map_err(failed)?.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&reason).trim().to_owned();
    Err(SpawnError::Refused(if reason.is_empty() { "it ended without a reason".to_owned() } else { reason }))
}

fn seal(exe: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = rustix::mount::open_tree(CWD, exe, flags)?;
    sys::settle_mount(&mount, true)?;
    Ok(mount)
}

/// The role `shim` of a binary: to be called first thing in `main`, before any thread exists, with the arguments that
/// follow `shim`: `run DIR` or `exec DIR ID`. Returns the exit code of the process.
///
/// Reports a failure to start on standard error, to [`crate::Container::spawn_shim`]. After that it is silent.
pub fn shim_main(args: Vec<OsString>) -> u8 {
    sys::close_inherited();
    let parts: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    let text = |part: &OsStr| part.to_str().map(str::to_owned);
    match parts[..] {
        [role, dir] if role == "run" => detach(Path::new(dir), |ready| run::main(Path::new(dir), ready)),
        [role, dir, id] if role == "exec" => match text(id) {
            Some(id) => detach(Path::new(dir), |ready| exec::main(Path::new(dir), &id, ready)),
            None => refuse("the exec id is not UTF-8"),
        },
        _ => refuse("usage: shim run DIR | shim exec DIR ID"),
    }
}

/// To be told once that the shim is ready, or why it is not.
pub(crate) struct Ready(OwnedFd);

impl Ready {
    /// Lets the starter go on, and lets go of what was the starter's.
    fn done(self) {
        let _ = rustix::io::write(&self.0, &[0]);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(null) = rustix::fs::open("/dev/null", flags, Mode::empty()) {
            for number in 0..3 {
                let _ = sys::duplicate_to(&null, number);
            }
        }
    }

    fn failed(self, reason: &str) -> u8 {
        let mut message = vec![1];
        message.extend_from_slice(reason.as_bytes());
        let _ = rustix::io::write(&self.0, &message);
        1
    }
}

/// Runs `body` in a child that init will own, and returns in the parent once the child is ready.
fn detach(dir: &Path, body: impl FnOnce(Ready) -> u8) -> u8 {
    let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (read, write) = match pipe {
        Ok(ends) => ends,
        Err(errno) => return refuse(&format!("no pipe: {errno}")),
    };
    match sys::fork() {
        Err(error) => refuse(&format!("cannot fork: {error}")),
        Ok(Fork::Child) => {
            drop(read);
            settle(dir);
            body(Ready(write))
        }
        Ok(Fork::Parent) => {
            drop(write);
            // The shim needs it about when this is done, and the starter loses nothing by waiting as long.
            crate::cgroup::prime();
            let mut answer = Vec::new();
            let _ = std::fs::File::from(read).take(MAX_REASON).read_to_end(&mut answer);
            match answer.split_first() {
                Some((0, _)) => 0,
                Some((_, reason)) => refuse(&String::from_utf8_lossy(reason)),
                None => refuse("the shim died while it started"),
            }
        }
    }
}

/// What a process of its own needs that is not the starter's.
fn settle(dir: &Path) {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"slipway-shim");
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    rustix::process::umask(Mode::from_raw_mode(0o022));
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE, libc::SIGTSTP] {
        sys::ignore_signal(number);
    }
    let file = dir.join(PANIC_FILE);
    std::panic::set_hook(Box::new(move |panic| {
        let _ = std::fs::write(&file, panic.to_string());
    }));
}

fn refuse(reason: &str) -> u8 {
    let _ = io::stderr().write_all(reason.as_bytes());
    1
}
