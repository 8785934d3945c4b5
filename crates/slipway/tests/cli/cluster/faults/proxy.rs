//! A proxy before the API server that cuts watches and answers requests itself.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::Cluster;
use crate::support::{Slipway, free_port, wait_for};

/// What it does, and what it counted.
pub struct Faults {
    /// How long a watch lives.
    pub life: Duration,
    /// Of a hundred requests, how many are refused.
    pub share: AtomicU32,
    /// Every request is refused.
    pub burst: AtomicBool,
    pub watches: AtomicU64,
    pub cut: AtomicU64,
    pub lists: AtomicU64,
    pub others: AtomicU64,
    pub refused: AtomicU64,
}

/// `kubectl proxy`, which knows the credentials, with the faults before it.
pub struct Proxy {
    pub faults: Arc<Faults>,
    address: SocketAddr,
    kubectl: Child,
}

impl Proxy {
    /// Before the cluster, as the account of a kubeconfig.
    pub fn start(kubeconfig: &Path, life: Duration) -> Self {
        let port = free_port();
        let kubectl = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["proxy", "--disable-filter", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl is installed");
        let upstream: SocketAddr = ([127, 0, 0, 1], port).into();
        wait_for("kubectl proxy", Duration::from_secs(20), || TcpStream::connect(upstream).ok().map(drop));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let zero = || AtomicU64::new(0);
        let faults = Arc::new(Faults {
            life,
            share: AtomicU32::new(0),
            burst: AtomicBool::new(false),
            watches: zero(),
            cut: zero(),
            lists: zero(),
            others: zero(),
            refused: zero(),
        });
        let shared = Arc::clone(&faults);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let faults = Arc::clone(&shared);
                // Whoever goes away ends its thread.
                std::thread::spawn(move || pass(&faults, client, upstream));
            }
        });
        Self { faults, address, kubectl }
    }

    /// A kubeconfig that leads here; who asks is nobody.
    pub fn kubeconfig(&self, s: &Slipway, cluster: &Cluster) -> std::path::PathBuf {
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context":
                {"cluster": "test", "user": "test", "namespace": cluster.namespace}}],
        });
        s.write("proxied", &config.to_string())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

/// One connection, request by request; one that was passed on is its last.
fn pass(faults: &Faults, mut client: TcpStream, upstream: SocketAddr) -> Option<()> {
    loop {
        let request = read_request(&mut client)?;
        let line = String::from_utf8_lossy(&request);
        let line = line.lines().next().unwrap_or_default().to_owned();
        let watch = line.contains("watch=true");
        let counter = match () {
            () if watch => &faults.watches,
            () if line.contains("?limit=") => &faults.lists,
            () => &faults.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(refusal) = refusal(faults) {
            client.write_all(refusal.as_bytes()).ok()?;
            continue;
        }
        let mut server = TcpStream::connect(upstream).ok()?;
        server.write_all(&closing(&request)).ok()?;
        if watch {
            let until = Instant::now() + faults.life;
            let ended = copy(&mut server, &mut client, Some(until));
            faults.cut.fetch_add(u64::from(!ended), Ordering::Relaxed);
        } else {
            copy(&mut server, &mut client, None);
        }
        let _ = server.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Both);
        return None;
    }
}

fn refusal(faults: &Faults) -> Option<String> {
    let so_far = faults.watches.load(Ordering::Relaxed)
        + faults.lists.load(Ordering::Relaxed)
        + faults.others.load(Ordering::Relaxed);
    // Spread over the requests, not one after the other.
    let chosen = so_far.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let share = u64::from(faults.share.load(Ordering::Relaxed));
    if !faults.burst.load(Ordering::Relaxed) && chosen % 100 >= share {
        return None;
    }
    let count = faults.refused.fetch_add(1, Ordering::Relaxed);
    let (status, code, after) = match count % 2 {
        0 => ("429 Too Many Requests", 429, "retry-after: 1\r\n"),
        _ => ("500 Internal Server Error", 500, ""),
    };
    let body = format!(
        "{{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"code\":{code},\"message\":\"a fault\"}}"
    );
    Some(format!(
        "HTTP/1.1 {status}\r\n{after}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// A request with its body, or `None` at the end.
fn read_request(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0_usize) {
                return Some(bytes);
            }
        }
        let read = client.read(&mut piece).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
    }
}

/// The same request, after whose answer the connection ends. One that asks for another protocol stays as it is.
fn closing(request: &[u8]) -> Vec<u8> {
    let end = request.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut closing = request[..end].to_vec();
    closing.extend_from_slice(b"Connection: close\r\n");
    closing.extend_from_slice(&request[end..]);
    closing
}

/// Copies until the end, or until a time; tells whether the end was reached.
fn copy(from: &mut TcpStream, to: &mut TcpStream, until: Option<Instant>) -> bool {
    let mut piece = [0; 16 << 10];
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return false;
        }
        let _ = from.set_read_timeout(left);
        match from.read(&mut piece) {
            Ok(0) => return true,
            Ok(read) if to.write_all(&piece[..read]).is_err() => return true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return true,
        }
    }
}
