//! Folders, an image of busybox, and containers of it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use slipway_runtime::attach::{AttachClient, Event};
use slipway_runtime::{Container, ContainerConfig, Leak, Process, Rootfs};
use slipway_types::container::{ContainerId, ExecSpec, ExitInfo, Limits, NetworkMode};

pub const SHIM: &str = env!("CARGO_BIN_EXE_slipway-test-shim");
pub const LONG: Duration = Duration::from_secs(20);

const APPLETS: &str = "sh cat echo id pwd ls touch mkdir rm env true false sleep kill ps head tail wc dd mount umount \
                       unshare hostname ifconfig readlink stat seq yes printf test chmod mv ln grep awk mknod date";

pub struct Fixture {
    root: tempfile::TempDir,
}

pub struct Outcome {
    pub exit: ExitInfo,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Outcome {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }

    /// Standard output of a command that must have worked.
    pub fn ok(&self) -> String {
        assert_eq!(self.exit.code, 0, "{:?}\n{}\n{}", self.exit, self.out(), self.err());
        self.out()
    }
}

impl Fixture {
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let root = tempfile::tempdir().unwrap();
        let image = root.path().join("image");
        for folder in ["bin", "etc", "tmp", "home/ann"] {
            std::fs::create_dir_all(image.join(folder)).unwrap();
        }
        std::fs::copy("/bin/busybox", image.join("bin/busybox")).expect("apt-get install busybox-static");
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", image.join("bin").join(applet)).unwrap();
        }
        let write = |name: &str, text: &str| std::fs::write(image.join(name), text).unwrap();
        write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001:Ann:/home/ann:/bin/sh\n");
        write("etc/group", "root:x:0:\nann:x:1001:\nvideo:x:44:ann\n");
        write("etc/motd", "hello\n");
        std::fs::set_permissions(image.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
        std::os::unix::fs::chown(image.join("home/ann"), Some(1000), Some(1001)).unwrap();
        std::fs::create_dir(root.path().join("containers")).unwrap();
        Self { root }
    }

    pub fn image(&self) -> PathBuf {
        self.root.path().join("image")
    }

    pub fn containers(&self) -> PathBuf {
        self.root.path().join("containers")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Whether `path` is one of a container's upper folder.
    pub fn upper(&self, container: &Container) -> Vec<String> {
        let upper = &container.config().rootfs.upper;
        let mut found = Vec::new();
        walk(upper, upper, &mut found);
        found.sort();
        found
    }

    pub fn config(&self, args: &[&str]) -> ContainerConfig {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&std::process::id().to_le_bytes());
        bytes[4..8].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let nanos =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
        bytes[8..].copy_from_slice(&nanos.to_le_bytes());
        let id = ContainerId::from_random(bytes);
        let dir = self.containers().join(id.as_str());
        for folder in ["upper", "work"] {
            std::fs::create_dir_all(dir.join(folder)).unwrap();
        }
        ContainerConfig {
            hostname: "box".to_owned(),
            rootfs: Rootfs { lowers: vec![self.image()], upper: dir.join("upper"), work: dir.join("work") },
            id,
            read_only: false,
            process: Process {
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                env: vec!["PATH=/bin".to_owned()],
                cwd: "/".into(),
                user: String::new(),
            },
            mounts: Vec::new(),
            network: NetworkMode::None,
            limits: Limits::default(),
            stop_signal: None,
            wait_for_attach: true,
            kill_on_detach: false,
            interactive: false,
            log: false,
            log_bytes: 64 << 20,
            shm_bytes: 64 << 20,
            ephemeral: true,
        }
    }

    /// Makes it and starts its shim.
    pub fn start(&self, config: &ContainerConfig) -> Container {
        let container = Container::create(&self.containers().join(config.id.as_str()), config).unwrap();
        container.spawn_shim(Path::new(SHIM)).unwrap();
        container
    }

    /// Runs it in the foreground until it ended.
    pub fn run_config(&self, config: &ContainerConfig) -> (Container, Outcome) {
        let container = self.start(config);
        let outcome = follow(&container.socket(), b"");
        (container, outcome)
    }

    pub fn run(&self, args: &[&str]) -> Outcome {
        self.run_config(&self.config(args)).1
    }

    pub fn sh(&self, script: &str) -> Outcome {
        self.run(&["sh", "-c", script])
    }

    /// A container in the background that runs until it is told not to.
    pub fn sleeper(&self, change: impl FnOnce(&mut ContainerConfig)) -> Container {
        let script = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
        let mut config = self.config(&["sh", "-c", script]);
        config.wait_for_attach = false;
        change(&mut config);
        let container = self.start(&config);
        let pid = container.wait_started(LONG).unwrap().pid;
        if config.process.args.last().is_some_and(|script| script.contains("trap")) {
            eventually("its trap is set", || {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                // Ash catches SIGCHLD anyway.
                let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
                let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
                caught & !(1 << 16) != 0
            });
        }
        container
    }

    /// What a sweep finds once shims had their time to end.
    pub fn leaks(&self) -> Vec<Leak> {
        let deadline = Instant::now() + LONG;
        loop {
            let leaks = slipway_runtime::check(&self.containers()).unwrap();
            if leaks.is_empty() || Instant::now() > deadline {
                return leaks;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.containers()).unwrap().flatten() {
            if let Ok(container) = Container::open(&entry.path()) {
                let _ = container.signal(9);
                let _ = container.wait_exit(Some(LONG));
                if container.observe().is_ok_and(|seen| seen.needs_recovery) {
                    let _ = container.recover();
                }
            }
        }
        if std::thread::panicking() {
            slipway_runtime::prune(&slipway_runtime::check(&self.containers()).unwrap());
            return;
        }
        assert_eq!(self.leaks(), [], "nothing is left");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.root.path().to_str().unwrap()), "nothing is mounted on the host");
        let deadline = Instant::now() + LONG;
        while !shims(&self.containers()).is_empty() {
            assert!(Instant::now() < deadline, "shims are left: {:?}", shims(&self.containers()));
            std::thread::sleep(Duration::from_millis(5));
        }
        for entry in std::fs::read_dir(self.containers()).unwrap().flatten() {
            if let Ok(container) = Container::open(&entry.path()) {
                container.remove().unwrap();
            }
        }
    }
}

