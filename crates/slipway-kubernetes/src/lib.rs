//! Slipway on Kubernetes: what a service, a training run and the gateway are as objects of a cluster.
//!
//! Everything here is pure: specifications and [`Capabilities`] in, objects out. [`export`] writes what [`render`] gives
//! to files, or to one text for `kubectl apply`, and [`import`] reads what others wrote.
//!
//! ```text
//! spec::* + Capabilities ── render::* ──▶ Vec<Object> ──▶ export::{stream, plain, kustomize, helm}
//! manifests of a user's ── import::analyze ──▶ findings by line, a project file
//! ```

#![forbid(unsafe_code)]

pub mod capabilities;
pub mod export;
pub mod import;
pub mod names;
pub mod object;
pub mod render;
pub mod spec;
pub mod topology;
pub mod validate;

pub use capabilities::Capabilities;
pub use object::Object;
