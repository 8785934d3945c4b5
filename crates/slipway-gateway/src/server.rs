//! Listens, hands connections to worker threads, and ends them in order.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use slipway_types::service::RoutingTable;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::access_log::Logger;
use crate::client;
use crate::config::GatewayConfig;
use crate::connection::TICK;
use crate::error::GatewayError;
use crate::routes_file::Watcher;
use crate::shared::{Shared, Worker};
use crate::table::TableError;
use crate::upstream;

const BACKLOG: u32 = 1024;
/// Files that are not for clients: logs, listeners, health checks.
const SPARE_FILES: u64 = 128;
const OVER_LIMIT: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    content-length: 53\r\nretry-after: 1\r\nconnection: close\r\n\r\n{\"error\":\"the gateway has too many open connections\"}";

/// A running gateway. Dropped, it ends at once; see [`Gateway::shutdown`] for an end in order.
#[derive(Debug)]
pub struct Gateway {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    shutdown: watch::Sender<bool>,
    acceptors: JoinSet<()>,
    health: JoinSet<()>,
    workers: Vec<RunningWorker>,
    _routes: Option<Watcher>,
}

/// How a gateway ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections with a request under way that were cut off because the time was up.
    pub cut_off: usize,
}

/// Runs a gateway until `shutdown` resolves, then ends it in order.
pub async fn run(config: GatewayConfig, shutdown: impl Future<Output = ()>) -> Result<Drained, GatewayError> {
    let gateway = start(config).await?;
    shutdown.await;
    Ok(gateway.shutdown().await)
}

/// Starts a gateway: binds every address, reads the routing table if it is there, and serves.
///
/// Needs a tokio runtime with IO and time; requests are served by threads of the gateway's own.
#[allow(clippy::unused_async, reason = "binding registers with the caller's runtime")]
pub async fn start(mut config: GatewayConfig) -> Result<Gateway, GatewayError> {
    if config.listen.is_empty() {
        return Err(GatewayError::NoAddress);
    }
    config.limits.max_connections = config.limits.max_connections.min(affordable_connections());
    config.limits.max_header_bytes = config.limits.max_header_bytes.max(8 << 10);
    let listeners = config.listen.iter().map(|address| bind(*address)).collect::<Result<Vec<_>, _>>()?;
    let addresses = listeners.iter().map(|(_, address)| *address).collect();
    let count = if config.workers == 0 { default_workers() } else { config.workers };
    let log = Logger::open(config.access_log)?;
    let shared = Shared::new(config.limits, count, log, config.containers_metrics_file)?;
    let routes = match config.routes_file {
        Some(path) => Some(Watcher::start(Arc::clone(&shared), path)?),
        None => None,
    };
    let (shutdown, down) = watch::channel(false);
    let workers = (0..count)
        .map(|index| RunningWorker::start(Worker::new(index, Arc::clone(&shared)), down.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut acceptors = JoinSet::new();
    for (listener, _) in listeners {
        let queues = workers.iter().map(|worker| (worker.queue.clone(), Arc::clone(&worker.load))).collect();
        acceptors.spawn(accept(Arc::clone(&shared), listener, queues, down.clone()));
    }
    let mut health = JoinSet::new();
    health.spawn(upstream::watch(Arc::clone(&shared), config.health_interval.max(Duration::from_millis(10))));
    Ok(Gateway { addresses, shared, shutdown, acceptors, health, workers, _routes: routes })
}

impl Gateway {
    /// The addresses that it listens on, with the ports that it got.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Puts a routing table into force, where there is no file with one. One that is refused changes nothing.
    pub fn set_routes(&self, table: &RoutingTable) -> Result<(), TableError> {
        self.shared.take(table).inspect_err(|_| {
            self.shared.routes.stale.store(true, Relaxed);
            self.shared.routes.failures.fetch_add(1, Relaxed);
        })
    }

    /// Says in the metrics whether the table in force is kept although what it is made from cannot be seen.
    pub fn set_stale(&self, stale: bool) {
        self.shared.routes.stale.store(stale, Relaxed);
    }

    /// Says from now on that it is not ready, and ends each connection with its next answer, but serves all that comes:
    /// whoever spreads requests over several gateways has time to leave this one out before [`Self::shutdown`].
    pub fn leave(&self) {
        self.shared.leaving.store(true, Relaxed);
    }

    /// Stops listening at once, lets requests that are under way finish for [`crate::Limits::drain`], and ends.
    pub async fn shutdown(mut self) -> Drained {
        self.shutdown.send_replace(true);
        // Connections that the kernel has accepted already are served; then the sockets are closed.
        while self.acceptors.join_next().await.is_some() {}
        // All are told before any is waited for.
        let ending: Vec<_> = self.workers.drain(..).map(RunningWorker::close).collect();
        let mut cut_off = 0;
        for worker in ending {
            cut_off += worker.end().await;
        }
        self.health.shutdown().await;
        if let Some(log) = &self.shared.log {
            log.close();
        }
        Drained { cut_off }
    }
}

/// A worker thread.
#[derive(Debug)]
struct RunningWorker {
    queue: mpsc::UnboundedSender<(TcpStream, SocketAddr)>,
    /// Connections that it has.
    load: Arc<AtomicUsize>,
    ended: oneshot::Receiver<usize>,
    thread: JoinHandle<()>,
}

impl RunningWorker {
    fn start(worker: Arc<Worker>, down: watch::Receiver<bool>) -> Result<Self, GatewayError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(GatewayError::Worker)?;
        let (queue, connections) = mpsc::unbounded_channel();
        let (done, ended) = oneshot::channel();
        let load = Arc::new(AtomicUsize::new(0));
        let thread = {
            let load = Arc::clone(&load);
            let name = format!("gateway-{}", worker.index);
            let work = move || {
                let cut_off = runtime.block_on(serve_all(worker, connections, load, down));
                drop(runtime);
                let _ = done.send(cut_off);
            };
            std::thread::Builder::new().name(name).spawn(work).map_err(GatewayError::Worker)?
        };
        Ok(Self { queue, load, ended, thread })
    }

    /// Lets it drain.
    fn close(self) -> EndingWorker {
        EndingWorker { ended: self.ended, thread: self.thread }
    }
}

/// A worker thread that drains.
struct EndingWorker {
    ended: oneshot::Receiver<usize>,
    thread: JoinHandle<()>,
}

impl EndingWorker {
    /// Waits until its connections are done. Gives the number that were cut off.
    async fn end(self) -> usize {
        let cut_off = self.ended.await.unwrap_or(0);
        // It has nothing left to do but to return.
        let _ = self.thread.join();
        cut_off
    }
}

/// Serves what comes from the queue until it closes and every connection is done, or the time to drain is up.
async fn serve_all(
    worker: Arc<Worker>,
    mut queue: mpsc::UnboundedReceiver<(TcpStream, SocketAddr)>,
    load: Arc<AtomicUsize>,
    down: watch::Receiver<bool>,
) -> usize {
    let mut connections = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            next = queue.recv() => {
                let Some((tcp, client)) = next else { break };
                let open = Open { worker: Arc::clone(&worker), load: Arc::clone(&load) };
                let Ok(tcp) = tokio::net::TcpStream::from_std(tcp) else { continue };
                let worker = Arc::clone(&worker);
                connections.spawn(async move {
                    client::serve(worker, tcp, client).await;
                    drop(open);
                });
            }
            Some(_) = connections.join_next() => {}
            _ = ticks.tick() => worker.look(),
        }
    }
    // The queue also closes when the gateway is dropped without a shutdown.
    if !*down.borrow() {
        return connections.len();
    }
    worker.drain();
    let end = tokio::time::Instant::now() + worker.shared.limits.drain;
    while !connections.is_empty() {
        tokio::select! {
            _ = connections.join_next() => {}
            _ = ticks.tick() => worker.look(),
            () = tokio::time::sleep_until(end) => break,
        }
    }
    connections.len()
}

