//! Replicas as the gateway reaches them: connections over Unix sockets, and what is known of their health.

mod backend;
mod fetch;
mod health;
mod link;

pub(crate) use backend::{Backend, Lease};
pub(crate) use fetch::{FetchError, fetch};
pub(crate) use health::watch;
pub(crate) use link::{Link, SendFailure};
