//! Worker processes: one holds the model and predicts; it is started, watched, killed and started again here.

mod backoff;
mod logs;
mod pids;
mod process;

pub use backoff::Backoff;
pub use logs::LogSink;
pub use pids::WorkerPids;
pub use process::{StartError, Worker, WorkerError, WorkerOptions, WorkerOutputs};
