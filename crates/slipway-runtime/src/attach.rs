//! The protocol of `shim.sock` and `exec-ID.sock`, and its blocking client.
//!
//! A connection carries frames: one byte of type, the payload's length as a little-endian `u32`, the payload.
//! Payloads are at most [`MAX_FRAME`] bytes; a longer or unknown frame ends the connection.
//!
//! | type | direction | frame | payload |
//! |---|---|---|---|
//! | 1 | to the shim | Stdin | bytes |
//! | 2 | to the shim | StdinEof | none |
//! | 3 | to the shim | Signal | the number as a little-endian `i32`; answered by Done or Error |
//! | 4 | to the shim | Attach | one byte: 1 replays what the log holds first |
//! | 16 | from the shim | Started | JSON: `pid`, `started_at` |
//! | 17, 18 | from the shim | Stdout, Stderr | bytes |
//! | 19 | from the shim | Exit | JSON: `ExitInfo`; the last frame |
//! | 20 | from the shim | Error | UTF-8 text |
//! | 21 | from the shim | Done | none |
//!
//! A connection that never sends Attach is an observer: it gets Started (at once when the process already runs) and
//! Exit, but no output. Attached clients get all output from the moment of attaching. What a client does not take is
//! kept for it up to a megabyte; then the process's own writes block until the client reads on, as with Docker's
//! foreground `run`. A client that takes nothing for ten minutes is dropped. Types 5 to 15 and from 22 are reserved.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slipway_types::container::ExitInfo;

use crate::files;

/// Most bytes of one frame's payload.
pub const MAX_FRAME: usize = 1 << 20;
/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 5;
/// How long the shim may take to answer a signal.
const ANSWER: Duration = Duration::from_secs(10);

/// Type bytes of frames.
pub(crate) mod kind {
    pub(crate) const STDIN: u8 = 1;
    pub(crate) const STDIN_EOF: u8 = 2;
    pub(crate) const SIGNAL: u8 = 3;
    pub(crate) const ATTACH: u8 = 4;
    pub(crate) const STARTED: u8 = 16;
    pub(crate) const STDOUT: u8 = 17;
    pub(crate) const STDERR: u8 = 18;
    pub(crate) const EXIT: u8 = 19;
    pub(crate) const ERROR: u8 = 20;
    pub(crate) const DONE: u8 = 21;
}

/// Payload of Started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartedFrame {
    pub(crate) pid: u32,
    pub(crate) started_at: Timestamp,
}

/// What the shim says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The process runs.
    Started {
        /// Its pid on this host.
        pid: u32,
        /// Since when.
        started_at: Timestamp,
    },
    /// Output.
    Stdout(Vec<u8>),
    /// Error output.
    Stderr(Vec<u8>),
    /// It ended; nothing follows.
    Exit(ExitInfo),
    /// The shim refuses what was asked.
    Error(String),
    /// A signal was delivered.
    Done,
}

/// Why a conversation with a shim failed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No shim listens there.
    #[error("no shim answers at {socket}")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the shim broke")]
    Io(#[source] io::Error),
    /// The other side speaks something else.
    #[error("the shim sent what is not of its protocol: {0}")]
    Protocol(String),
    /// The shim refused a signal.
    #[error("the signal was not delivered: {0}")]
    Refused(String),
}

/// A blocking connection to a shim.
#[derive(Debug)]
pub struct AttachClient {
    stream: UnixStream,
    socket: PathBuf,
}

/// The sending half of an [`AttachClient`].
#[derive(Debug)]
pub struct AttachSender {
    stream: UnixStream,
    socket: PathBuf,
}

/// The receiving half of an [`AttachClient`].
#[derive(Debug)]
pub struct AttachReader {
    stream: UnixStream,
}

impl AttachClient {
    /// Connects as an observer. The socket's path may be longer than a socket address.
    ///
    /// # Errors
    /// When no shim listens there.
    pub fn connect(socket: &Path) -> Result<Self, AttachError> {
        let stream = files::connect(socket)
            .map_err(|source| AttachError::Connect { socket: socket.to_owned(), source })?;
        Ok(Self { stream, socket: socket.to_owned() })
    }

