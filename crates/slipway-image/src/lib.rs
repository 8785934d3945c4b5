//! Images: the content store, the registry client and the Dockerfile builder.

#![forbid(unsafe_code)]

pub mod build;
pub mod carrier;
mod http_client;
pub mod model;
pub mod registry;
pub mod store;
