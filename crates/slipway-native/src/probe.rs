//! Asks a replica's runner whether it is ready, without trusting what the replica put in its folder.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How long the whole exchange may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;
const REQUEST: &[u8] = b"GET /v2/health/ready HTTP/1.1\r\nhost: replica\r\nconnection: close\r\n\r\n";

/// Why a runner is not ready.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotReady {
    pub reason: String,
    /// It could not load its model.
    pub load_failed: bool,
}

/// `Ok` when the runner behind the socket says that it is ready; else why not.
pub(crate) fn probe(socket: &Path) -> Result<(), NotReady> {
    let answer = match exchange(socket, Instant::now() + LIMIT) {
        Ok(answer) => answer,
        Err(error) => {
            let reason = match error.kind() {
                io::ErrorKind::NotFound => "it is starting".to_owned(),
                io::ErrorKind::ConnectionRefused => "its runner does not listen".to_owned(),
                io::ErrorKind::WouldBlock => "its runner accepts no connections".to_owned(),
                _ => format!("its health check failed: {error}"),
            };
            return Err(NotReady { reason, load_failed: false });
        }
    };
    if answer.split_ascii_whitespace().nth(1) == Some("200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let reason = answer["reason"].as_str().unwrap_or("it is not ready").to_owned();
    Err(NotReady { reason, load_failed: answer["load_failed"] == true })
}

fn exchange(socket: &Path, deadline: Instant) -> io::Result<String> {
    let stream = connect(socket)?;
    let mut sent = 0;
    while sent < REQUEST.len() {
        match rustix::io::write(&stream, &REQUEST[sent..]) {
            Ok(count) => sent += count,
            Err(rustix::io::Errno::AGAIN) => wait(&stream, PollFlags::OUT, deadline)?,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while answer.len() < MAX_ANSWER {
        match rustix::io::read(&stream, &mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(rustix::io::Errno::AGAIN) => wait(&stream, PollFlags::IN, deadline)?,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Connects to the socket at this very path. The folder belongs to the replica, which could put a link to any other
/// socket of this host in its place. Never waits: a full backlog is `WouldBlock`.
fn connect(socket: &Path) -> io::Result<OwnedFd> {
    let file = rustix::fs::open(socket, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_socket() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "its socket is not a socket"));
    }
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let stream = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&stream, &address)?;
    Ok(stream)
}

fn wait(stream: &OwnedFd, flags: PollFlags, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), flags)];
    let timeout = Timespec::try_from(left).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match poll(&mut fds, Some(&timeout)) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    fn answering(answer: &'static str) -> Result<(), NotReady> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("http.sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // All of it: to close with bytes unread resets the connection.
            let mut request = [0; REQUEST.len()];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        probe(&path)
    }

    #[test]
    fn ready_and_why_not() {
        assert_eq!(answering("HTTP/1.1 200 OK\r\n\r\n{\"ready\":true}"), Ok(()));
        let loading = "HTTP/1.1 503 X\r\n\r\n{\"ready\":false,\"reason\":\"the model is being loaded\"}";
        let not_ready = |reason: &str, load_failed| Err(NotReady { reason: reason.to_owned(), load_failed });
        assert_eq!(answering(loading), not_ready("the model is being loaded", false));
        let failed = "HTTP/1.1 503 X\r\n\r\n{\"ready\":false,\"reason\":\"no\",\"load_failed\":true}";
        assert_eq!(answering(failed), not_ready("no", true));
        assert_eq!(answering(""), not_ready("it is not ready", false));
        assert_eq!(probe(Path::new("/absent/http.sock")), not_ready("it is starting", false));
    }

    #[test]
    fn links_are_not_followed_and_silence_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.sock"), dir.path().join("http.sock"));
        let _listener = UnixListener::bind(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let refused = probe(&link).unwrap_err();
        assert_eq!(refused.reason, "its health check failed: its socket is not a socket");
        let began = Instant::now();
        assert!(probe(&real).unwrap_err().reason.contains("timed out"));
        assert!(began.elapsed() < 2 * LIMIT, "nobody accepts, and yet it ends");
    }
}
