//! Inference protocols: bytes of requests to tensors, predictions to bytes of replies. No sockets, no tasks.

pub mod error;
pub mod oip;
pub mod route;
pub mod tfs;

pub use error::ProtocolError;
pub use route::{ModelRoute, Route, Selector};

#[cfg(test)]
mod tests;
