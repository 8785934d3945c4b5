//! What a container writes, with the time of each line.

use futures_util::StreamExt;
use jiff::Timestamp;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

use super::{Accept, ApiError, Cluster, escape};

/// Longest line; a longer one is dropped.
const MAX_LINE: usize = 256 << 10;

/// What is wanted of a log.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Container; the only one when absent.
    pub container: Option<String>,
    /// Whether to wait for more until the container ends.
    pub follow: bool,
    /// Only lines of this time and later. The server counts in whole seconds.
    pub since: Option<Timestamp>,
    /// Only so many lines from the end.
    pub tail: Option<u64>,
    /// The log of the container before its last restart.
    pub previous: bool,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The server refuses it or cannot be reached.
    #[error("cannot read the log of pod {pod}")]
    Api {
        /// Which pod.
        pod: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// It broke off.
    #[error("the log of pod {pod} broke off")]
    Broken {
        /// Which pod.
        pod: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A log being read.
pub struct Logs {
    pod: String,
    lines: std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<String, LinesCodecError>> + Send>>,
}

impl Cluster {
    /// Opens the log of a pod's container.
    pub async fn logs(&self, namespace: &str, pod: &str, options: &LogOptions) -> Result<Logs, LogError> {
        let mut path =
            format!("/api/v1/namespaces/{}/pods/{}/log?timestamps=true", escape(namespace), escape(pod));
        if let Some(container) = &options.container {
            path.push_str(&format!("&container={}", escape(container)));
        }
        for (key, on) in [("follow", options.follow), ("previous", options.previous)] {
            if on {
                path.push_str(&format!("&{key}=true"));
            }
        }
        if let Some(since) = options.since {
            path.push_str(&format!("&sinceTime={}", escape(&since.to_string())));
        }
        if let Some(lines) = options.tail {
            path.push_str(&format!("&tailLines={lines}"));
        }
        let mut attempts = self.inner.retry.attempts();
        let bytes = loop {
            let source = match self.stream(&path, Accept::Whole).await {
                Ok(bytes) => break bytes,
                Err(source) => source,
            };
            match attempts.next_delay(&source) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(LogError::Api { pod: pod.to_owned(), source }),
            }
        };
        let codec = LinesCodec::new_with_max_length(MAX_LINE);
        let lines = FramedRead::new(StreamReader::new(Box::pin(bytes)), codec);
        Ok(Logs { pod: pod.to_owned(), lines: Box::pin(lines) })
    }
}

impl Logs {
    /// The next line; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(Option<Timestamp>, String)>, LogError> {
        loop {
            match self.lines.next().await {
                None => return Ok(None),
                Some(Ok(line)) => return Ok(Some(split(&line))),
                Some(Err(LinesCodecError::MaxLineLengthExceeded)) => {}
                Some(Err(LinesCodecError::Io(source))) => {
                    return Err(LogError::Broken { pod: self.pod.clone(), source });
                }
            }
        }
    }
}

fn split(line: &str) -> (Option<Timestamp>, String) {
    match line.split_once(' ').and_then(|(time, text)| Some((time.parse().ok()?, text))) {
        Some((time, text)) => (Some(time), text.to_owned()),
        // An empty line has nothing after its time.
        None => match line.parse() {
            Ok(time) => (Some(time), String::new()),
            Err(_) => (None, line.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_time() {
        let (time, text) = split("2026-11-25T02:00:00.123456789Z loss 0.1  x");
        assert_eq!((time.unwrap().subsec_nanosecond(), text.as_str()), (123_456_789, "loss 0.1  x"));
        assert_eq!(split("2026-11-25T02:00:00Z").1, "");
        assert_eq!(split("no time here"), (None, "no time here".to_owned()));
    }
}
