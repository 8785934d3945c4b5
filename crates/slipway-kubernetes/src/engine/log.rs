//! The log of a replica, read by someone who blocks.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use slipway_orchestrator::{EngineError, LogLines};
use slipway_types::container::{LogLine, LogNext, LogOptions, OutputStream};
use tokio::runtime::Handle;

use crate::client::{self, Cluster, LogError, Logs};
use crate::render::SERVER;

/// How long a container that has not started is not asked for its log again.
const PAUSE: Duration = Duration::from_millis(500);

/// The log of a pod's server. Nodes do not tell outputs apart, so every line counts as one of the standard output.
pub(super) struct PodLog {
    handle: Handle,
    cluster: Cluster,
    pod: String,
    options: LogOptions,
    open: Option<Logs>,
    ended: bool,
}

impl PodLog {
    pub(super) fn open(
        handle: Handle,
        cluster: Cluster,
        pod: String,
        options: LogOptions,
    ) -> Result<Self, EngineError> {
        let mut log = Self { handle, cluster, pod, options, open: None, ended: false };
        log.begin()?;
        Ok(log)
    }

    /// Opens it, where there is something to open.
    fn begin(&mut self) -> Result<(), EngineError> {
        let options = client::LogOptions {
            container: Some(SERVER.to_owned()),
            follow: self.options.follow,
            previous: false,
            since: self.options.since,
            tail: self.options.tail.map(|lines| u64::try_from(lines).unwrap_or(u64::MAX)),
        };
        let opening = self.cluster.logs(self.cluster.namespace(), &self.pod, &options);
        match self.handle.block_on(opening) {
            Ok(logs) => self.open = Some(logs),
            // It has not started, and so has written nothing.
            Err(error) if code(&error) == Some(400) => self.ended = !self.options.follow,
            // The pod is gone.
            Err(error) if code(&error) == Some(404) => self.ended = true,
            Err(error) => return Err(failed(error)),
        }
        Ok(())
    }
}

impl LogLines for PodLog {
    fn next_within(&mut self, wait: Duration) -> Result<LogNext, EngineError> {
        let until = Instant::now() + wait;
        while self.open.is_none() && !self.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(LogNext::Idle);
            }
            std::thread::sleep(left.min(PAUSE));
            self.begin()?;
        }
        let since = self.options.since;
        let Some(logs) = self.open.as_mut().filter(|_| !self.ended) else { return Ok(LogNext::End) };
        let left = until.saturating_duration_since(Instant::now());
        let next = async {
            loop {
                match logs.next().await {
                    // The server counts in seconds, so it gives a little more than was asked for.
                    Ok(Some((Some(time), _))) if since.is_some_and(|since| time < since) => {}
                    next => return next,
                }
            }
        };
        match self.handle.block_on(async { tokio::time::timeout(left, next).await }) {
            Err(_) => Ok(LogNext::Idle),
            Ok(Ok(Some((time, text)))) => {
                let time = time.unwrap_or_else(Timestamp::now);
                Ok(LogNext::Line(LogLine { time, stream: OutputStream::Stdout, text }))
            }
            Ok(Ok(None)) => {
                self.ended = true;
                Ok(LogNext::End)
            }
            Ok(Err(error)) => Err(failed(error)),
        }
    }
}

fn code(error: &LogError) -> Option<u16> {
    match error {
        LogError::Api { source, .. } => source.code(),
        LogError::Broken { .. } => None,
    }
}

fn failed(error: LogError) -> EngineError {
    EngineError::Failed { operation: "read the log".to_owned(), source: Box::new(error) }
}
