//! The log of a pod, as the orchestrator reads logs.

use std::time::Duration;

use slipway_orchestrator::{EngineError, LogLines};
use slipway_types::container::{ContainerId, LogLine, LogNext, OutputStream};
use tokio::runtime::Handle;

use crate::client::{LogError, Logs};

/// Lines of one pod. A pod's two outputs are one in a cluster.
pub(super) struct PodLog {
    handle: Handle,
    /// Absent of a container that has not started: it has written nothing.
    logs: Option<Logs>,
}

impl PodLog {
    pub(super) fn open(
        handle: Handle,
        logs: Result<Logs, LogError>,
        replica: &ContainerId,
    ) -> Result<Box<dyn LogLines>, EngineError> {
        let logs = match logs {
            Ok(logs) => Some(logs),
            Err(LogError::Api { source, .. }) if source.code() == Some(404) => {
                return Err(EngineError::NotFound(replica.clone()));
            }
            // The kubelet has no log of what has not started yet.
            Err(LogError::Api { source, .. }) if source.code() == Some(400) => None,
            Err(error) => return Err(failed(error)),
        };
        Ok(Box::new(Self { handle, logs }))
    }
}

impl LogLines for PodLog {
    fn next_within(&mut self, wait: Duration) -> Result<LogNext, EngineError> {
        let Some(logs) = &mut self.logs else { return Ok(LogNext::End) };
        let next = self.handle.block_on(async { tokio::time::timeout(wait, logs.next()).await });
        match next {
            Err(_) => Ok(LogNext::Idle),
            Ok(Ok(None)) => Ok(LogNext::End),
            Ok(Ok(Some((time, text)))) => Ok(LogNext::Line(LogLine {
                time: time.unwrap_or_else(jiff::Timestamp::now),
                stream: OutputStream::Stdout,
                text,
            })),
            Ok(Err(error)) => Err(failed(error)),
        }
    }
}

fn failed(error: LogError) -> EngineError {
    EngineError::Failed { operation: "read the log".to_owned(), source: Box::new(error) }
}
