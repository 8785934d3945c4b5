//! RUN steps of the builder: containers whose changes become a layer.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use slipway_image::build::{CancelFlag, RunStep, StepError, StepExit, StepRunner};
use slipway_runtime::attach::{AttachClient, AttachError, Event};
use slipway_runtime::{Container, ContainerConfig, Process, Rootfs, mount_detached};
use slipway_types::container::{ContainerId, OutputStream};

use crate::containers::Native;
use crate::error::{as_io, io_kind, is_full};

/// How often a running step looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(100);
const SIGKILL: i32 = 9;

impl StepRunner for Native {
    fn open_root(&self, lowers: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
        let lowers: Vec<PathBuf> = lowers.iter().rev().cloned().collect();
        mount_detached(&lowers, upper, work, false).map_err(as_io)
    }

    fn run(
        &self,
        step: &RunStep,
        output: &mut dyn FnMut(OutputStream, &[u8]),
        cancel: &CancelFlag,
    ) -> Result<StepExit, StepError> {
        let id = random_id();
        let dir = self.dir(&id);
        crate::containers::folder(&dir, 0o700).map_err(start_failed)?;
        // The builder lists layers as overlayfs does, the runtime from the lowest up.
        let lowers = step.lowers.iter().rev().cloned().collect();
        let rootfs = Rootfs { lowers, upper: step.upper.clone(), work: step.work.clone() };
        let process = Process {
            args: step.args.clone(),
            env: step.env.clone(),
            cwd: PathBuf::from(&step.cwd),
            user: step.user.clone().unwrap_or_default(),
        };
        let mut config = ContainerConfig::new(id.clone(), rootfs, process);
        config.hostname = "build".to_owned();
        config.mounts.clone_from(&step.mounts);
        config.network = step.network;
        config.wait_for_attach = true;
        // A build that dies takes its step with it.
        config.kill_on_detach = true;
        config.ephemeral = true;
        let outcome = Container::create(&dir, &config)
            .and_then(|container| container.spawn_shim(self.exe()).map(|()| container))
            .map_err(start_failed)
            .and_then(|container| follow(&container, output, cancel));
        let cleared = self.discard(&id).map_err(|e| StepError::Host {
            what: format!("the step's container {id} could not be removed"),
            source: as_io(e),
        });
        let exit = outcome?;
        cleared?;
        Ok(exit)
    }
}

fn follow(
    container: &Container,
    output: &mut dyn FnMut(OutputStream, &[u8]),
    cancel: &CancelFlag,
) -> Result<StepExit, StepError> {
    let mut client = AttachClient::connect(&container.socket()).map_err(start_failed)?;
    client.attach(false).map_err(start_failed)?;
    client.set_timeout(Some(CANCEL_POLL)).map_err(start_failed)?;
    let mut cancelled = false;
    loop {
        let event = match client.next_event() {
            Ok(event) => event,
            Err(AttachError::Io(error)) if is_timeout(&error) => {
                if cancel.is_cancelled() && !cancelled {
                    cancelled = true;
                    // A step that ended at this very moment reports its end next.
                    let _ = container.signal(SIGKILL);
                }
                continue;
            }
            Err(error) => return Err(start_failed(error)),
        };
        match event {
            Some(Event::Stdout(bytes)) => output(OutputStream::Stdout, &bytes),
            Some(Event::Stderr(bytes)) => output(OutputStream::Stderr, &bytes),
            Some(Event::Started { .. } | Event::Done) => {}
            Some(Event::Error(reason)) => return Err(StepError::Start { reason, hint: None }),
            Some(Event::Exit(_)) if cancelled => return Err(StepError::Cancelled),
            Some(Event::Exit(info)) => {
                return match info.error {
                    // The program could not be executed: that is the step's own failure, with its code.
                    Some(reason) if matches!(info.code, 126 | 127) => {
                        output(OutputStream::Stderr, format!("{reason}\n").as_bytes());
                        Ok(StepExit { code: info.code, oom_killed: false })
                    }
                    Some(reason) => Err(StepError::Start { reason, hint: None }),
                    None => Ok(StepExit { code: info.code, oom_killed: info.oom_killed }),
                };
            }
            None => {
                return Err(StepError::Host {
                    what: "the step's shim died".to_owned(),
                    source: io::Error::from(io::ErrorKind::UnexpectedEof),
                });
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn start_failed(error: impl std::error::Error + Send + Sync + 'static) -> StepError {
    if is_full(io_kind(&error)) {
        return StepError::Host { what: "the step could not be started".to_owned(), source: as_io(error) };
    }
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        reason.push_str(": ");
        reason.push_str(&cause.to_string());
        source = cause.source();
    }
    StepError::Start { reason, hint: None }
}

/// An id that no other container has.
pub fn random_id() -> ContainerId {
    let mut bytes = [0; 12];
    let mut filled = 0;
    while filled < bytes.len() {
        // The pool is initialised long before anyone can call this; an interrupted call is repeated.
        if let Ok(count) =
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
        {
            filled += count;
        }
    }
    ContainerId::from_random(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_root_does_not_open_keeps_its_kind() {
        let dir = tempfile::tempdir().unwrap();
        let store = slipway_image::store::Store::open(dir.path().join("images")).unwrap();
        let native = Native::new(store, dir.path().join("containers"), "/proc/self/exe".into());
        let error =
            native.open_root(&["/absent".into()], &dir.path().join("u"), &dir.path().join("w")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error:?}");
    }

    #[test]
    fn a_step_that_finds_no_space_to_start_in_says_so() {
        let error = |kind: io::ErrorKind| crate::NativeError::Io {
            action: "make",
            path: "/c".into(),
            source: kind.into(),
        };
        let full = start_failed(error(io::ErrorKind::StorageFull));
        assert!(
            matches!(&full, StepError::Host { source, .. } if source.kind() == io::ErrorKind::StorageFull),
            "{full:?}"
        );
        assert!(matches!(start_failed(error(io::ErrorKind::NotFound)), StepError::Start { .. }));
    }
}
