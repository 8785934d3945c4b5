//! A container's log: `log`, and `log.1` before it, in the format that Kubernetes' container runtimes use.
//!
//! A record is a line `TIME STREAM TAG TEXT`: RFC 3339 with nine fractional digits in UTC, `stdout` or `stderr`, `F` for
//! the end of a line or `P` for a part of one, and the bytes as they were, without their newline.

mod read;
mod write;

pub(crate) use read::RecordReader;
pub use read::{LogError, LogReader};
pub use slipway_types::container::{LogNext, LogOptions};
pub use write::LogWriter;

/// The newest records.
pub(crate) const LOG_FILE: &str = "log";
/// The records before those.
pub(crate) const OLD_LOG_FILE: &str = "log.1";
/// Longest text of one record, in bytes.
pub(crate) const MAX_TEXT: usize = 16 << 10;
