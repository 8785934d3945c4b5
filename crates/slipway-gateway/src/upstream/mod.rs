//! Replicas as the gateway reaches them: connections over Unix sockets or TCP, and what is known of their health.

mod backend;
mod fetch;
mod health;
mod link;
mod stream;

pub(crate) use backend::{Backend, Lease};
pub(crate) use fetch::{FetchError, fetch};
pub(crate) use health::watch;
pub(crate) use link::{Link, SendFailure};
