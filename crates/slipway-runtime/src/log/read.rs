//! The reading side: lines by time, the last ones, and those still to come.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use slipway_types::container::{LogLine, LogNext, LogOptions, OutputStream};

use super::{LOG_FILE, MAX_TEXT, OLD_LOG_FILE};
use crate::exit;
use crate::files::{self, LockState};

/// How often a followed log is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Longest line that is put together from parts; what is longer comes as several.
const MAX_LINE: usize = 1 << 20;
/// Longest record: its text, and what is before that.
const MAX_RECORD: u64 = MAX_TEXT as u64 + 128;
/// Step of the search for the last lines.
const BLOCK: u64 = 64 << 10;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log {path}")]
pub struct LogError {
    /// The file.
    pub path: PathBuf,
    /// Cause.
    #[source]
    pub source: io::Error,
}

/// Lines of a container's log, oldest first. As an iterator it blocks while it follows a quiet container; use
/// [`LogReader::next_within`] where the wait must be interruptible.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    records: RecordReader,
    options: LogOptions,
    stdout: Line,
    stderr: Line,
    ready: VecDeque<LogLine>,
    /// Nothing will be written any more.
    over: bool,
    ended: Ended,
}

/// How a follower knows that nothing more comes.
enum Ended {
    /// By the container's own files.
    Container,
    /// As its owner says.
    Told(Box<dyn Fn() -> bool + Send>),
}

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Container => "Container",
            Self::Told(_) => "Told",
        })
    }
}

/// A line that is being put together.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    time: Option<Timestamp>,
}

/// One record of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) time: Timestamp,
    pub(crate) stream: OutputStream,
    /// Ends a line.
    pub(crate) full: bool,
    pub(crate) text: Vec<u8>,
}

/// Reads records across rotations; at the end of what there is, more may come later.
#[derive(Debug)]
pub(crate) struct RecordReader {
    dir: PathBuf,
    current: Option<BufReader<File>>,
    /// Start of a record whose end was not there yet.
    partial: Vec<u8>,
}

impl LogReader {
    /// Reads the log files of a folder, which need not be a container's any more.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Self, LogError> {
        let records = match options.tail {
            Some(lines) => RecordReader::at_tail(dir, lines),
            None => RecordReader::at_start(dir),
        };
        let records = records.map_err(|source| LogError { path: dir.join(LOG_FILE), source })?;
        Ok(Self {
            dir: dir.to_owned(),
            records,
            options,
            stdout: Line::default(),
            stderr: Line::default(),
            ready: VecDeque::new(),
            over: false,
            ended: Ended::Container,
        })
    }

    /// As [`LogReader::open`], for a log that no container of this host writes: a follower goes on until `ended`.
    ///
    /// # Errors
    /// When the files cannot be opened.
    pub fn open_until(
        dir: &Path,
        options: LogOptions,
        ended: impl Fn() -> bool + Send + 'static,
    ) -> Result<Self, LogError> {
        Ok(Self { ended: Ended::Told(Box::new(ended)), ..Self::open(dir, options)? })
    }

    /// The next line, waiting for it no longer than `wait`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next_within(&mut self, wait: Duration) -> Result<LogNext, LogError> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(line) = self.ready.pop_front() {
                if self.options.since.is_some_and(|since| line.time < since) {
                    continue;
                }
                return Ok(LogNext::Line(line));
            }
            if let Some(record) = self.records.next().map_err(|source| self.error(source))? {
                self.add(record);
                continue;
            }
            if self.over {
                // A line without its end is a line once nothing can follow.
                for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                    self.complete(stream);
                }
                if self.ready.is_empty() {
                    return Ok(LogNext::End);
                }
                continue;
            }
            if !self.options.follow || self.has_ended() {
                // Once more: what was written before it ended is there to be read now.
                self.over = true;
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(LogNext::Idle);
            }
            std::thread::sleep(left.min(LOOK_AGAIN));
        }
    }

    fn add(&mut self, record: Record) {
        let line = self.line(record.stream);
        line.bytes.extend_from_slice(&record.text);
        line.time = Some(record.time);
        if record.full || line.bytes.len() >= MAX_LINE {
            self.complete(record.stream);
        }
    }

    fn complete(&mut self, stream: OutputStream) {
        let line = std::mem::take(self.line(stream));
        if let Some(time) = line.time {
            let text = String::from_utf8_lossy(&line.bytes).into_owned();
            self.ready.push_back(LogLine { time, stream, text });
        }
    }

    fn line(&mut self, stream: OutputStream) -> &mut Line {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// A container whose shim died without a word writes nothing either, nor does one that was removed.
    fn has_ended(&self) -> bool {
        if let Ended::Told(ended) = &self.ended {
            return ended();
        }
        self.dir.join(exit::EXIT_FILE).exists()
            || !self.dir.exists()
            || matches!(files::lock_state(&self.dir), Ok(LockState::Free) | Err(_))
    }

    fn error(&self, source: io::Error) -> LogError {
        LogError { path: self.dir.join(LOG_FILE), source }
    }
}

