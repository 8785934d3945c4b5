//! Logs of this host's containers, as every engine gives them.

use std::time::Duration;

use slipway_orchestrator::{EngineError, LogLines};
use slipway_runtime::LogReader;
use slipway_types::container::LogNext;

/// The log of a container of this host.
#[derive(Debug)]
pub struct NativeLog(LogReader);

impl From<LogReader> for NativeLog {
    fn from(reader: LogReader) -> Self {
        Self(reader)
    }
}

impl LogLines for NativeLog {
    fn next_within(&mut self, wait: Duration) -> Result<LogNext, EngineError> {
        self.0.next_within(wait).map_err(|source| EngineError::Failed {
            operation: "read the log".to_owned(),
            source: Box::new(source),
        })
    }
}
