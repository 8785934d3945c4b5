//! Slipway on Kubernetes: what a service, a training run and the gateway are as objects of a cluster.
//!
//! What something is in a cluster is decided by pure functions: specifications and [`Capabilities`] in, objects out.
//! [`apply`] sends what [`render`] gives, [`export`] writes the same to files, and [`import`] reads what others wrote.
//! [`engine`] and [`runs`] keep services and training runs as they are declared, by what [`watch`] sees.
//!
//! ```text
//! spec::* + Capabilities ── render::* ──▶ Vec<Object> ──┬─▶ apply ──▶ API server ──▶ watch::Store ──▶ engine, runs
//!                                                       └─▶ export::{stream, plain, kustomize, helm}
//! manifests of a user's ── import::analyze ──▶ findings by line, a project file
//! ```

#![forbid(unsafe_code)]

pub mod apply;
pub mod capabilities;
pub mod client;
pub mod engine;
pub mod export;
pub mod import;
pub mod names;
pub mod object;
pub mod reason;
pub mod render;
pub mod runs;
pub mod spec;
pub mod topology;
pub mod validate;
pub mod watch;

pub use capabilities::Capabilities;
pub use client::{Cluster, ConnectOptions, Discovery, connect};
pub use object::Object;
