//! The engine that runs containers on this host, and the builder's step runner.
//!
//! Images come from [`slipway_image`], containers from [`slipway_runtime`]; this crate turns one into the other. A
//! container lives in `<root>/<id>/`; whether it runs is seen there, whoever asks and whenever.

#![forbid(unsafe_code)]

mod config;
mod containers;
mod error;
mod log;
mod probe;
mod replicas;
mod serving_files;
mod steps;
mod volumes;

pub use config::{LaunchPlan, plan_launch};
pub use containers::Native;
pub use error::NativeError;
pub use log::NativeLog;
pub use replicas::NativeReplicas;
pub use serving_files::ServingFiles;
pub use steps::random_id;
pub use volumes::add_image_volumes;