fn walk(base: &Path, dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        found.push(entry.path().strip_prefix(base).unwrap().to_str().unwrap().to_owned());
        if entry.file_type().unwrap().is_dir() {
            walk(base, &entry.path(), found);
        }
    }
}

/// Attaches, sends `input`, and reads until the end.
pub fn follow(socket: &Path, input: &[u8]) -> Outcome {
    let mut client = AttachClient::connect(socket).unwrap();
    client.attach(false).unwrap();
    let (mut sender, mut reader) = client.split().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The process may not care for its input.
            let _ = sender.stdin(input).and_then(|()| sender.stdin_eof());
        });
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match reader.next_event().unwrap().expect("the shim says how it ended") {
                Event::Stdout(bytes) => stdout.extend(bytes),
                Event::Stderr(bytes) => stderr.extend(bytes),
                Event::Exit(exit) => return Outcome { exit, stdout, stderr },
                Event::Started { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    })
}

/// Runs a command in a container, as `slipway exec` does.
pub fn exec_spec(container: &Container, id: &str, spec: &ExecSpec, input: &[u8]) -> Outcome {
    let socket = container.exec(Path::new(SHIM), id, spec).unwrap();
    follow(&socket, input)
}

pub fn exec(container: &Container, args: &[&str]) -> Outcome {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = format!("e{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let command = args.iter().map(|arg| (*arg).to_owned()).collect();
    exec_spec(container, &id, &ExecSpec { command, ..ExecSpec::default() }, b"")
}

/// Process ids of the shims whose containers are in `containers`.
pub fn shims(containers: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    let folder = std::fs::canonicalize(containers).unwrap();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let mut args = line.split('\0').skip(1);
        if args.next() == Some("shim") && args.nth(1).is_some_and(|dir| Path::new(dir).starts_with(&folder)) {
            found.push(pid);
        }
    }
    found
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