impl Iterator for LogReader {
    type Item = Result<LogLine, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_within(Duration::from_secs(60)) {
                Ok(LogNext::Line(line)) => return Some(Ok(line)),
                Ok(LogNext::Idle) => {}
                Ok(LogNext::End) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl RecordReader {
    /// At the oldest record.
    pub(crate) fn at_start(dir: &Path) -> io::Result<Self> {
        let mut reader = Self { dir: dir.to_owned(), current: None, partial: Vec::new() };
        reader.current = match open(&dir.join(OLD_LOG_FILE))? {
            Some(old) => Some(old),
            None => open(&dir.join(LOG_FILE))?,
        };
        Ok(reader)
    }

    /// At the first of the last `lines` lines.
    fn at_tail(dir: &Path, lines: usize) -> io::Result<Self> {
        let mut reader = Self { dir: dir.to_owned(), current: None, partial: Vec::new() };
        let Some(mut newest) = open(&dir.join(LOG_FILE))? else { return Ok(reader) };
        let found = seek_back(newest.get_mut(), lines)?;
        if found < lines
            && let Some(mut old) = open(&dir.join(OLD_LOG_FILE))?
        {
            seek_back(old.get_mut(), lines - found)?;
            reader.current = Some(old);
        } else {
            reader.current = Some(newest);
        }
        Ok(reader)
    }

    /// The next whole record; `None` at the end of what there is now. Malformed lines are skipped.
    pub(crate) fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            let Some(current) = &mut self.current else {
                self.current = open(&self.dir.join(LOG_FILE))?;
                if self.current.is_none() {
                    return Ok(None);
                }
                continue;
            };
            let room = MAX_RECORD.saturating_sub(self.partial.len() as u64);
            let count = current.by_ref().take(room).read_until(b'\n', &mut self.partial)?;
            if self.partial.last() == Some(&b'\n') {
                let record = parse(&self.partial[..self.partial.len() - 1]);
                self.partial.clear();
                if record.is_some() {
                    return Ok(record);
                }
            } else if self.partial.len() as u64 >= MAX_RECORD {
                // No record is that long: whatever this is, its end is where the next one starts.
                self.partial.clear();
                self.partial.push(b'?');
            } else if count == 0 && !self.follow_rotation()? {
                return Ok(None);
            }
        }
    }

    /// At the end of one file: goes on to the next, if there is one.
    fn follow_rotation(&mut self) -> io::Result<bool> {
        let Some(current) = &mut self.current else { return Ok(false) };
        // Looked at before the names: what is written to this file is written before it is renamed.
        let mine = current.get_ref().metadata()?;
        let Some(newest) = open(&self.dir.join(LOG_FILE))? else { return Ok(false) };
        if same(&mine, &newest.get_ref().metadata()?) {
            return Ok(false);
        }
        // Renamed between reading its end and now: it may have grown in between.
        if !current.fill_buf()?.is_empty() {
            return Ok(true);
        }
        let old = open(&self.dir.join(OLD_LOG_FILE))?;
        let next = match old {
            // Two rotations ahead: this file is gone, the old one was never read.
            Some(old) if !same(&mine, &old.get_ref().metadata()?) => old,
            _ => newest,
        };
        self.partial.clear();
        self.current = Some(next);
        Ok(true)
    }
}

/// While one of both is open, its number is not reused.
fn same(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn open(path: &Path) -> io::Result<Option<BufReader<File>>> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::with_capacity(64 << 10, file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(line: &[u8]) -> Option<Record> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let stream = match fields.next()? {
        b"stdout" => OutputStream::Stdout,
        b"stderr" => OutputStream::Stderr,
        _ => return None,
    };
    let full = match fields.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Record { time, stream, full, text: fields.next()?.to_vec() })
}