/// One open connection, counted.
struct Open {
    worker: Arc<Worker>,
    load: Arc<AtomicUsize>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Relaxed);
        self.worker.shared.connections.fetch_sub(1, Relaxed);
    }
}

type Queue = (mpsc::UnboundedSender<(TcpStream, SocketAddr)>, Arc<AtomicUsize>);

/// Accepts connections and hands each to the worker that has the fewest.
async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    workers: Vec<Queue>,
    mut down: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted.and_then(|(tcp, client)| Ok((tcp.into_std()?, client))),
            _ = down.wait_for(|down| *down) => break,
        };
        match accepted {
            Ok((tcp, client)) => hand_over(&shared, &workers, tcp, client),
            Err(error) => {
                // Out of files or memory: others must end first. A connection that was reset already is no reason.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((tcp, client)) = listener.accept() {
        hand_over(&shared, &workers, tcp, client);
    }
}

fn hand_over(shared: &Shared, workers: &[Queue], mut tcp: TcpStream, client: SocketAddr) {
    let _ = tcp.set_nodelay(true);
    if tcp.set_nonblocking(true).is_err() {
        return;
    }
    if shared.connections.fetch_add(1, Relaxed) >= shared.limits.max_connections {
        shared.connections.fetch_sub(1, Relaxed);
        shared.connections_refused.fetch_add(1, Relaxed);
        let _ = tcp.write(OVER_LIMIT);
        return;
    }
    let Some((queue, load)) = workers.iter().min_by_key(|(_, load)| load.load(Relaxed)) else { return };
    load.fetch_add(1, Relaxed);
    if queue.send((tcp, client)).is_err() {
        load.fetch_sub(1, Relaxed);
        shared.connections.fetch_sub(1, Relaxed);
    }
}

/// Binds an address. It can be bound again at once after the process ended; while it runs, a second gateway cannot.
fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), GatewayError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen().map_err(|source| GatewayError::Listen { address, source })
}

/// One worker for each two processors, as the replicas need the others, but two where there are two: a worker does
/// nearly nothing but system calls, and alone it would get no more than its share of a busy processor.
fn default_workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processors / 2).max(processors.min(2)).min(8)
}

/// How many clients the limit on open files allows, with a connection to a replica for each. Raises the limit as far
/// as the process may.
fn affordable_connections() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let clients = files.map_or(u64::MAX, |files| files.saturating_sub(SPARE_FILES) / 2).max(1);
    usize::try_from(clients).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::OVER_LIMIT;

    #[test]
    fn the_fixed_answer_states_its_length() {
        let text = std::str::from_utf8(OVER_LIMIT).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
