//! One connection of the attach protocol, seen from the shim. Never blocks.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use slipway_types::container::OutputStream;

use crate::attach::{self, HEAD, kind};
use crate::log::{LogWriter, RecordReader};

/// Output that is kept for a client before the process must wait.
pub(super) const HIGH_WATER: usize = 1 << 20;
/// How long a client may take nothing of what is kept for it.
pub(super) const STALL: Duration = Duration::from_secs(600);
/// Bytes that are read from a client at a time.
const CHUNK: usize = 64 << 10;

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Stdin(Vec<u8>),
    StdinEof,
    Signal(i32),
    Attach { replay: bool },
}

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: UnixStream,
    pub(super) attached: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// What the log held when it attached; live output follows once it is read.
    replay: Option<RecordReader>,
    /// When it last took something, or began to have something to take.
    progress: Instant,
    /// It gets nothing more, and is let go when it has what is kept for it.
    closing: bool,
    /// Its connection is over.
    abandoned: bool,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            attached: false,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            replay: None,
            progress: Instant::now(),
            closing: false,
            abandoned: false,
        })
    }

    /// Bytes that it has not taken yet.
    pub(super) fn pending(&self) -> usize {
        self.output.len() - self.sent
    }

    /// The process must wait for it.
    pub(super) fn congested(&self) -> bool {
        self.attached && self.pending() > HIGH_WATER
    }

    pub(super) fn replaying(&self) -> bool {
        self.replay.is_some()
    }

    pub(super) fn is_done(&self) -> bool {
        self.closing && self.pending() == 0
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Nothing can be sent or received any more.
    pub(super) fn abandon(&mut self) {
        self.abandoned = true;
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// It took nothing for too long.
    pub(super) fn stalled(&self, now: Instant) -> bool {
        self.pending() > 0 && now.duration_since(self.progress) > STALL
    }

    /// Keeps a frame for it.
    pub(super) fn push(&mut self, kind: u8, payload: &[u8]) {
        if self.closing {
            return;
        }
        if self.pending() == 0 {
            self.progress = Instant::now();
        }
        for chunk in payload.chunks(attach::MAX_FRAME).chain(payload.is_empty().then_some(&[][..])) {
            self.output.extend_from_slice(&attach::head(kind, chunk.len()));
            self.output.extend_from_slice(chunk);
        }
    }

    /// Keeps its last frame for it.
    pub(super) fn push_last(&mut self, kind: u8, payload: &[u8]) {
        self.push(kind, payload);
        self.closing = true;
    }

    /// Output of the process, if it wants any and is up to date.
    pub(super) fn push_output(&mut self, stream: OutputStream, data: &[u8]) {
        if self.attached && self.replay.is_none() {
            self.push(frame_of(stream), data);
        }
    }

    /// Attaches it.
    pub(super) fn attach(&mut self, replay: Option<RecordReader>) {
        self.attached = true;
        self.replay = replay;
    }

    /// Goes on with a replay, as far as there is room.
    pub(super) fn advance_replay(&mut self, log: Option<&LogWriter>) {
        while self.pending() < HIGH_WATER {
            let Some(reader) = &mut self.replay else { return };
            match reader.next() {
                Ok(Some(mut record)) => {
                    if record.full {
                        record.text.push(b'\n');
                    }
                    self.push(frame_of(record.stream), &record.text);
                }
                // The log and the live output meet here: the same thread writes both.
                Ok(None) | Err(_) => {
                    self.replay = None;
                    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                        if let Some(rest) = log.map(|log| log.pending(stream)).filter(|rest| !rest.is_empty())
                        {
                            self.push(frame_of(stream), rest);
                        }
                    }
                }
            }
        }
    }

    /// Sends what it takes; an error when it is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.pending() > 0 {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.sent += count;
                    self.progress = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        } else if self.sent > HIGH_WATER {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads once; `false` when it closed the connection.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.input.extend_from_slice(&chunk[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// The next whole request of what was read; an error when it is none.
    pub(super) fn request(&mut self) -> Result<Option<Request>, String> {
        let Some(head) = self.input.first_chunk::<HEAD>() else { return Ok(None) };
        let (kind, len) = attach::decode_head(*head)?;
        let Some(payload) = self.input.get(HEAD..HEAD + len) else { return Ok(None) };
        let request = match (kind, payload) {
            (kind::STDIN, bytes) => Request::Stdin(bytes.to_vec()),
            (kind::STDIN_EOF, []) => Request::StdinEof,
            (kind::SIGNAL, [a, b, c, d]) => Request::Signal(i32::from_le_bytes([*a, *b, *c, *d])),
            (kind::ATTACH, [replay]) => Request::Attach { replay: *replay != 0 },
            _ => return Err(format!("no such request: type {kind}, {len} bytes")),
        };
        self.input.drain(..HEAD + len);
        Ok(Some(request))
    }
}

fn frame_of(stream: OutputStream) -> u8 {
    match stream {
        OutputStream::Stdout => kind::STDOUT,
        OutputStream::Stderr => kind::STDERR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Client::new(ours).unwrap(), theirs)
    }

    #[test]
    fn requests_may_come_in_pieces() {
        let (mut client, mut theirs) = pair();
        let mut bytes = attach::encode(kind::STDIN, b"hello");
        bytes.extend(attach::encode(kind::SIGNAL, &15_i32.to_le_bytes()));
        bytes.extend(attach::encode(kind::ATTACH, &[1]));
        bytes.extend(attach::encode(kind::STDIN_EOF, &[]));
        let mut requests = Vec::new();
        for byte in bytes {
            theirs.write_all(&[byte]).unwrap();
            assert!(client.fill().unwrap());
            requests.extend(client.request().unwrap());
        }
        let expected = [
            Request::Stdin(b"hello".to_vec()),
            Request::Signal(15),
            Request::Attach { replay: true },
            Request::StdinEof,
        ];
        assert_eq!(requests, expected);
        drop(theirs);
        assert!(!client.fill().unwrap());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bytes in [
            attach::encode(kind::STDOUT, b""),
            attach::encode(kind::SIGNAL, b"abc"),
            vec![1, 255, 255, 255, 255],
        ] {
            let (mut client, mut theirs) = pair();
            theirs.write_all(&bytes).unwrap();
            client.fill().unwrap();
            assert!(client.request().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_client_that_reads_nothing_is_congested_not_blocking() {
        let (mut client, theirs) = pair();
        client.attach(None);
        while !client.congested() {
            client.push_output(OutputStream::Stdout, &[7; 50_000]);
            client.flush().unwrap();
        }
        assert!(!client.stalled(Instant::now()));
        assert!(client.stalled(Instant::now() + STALL + Duration::from_secs(1)));
        drop(theirs);
        assert!(client.flush().is_err());
    }

    #[test]
    fn a_replay_meets_the_live_output() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), 1 << 20).unwrap();
        log.write(OutputStream::Stdout, b"one\ntwo\nthr");
        let (mut client, theirs) = pair();
        client.attach(Some(RecordReader::at_start(dir.path()).unwrap()));
        client.push_output(OutputStream::Stdout, b"dropped: the log has it");
        client.advance_replay(Some(&log));
        assert!(!client.replaying());
        log.write(OutputStream::Stdout, b"ee\n");
        client.push_output(OutputStream::Stdout, b"ee\n");
        client.flush().unwrap();
        drop(client);
        let mut all = Vec::new();
        let mut theirs = theirs;
        theirs.read_to_end(&mut all).unwrap();
        let mut text = Vec::new();
        while let Some(head) = all.first_chunk::<HEAD>() {
            let (_, len) = attach::decode_head(*head).unwrap();
            text.extend_from_slice(&all[HEAD..HEAD + len]);
            all.drain(..HEAD + len);
        }
        assert_eq!(text, b"one\ntwo\nthree\n");
    }
}
