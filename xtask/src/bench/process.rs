//! Programs that a benchmark runs: timed, limited, and ended with it whatever happens.
//!
//! Every program gets a process group of its own, so that Ctrl-C reaches only the benchmark, which then stops them in
//! order.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use super::error::Error;
use crate::error::Common;

/// How often a wait looks whether the benchmark shall end.
const SLICE: Duration = Duration::from_millis(100);
/// How long a program may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(15);

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on Ctrl-C ends the benchmark in order.
pub fn watch_signals() -> Result<(), Error> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED))
            .map_err(Common::start("the signal handler"))?;
    }
    Ok(())
}

/// Fails once the benchmark shall end.
pub fn check_interrupt() -> Result<(), Error> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
}

/// Sleeps, unless the benchmark shall end.
pub fn pause(duration: Duration) -> Result<(), Error> {
    let until = Instant::now() + duration;
    loop {
        check_interrupt()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(SLICE));
    }
}

/// What a program left.
#[derive(Debug)]
pub struct Finished {
    /// From just before its start to its end.
    pub wall: Duration,
    /// Its standard output.
    pub output: String,
    /// What it said on standard error, although it succeeded.
    pub complaint: String,
}

/// Runs a program to its end and expects success.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished, Error> {
    execute(command, limit, true)
}

/// Like [`run`], but Ctrl-C does not end it: for cleaning up.
pub fn clean_up(command: &mut Command, limit: Duration) -> Result<Finished, Error> {
    execute(command, limit, false)
}

fn execute(command: &mut Command, limit: Duration, interruptible: bool) -> Result<Finished, Error> {
    let scratch = || tempfile::tempfile().map_err(Error::io("create a file in", &std::env::temp_dir()));
    let (mut out, mut err) = (scratch()?, scratch()?);
    let share = |file: &File| file.try_clone().map_err(Error::io("share", Path::new("a temporary file")));
    command.stdout(share(&out)?).stderr(share(&err)?);
    let began = Instant::now();
    let mut running = Running::spawn(command)?;
    let status = loop {
        if running.exits_within(SLICE) {
            let wall = began.elapsed();
            break (running.reap(), wall);
        }
        if interruptible {
            check_interrupt()?;
        }
        if began.elapsed() > limit {
            running.stop();
            let output = read_back(&mut err) + &read_back(&mut out);
            return Err(Error::Slow { command: describe(command), limit, output });
        }
    };
    match status {
        (Some(status), wall) if status.success() => {
            Ok(Finished { wall, output: read_back(&mut out), complaint: read_back(&mut err) })
        }
        (Some(status), _) => {
            let output = read_back(&mut out) + &read_back(&mut err);
            Err(Error::Failed { command: describe(command), status, output })
        }
        (None, _) => Err(Error::Ended { name: describe(command), output: read_back(&mut err) }),
    }
}

fn read_back(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program that runs beside the benchmark, and is stopped with all its group when dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    log: Option<PathBuf>,
    reaped: bool,
}

impl Running {
    /// Starts a program whose output goes to a log file.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self, Error> {
        let file = File::create(log).map_err(Error::io("create", log))?;
        let other = file.try_clone().map_err(Error::io("share", log))?;
        let mut running = Self::spawn(command.stdout(file).stderr(other))?;
        running.log = Some(log.to_owned());
        Ok(running)
    }

    fn spawn(command: &mut Command) -> Result<Self, Error> {
        let name = describe(command);
        let failed = |source| Error::from(Common::Start { program: name.clone(), source });
        let mut child = command.stdin(Stdio::null()).process_group(0).spawn().map_err(failed)?;
        let pid = Pid::from_child(&child);
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { name, child, pid, pidfd, log: None, reaped: false }),
            Err(source) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(failed(source.into()))
            }
        }
    }

    /// Fails when it has ended.
    pub fn check(&self) -> Result<(), Error> {
        check_interrupt()?;
        if self.exits_within(Duration::ZERO) {
            let output = self.log.as_deref().and_then(|log| std::fs::read(log).ok()).unwrap_or_default();
            return Err(Error::Ended {
                name: self.name.clone(),
                output: String::from_utf8_lossy(&output).into_owned(),
            });
        }
        Ok(())
    }

    /// Asks it to end, and after a while makes it; the same for what is left of its group.
    pub fn stop(&mut self) {
        if self.reaped {
            return;
        }
        let _ = kill_process(self.pid, Signal::TERM);
        let until = Instant::now() + GRACE;
        while !self.exits_within(SLICE) && Instant::now() < until {}
        // Before the leader is reaped: as long as it is a zombie, its group's number belongs to nobody else.
        let _ = kill_process_group(self.pid, Signal::KILL);
        self.reap();
    }

    fn exits_within(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        self.reaped || matches!(poll(&mut fds, Some(&time)), Ok(count) if count > 0)
    }

    fn reap(&mut self) -> Option<ExitStatus> {
        self.reaped = true;
        self.child.wait().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until `ready` says yes, while a program runs.
pub fn wait_until(
    running: Option<&Running>,
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> bool,
) -> Result<(), Error> {
    let began = Instant::now();
    while !ready() {
        check_interrupt()?;
        running.map_or(Ok(()), Running::check)?;
        if began.elapsed() > limit {
            return Err(Error::Slow { command: what.to_owned(), limit, output: String::new() });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A port of the loopback address that nothing uses now.
pub fn free_port() -> Result<u16, Error> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Error::io("find a free port of", Path::new("127.0.0.1")))
}

/// The first of the programs that is installed, also in the folders that only root has in its `PATH`.
pub fn find_program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from)).collect();
    names.iter().find_map(|name| {
        // An absolute name replaces the folder.
        folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file())
    })
}

