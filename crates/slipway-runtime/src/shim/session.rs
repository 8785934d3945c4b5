//! The shim's loop: between the process's pipes, the log and the clients, until the process has ended.
//!
//! One thread, one `poll`, nothing blocks. While a client has a megabyte that it does not take, the process's pipes are
//! not read, so it waits; that is all the flow control there is.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use slipway_types::container::{ExitInfo, OutputStream};

use super::client::{Client, HIGH_WATER, Request};
use crate::attach::{StartedFrame, kind};
use crate::exit::{CODE_KILLED, EXIT_FILE, Failure};
use crate::log::{LogWriter, RecordReader};

/// How long a process waits for its first client.
pub(super) const ATTACH_WAIT: Duration = Duration::from_secs(30);
/// How long a shim whose client did not come yet keeps the exit status for it.
const LINGER: Duration = Duration::from_secs(5);
/// Clients at a time.
const MAX_CLIENTS: usize = 64;
/// Bytes that are read from the process at a time.
const CHUNK: usize = 64 << 10;
/// Longest poll, so that stalled clients are noticed.
const LONGEST_POLL: Duration = Duration::from_secs(30);
/// How often a lingering shim looks whether its folder is still there.
const LINGER_POLL: Duration = Duration::from_millis(100);

/// The process that a session is about.
pub(super) trait Workload {
    /// Lets it run.
    fn start(&mut self) -> Result<StartedFrame, Failure>;
    /// Becomes readable when it has ended; `None` as long as there is no process.
    fn pidfd(&self) -> Option<BorrowedFd<'_>>;
    /// Sends it a signal.
    fn signal(&mut self, number: i32) -> io::Result<()>;
    /// Its exit code, after [`Workload::pidfd`] became readable.
    fn reap(&mut self) -> u8;
}

/// What is peculiar to a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// The process waits for a client.
    pub(super) wait_for_attach: bool,
    /// It is not started when none comes.
    pub(super) abandon: bool,
    /// It is killed when its last client left.
    pub(super) kill_on_detach: bool,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: u8,
    pub(super) error: Option<String>,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self { code: failure.code, error: Some(failure.error) }
    }
}

/// The shim's ends of the process's standard streams.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Standard input of the process.
#[derive(Debug, Default)]
struct Stdin {
    fd: Option<OwnedFd>,
    buffer: Vec<u8>,
    /// Closed as soon as the buffer is empty.
    ending: bool,
}

/// All that a shim holds besides the process.
#[derive(Debug)]
pub(super) struct Session {
    dir: PathBuf,
    listener: UnixListener,
    clients: Vec<Client>,
    stdin: Stdin,
    sources: [(OutputStream, Option<OwnedFd>); 2],
    log: Option<LogWriter>,
    started: Option<Vec<u8>>,
    exit: Option<Vec<u8>>,
    ever_attached: bool,
}

/// What a poll was for.
enum Watched {
    Listener,
    Process,
    Source(usize),
    Stdin,
    Client(usize),
}

impl Session {
    pub(super) fn new(dir: &Path, listener: UnixListener, log: Option<LogWriter>) -> Self {
        Self {
            dir: dir.to_owned(),
            listener,
            clients: Vec::new(),
            stdin: Stdin::default(),
            sources: [(OutputStream::Stdout, None), (OutputStream::Stderr, None)],
            log,
            started: None,
            exit: None,
            ever_attached: false,
        }
    }

    /// Takes the process's streams.
    pub(super) fn connect(&mut self, pipes: Pipes) -> io::Result<()> {
        for fd in [Some(&pipes.stdout), Some(&pipes.stderr), pipes.stdin.as_ref()].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        self.stdin.fd = pipes.stdin;
        self.sources =
            [(OutputStream::Stdout, Some(pipes.stdout)), (OutputStream::Stderr, Some(pipes.stderr))];
        Ok(())
    }

