//! A store, a context and a scripted runner for one test.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};
use serde_json::Value;
use slipway_types::build::{BuildEvent, BuildRequest, Diagnostic};
use slipway_types::container::{Mount, OutputStream};
use slipway_types::{ApiError, Digest, ErrorCode, Reference};

use crate::build::{
    BaseImages, BaseProgress, BuildError, BuildOutcome, Builder, CancelFlag, LocalImages, ResolvedBase,
    RunStep, StepError, StepExit, StepRunner,
};
use crate::store::Store;

/// An overlay that is mounted nowhere.
pub(super) fn overlay(lowers: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in lowers {
        rustix::mount::fsconfig_set_string(&fs, "lowerdir+", lower)?;
    }
    rustix::mount::fsconfig_set_string(&fs, "upperdir", upper)?;
    rustix::mount::fsconfig_set_string(&fs, "workdir", work)?;
    rustix::mount::fsconfig_create(&fs)?;
    Ok(rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// A file system in memory of `size` bytes, unmounted on drop.
pub(super) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub(super) fn new(size: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        rustix::mount::fsconfig_set_string(&fs, "size", size.to_string()).unwrap();
        rustix::mount::fsconfig_create(&fs).unwrap();
        let fd = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&fd, "", rustix::fs::CWD, dir.path(), flags).unwrap();
        Self(dir)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// Interprets the text of shell forms, one command a line (or between `&&`):
/// `write PATH TEXT`, `mkdir PATH`, `rm PATH`, `echo TEXT`, `err TEXT`, `env NAME`, `need PATH`, `read PATH` (also in
/// mounts), `pause MILLISECONDS`, `hang` (until cancelled), `full`, `oom`,
/// `exit CODE`, and `pip` and `python`, which need the file that they name.
#[derive(Default)]
pub(super) struct ScriptedRunner {
    pub(super) runs: Mutex<Vec<RunStep>>,
    running: AtomicUsize,
    pub(super) most_at_once: AtomicUsize,
}

impl StepRunner for ScriptedRunner {
    fn open_root(&self, lowers: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
        assert!(!lowers.is_empty());
        overlay(lowers, upper, work)
    }

    fn run(
        &self,
        step: &RunStep,
        output: &mut dyn FnMut(OutputStream, &[u8]),
        cancel: &CancelFlag,
    ) -> Result<StepExit, StepError> {
        self.runs.lock().unwrap().push(step.clone());
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let root = overlay(&step.lowers, &step.upper, &step.work).unwrap();
        let root_path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        let result = Interpreter { step, root: root_path, cancel }.run(output);
        self.running.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

struct Interpreter<'a> {
    step: &'a RunStep,
    root: PathBuf,
    cancel: &'a CancelFlag,
}

impl Interpreter<'_> {
    /// Makes mount points as a runtime does.
    fn mount_points(&self) {
        for dir in ["dev", "proc", "sys", "etc"] {
            fs::create_dir_all(self.root.join(dir)).unwrap();
        }
        fs::OpenOptions::new().create(true).append(true).open(self.root.join("etc/resolv.conf")).unwrap();
        for mount in &self.step.mounts {
            let (target, file) = match mount {
                Mount::Bind { source, target, .. } => (target, source.is_file()),
                Mount::Tmpfs { target, .. } => (target, false),
            };
            if target.starts_with("/dev") {
                continue;
            }
            let at = self.root.join(target.strip_prefix("/").unwrap());
            if file {
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                fs::OpenOptions::new().create(true).append(true).open(at).unwrap();
            } else {
                fs::create_dir_all(at).unwrap();
            }
        }
    }

    /// Where a path of the step really is.
    fn path(&self, path: &str) -> PathBuf {
        let path = Path::new(&self.step.cwd).join(path);
        for mount in &self.step.mounts {
            if let Mount::Bind { source, target, .. } = mount
                && let Ok(below) = path.strip_prefix(target)
            {
                return if below.as_os_str().is_empty() { source.clone() } else { source.join(below) };
            }
        }
        self.root.join(path.strip_prefix("/").unwrap())
    }

    fn run(&self, output: &mut dyn FnMut(OutputStream, &[u8])) -> Result<StepExit, StepError> {
        self.mount_points();
        let exit = |code| Ok(StepExit { code, oom_killed: false });
        let args = &self.step.args;
        let text = match &args[..] {
            [shell, flag, text] if shell.ends_with("sh") && flag == "-c" => text.clone(),
            [script] if script.starts_with("/dev/slipway/") => fs::read_to_string(self.path(script)).unwrap(),
            _ => args.join(" "),
        };
        for command in text.split(['\n']).flat_map(|line| line.split("&&")).map(str::trim) {
            let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
            match name {
                "" | "#!/bin/test" => {}
                "write" => {
                    let (path, text) = rest.split_once(' ').unwrap_or((rest, ""));
                    fs::write(self.path(path), text).unwrap();
                }
                "mkdir" => fs::create_dir_all(self.path(rest)).unwrap(),
                "rm" => {
                    let path = self.path(rest);
                    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
                }
                "echo" => output(OutputStream::Stdout, format!("{rest}\n").as_bytes()),
                "err" => output(OutputStream::Stderr, format!("{rest}\n").as_bytes()),
                "env" => {
                    let start = format!("{rest}=");
                    let value = self.step.env.iter().find_map(|pair| pair.strip_prefix(&start));
                    output(
                        OutputStream::Stdout,
                        format!("{rest}={}\n", value.unwrap_or("(unset)")).as_bytes(),
                    );
                }
                "need" if !self.path(rest).exists() => {
                    let line = format!("ERROR: [Errno 2] No such file or directory: '{rest}'\n");
                    output(OutputStream::Stderr, line.as_bytes());
                    return exit(1);
                }
                "need" => {}
                "pip" | "python" if rest.contains('.') => {
                    let file = rest.split_whitespace().find(|word| word.contains('.')).unwrap();
                    if !self.path(file).exists() {
                        let line = format!("{name}: [Errno 2] No such file or directory: '{file}'\n");
                        output(OutputStream::Stderr, line.as_bytes());
                        return exit(1);
                    }
                    output(OutputStream::Stdout, format!("{name} {rest}\n").as_bytes());
                }
                "read" => output(OutputStream::Stdout, &fs::read(self.path(rest)).unwrap()),
                "pause" => std::thread::sleep(Duration::from_millis(rest.parse().unwrap())),
                "hang" => {
                    while !self.cancel.is_cancelled() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    return Err(StepError::Cancelled);
                }
                "full" => {
                    let source = io::Error::from(io::ErrorKind::StorageFull);
                    return Err(StepError::Host { what: "cannot write the log".into(), source });
                }
                "oom" => return Ok(StepExit { code: 137, oom_killed: true }),
                "exit" => return exit(rest.parse().unwrap()),
                other => {
                    output(OutputStream::Stderr, format!("/bin/sh: 1: {other}: not found\n").as_bytes());
                    return exit(127);
                }
            }
        }
        exit(0)
    }
}

/// Counts how often bases are asked for, and can say that they were pulled.
pub(super) struct CountingBases {
    local: LocalImages,
    pub(super) asked: AtomicUsize,
}

impl BaseImages for CountingBases {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &str,
        pull: bool,
        progress: &BaseProgress<'_>,
        cancel: &CancelFlag,
    ) -> Result<ResolvedBase, ApiError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if reference.repository().contains("unreachable") {
            return Err(
                ApiError::new(ErrorCode::Unavailable, "the registry does not answer").with_hint("wait")
            );
        }
        progress("layer", 1, Some(2));
        let found = self.local.resolve(reference, platform, pull, progress, cancel)?;
        Ok(ResolvedBase { pulled: pull, ..found })
    }
}

