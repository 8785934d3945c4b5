//! What the gateway is told when it starts.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use slipway_types::service::{DEFAULT_MAX_BODY, PREDICTION_LIMIT_MS};

/// Everything that the gateway is told; all else it reads from the routing table.
#[derive(Debug)]
pub struct GatewayConfig {
    /// Addresses to listen on; port 0 takes a free one. The same addresses serve `/metrics` and `/-/…`.
    pub listen: Vec<SocketAddr>,
    /// JSON file with a [`slipway_types::service::RoutingTable`], renamed into place by its writer. May be missing at
    /// first. Absent where [`crate::Gateway::set_routes`] gives the table.
    pub routes_file: Option<PathBuf>,
    /// File in Prometheus text format, written by the daemon, that `/metrics` appends verbatim.
    pub containers_metrics_file: Option<PathBuf>,
    /// Where access log lines go.
    pub access_log: AccessLog,
    /// Limits.
    pub limits: Limits,
    /// Threads that serve requests; 0 takes one for each two processors, but two where there are two or three, and at
    /// most eight.
    pub workers: usize,
    /// How often each replica is asked whether it is ready.
    pub health_interval: Duration,
}

impl GatewayConfig {
    /// A configuration with default limits and no access log, whose table is in a file.
    pub fn new(listen: SocketAddr, routes_file: impl Into<PathBuf>) -> Self {
        Self { routes_file: Some(routes_file.into()), ..Self::without_file(listen) }
    }

    /// A configuration with default limits and no access log, whose table [`crate::Gateway::set_routes`] gives.
    pub fn without_file(listen: SocketAddr) -> Self {
        Self {
            listen: vec![listen],
            routes_file: None,
            containers_metrics_file: None,
            access_log: AccessLog::Off,
            limits: Limits::default(),
            workers: 0,
            health_interval: Duration::from_secs(1),
        }
    }
}

/// Where access log lines go.
#[derive(Default)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// Appended to a file; at 64 MiB it is renamed to `<name>.1`, which replaces the one before.
    File(PathBuf),
    /// To any writer, such as standard output.
    Writer(Box<dyn Write + Send>),
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("Off"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Writer(_) => f.write_str("Writer"),
        }
    }
}

/// Limits on what clients may ask for. Those that a [`slipway_types::service::Route`] also has are used where the
/// route has 0.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest request body in bytes; a larger one gets 413.
    pub max_body: u64,
    /// Most bytes of a request's line and headers; more get 431. At least 8 KiB.
    pub max_header_bytes: usize,
    /// Most request headers; more get 431. At most 100.
    pub max_headers: usize,
    /// Longest time until a replica's answer begins (504, or 408 when the client had not sent its body by then),
    /// and longest pause within an answer.
    pub request_timeout: Duration,
    /// Longest time for a connection to a replica's TCP address. Where a node is gone, nothing refuses it.
    pub connect_timeout: Duration,
    /// Longest time for a request's headers to arrive (408), and longest time that a connection idles between requests.
    pub header_timeout: Duration,
    /// Most requests under way per service; more get 503.
    pub max_concurrency: u32,
    /// Most client connections; more get 503 and are closed. Lowered where the process may open too few files.
    pub max_connections: usize,
    /// A client that takes none of its answer for this long is cut off.
    pub write_timeout: Duration,
    /// How long requests may go on after shutdown began.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: DEFAULT_MAX_BODY,
            max_header_bytes: 32 << 10,
            max_headers: 100,
            request_timeout: Duration::from_millis(PREDICTION_LIMIT_MS),
            // The kernel repeats a lost packet after one second.
            connect_timeout: Duration::from_millis(1500),
            header_timeout: Duration::from_secs(20),
            max_concurrency: 1024,
            max_connections: 8192,
            write_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}