    /// Runs until the process has ended and all its output is read.
    pub(super) fn run(&mut self, process: &mut impl Workload, options: Options) -> Ended {
        let give_up = Instant::now() + ATTACH_WAIT;
        let mut error = None;
        let mut code = None;
        loop {
            let now = Instant::now();
            if self.started.is_none() && code.is_none() {
                let attached = self.clients.iter().any(|client| client.attached);
                if !attached && self.ever_attached && options.kill_on_detach {
                    return left_alone();
                }
                if attached || self.ever_attached || !options.wait_for_attach || now >= give_up {
                    if !attached && !self.ever_attached && options.wait_for_attach && options.abandon {
                        let text = format!("no client came within {} seconds", ATTACH_WAIT.as_secs());
                        return Ended { code: CODE_KILLED, error: Some(text) };
                    }
                    match process.start() {
                        Ok(frame) => self.announce(&frame),
                        Err(failure) => return failure.into(),
                    }
                }
            }
            if let Some(code) = code
                && self.sources.iter().all(|(_, source)| source.is_none())
            {
                if let Some(log) = &mut self.log {
                    log.finish();
                }
                return Ended { code, error };
            }
            let wait =
                if self.started.is_none() { give_up.saturating_duration_since(now) } else { LONGEST_POLL };
            let pidfd = if code.is_none() { process.pidfd() } else { None };
            let ready = self.poll(pidfd, code.is_none(), wait);
            for (watched, flags) in ready {
                match watched {
                    Watched::Listener => self.accept(),
                    // Only noted: the pipes still hold output, which is read below.
                    Watched::Process => code = Some(process.reap()),
                    Watched::Source(at) => self.pump(at),
                    Watched::Stdin => self.feed(),
                    Watched::Client(at) => self.serve(at, flags),
                }
            }
            if code.is_some() {
                self.drain();
            }
            for (at, number) in self.signals() {
                if self.started.is_none() && fatal(number) {
                    self.clients[at].push(kind::DONE, &[]);
                    let text = "it was ended before its process started".to_owned();
                    return Ended { code: 128 + number as u8, error: Some(text) };
                }
                let answer = match (self.started.is_some() && code.is_none(), number) {
                    (false, _) => Err("the process is not running".to_owned()),
                    (true, 1..=64) => process.signal(number).map_err(|error| error.to_string()),
                    (true, _) => Err(format!("{number} is not a signal")),
                };
                match answer {
                    Ok(()) => self.clients[at].push(kind::DONE, &[]),
                    Err(reason) => self.clients[at].push(kind::ERROR, reason.as_bytes()),
                }
            }
            if self.tidy()
                && options.kill_on_detach
                && code.is_none()
                && self.started.is_some()
                && error.is_none()
            {
                error = left_alone().error;
                let _ = process.signal(libc::SIGKILL);
            }
        }
    }

    /// Tells every client how it ended, and returns when they have it or are gone.
    pub(super) fn finish(mut self, exit: &ExitInfo, expected: bool) {
        let frame = serde_json::to_vec(exit).unwrap_or_default();
        self.exit = Some(frame);
        // A client that was told to come may still be on its way, when the process could not even start.
        let linger = Instant::now() + if expected && !self.ever_attached { LINGER } else { Duration::ZERO };
        loop {
            self.say_exit();
            self.tidy();
            let waiting = Instant::now() < linger && !self.ever_attached && self.dir.join(EXIT_FILE).exists();
            if self.clients.is_empty() && !waiting {
                return;
            }
            let wait = if waiting { LINGER_POLL } else { LONGEST_POLL };
            for (watched, flags) in self.poll(None, false, wait) {
                match watched {
                    Watched::Listener => self.accept(),
                    Watched::Client(at) => self.serve(at, flags),
                    Watched::Process | Watched::Source(_) | Watched::Stdin => {}
                }
            }
        }
    }

    fn announce(&mut self, frame: &StartedFrame) {
        let frame = serde_json::to_vec(frame).unwrap_or_default();
        for client in &mut self.clients {
            client.push(kind::STARTED, &frame);
        }
        self.started = Some(frame);
    }

    fn say_exit(&mut self) {
        let Some(exit) = &self.exit else { return };
        for client in self.clients.iter_mut().filter(|client| !client.is_closing() && !client.replaying()) {
            client.push_last(kind::EXIT, exit);
        }
    }