/// Kills processes of these programs that have a path in their arguments, and says which they were. For what a program
/// that was stopped left behind: the path is its state folder. Others may name that folder too, such as the shell that
/// started the benchmark.
pub fn kill_leftovers(path: &Path, programs: &[&str]) -> Vec<String> {
    let (needle, own) = (path.to_string_lossy().into_owned(), std::process::id());
    let mut killed = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(bytes) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
        let exe = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
        let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A program that was replaced since is shown as `name (deleted)`.
        let is_one = programs.contains(&name.trim_end_matches(" (deleted)"));
        if id == own || !is_one || !line.contains(&needle) {
            continue;
        }
        if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw)
            && kill_process(pid, Signal::KILL).is_ok()
        {
            killed.push(line.trim().to_owned());
        }
    }
    killed
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut text = program.to_string_lossy().into_owned();
    for argument in command.get_args().take(8) {
        text = format!("{text} {}", argument.to_string_lossy());
    }
    if command.get_args().count() > 8 { text + " …" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_reports_and_limits() {
        let done = run(Command::new("sh").args(["-c", "echo out; echo odd >&2; sleep 0.05"]), GRACE).unwrap();
        assert!(
            done.complaint == "odd\n" && done.output == "out\n" && done.wall >= Duration::from_millis(50),
            "{done:?}"
        );
        let failed = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), GRACE).unwrap_err();
        assert!(failed.to_string().ends_with("(exit status: 3):\n    why"), "{failed}");
        let slow = run(Command::new("sleep").arg("60"), Duration::from_millis(10)).unwrap_err();
        assert!(matches!(slow, Error::Slow { .. }), "{slow}");
        assert!(matches!(
            run(&mut Command::new("/no/such/program"), GRACE),
            Err(Error::Common(Common::Start { .. }))
        ));
    }

    #[test]
    fn ends_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let (log, mark) = (folder.path().join("log"), folder.path().join("mark"));
        // The child of the shell takes no notice of SIGTERM and outlives its parent.
        let script = format!(
            "(trap '' TERM; while :; do echo x >> {}; sleep 0.02; done) & echo up; wait",
            mark.display()
        );
        let mut running = Running::start(Command::new("sh").args(["-c", &script]), &log).unwrap();
        wait_until(Some(&running), "the shell", GRACE, || mark.exists()).unwrap();
        running.check().unwrap();
        running.stop();
        assert!(matches!(running.check(), Err(Error::Ended { .. })));
        let size = || std::fs::metadata(&mark).unwrap().len();
        let before = size();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(before, size());
    }

    #[test]
    fn finds_and_kills_what_names_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("tail")
            .arg("-F")
            .arg(folder.path().join("x"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let kill = |program| kill_leftovers(folder.path(), &[program]);
        let ready = || {
            std::fs::read(format!("/proc/{}/cmdline", child.id())).is_ok_and(|line| line.starts_with(b"tail"))
        };
        wait_until(None, "tail", GRACE, ready).unwrap();
        assert!(kill("another").is_empty());
        assert_eq!(kill("tail").len(), 1);
        assert!(!child.wait().unwrap().success());
    }
}
