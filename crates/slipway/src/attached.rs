//! Standard streams of this process connected to a container's.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slipway_runtime::attach::{AttachClient, AttachError, AttachSender, Event};
use slipway_types::container::ExitInfo;
use slipway_types::{ApiError, ErrorCode};

use crate::failure::{Failure, exit};

/// Connects this process to a container until it ends. Signals go to the container.
pub fn connect(socket: &Path, interactive: bool) -> Result<ExitInfo, Failure> {
    let mut client = AttachClient::connect(socket).map_err(|e| failed(&e))?;
    client.attach(false).map_err(|e| failed(&e))?;
    let (sender, mut reader) = client.split().map_err(|e| failed(&e))?;
    let sender = Arc::new(std::sync::Mutex::new(sender));
    let ended = Arc::new(AtomicBool::new(false));
    forward_signals(socket)?;
    if interactive {
        let (sender, ended) = (Arc::clone(&sender), Arc::clone(&ended));
        // Ends with the process: a read from a terminal cannot be interrupted.
        std::thread::spawn(move || forward_stdin(&sender, &ended));
    }
    let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
    loop {
        match reader.next_event().map_err(|e| failed(&e))? {
            // A reader of ours that went away (`| head`) is no fault of the container: it goes on.
            Some(Event::Stdout(bytes)) => {
                let _ = stdout.write_all(&bytes).and_then(|()| stdout.flush());
            }
            Some(Event::Stderr(bytes)) => {
                let _ = stderr.write_all(&bytes);
            }
            Some(Event::Exit(info)) => {
                ended.store(true, Ordering::SeqCst);
                return Ok(info);
            }
            Some(Event::Error(reason)) => {
                return Err(
                    Failure::from(ApiError::new(ErrorCode::Failed, reason)).exiting(exit::CONTAINER_FAILED)
                );
            }
            Some(Event::Started { .. } | Event::Done) => {}
            None => {
                return Err(Failure::from(ApiError::new(
                    ErrorCode::Unavailable,
                    "the container's shim died; the container was stopped",
                ))
                .exiting(exit::CONTAINER_FAILED));
            }
        }
    }
}

fn forward_stdin(sender: &std::sync::Mutex<AttachSender>, ended: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    let mut stdin = std::io::stdin();
    while !ended.load(Ordering::SeqCst) {
        let count = match stdin.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let Ok(mut sender) = sender.lock() else { return };
        if sender.stdin(&buffer[..count]).is_err() {
            return;
        }
    }
    if let Ok(mut sender) = sender.lock() {
        let _ = sender.stdin_eof();
    }
}

/// Passes INT, TERM, HUP, QUIT, USR1 and USR2 on, each through a connection of its own.
fn forward_signals(socket: &Path) -> Result<(), Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2]).map_err(
            |e| Failure::from(ApiError::new(ErrorCode::Internal, format!("cannot catch signals: {e}"))),
        )?;
    let socket = socket.to_owned();
    std::thread::spawn(move || {
        for signal in &mut signals {
            // A container that ended meanwhile needs no signal.
            let _ = slipway_runtime::attach::signal(&socket, signal);
        }
    });
    Ok(())
}

fn failed(error: &AttachError) -> Failure {
    Failure::from(ApiError::from_error(ErrorCode::Unavailable, error)).exiting(exit::CONTAINER_FAILED)
}
