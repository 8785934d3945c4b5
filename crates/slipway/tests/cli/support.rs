//! A hermetic Slipway: own state folder, settings, gateway port; everything is gone at the end.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

/// One Slipway of its own.
pub struct Slipway {
    folder: tempfile::TempDir,
    pub port: u16,
    checked: bool,
}

/// What a command gave.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Fails the test unless the command succeeded; gives its standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Fails the test unless the command ended with this code; gives its standard error.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// The folder with `slipway` and `slipway-runner`, as `cargo xtask build` makes it.
fn programs() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let folder = target.join("slipway/debug");
    assert!(folder.join("slipway-runner").is_file(), "run `cargo xtask build` first: {}", folder.display());
    folder
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

impl Slipway {
    /// A fresh one.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("slipway-").tempdir().unwrap();
        let port = free_port();
        let this = Self { folder, port, checked: false };
        this.settings("");
        this
    }

    /// Replaces the settings file; the gateway's address is added.
    pub fn settings(&self, more: &str) {
        let text = format!("[gateway]\nlisten = \"127.0.0.1:{}\"\n{more}", self.port);
        std::fs::write(self.path("settings.toml"), text).unwrap();
    }

    /// A path in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The state folder.
    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// Writes a file in the test's folder, with its parents.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The command with these arguments, to be changed before it runs.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs().join("slipway"));
        command
            .args(arguments)
            .env("SLIPWAY_ROOT", self.root())
            .env("SLIPWAY_SETTINGS", self.path("settings.toml"))
            .env_remove("SLIPWAY_CA_CERTIFICATES")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        if let Some(bundle) = std::env::var_os("SLIPWAY_TEST_CA").filter(|bundle| !bundle.is_empty()) {
            command.env("SLIPWAY_CA_CERTIFICATES", bundle);
        }
        command
    }

    /// Runs a command.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        outcome(self.command(arguments).output().unwrap())
    }

    /// Runs a command with this standard input.
    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Outcome {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A program that does not read its input closes it; that is for the test to see.
        let _ = child.stdin.take().unwrap().write_all(input);
        outcome(child.wait_with_output().unwrap())
    }

    /// Runs a command in the background.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Imports an image with busybox in it.
    pub fn busybox(&self) -> &Self {
        let tar = busybox_tar();
        self.run(&["import", tar.to_str().unwrap(), "box"]).ok();
        self
    }

    /// Imports an image with Python and NumPy from Debian.
    pub fn python(&self) -> &Self {
        let tar = python_tar();
        self.run(&["import", tar.to_str().unwrap(), "py"]).ok();
        self
    }

    /// The daemon's process id.
    pub fn daemon_pid(&self) -> i32 {
        let text = self.run(&["daemon", "status"]).ok();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["pid"].as_i64().unwrap() as i32
    }

    /// The gateway's process id.
    pub fn gateway_pid(&self) -> i32 {
        let is_gateway = |pid: &i32| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"gateway\0"))
        };
        let found = processes_with(self.root().to_str().unwrap());
        let found: Vec<i32> = found.into_iter().filter(is_gateway).collect();
        assert_eq!(found.len(), 1, "one gateway runs");
        found[0]
    }

    /// Processes in containers of this Slipway whose command line names this text.
    pub fn processes_inside(&self, text: &str) -> Vec<i32> {
        let belongs = |pid: &i32| {
            let Ok(groups) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return false };
            let Ok(containers) = std::fs::read_dir(self.root().join("containers")) else { return false };
            containers
                .flatten()
                .any(|entry| groups.contains(&format!("/slipway/{}", entry.file_name().to_string_lossy())))
        };
        processes_with(text).into_iter().filter(belongs).collect()
    }

    /// One request to the gateway: status and body.
    pub fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        http(self.port, method, path, body)
    }

    /// Checks that nothing was left behind, stops everything, and checks again that nothing of it runs.
    pub fn finish(mut self) {
        let services = self.run(&["services", "--format", "json"]).ok();
        let services: Vec<serde_json::Value> = serde_json::from_str(&services).unwrap();
        for service in services {
            self.run(&["delete", service["spec"]["name"].as_str().unwrap()]).ok();
        }
        let found = self.run(&["system", "check", "--deep"]);
        assert_eq!(found.code, 0, "{}", found.stdout);
        self.stop();
        self.checked = true;
        let root = self.root().to_str().unwrap().to_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&root), "mounts are left below {root}");
        wait_for("every process of the state folder to end", Duration::from_secs(10), || {
            processes_with(&root).is_empty().then_some(())
        });
    }

    fn stop(&self) {
        let ids = self.run(&["ps", "-aq"]).stdout;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            self.run(&[&["rm", "-f"][..], &ids].concat());
        }
        self.run(&["daemon", "stop"]);
    }
}

