//! The writing side: used by the shim, and by whoever keeps the log of something that runs elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use slipway_types::container::OutputStream;

use super::{LOG_FILE, MAX_TEXT, OLD_LOG_FILE};

/// Smallest size at which a log is rotated: a few of the longest records.
const MIN_CAP: u64 = 64 << 10;

/// Appends records. A log that cannot be written loses what is meant for it; the container goes on.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    file: File,
    size: u64,
    cap: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    records: Vec<u8>,
}

impl LogWriter {
    /// Opens the log in `dir`, to be rotated at `cap` bytes.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(dir: &Path, cap: u64) -> io::Result<Self> {
        let file = open_log(dir)?;
        let size = file.metadata()?.len();
        Ok(Self {
            dir: dir.to_owned(),
            file,
            size,
            cap: cap.max(MIN_CAP),
            stdout: Vec::new(),
            stderr: Vec::new(),
            records: Vec::new(),
        })
    }

    /// Takes output as it comes; lines are written when they are complete, or longer than a record.
    pub(crate) fn write(&mut self, stream: OutputStream, data: &[u8]) {
        let now = Timestamp::now();
        let mut rest = data;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            self.add(stream, &rest[..at], now);
            self.record(stream, b'F', now);
            rest = &rest[at + 1..];
        }
        self.add(stream, rest, now);
        self.flush();
    }

    /// Writes one whole line with the time that it has. What has newlines comes as several.
    pub fn write_line(&mut self, stream: OutputStream, time: Timestamp, text: &str) {
        for line in text.split('\n') {
            self.add(stream, line.as_bytes(), time);
            self.record(stream, b'F', time);
        }
        self.flush();
    }

    /// Writes lines that never ended.
    pub(crate) fn finish(&mut self) {
        let now = Timestamp::now();
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            if !self.line(stream).is_empty() {
                self.record(stream, b'P', now);
            }
        }
        self.flush();
    }

    /// What of a line is not yet in the file.
    pub(crate) fn pending(&self, stream: OutputStream) -> &[u8] {
        match stream {
            OutputStream::Stdout => &self.stdout,
            OutputStream::Stderr => &self.stderr,
        }
    }

    fn line(&mut self, stream: OutputStream) -> &mut Vec<u8> {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// Adds to the line at hand, which never gets longer than a record.
    fn add(&mut self, stream: OutputStream, mut text: &[u8], now: Timestamp) {
        loop {
            let line = self.line(stream);
            let take = text.len().min(MAX_TEXT - line.len());
            line.extend_from_slice(&text[..take]);
            text = &text[take..];
            if text.is_empty() {
                return;
            }
            self.record(stream, b'P', now);
        }
    }

    fn record(&mut self, stream: OutputStream, tag: u8, now: Timestamp) {
        let name = match stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        };
        let mut text = std::mem::take(self.line(stream));
        // Writing to a vector cannot fail.
        let _ = write!(self.records, "{now:.9} {name} {} ", char::from(tag));
        self.records.extend_from_slice(&text);
        self.records.push(b'\n');
        text.clear();
        *self.line(stream) = text;
    }

    fn flush(&mut self) {
        if self.records.is_empty() {
            return;
        }
        if self.size > 0 && self.size + self.records.len() as u64 > self.cap {
            self.rotate();
        }
        match self.file.write_all(&self.records) {
            Ok(()) => self.size += self.records.len() as u64,
            // A torn record would swallow the next: end it. Readers skip what is malformed.
            Err(_) => {
                let _ = self.file.write_all(b"\n");
                self.size = self.file.metadata().map_or(self.size, |found| found.len());
            }
        }
        self.records.clear();
    }

    fn rotate(&mut self) {
        let renamed = std::fs::rename(self.dir.join(LOG_FILE), self.dir.join(OLD_LOG_FILE));
        if let Ok(file) = renamed.and_then(|()| open_log(&self.dir)) {
            self.file = file;
            self.size = 0;
        }
    }
}

fn open_log(dir: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join(LOG_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(dir: &Path, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn records_are_cri() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), 1 << 20).unwrap();
        log.write(OutputStream::Stdout, b"one\ntw");
        log.write(OutputStream::Stderr, b"err\n\n");
        assert_eq!(log.pending(OutputStream::Stdout), b"tw");
        log.write(OutputStream::Stdout, b"o\nrest");
        log.finish();
        assert_eq!(
            texts(dir.path(), LOG_FILE),
            ["stdout F one", "stderr F err", "stderr F ", "stdout F two", "stdout P rest"]
        );
        let text = std::fs::read_to_string(dir.path().join(LOG_FILE)).unwrap();
        let (time, _) = text.split_once(' ').unwrap();
        assert_eq!(time.len(), "2026-11-24T21:04:00.123456789Z".len());
        time.parse::<Timestamp>().unwrap();
    }

    #[test]
    fn lines_from_elsewhere_keep_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), 1 << 20).unwrap();
        let time: Timestamp = "2026-01-01T00:00:01.123456789Z".parse().unwrap();
        log.write_line(OutputStream::Stdout, time, "one");
        log.write_line(OutputStream::Stderr, time, &"x".repeat(MAX_TEXT + 1));
        let read: Vec<_> =
            crate::LogReader::open(dir.path(), crate::LogOptions::default()).unwrap().collect();
        let read: Vec<_> = read.into_iter().map(Result::unwrap).collect();
        assert_eq!((read.len(), read[0].text.as_str(), read[0].time), (2, "one", time));
        assert_eq!(read[1].text.len(), MAX_TEXT + 1);
    }

    #[test]
    fn long_lines_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), 1 << 20).unwrap();
        log.write(OutputStream::Stdout, &[b'x'; MAX_TEXT * 2 + 5]);
        log.write(OutputStream::Stdout, b"\n");
        let lengths: Vec<_> =
            texts(dir.path(), LOG_FILE).iter().map(|text| (text.as_bytes()[7], text.len() - 9)).collect();
        assert_eq!(lengths, [(b'P', MAX_TEXT), (b'P', MAX_TEXT), (b'F', 5)]);
    }

    #[test]
    fn old_records_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), 1).unwrap();
        for number in 0..10 {
            log.write(OutputStream::Stdout, format!("{number}{}\n", "x".repeat(30_000)).as_bytes());
        }
        for name in [LOG_FILE, OLD_LOG_FILE] {
            assert!(std::fs::metadata(dir.path().join(name)).unwrap().len() <= MIN_CAP);
        }
        assert!(texts(dir.path(), LOG_FILE).last().unwrap().len() < MAX_TEXT + 10);
    }
}
