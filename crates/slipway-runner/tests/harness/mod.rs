//! A runner of its own for each test: a folder with a model, the worker's files, a socket, and the process.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// `y` is the sum of a row and `rows` the size of its batch. The first number of a row can make trouble.
pub const MODEL: &str = r#"
import os, signal, time
import numpy as np

class Refusal(Exception):
    status = 422

class Model:
    signature = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [-1]},
            {"name": "rows", "datatype": "INT64", "shape": [-1]},
        ],
    }

    def load(self, model_dir):
        self.pid = os.getpid()
        print("loading from", os.path.basename(model_dir))

    def predict(self, inputs):
        x = inputs["x"]
        assert not x.flags.writeable
        for order in x[:, 0]:
            if order == 666:
                os.kill(self.pid, signal.SIGKILL)
            if order == 777:
                time.sleep(60)
            if order == 555:
                raise Refusal("no such thing")
            if order == 888:
                raise ValueError("the row is bad")
            if order == 444:
                time.sleep(0.4)
        n = x.shape[0]
        return {"y": x.sum(axis=1), "rows": np.full(n, n)}
"#;

pub struct Runner {
    pub folder: TempDir,
    pub child: Child,
    log: Arc<Mutex<String>>,
}

pub struct Reply {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// The interpreter with NumPy: `SLIPWAY_TEST_PYTHON`, else Debian's.
pub fn python() -> PathBuf {
    let python =
        std::env::var_os("SLIPWAY_TEST_PYTHON").map_or_else(|| "/usr/bin/python3".into(), PathBuf::from);
    let numpy = Command::new(&python).args(["-c", "import numpy"]).status();
    assert!(
        numpy.is_ok_and(|s| s.success()),
        "{} has no NumPy: install python3-numpy or set SLIPWAY_TEST_PYTHON",
        python.display()
    );
    python
}

/// A folder with everything that a runner needs.
pub fn prepare(model: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (path, bytes) in slipway_serving::WORKER_FILES {
        let path = root.join("python").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    for name in ["model", "bin", "run"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    std::fs::write(root.join("model/model.py"), model).unwrap();
    // The runner takes the interpreter from its PATH; a virtual environment's must be called by its own path.
    let wrapper = root.join("bin/python3");
    std::fs::write(&wrapper, format!("#!/bin/sh\nexec {} \"$@\"\n", python().display())).unwrap();
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut config = json!({
        "service": "adder-service", "model": "adder", "version": 3, "labels": ["stable"], "format": "python",
        "model_dir": root.join("model"), "socket": root.join("run/http.sock"), "python_dir": root.join("python"),
        "max_body": 100_000, "timeout_ms": 5000,
    });
    change(&mut config);
    std::fs::write(root.join("runner.json"), config.to_string()).unwrap();
    folder
}

impl Runner {
    /// Starts a runner; it need not be ready.
    pub fn start(model: &str, change: impl FnOnce(&mut Value)) -> Self {
        let folder = prepare(model, change);
        let command = Command::new(env!("CARGO_BIN_EXE_slipway-runner"));
        Self::spawn(folder, command)
    }

    /// Starts `command` with the configuration of `folder` as its last argument.
    pub fn spawn(folder: TempDir, mut command: Command) -> Self {
        let mut child = command
            .arg(folder.path().join("runner.json"))
            .env("PATH", format!("{}:/usr/bin:/bin", folder.path().join("bin").display()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let sink = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = sink.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let runner = Self { folder, child, log };
        runner.wait("the socket", |r| UnixStream::connect(r.socket()).is_ok());
        runner
    }

    /// Starts a runner and waits until it is ready.
    pub fn ready(model: &str, change: impl FnOnce(&mut Value)) -> Self {
        let runner = Self::start(model, change);
        runner.wait_ready();
        runner
    }

    pub fn wait_ready(&self) {
        self.wait("readiness", |r| r.get("/v2/health/ready").status == 200);
    }

    pub fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < deadline, "no {what} in time:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("run/http.sock")
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Reply {
        exchange(self.connect(), "GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        exchange(self.connect(), "POST", path, &[], body.as_ref())
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        exchange(self.connect(), method, path, headers, body)
    }

    /// Predicts rows that start with these numbers.
    pub fn predict(&self, firsts: &[u32]) -> Reply {
        self.post("/v1/models/adder:predict", instances(firsts))
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the runner does not exit:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Process ids of the workers.
    pub fn workers(&self) -> Vec<u32> {
        children(self.child.id())
    }

    /// The value of a metric line that starts with `name`.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text().to_owned();
        let line =
            text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn instances(firsts: &[u32]) -> String {
    json!({ "instances": firsts.iter().map(|f| json!([f, 1, 2])).collect::<Vec<_>>() }).to_string()
}

pub fn children(parent: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().map(|p| p.parse().unwrap()).collect()
}

pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|s| !s.rsplit_once(')').unwrap().1.starts_with(" Z"))
}

pub fn exchange(
    mut stream: UnixStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "transfer-encoding" || *name == "content-length") {
        head += &format!("content-length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // A server that refuses a large body may close before it has read all of it.
    let _ = stream.write_all(body);
    read_reply(stream)
}

pub fn read_reply(mut stream: UnixStream) -> Reply {
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    let end = reply.windows(4).position(|w| w == b"\r\n\r\n").expect("a reply with a head");
    let headers = String::from_utf8(reply[..end].to_vec()).unwrap();
    let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, headers, body: reply[end + 4..].to_vec() }
}
