//! Ids, specs, statuses, API bodies and error codes shared by every part of Slipway.
//!
//! Plain data with serde and nothing else: no IO, no clocks, no environment.

#![forbid(unsafe_code)]

pub mod build;
pub mod container;
pub mod digest;
pub mod engine;
pub mod error;
pub mod event;
pub mod expose;
pub mod image;
pub mod model;
pub mod name;
pub mod preview;
pub mod project;
pub mod publish;
pub mod reference;
pub mod run;
pub mod service;
pub mod size;
pub mod up;

pub use digest::Digest;
pub use error::{ApiError, ErrorCode};
pub use reference::Reference;
