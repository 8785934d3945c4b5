//! Inference protocols, the batcher, and the shared-memory transport to model workers.
//!
//! A request goes [`http`] → [`protocol`] (bytes to [`tensor::Tensor`]s) → [`model::Model::predict`] → [`batcher`]
//! → [`worker`] → [`transport`] (a memfd that the Python worker maps), and its reply comes back the same way.
//! Nothing here listens, prints, or reads the environment: `slipway-runner` puts a listener before
//! [`http::Frontend`], the gateway can call it in process.
//!
//! Invariants: [`batcher::Queue`] knows no clock and no task; [`protocol`] knows no socket; only [`transport`] has
//! `unsafe`; what a worker sends is checked against the bounds of its arena before it is used.

pub mod batcher;
pub mod http;
pub mod json;
pub mod metrics;
pub mod model;
pub mod protocol;
pub mod signature;
pub mod tensor;
pub mod transport;
pub mod worker;

mod half;
mod worker_files;

pub use worker_files::{WORKER_FILES, WORKER_SCRIPT};
