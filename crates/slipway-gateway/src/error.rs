//! Why the gateway could not start or go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No address to listen on was given.
    #[error("the gateway needs at least one address to listen on")]
    NoAddress,
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The access log cannot be written.
    #[error("cannot open the access log {}", path.display())]
    AccessLog {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A worker thread could not be made.
    #[error("cannot start a worker thread")]
    Worker(#[source] io::Error),
    /// The system's random numbers, from which request ids are made, cannot be read.
    #[error("cannot read random bytes")]
    Random(#[source] io::Error),
}
