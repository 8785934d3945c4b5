//! The client, the watches and the engine against an API server in memory that misbehaves as told.

#![allow(clippy::unwrap_used, missing_docs)]

mod apply;
mod contract;
mod controllers;
mod engine;
mod fake;
mod gangs;
mod owners;
mod preview;
mod requests;
mod routes;
mod runs;
mod scaled;
mod usage;
mod watches;