impl Drop for Slipway {
    fn drop(&mut self) {
        if !self.checked {
            self.stop();
            let root = self.root().to_str().unwrap().to_owned();
            for pid in processes_with(&root) {
                kill(pid, "KILL");
            }
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.root().join("daemon.log")).unwrap_or_default();
                eprintln!("daemon.log:\n{log}");
            }
        }
    }
}

/// Processes whose command line names this text.
pub fn processes_with(text: &str) -> Vec<i32> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse::<i32>().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let found = String::from_utf8_lossy(&line).contains(text);
            (found && entry.file_name().to_str() != Some(&own)).then_some(pid)
        })
        .collect()
}

/// Sends a signal by name.
pub fn kill(pid: i32, signal: &str) {
    let _ =
        Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Waits until `probe` gives something.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port of loopback that nobody uses.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One HTTP request to loopback: status and body; status 0 when nobody answers.
pub fn http(port: u16, method: &str, path: &str, body: &str) -> (u16, String) {
    http_at((std::net::Ipv4Addr::LOCALHOST, port).into(), method, path, body)
}

/// One HTTP request to an address: status and body; status 0 when nobody answers.
pub fn http_at(address: std::net::SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    use std::io::Read;
    let exchange = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\naccept: application/vnd.oci.image.manifest.v1+json, */*\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match exchange() {
        Ok(answer) => {
            let status = answer.split_ascii_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            (status, body.to_owned())
        }
        Err(_) => (0, String::new()),
    }
}

fn outcome(output: Output) -> Outcome {
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Tars that tests share, made once and kept beside the build.
fn images_folder() -> PathBuf {
    let folder = workspace().join("target/test-images");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Makes a file once, whoever asks first; tests are processes of their own.
fn once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let folder = images_folder();
    let path = folder.join(name);
    let lock = File::create(folder.join(format!("{name}.lock"))).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    if !path.exists() {
        let aside = folder.join(format!("{name}.new"));
        let _ = std::fs::remove_file(&aside);
        make(&aside);
        std::fs::rename(&aside, &path).unwrap();
    }
    path
}

/// A root file system of a static busybox and nothing else.
pub fn busybox_tar() -> PathBuf {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        once("busybox.tar", |aside| {
            let tree = tempfile::tempdir().unwrap();
            let root = tree.path();
            for folder in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "home"] {
                std::fs::create_dir(root.join(folder)).unwrap();
            }
            std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
            let applets = Command::new("/bin/busybox").arg("--list").output().unwrap();
            for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|a| *a != "busybox") {
                std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
            }
            let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n";
            std::fs::write(root.join("etc/passwd"), passwd).unwrap();
            std::fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:77:user\n").unwrap();
            let status = Command::new("tar")
                .args(["--numeric-owner", "--owner=0", "--group=0", "-cf"])
                .arg(aside)
                .arg("-C")
                .arg(root)
                .arg(".")
                .status()
                .unwrap();
            assert!(status.success());
        })
    })
    .clone()
}

/// A Debian root file system with Python and NumPy.
pub fn python_tar() -> PathBuf {
    debian_tar("python.tar", "python3-minimal,python3-numpy,python-is-python3,ca-certificates")
}

/// A Debian root file system with Open MPI, and Python that knows it.
pub fn mpi_tar() -> PathBuf {
    debian_tar("mpi.tar", "python3-minimal,openmpi-bin,python3-mpi4py")
}

fn debian_tar(name: &str, packages: &str) -> PathBuf {
    once(name, |aside| {
        let status = Command::new("mmdebstrap")
            .args(["--variant=minbase", "--quiet", "--format=tar"])
            .arg(format!("--include={packages}"))
            .arg("--aptopt=APT::Install-Recommends \"false\"")
            .arg("bookworm")
            .arg(aside)
            .status()
            .expect("mmdebstrap is installed");
        assert!(status.success());
    })
}

/// A project whose training takes no time: a scale factor that a Python class multiplies by.
pub fn tiny_project(slipway: &Slipway, folder: &str, factor: f64) -> PathBuf {
    slipway.write(
        &format!("{folder}/slipway.toml"),
        "name = \"tiny\"\n[train]\ncommand = [\"python3\", \"train.py\"]\n[model]\nformat = \"python\"\n\
         entry = \"scale:Scale\"\n[serve]\nreplicas = 1\n",
    );
    slipway.write(&format!("{folder}/Dockerfile"), "FROM py\nWORKDIR /workspace\n");
    slipway.write(
        &format!("{folder}/scale.py"),
        "import json, os, numpy as np\n\
         class Scale:\n    signature = {\n        \"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [-1, 2]}],\n        \
         \"outputs\": [{\"name\": \"y\", \"datatype\": \"FP32\", \"shape\": [-1, 2]}],\n    }\n\n    \
         def load(self, model_dir):\n        self.factor = json.load(open(os.path.join(model_dir, \"factor.json\")))\n\n    \
         def predict(self, inputs):\n        return {\"y\": np.asarray(inputs[\"x\"], np.float32) * np.float32(self.factor)}\n",
    );
    slipway.write(
        &format!("{folder}/train.py"),
        &format!(
            "import json, os, shutil\n\
             out = os.environ[\"SLIPWAY_MODEL_DIR\"]\n\
             json.dump({factor}, open(os.path.join(out, \"factor.json\"), \"w\"))\n\
             shutil.copy(\"scale.py\", out)\n\
             print(json.dumps({{\"epoch\": 1, \"loss\": 0.5}}))\n\
             print(json.dumps({{\"epoch\": 2, \"loss\": 0.25, \"accuracy\": 0.97}}))\n"
        ),
    );
    slipway.path(folder)
}

/// Lets the training of a [`tiny_project`] write `begin` and wait until [`let_go`]. Neither changes what is trained from.
pub fn hold(project: &Path) {
    let _ = std::fs::remove_file(project.join("__pycache__/go"));
    let path = project.join("train.py");
    let text = std::fs::read_to_string(&path).unwrap();
    let wait = "import os, time\nprint(\"begin\", flush=True)\n\
                while not os.path.exists(\"/workspace/__pycache__/go\"):\n    time.sleep(0.02)\n";
    std::fs::write(path, format!("{wait}{text}")).unwrap();
}

/// See [`hold`].
pub fn let_go(project: &Path) {
    std::fs::create_dir_all(project.join("__pycache__")).unwrap();
    std::fs::write(project.join("__pycache__/go"), "").unwrap();
}

/// Reads lines until one has this text.
#[track_caller]
pub fn read_until(reader: impl std::io::Read, text: &str) {
    use std::io::BufRead;
    let mut seen = Vec::new();
    for line in std::io::BufReader::new(reader).lines() {
        let line = line.unwrap();
        if line.contains(text) {
            return;
        }
        seen.push(line);
    }
    panic!("`{text}` did not come: {seen:#?}");
}
