//! The command line from outside: real daemon, real containers, each test with a state folder of its own.
#![allow(missing_docs, clippy::print_stderr, reason = "tests")]

mod support;

mod build;
mod cluster;
mod containers;
mod crash;
mod deploy;
mod engine;
mod export;
mod faults;
mod images;
mod import_kubernetes;
mod inflight;
mod models;
mod names;
mod registry;
mod road;
mod system;
mod train;
mod up;
mod usage;