/// Seeks to the start of the last `wanted` lines; how many there are, when fewer. A last line without its end counts.
fn seek_back(file: &mut File, wanted: usize) -> io::Result<usize> {
    let end = file.seek(SeekFrom::End(0))?;
    if wanted == 0 {
        return Ok(0);
    }
    // Going back: starts of records are known one by one, and a record that ends a line begins a new one before it.
    let mut start = end;
    let mut carried: Vec<u8> = Vec::new();
    let mut lines = 0;
    let mut first = end;
    while start > 0 {
        let from = start.saturating_sub(BLOCK);
        let mut block = vec![0; (start - from) as usize];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut block)?;
        block.extend_from_slice(&carried);
        let mut stop = block.len();
        // The first record of the block may begin before it; it is carried to the next, unless this is the first block.
        while stop > 0 {
            let newline = block[..stop - 1].iter().rposition(|byte| *byte == b'\n');
            let Some(begin) = newline.map(|at| at + 1).or((from == 0).then_some(0)) else { break };
            let record = parse(block[begin..stop].strip_suffix(b"\n").unwrap_or(&block[begin..stop]));
            if record.is_some_and(|record| record.full) || lines == 0 {
                if lines == wanted {
                    file.seek(SeekFrom::Start(first))?;
                    return Ok(lines);
                }
                lines += 1;
            }
            first = from + begin as u64;
            stop = begin;
        }
        block.truncate(stop);
        carried = block;
        if carried.len() as u64 > MAX_RECORD + BLOCK {
            carried.clear();
        }
        start = from;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::LogWriter;
    use super::*;

    fn lines(dir: &Path, options: LogOptions) -> Vec<String> {
        LogReader::open(dir, options).unwrap().map(|line| line.unwrap().text).collect()
    }

    fn tail(count: usize) -> LogOptions {
        LogOptions { tail: Some(count), ..LogOptions::default() }
    }

    #[test]
    fn whole_log_and_its_tail() {
        let dir = tempfile::tempdir().unwrap();
        assert!(lines(dir.path(), LogOptions::default()).is_empty(), "no log");
        let mut log = LogWriter::open(dir.path(), 1 << 30).unwrap();
        for number in 0..10_000 {
            log.write(OutputStream::Stdout, format!("line {number}\n").as_bytes());
        }
        log.write(OutputStream::Stdout, "y".repeat(100_000).as_bytes());
        log.write(OutputStream::Stdout, b"\nend");
        log.finish();
        let all = lines(dir.path(), LogOptions::default());
        assert_eq!(all.len(), 10_002);
        assert_eq!(all[10_000].len(), 100_000, "parts are joined");
        for count in [0, 1, 2, 3, 4, 700, 5_000, 10_001, 10_002, 10_003, 20_000] {
            assert_eq!(lines(dir.path(), tail(count)), all[all.len().saturating_sub(count)..], "{count}");
        }
    }

    #[test]
    fn tail_reaches_into_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::open(dir.path(), 64 << 10).unwrap();
        for number in 0..4_000 {
            log.write(OutputStream::Stderr, format!("line {number}\n").as_bytes());
        }
        let all = lines(dir.path(), LogOptions::default());
        assert!(all.len() > 1_000 && all.len() < 4_000, "rotated: {}", all.len());
        assert_eq!(all.last().unwrap(), "line 3999");
        for count in [1, 900, 1_000, all.len()] {
            assert_eq!(lines(dir.path(), tail(count)), all[all.len() - count..], "{count}");
        }
    }

    #[test]
    fn since_is_inclusive() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::create(dir.path().join(LOG_FILE)).unwrap();
        for second in 1..=3 {
            writeln!(file, "2026-01-01T00:00:0{second}.000000000Z stdout F {second}").unwrap();
        }
        let since = "2026-01-01T00:00:02Z".parse().unwrap();
        assert_eq!(lines(dir.path(), LogOptions { since: Some(since), ..LogOptions::default() }), ["2", "3"]);
    }

    #[test]
    fn damage_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let good = "2026-01-01T00:00:01.000000000Z stdout F good\n";
        let mut bytes = b"garbage\n\n".to_vec();
        bytes.extend(vec![b'z'; 200_000]);
        bytes.push(b'\n');
        bytes.extend_from_slice(good.as_bytes());
        bytes.extend_from_slice(b"2026-01-01T00:00:02.000000000Z stdout F torn");
        std::fs::write(dir.path().join(LOG_FILE), bytes).unwrap();
        assert_eq!(lines(dir.path(), LogOptions::default()), ["good"]);
    }

    #[test]
    fn a_follower_loses_nothing_across_rotations() {
        let dir = tempfile::tempdir().unwrap();
        // A shim that never was: the log is open until an exit is written.
        let mut log = LogWriter::open(dir.path(), 64 << 10).unwrap();
        log.write(OutputStream::Stdout, b"first\n");
        let mut reader =
            LogReader::open(dir.path(), LogOptions { follow: true, ..LogOptions::default() }).unwrap();
        let wait = Duration::from_secs(5);
        assert!(matches!(reader.next_within(wait).unwrap(), LogNext::Line(line) if line.text == "first"));
        assert_eq!(reader.next_within(Duration::ZERO).unwrap(), LogNext::Idle);
        // A reader is allowed to be one file behind, not more: read along.
        for number in 0..3_000 {
            log.write(OutputStream::Stdout, format!("line {number}\n").as_bytes());
            if number % 500 == 499 {
                for expected in number - 499..=number {
                    match reader.next_within(wait).unwrap() {
                        LogNext::Line(line) => assert_eq!(line.text, format!("line {expected}")),
                        other => panic!("{expected}: {other:?}"),
                    }
                }
            }
        }
        log.write(OutputStream::Stdout, b"un");
        assert_eq!(reader.next_within(Duration::ZERO).unwrap(), LogNext::Idle);
        log.write(OutputStream::Stdout, b"finished");
        log.finish();
        std::fs::write(dir.path().join(exit::EXIT_FILE), b"{}").unwrap();
        assert!(
            matches!(reader.next_within(wait).unwrap(), LogNext::Line(line) if line.text == "unfinished")
        );
        assert_eq!(reader.next_within(wait).unwrap(), LogNext::End);
    }
}