    /// Asks for output, `replay`ing what the log holds first, and starts a process that waits for this.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn attach(&mut self, replay: bool) -> Result<(), AttachError> {
        match send(&self.stream, kind::ATTACH, &[u8::from(replay)]) {
            // A shim that could not start said so and went before it was asked: that is still to be read.
            Err(AttachError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent,
        }
    }

    /// The next event; `None` when the shim closed the connection (after [`Event::Exit`], or because it died).
    ///
    /// # Errors
    /// When the connection broke, or a timeout set by [`AttachClient::set_timeout`] passed (`WouldBlock`).
    pub fn next_event(&mut self) -> Result<Option<Event>, AttachError> {
        receive(&self.stream)
    }

    /// Longest that [`AttachClient::next_event`] waits for bytes; `None` waits for ever.
    ///
    /// # Errors
    /// When the duration is zero.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), AttachError> {
        self.stream.set_read_timeout(timeout).map_err(AttachError::Io)
    }

    /// Two halves for two threads. Dropping the sender detaches only when the reader is dropped too.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn split(self) -> Result<(AttachSender, AttachReader), AttachError> {
        let stream = self.stream.try_clone().map_err(AttachError::Io)?;
        Ok((AttachSender { stream: self.stream, socket: self.socket }, AttachReader { stream }))
    }
}

impl AttachSender {
    /// Passes bytes to standard input; blocks while the process does not read.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn stdin(&mut self, bytes: &[u8]) -> Result<(), AttachError> {
        bytes.chunks(64 << 10).try_for_each(|chunk| send(&self.stream, kind::STDIN, chunk))
    }

    /// Closes standard input once all that was sent is read.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn stdin_eof(&mut self) -> Result<(), AttachError> {
        send(&self.stream, kind::STDIN_EOF, &[])
    }

    /// Sends a signal to the process, on a connection of its own so that it overtakes input that nobody reads.
    ///
    /// # Errors
    /// When the shim is gone, or the process does not run.
    pub fn signal(&self, number: i32) -> Result<(), AttachError> {
        signal(&self.socket, number)
    }

    /// Ends the connection in both directions, which wakes the reader.
    pub fn close(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

impl AttachReader {
    /// As [`AttachClient::next_event`].
    ///
    /// # Errors
    /// When the connection broke.
    pub fn next_event(&mut self) -> Result<Option<Event>, AttachError> {
        receive(&self.stream)
    }
}

/// Sends one signal through the shim at `socket` and waits until it was delivered.
pub fn signal(socket: &Path, number: i32) -> Result<(), AttachError> {
    let mut client = AttachClient::connect(socket)?;
    client.set_timeout(Some(ANSWER))?;
    send(&client.stream, kind::SIGNAL, &number.to_le_bytes())?;
    loop {
        match client.next_event()? {
            Some(Event::Done) => return Ok(()),
            Some(Event::Error(reason)) => return Err(AttachError::Refused(reason)),
            Some(Event::Exit(_)) => return Err(AttachError::Refused("the process has ended".to_owned())),
            Some(Event::Started { .. } | Event::Stdout(_) | Event::Stderr(_)) => {}
            None => return Err(AttachError::Refused("the shim closed the connection".to_owned())),
        }
    }
}

fn send(mut stream: &UnixStream, kind: u8, payload: &[u8]) -> Result<(), AttachError> {
    stream.write_all(&encode(kind, payload)).map_err(AttachError::Io)
}

/// One frame as bytes. The payload must not exceed [`MAX_FRAME`].
pub(crate) fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + payload.len());
    frame.extend_from_slice(&head(kind, payload.len()));
    frame.extend_from_slice(payload);
    frame
}

/// Head of a frame.
pub(crate) fn head(kind: u8, len: usize) -> [u8; HEAD] {
    debug_assert!(len <= MAX_FRAME);
    let [a, b, c, d] = (len as u32).to_le_bytes();
    [kind, a, b, c, d]
}

