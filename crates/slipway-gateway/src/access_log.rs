//! The access log: one JSON line per request, written by a thread of its own. Requests never wait for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use crate::config::AccessLog;
use crate::error::GatewayError;

/// Most bytes that wait to be written; lines beyond are dropped and counted.
const MAX_WAITING: usize = 4 << 20;
/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(50);
/// Size at which a log file is renamed.
const MAX_FILE: u64 = 64 << 20;

/// One line.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    pub time: jiff::Timestamp,
    pub request_id: &'a str,
    pub client: IpAddr,
    pub method: &'a str,
    pub path: &'a str,
    pub service: Option<&'a str>,
    pub backend: Option<&'a str>,
    pub status: u16,
    pub aborted: bool,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub duration_ms: f64,
    pub upstream_ms: Option<f64>,
}

/// Takes lines and hands them to the writer thread.
#[derive(Debug)]
pub(crate) struct Logger {
    waiting: Arc<Waiting>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Mutex<Vec<u8>>,
    wake: Condvar,
    closing: AtomicBool,
    dropped: AtomicU64,
}

impl Logger {
    /// Opens the log; `None` when it is off.
    pub(crate) fn open(target: AccessLog) -> Result<Option<Self>, GatewayError> {
        let sink: Box<dyn Write + Send> = match target {
            AccessLog::Off => return Ok(None),
            AccessLog::Writer(writer) => writer,
            AccessLog::File(path) => match Rotating::open(path.clone(), MAX_FILE) {
                Ok(file) => Box::new(file),
                Err(source) => return Err(GatewayError::AccessLog { path, source }),
            },
        };
        let waiting = Arc::new(Waiting::default());
        let thread = {
            let waiting = Arc::clone(&waiting);
            let builder = std::thread::Builder::new().name("access-log".to_owned());
            builder.spawn(move || write_lines(&waiting, sink)).map_err(GatewayError::Worker)?
        };
        Ok(Some(Self { waiting, thread: Mutex::new(Some(thread)) }))
    }

    pub(crate) fn write(&self, line: &Line<'_>) {
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        let mut lines = lock(&self.waiting.lines);
        if lines.len() + text.len() > MAX_WAITING {
            drop(lines);
            self.waiting.dropped.fetch_add(1, Relaxed);
            return;
        }
        let first = lines.is_empty();
        lines.extend_from_slice(&text);
        drop(lines);
        if first {
            self.waiting.wake.notify_one();
        }
    }

    /// Lines that were dropped because the writer did not keep up.
    pub(crate) fn dropped(&self) -> u64 {
        self.waiting.dropped.load(Relaxed)
    }

    /// Writes what waits and ends the thread.
    pub(crate) fn close(&self) {
        self.waiting.closing.store(true, Relaxed);
        self.waiting.wake.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.close();
    }
}

fn write_lines(waiting: &Waiting, mut sink: Box<dyn Write + Send>) {
    let mut batch = Vec::new();
    loop {
        let closing = {
            let mut lines = lock(&waiting.lines);
            while lines.is_empty() && !waiting.closing.load(Relaxed) {
                // The timeout covers a close between the check and the wait.
                let waited = waiting.wake.wait_timeout(lines, Duration::from_secs(1));
                lines = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            waiting.closing.load(Relaxed)
        };
        if !closing {
            std::thread::sleep(GATHER);
        }
        std::mem::swap(&mut *lock(&waiting.lines), &mut batch);
        if !batch.is_empty()
            && let Err(error) = sink.write_all(&batch).and_then(|()| sink.flush())
        {
            waiting.dropped.fetch_add(batch.iter().filter(|byte| **byte == b'\n').count() as u64, Relaxed);
            tracing::warn!(%error, "cannot write the access log");
        }
        batch.clear();
        batch.shrink_to(1 << 20);
        if closing && lock(&waiting.lines).is_empty() {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that is renamed when it grows too large.
struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl Rotating {
    fn open(path: PathBuf, limit: u64) -> io::Result<Self> {
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, limit })
    }
}

impl Write for Rotating {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.size >= self.limit {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            self.file = append(&self.path)?;
            self.size = 0;
        }
        let written = self.file.write(buf)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str) -> Line<'_> {
        Line {
            time: jiff::Timestamp::UNIX_EPOCH,
            request_id: "r-1",
            client: IpAddr::from([127, 0, 0, 1]),
            method: "GET",
            path,
            service: None,
            backend: None,
            status: 200,
            aborted: false,
            request_bytes: 0,
            response_bytes: 2,
            duration_ms: 1.5,
            upstream_ms: None,
        }
    }

    #[test]
    fn lines_are_whole_json_and_a_full_file_is_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut file = Rotating::open(path.clone(), 10).unwrap();
        file.write_all(b"0123456789\n").unwrap();
        file.write_all(b"next\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "next\n");
        assert_eq!(std::fs::read_to_string(folder.path().join("access.log.1")).unwrap(), "0123456789\n");

        let logger = Logger::open(AccessLog::File(path.clone())).unwrap().unwrap();
        for _ in 0..1000 {
            logger.write(&line("/a\"b\n"));
        }
        logger.close();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), logger.dropped()), (1000, 0));
        assert_eq!(lines[0]["path"], "/a\"b\n");
        assert_eq!(lines[0]["time"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_writer_that_hangs_costs_lines_and_no_time() {
        struct Stuck(std::sync::mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(buf.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = std::sync::mpsc::channel();
        let logger = Logger::open(AccessLog::Writer(Box::new(Stuck(stuck)))).unwrap().unwrap();
        let long = "/".repeat(64 << 10);
        for _ in 0..400 {
            logger.write(&line(&long));
        }
        assert!(logger.dropped() > 200, "{}", logger.dropped());
        assert!(lock(&logger.waiting.lines).len() <= MAX_WAITING);
        drop(release);
    }
}
