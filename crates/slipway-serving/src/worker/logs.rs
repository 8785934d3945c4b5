//! What a worker prints.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};

/// Longest line that is passed on whole, in bytes; a longer one is broken up.
const MAX_LINE: usize = 8 * 1024;
/// Lines that are kept to explain a worker's end.
const TAIL: usize = 20;

/// Takes each line that a worker prints, without its newline.
#[derive(Clone)]
pub struct LogSink(Arc<dyn Fn(&str) + Send + Sync>);

impl LogSink {
    /// Calls `sink` for each line.
    pub fn new(sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }
}

impl fmt::Debug for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogSink")
    }
}

/// The last lines that a worker printed.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    pub(super) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// Passes lines on until the output is closed.
pub(super) async fn pump(output: impl AsyncRead + Unpin, sink: LogSink, tail: Tail) {
    let mut output = BufReader::with_capacity(MAX_LINE, output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match read_line(&mut output, &mut line).await {
            Ok(true) => {
                let text = String::from_utf8_lossy(&line);
                (sink.0)(&text);
                tail.push(&text);
            }
            Ok(false) | Err(_) => return,
        }
    }
}

/// Reads up to a newline, which is dropped, or to [`MAX_LINE`] bytes. False at the end.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> std::io::Result<bool> {
    loop {
        let buffer = input.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(!line.is_empty());
        }
        let room = MAX_LINE - line.len();
        let end = buffer.iter().take(room).position(|&b| b == b'\n');
        let taken = end.unwrap_or(buffer.len().min(room));
        line.extend_from_slice(&buffer[..taken]);
        input.consume(taken + usize::from(end.is_some()));
        if end.is_some() || line.len() == MAX_LINE {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_whole_or_broken_up() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = LogSink::new({
            let seen = seen.clone();
            move |line| seen.lock().unwrap().push(line.to_owned())
        });
        let tail = Tail::default();
        let long = "x".repeat(MAX_LINE + 5);
        let text = format!("a\n\n{long}\n\u{fffd}b\nlast");
        pump(text.as_bytes(), sink, tail.clone()).await;
        let seen = seen.lock().unwrap();
        assert_eq!(seen[..2], ["a", ""]);
        assert_eq!((seen[2].len(), seen[3].as_str()), (MAX_LINE, "xxxxx"));
        assert_eq!(seen[4..], ["\u{fffd}b", "last"]);
        assert!(tail.text().ends_with("b\nlast"));
    }
}