/// Type and payload length of a frame, from its head.
pub(crate) fn decode_head(head: [u8; HEAD]) -> Result<(u8, usize), String> {
    let [kind, a, b, c, d] = head;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    if len > MAX_FRAME { Err(format!("a frame of {len} bytes")) } else { Ok((kind, len)) }
}

fn receive(mut stream: &UnixStream) -> Result<Option<Event>, AttachError> {
    let mut head = [0; HEAD];
    if stream.read(&mut head[..1]).map_err(AttachError::Io)? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).map_err(AttachError::Io)?;
    let (kind, len) = decode_head(head).map_err(AttachError::Protocol)?;
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).map_err(AttachError::Io)?;
    event(kind, payload).map(Some)
}

fn event(kind: u8, payload: Vec<u8>) -> Result<Event, AttachError> {
    let malformed = |error: serde_json::Error| AttachError::Protocol(error.to_string());
    Ok(match kind {
        kind::STARTED => {
            let frame: StartedFrame = serde_json::from_slice(&payload).map_err(malformed)?;
            Event::Started { pid: frame.pid, started_at: frame.started_at }
        }
        kind::STDOUT => Event::Stdout(payload),
        kind::STDERR => Event::Stderr(payload),
        kind::EXIT => Event::Exit(serde_json::from_slice(&payload).map_err(malformed)?),
        kind::ERROR => Event::Error(String::from_utf8_lossy(&payload).into_owned()),
        kind::DONE => Event::Done,
        other => return Err(AttachError::Protocol(format!("a frame of type {other}"))),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn events_round_trip() {
        let exit = ExitInfo {
            code: 137,
            oom_killed: true,
            error: Some("x".to_owned()),
            peak_memory: None,
            finished_at: Timestamp::UNIX_EPOCH,
        };
        let started = StartedFrame { pid: 4, started_at: Timestamp::UNIX_EPOCH };
        let cases = [
            (
                kind::STARTED,
                serde_json::to_vec(&started).unwrap(),
                Event::Started { pid: 4, started_at: started.started_at },
            ),
            (kind::STDOUT, b"a".to_vec(), Event::Stdout(b"a".to_vec())),
            (kind::STDERR, Vec::new(), Event::Stderr(Vec::new())),
            (kind::EXIT, serde_json::to_vec(&exit).unwrap(), Event::Exit(exit)),
            (kind::ERROR, b"no".to_vec(), Event::Error("no".to_owned())),
            (kind::DONE, Vec::new(), Event::Done),
        ];
        let (ours, theirs) = UnixStream::pair().unwrap();
        for (kind, payload, expected) in cases {
            (&theirs).write_all(&encode(kind, &payload)).unwrap();
            assert_eq!(receive(&ours).unwrap(), Some(expected));
        }
        drop(theirs);
        assert_eq!(receive(&ours).unwrap(), None);
    }

    #[test]
    fn what_a_shim_said_before_it_was_asked_is_heard() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&theirs).write_all(&encode(kind::ERROR, b"no such user")).unwrap();
        drop(theirs);
        let mut client = AttachClient { stream: ours, socket: PathBuf::new() };
        client.attach(false).unwrap();
        assert_eq!(client.next_event().unwrap(), Some(Event::Error("no such user".to_owned())));
        assert_eq!(client.next_event().unwrap(), None);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for bytes in [
            &encode(99, b"")[..],
            &[kind::STDOUT, 0, 0, 0, 255],
            &[kind::STDOUT, 4, 0, 0, 0, 1],
            &encode(kind::EXIT, b"{"),
        ] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            (&theirs).write_all(bytes).unwrap();
            drop(theirs);
            assert!(receive(&ours).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn heads_round_trip(kind: u8, len in 0..=MAX_FRAME) {
            prop_assert_eq!(decode_head(head(kind, len)), Ok((kind, len)));
        }
    }
}
