//! The log of a run whose ranks write elsewhere, kept as that of a container is.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use slipway_runtime::{LogOptions, LogReader, LogWriter};
use slipway_types::container::OutputStream;

use super::driver::Line;

/// Size at which the log is rotated: it holds all ranks of all attempts.
const MAX_BYTES: u64 = 256 << 20;

/// Lines of ranks on their way into the run's log. Standard output is the ranks'; standard error is ours, for what
/// separates attempts.
pub(super) struct GangLog {
    writer: LogWriter,
    ranks: u32,
    /// Times of the last lines of the attempt that goes on: whoever follows it anew gets all of them again.
    last: BTreeMap<u32, Timestamp>,
}

impl GangLog {
    /// Goes on with the log in a folder.
    pub(super) fn open(folder: &Path, ranks: u32) -> io::Result<Self> {
        let mut last = BTreeMap::new();
        let kept = LogReader::open(folder, LogOptions::default()).map_err(io::Error::other)?;
        for line in kept {
            let line = line.map_err(io::Error::other)?;
            match line.stream {
                OutputStream::Stderr => last.clear(),
                OutputStream::Stdout => drop(last.insert(rank(&line.text, ranks), line.time)),
            }
        }
        Ok(Self { writer: LogWriter::open(folder, MAX_BYTES)?, ranks, last })
    }

    /// Adds a line. Says whether it was new.
    pub(super) fn line(&mut self, line: &Line) -> bool {
        if let Some(time) = line.time {
            if self.last.get(&line.rank).is_some_and(|last| time <= *last) {
                return false;
            }
            self.last.insert(line.rank, time);
        }
        let time = line.time.unwrap_or_else(Timestamp::now);
        if self.ranks == 1 {
            self.writer.write_line(OutputStream::Stdout, time, &line.text);
        } else {
            let text = format!("[rank {}] {}", line.rank, line.text);
            self.writer.write_line(OutputStream::Stdout, time, &text);
        }
        true
    }

    /// Another attempt begins.
    pub(super) fn attempt(&mut self, number: u32, reason: &str) {
        self.last.clear();
        let text = format!("attempt {number} begins: {reason}");
        self.writer.write_line(OutputStream::Stderr, Timestamp::now(), &text);
    }
}

/// The rank that a kept line is of.
fn rank(text: &str, ranks: u32) -> u32 {
    if ranks == 1 {
        return 0;
    }
    let number = text.strip_prefix("[rank ").and_then(|rest| rest.split_once(']'));
    number.and_then(|(number, _)| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rank: u32, second: i64, text: &str) -> Line {
        Line { rank, time: Some(Timestamp::from_second(second).unwrap()), text: text.to_owned() }
    }

    fn texts(folder: &Path) -> Vec<String> {
        let reader = LogReader::open(folder, LogOptions::default()).unwrap();
        reader.map(|line| line.unwrap().text).collect()
    }

    #[test]
    fn every_line_is_kept_once_whoever_follows() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = GangLog::open(dir.path(), 2).unwrap();
        assert!(log.line(&line(0, 1, "a")) && log.line(&line(1, 1, "b")) && log.line(&line(0, 2, "c")));
        drop(log);
        let mut log = GangLog::open(dir.path(), 2).unwrap();
        assert!(!log.line(&line(0, 1, "a")) && !log.line(&line(0, 2, "c")) && !log.line(&line(1, 1, "b")));
        assert!(log.line(&line(1, 2, "d")));
        log.attempt(2, "rank 1 failed");
        // The next attempt's clock may be another.
        assert!(log.line(&line(0, 1, "a")));
        drop(log);
        let mut log = GangLog::open(dir.path(), 2).unwrap();
        assert!(!log.line(&line(0, 1, "a")) && log.line(&line(1, 1, "b")));
        let expected = [
            "[rank 0] a",
            "[rank 1] b",
            "[rank 0] c",
            "[rank 1] d",
            "attempt 2 begins: rank 1 failed",
            "[rank 0] a",
            "[rank 1] b",
        ];
        assert_eq!(texts(dir.path()), expected);
    }

    #[test]
    fn a_rank_alone_writes_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = GangLog::open(dir.path(), 1).unwrap();
        log.line(&line(0, 1, "[rank 7] a"));
        log.line(&Line { time: None, ..line(0, 1, "b") });
        assert_eq!(texts(dir.path()), ["[rank 7] a", "b"]);
        assert!(!GangLog::open(dir.path(), 1).unwrap().line(&line(0, 1, "[rank 7] a")));
    }
}