    /// Waits for something to do. `running`: output and input of the process are wanted.
    fn poll(
        &self,
        pidfd: Option<BorrowedFd<'_>>,
        running: bool,
        wait: Duration,
    ) -> Vec<(Watched, PollFlags)> {
        let congested = self.clients.iter().any(Client::congested);
        // What a client sends is not read while the process does not read: its own writes then block.
        let fed = self.stdin.buffer.len() < HIGH_WATER;
        let mut watched = vec![Watched::Listener];
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        if let Some(pidfd) = pidfd {
            watched.push(Watched::Process);
            fds.push(PollFd::from_borrowed_fd(pidfd, PollFlags::IN));
        }
        for (at, (_, source)) in self.sources.iter().enumerate() {
            if let (Some(fd), false, true) = (source, congested, running) {
                watched.push(Watched::Source(at));
                fds.push(PollFd::new(fd, PollFlags::IN));
            }
        }
        if let (Some(fd), false) = (&self.stdin.fd, self.stdin.buffer.is_empty()) {
            watched.push(Watched::Stdin);
            fds.push(PollFd::new(fd, PollFlags::OUT));
        }
        for (at, client) in self.clients.iter().enumerate() {
            let mut wanted = PollFlags::empty();
            if fed && !client.is_closing() {
                wanted |= PollFlags::IN;
            }
            if client.pending() > 0 {
                wanted |= PollFlags::OUT;
            }
            watched.push(Watched::Client(at));
            fds.push(PollFd::new(&client.stream, wanted));
        }
        // Replays go on by themselves, as long as there is room.
        let busy = self.clients.iter().any(|client| client.replaying() && !client.congested());
        let wait = if busy { Duration::ZERO } else { wait };
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        if rustix::event::poll(&mut fds, Some(&timeout)).is_err() {
            return Vec::new();
        }
        let flags: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        watched.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty()).collect()
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() >= MAX_CLIENTS {
                continue;
            }
            if let Ok(mut client) = Client::new(stream) {
                if let Some(started) = &self.started {
                    client.push(kind::STARTED, started);
                }
                self.clients.push(client);
            }
        }
    }

    /// Reads one chunk of output and passes it on.
    fn pump(&mut self, at: usize) {
        let (stream, Some(fd)) = &self.sources[at] else { return };
        let stream = *stream;
        let mut chunk = [0; CHUNK];
        match rustix::io::read(fd, &mut chunk) {
            Ok(0) => self.sources[at].1 = None,
            Ok(count) => {
                if let Some(log) = &mut self.log {
                    log.write(stream, &chunk[..count]);
                }
                for client in &mut self.clients {
                    client.push_output(stream, &chunk[..count]);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.sources[at].1 = None,
        }
    }

    /// After the end: what is in the pipes is all there will be. Whoever else holds them open is not waited for.
    fn drain(&mut self) {
        for at in 0..self.sources.len() {
            while !self.clients.iter().any(Client::congested)
                && let (_, Some(fd)) = &self.sources[at]
            {
                match rustix::io::ioctl_fionread(fd) {
                    Ok(0) | Err(_) => self.sources[at].1 = None,
                    Ok(_) => self.pump(at),
                }
            }
        }
    }

    /// Passes input on.
    fn feed(&mut self) {
        let stdin = &mut self.stdin;
        if let Some(fd) = &stdin.fd {
            match rustix::io::write(fd, &stdin.buffer) {
                Ok(count) => drop(stdin.buffer.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => return,
                // Nobody reads any more.
                Err(_) => {
                    stdin.buffer.clear();
                    stdin.ending = true;
                }
            }
        }
        if stdin.ending && stdin.buffer.is_empty() {
            stdin.fd = None;
        }
    }

    fn serve(&mut self, at: usize, flags: PollFlags) {
        let open = if flags.contains(PollFlags::IN) {
            matches!(self.clients[at].fill(), Ok(true))
        } else {
            !flags.intersects(PollFlags::HUP | PollFlags::ERR)
        };
        if !open {
            self.gone(at);
        }
    }

    /// Requests other than signals are done at once; those are returned, with the client's place.
    fn signals(&mut self) -> Vec<(usize, i32)> {
        let mut signals = Vec::new();
        for at in 0..self.clients.len() {
            while !self.clients[at].is_closing() {
                match self.clients[at].request() {
                    Ok(None) => break,
                    Ok(Some(Request::Signal(number))) => signals.push((at, number)),
                    Ok(Some(Request::Attach { replay })) => {
                        let reader =
                            (replay && self.log.is_some()).then(|| RecordReader::at_start(&self.dir).ok());
                        self.clients[at].attach(reader.flatten());
                        self.ever_attached = true;
                    }
                    Ok(Some(Request::Stdin(bytes))) => {
                        if self.stdin.fd.is_some() && !self.stdin.ending {
                            self.stdin.buffer.extend_from_slice(&bytes);
                        }
                    }
                    Ok(Some(Request::StdinEof)) => {
                        self.stdin.ending = true;
                        self.feed();
                    }
                    Err(reason) => self.clients[at].push_last(kind::ERROR, reason.as_bytes()),
                }
            }
        }
        signals
    }

    /// Marks a client whose connection is over.
    fn gone(&mut self, at: usize) {
        let _ = self.clients[at].stream.shutdown(std::net::Shutdown::Both);
        self.clients[at].abandon();
    }

    /// Sends what clients take and lets go of those that are done, gone or stalled. Whether the last attached one left.
    fn tidy(&mut self) -> bool {
        let now = Instant::now();
        let had_attached = self.clients.iter().any(|client| client.attached);
        let log = self.log.as_ref();
        self.clients.retain_mut(|client| {
            client.advance_replay(log);
            !client.is_abandoned() && client.flush().is_ok() && !client.is_done() && !client.stalled(now)
        });
        let left = had_attached && !self.clients.iter().any(|client| client.attached);
        if left {
            // As Docker: the input of an interactive process ends with its client.
            self.stdin.ending = true;
            self.feed();
        }
        left
    }
}

fn left_alone() -> Ended {
    Ended { code: CODE_KILLED, error: Some("the client that it ran for is gone".to_owned()) }
}

/// Signals that end a process which does nothing about them.
fn fatal(number: i32) -> bool {
    matches!(number, libc::SIGKILL | libc::SIGTERM | libc::SIGINT | libc::SIGQUIT)
}
