//! The data plane: one address for every service. HTTP in; Unix sockets of this host or TCP addresses of pods out.
//!
//! The gateway knows what its routing table says and nothing else ([`slipway_types::service::RoutingTable`]): on a host
//! a JSON file that is renamed into place, in a cluster what [`Gateway::set_routes`] is given. It never reads the
//! database and never waits for the daemon. A table that cannot be read or used keeps the one before it in force.
//!
//! # How requests find a service
//!
//! In this order:
//! 1. A host that a route names, or `Host: <service>.localhost[:port]`: the whole path space is the service's, unchanged.
//! 2. The gateway's own: `GET /` (the services, as JSON), `/metrics`, `/-/healthy`, `/-/ready`, `/v2`,
//!    `/v2/health/live`, `/v2/health/ready`.
//! 3. `/v1/models/<name>…` and `/v2/models/<name>…`, unchanged, where `<name>` is a service or, failing that, a model.
//!    Of several services with one model, the first by name.
//! 4. `/<service>/…`, with the prefix taken off: `/digits/v1/models/digits:predict` arrives as
//!    `/v1/models/digits:predict` and `/digits/anything` as `/anything`.
//!
//! # What it promises
//!
//! - Of the ready replicas the one with the fewest requests under way is taken; ties go round.
//! - A request is sent to another replica only if nothing of it was written, or if it is a GET or HEAD without a body
//!   whose kept-alive connection turned out to be closed.
//! - A replica that leaves the table gets no new requests; those that it has finish.
//! - A client that goes away cancels its request at the replica.
//! - Bodies of up to 64 KiB are read whole before a replica is bothered; larger ones are streamed, never kept.
//!
//! ```no_run
//! # async fn f() -> Result<(), slipway_gateway::GatewayError> {
//! use slipway_gateway::{GatewayConfig, start};
//! let gateway = start(GatewayConfig::new(([127, 0, 0, 1], 8080).into(), "/run/slipway/routes.json")).await?;
//! println!("listening on {:?}", gateway.addresses());
//! gateway.shutdown().await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod access_log;
mod body;
mod client;
mod config;
mod connection;
mod error;
mod exchange;
mod exposition;
mod handler;
mod headers;
mod metrics;
mod pages;
mod proxy;
mod refusal;
mod resolve;
mod routes_file;
mod scrape;
mod server;
mod shared;
mod stats;
mod table;
mod upstream;

pub use config::{AccessLog, GatewayConfig, Limits};
pub use error::GatewayError;
pub use server::{Drained, Gateway, run, start};
pub use table::TableError;