/// Everything for one test.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) runner: Arc<ScriptedRunner>,
    pub(super) bases: Arc<CountingBases>,
    pub(super) builder: Builder,
}

/// A build that gave an image.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) outcome: BuildOutcome,
    pub(super) events: Vec<BuildEvent>,
}

impl Built {
    pub(super) fn image(&self) -> Digest {
        self.outcome.image.clone().unwrap()
    }

    pub(super) fn counts(&self) -> (u32, u32) {
        (self.outcome.executed, self.outcome.cached)
    }

    pub(super) fn output(&self) -> String {
        self.events
            .iter()
            .filter_map(|event| match event {
                BuildEvent::Output { text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    pub(super) fn diagnostics(&self) -> Vec<&Diagnostic> {
        self.events
            .iter()
            .filter_map(|event| match event {
                BuildEvent::Diagnostic(diagnostic) => Some(diagnostic),
                _ => None,
            })
            .collect()
    }

    /// Instructions that were executed, in order.
    pub(super) fn executed(&self) -> Vec<String> {
        let mut names = BTreeMap::new();
        let mut executed = Vec::new();
        for event in &self.events {
            match event {
                BuildEvent::StepStarted { step, instruction, .. } => {
                    names.insert(*step, instruction.clone());
                }
                BuildEvent::StepFinished { step, cached: false, .. } => executed.push(names[step].clone()),
                _ => {}
            }
        }
        executed
    }
}

impl World {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        Self::with_store(dir, &store)
    }

    pub(super) fn with_store(dir: tempfile::TempDir, store: &Path) -> Self {
        fs::create_dir(dir.path().join("context")).unwrap();
        let store = Store::open(store).unwrap();
        let runner = Arc::new(ScriptedRunner::default());
        let bases = Arc::new(CountingBases { local: LocalImages(store.clone()), asked: AtomicUsize::new(0) });
        let builder = Builder::new(store.clone(), runner.clone(), bases.clone());
        Self { dir, store, runner, bases, builder }
    }

    pub(super) fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    /// Writes a file of the context, mode 0644.
    pub(super) fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        self
    }

    pub(super) fn request(&self, dockerfile: &str) -> BuildRequest {
        BuildRequest {
            context: self.context(),
            dockerfile: self.context().join("Dockerfile"),
            dockerfile_text: Some(dockerfile.to_owned()),
            ..BuildRequest::default()
        }
    }

    pub(super) fn run(&self, request: &BuildRequest) -> (Result<BuildOutcome, BuildError>, Vec<BuildEvent>) {
        let events = Mutex::new(Vec::new());
        let result =
            self.builder.build(request, &|event| events.lock().unwrap().push(event), &CancelFlag::new());
        (result, events.into_inner().unwrap())
    }

    pub(super) fn build_as(&self, dockerfile: &str, change: impl FnOnce(&mut BuildRequest)) -> Built {
        let mut request = self.request(dockerfile);
        change(&mut request);
        let (result, events) = self.run(&request);
        Built { outcome: result.unwrap_or_else(|error| panic!("{error:?}")), events }
    }

    pub(super) fn build(&self, dockerfile: &str) -> Built {
        self.build_as(dockerfile, |_| {})
    }

    pub(super) fn fail_as(&self, dockerfile: &str, change: impl FnOnce(&mut BuildRequest)) -> BuildError {
        let mut request = self.request(dockerfile);
        change(&mut request);
        self.run(&request).0.unwrap_err()
    }

    pub(super) fn fail(&self, dockerfile: &str) -> BuildError {
        self.fail_as(dockerfile, |_| {})
    }

    /// Builds an image under a name, for FROM.
    pub(super) fn base(&self, name: &str, dockerfile: &str) {
        self.build_as(dockerfile, |request| request.tags = vec![name.to_owned()]);
    }

    pub(super) fn config(&self, image: &Digest) -> Value {
        serde_json::from_slice(&self.store.image(image).unwrap().raw_config).unwrap()
    }

    /// `created_by` of the history, those without a layer in parentheses.
    pub(super) fn history(&self, image: &Digest) -> Vec<String> {
        let config = self.config(image);
        let entries = config["history"].as_array().unwrap().iter();
        entries
            .map(|entry| {
                let text = entry["created_by"].as_str().unwrap();
                if entry["empty_layer"] == true { format!("({text})") } else { text.to_owned() }
            })
            .collect()
    }

    /// Looks into an image's file system.
    pub(super) fn look<T>(&self, image: &Digest, look: impl FnOnce(&Path) -> T) -> T {
        let scratch = tempfile::tempdir_in(self.dir.path()).unwrap();
        let at = |name: &str| {
            let path = scratch.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let mut lowers = self.store.layer_paths(image).unwrap();
        lowers.reverse();
        lowers.push(at("empty"));
        let root = overlay(&lowers, &at("upper"), &at("work")).unwrap();
        look(Path::new(&format!("/proc/self/fd/{}", root.as_raw_fd())))
    }

    /// All files of an image: `path mode uid:gid what`, folders with the default mode and owner in short.
    pub(super) fn files(&self, image: &Digest) -> Vec<String> {
        self.look(image, |root| {
            let mut found = Vec::new();
            list(&root.join("."), "", &mut found);
            found
        })
    }

    /// Folders in the store's temporary place.
    pub(super) fn leftovers(&self) -> usize {
        fs::read_dir(self.store.root().join("tmp")).unwrap().count()
    }
}

fn list(at: &Path, prefix: &str, found: &mut Vec<String>) {
    let mut names: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let path = at.join(&name);
        let shown = format!("{prefix}/{}", name.to_string_lossy());
        let stat = path.symlink_metadata().unwrap();
        let mode = stat.mode() & 0o7777;
        let (default, what) = if stat.is_dir() {
            (0o755, String::new())
        } else if stat.is_symlink() {
            (0o777, format!(" -> {}", fs::read_link(&path).unwrap().display()))
        } else {
            let bytes = fs::read(&path).unwrap();
            let text = String::from_utf8(bytes)
                .unwrap_or_else(|bytes| format!("({} bytes)", bytes.as_bytes().len()));
            (0o644, format!(" {text}"))
        };
        let slash = if stat.is_dir() { "/" } else { "" };
        let mut line = format!("{shown}{slash}");
        if mode != default {
            line.push_str(&format!(" {mode:o}"));
        }
        if (stat.uid(), stat.gid()) != (0, 0) {
            line.push_str(&format!(" {}:{}", stat.uid(), stat.gid()));
        }
        line.push_str(&what);
        found.push(line);
        if stat.is_dir() {
            list(&path, &shown, found);
        }
    }
}
