//! The last steps before the container's program: in the process that becomes it, after libcontainer has done its part.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use rustix::fs::Mode;
use rustix::pipe::PipeFlags;
use rustix::process::{PidfdFlags, Signal};

use crate::exit::{CODE_CANNOT_EXECUTE, CODE_NOT_FOUND, CODE_RUNTIME, Failure};
use crate::seccomp;
use crate::spec;
use crate::sys::{self, Instruction};

// First byte of a report; an errno follows as a little-endian i32.
const FILTER: u8 = 1;
const EXECUTE: u8 = 2;
const NO_INTERPRETER: u8 = 3;
const REPORT: usize = 5;

/// Executes a program. Runs in a clone of the shim: descriptors are known by number, and all memory is prepared.
#[derive(Clone)]
pub(super) struct Launcher {
    args: Vec<CString>,
    env: Vec<CString>,
    candidates: Vec<CString>,
    filter: Rc<Vec<Instruction>>,
    report: RawFd,
    guard: RawFd,
    anchor: Option<RawFd>,
}

/// The shim's side of a launch.
pub(super) struct Launch {
    read: OwnedFd,
    write: Option<OwnedFd>,
    guard: OwnedFd,
    program: String,
    path: Option<String>,
}

impl Launch {
    /// For `args` in `env`, which passed `Process::validate`. `anchor`: a pidfd whose process must live at the moment of
    /// execution (that of the container which an `exec` joins).
    pub(super) fn new(
        args: &[String],
        env: &[String],
        anchor: Option<&OwnedFd>,
    ) -> Result<(Self, Launcher), Failure> {
        let fault = |error: io::Error| Failure::runtime("cannot prepare the program", error);
        let (read, write) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| fault(errno.into()))?;
        let guard = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            .map_err(|errno| fault(errno.into()))?;
        let program = args.first().cloned().unwrap_or_default();
        let c_strings = |list: &[String]| -> Result<Vec<CString>, Failure> {
            list.iter()
                .map(|text| CString::new(text.as_str()))
                .collect::<Result<_, _>>()
                .map_err(|e| fault(e.into()))
        };
        let launcher = Launcher {
            args: c_strings(args)?,
            env: c_strings(env)?,
            candidates: c_strings(&spec::candidates(&program, env))?,
            filter: Rc::new(seccomp::filter()),
            report: write.as_raw_fd(),
            guard: guard.as_raw_fd(),
            anchor: anchor.map(AsRawFd::as_raw_fd),
        };
        let path = (!program.contains('/'))
            .then(|| env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or_default().to_owned());
        Ok((Self { read, write: Some(write), guard, program, path }, launcher))
    }

    /// Waits until the program runs (`None`), or until it is known why it does not.
    pub(super) fn outcome(&mut self) -> Option<Failure> {
        // The other writing ends: the process's own, which closes when it executes or dies.
        self.write = None;
        let _ = &self.guard;
        let mut report = Vec::new();
        let mut file = std::fs::File::from(self.read.try_clone().ok()?);
        file.by_ref().take(REPORT as u64).read_to_end(&mut report).ok()?;
        let [stage, a, b, c, d] = report[..] else { return None };
        Some(self.explain(stage, io::Error::from_raw_os_error(i32::from_le_bytes([a, b, c, d]))))
    }

    fn explain(&self, stage: u8, error: io::Error) -> Failure {
        let program = &self.program;
        let failure = |code, error| Failure { code, error };
        if stage == FILTER {
            return failure(CODE_RUNTIME, format!("cannot install the system call filter: {error}"));
        }
        if stage == NO_INTERPRETER {
            let text = format!(
                "`{program}` exists in the container, but the interpreter or loader it names does not"
            );
            return failure(CODE_NOT_FOUND, text);
        }
        match (error.raw_os_error(), &self.path) {
            (Some(libc::ENOENT | libc::ENOTDIR), Some(path)) => {
                failure(CODE_NOT_FOUND, format!("no program `{program}` in the container's PATH ({path})"))
            }
            (Some(libc::ENOENT | libc::ENOTDIR), None) => {
                failure(CODE_NOT_FOUND, format!("no file `{program}` in the container"))
            }
            (Some(libc::ENOEXEC), _) => failure(
                CODE_CANNOT_EXECUTE,
                format!("`{program}` is not a program for this machine, nor a script with a `#!` line"),
            ),
            _ => failure(CODE_CANNOT_EXECUTE, format!("`{program}` cannot be executed: {error}")),
        }
    }
}

impl Launcher {
    fn report(&self, stage: u8, error: &io::Error) {
        let [a, b, c, d] = error.raw_os_error().unwrap_or(0).to_le_bytes();
        sys::write_number(self.report, &[stage, a, b, c, d]);
    }

    /// The shim is there to own what happens now, and the container that is joined is the one that was meant.
    fn check_alive(&self) -> Result<(), String> {
        if sys::is_readable(self.guard) {
            return Err("the shim is gone".to_owned());
        }
        if self.anchor.is_some_and(sys::is_readable) {
            return Err("the container has ended".to_owned());
        }
        Ok(())
    }
}

impl Executor for Launcher {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// Called when the process is who it will be, and before it waits for its start: the moment to tie its life to the
    /// shim's. A change of user would undo that.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|errno| ExecutorSetEnvsError::Other(errno.to_string()))?;
        self.check_alive().map_err(ExecutorSetEnvsError::Other)
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        self.check_alive().map_err(ExecutorError::Other)?;
        sys::reset_signals();
        rustix::process::umask(Mode::from_raw_mode(0o022));
        if let Err(error) = sys::install_filter(&self.filter) {
            self.report(FILTER, &error);
            return Err(ExecutorError::Other(error.to_string()));
        }
        // As execvp: the first that works, and of those that do not, "denied" tells more than "not there".
        let mut told = io::Error::from_raw_os_error(libc::ENOENT);
        let mut stage = EXECUTE;
        for candidate in &self.candidates {
            let error = sys::execve(candidate, &self.args, &self.env);
            match error.raw_os_error() {
                Some(libc::ENOENT) => {
                    if rustix::fs::access(candidate.as_c_str(), rustix::fs::Access::EXISTS).is_ok() {
                        (told, stage) = (error, NO_INTERPRETER);
                        break;
                    }
                }
                Some(libc::ENOTDIR) => {}
                Some(libc::EACCES) => told = error,
                _ => {
                    told = error;
                    break;
                }
            }
        }
        self.report(stage, &told);
        Err(ExecutorError::Other(told.to_string()))
    }
}
