//! The Open Inference Protocol v2 over REST, with its binary tensor data extension.

mod describe;
mod params;
mod reply;
mod request;

pub use describe::{live, model_metadata, model_ready, ready, server_metadata};
pub use reply::{InferReply, write};
pub use request::{InferRequest, Wanted, parse};

/// The header that says where the JSON of a body ends and its raw tensors begin.
pub const BINARY_HEADER: &str = "inference-header-content-length";
