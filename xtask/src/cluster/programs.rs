//! The programs of a cluster, built once per machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

use super::error::Error;
use crate::error::Common;
use crate::workspace::root;

/// How many builds the cache keeps.
const KEPT: usize = 3;

/// Built programs.
#[derive(Debug)]
pub struct Programs {
    pub folder: PathBuf,
}

impl Programs {
    /// The components.
    pub fn cluster(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    /// The first process of pods.
    pub fn pause(&self) -> PathBuf {
        self.folder.join("pause")
    }

    /// An HTTP client for the smoke test's images.
    pub fn fetch(&self) -> PathBuf {
        self.folder.join("fetch")
    }
}

/// kwok, and the file that tells it how nodes and pods come and go.
#[derive(Debug)]
pub struct Kwok {
    folder: PathBuf,
}

impl Kwok {
    pub fn program(&self) -> PathBuf {
        self.folder.join("kwok")
    }

    pub fn stages(&self) -> PathBuf {
        self.folder.join("kwok.yaml")
    }
}

/// The components from the cache, built if they are not there.
pub fn ensure() -> Result<Programs, Error> {
    let source = root().join("tests/cluster");
    let version = required(&source.join("go.mod"), "k8s.io/kubernetes")?;
    let folder = cached(&source, "cluster", |to| {
        eprintln!(
            "==> building Kubernetes {version} from Go modules; only the first time on a machine, about ten minutes"
        );
        let (major, minor) = major_minor(&version);
        let package = "k8s.io/component-base/version";
        let flags = format!(
            "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor} \
             -X {package}.gitTreeState=clean"
        );
        for small in ["pause", "fetch"] {
            go_build(&source, &to.join(small), "-s -w", &format!("./{small}"))?;
        }
        go_build(&source, &to.join("cluster"), &flags, ".")
    })?;
    Ok(Programs { folder })
}

/// kwok from the cache, built if it is not there.
pub fn ensure_kwok() -> Result<Kwok, Error> {
    let source = root().join("tests/cluster/kwok");
    let folder = cached(&source, "kwok", |to| {
        eprintln!("==> building kwok from Go modules");
        go_build(&source, &to.join("kwok"), "-s -w", "sigs.k8s.io/kwok/cmd/kwok")?;
        // How nodes and pods come and go is data of the same module.
        let module = output(go(&source).args(["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]))?;
        let stages = Path::new(module.trim()).join("kustomize/stage");
        let mut text = String::new();
        for kind in ["node/fast", "node/heartbeat-with-lease", "pod/fast"] {
            for file in yaml_files(&stages.join(kind))? {
                text.push_str("---\n");
                text.push_str(&std::fs::read_to_string(&file).map_err(Error::io("read", &file))?);
            }
        }
        let path = to.join("kwok.yaml");
        std::fs::write(&path, text).map_err(Error::io("write", &path))
    })?;
    Ok(Kwok { folder })
}

/// A folder of the cache that belongs to these sources; made by `build` if it is not there.
fn cached(
    source: &Path,
    kind: &str,
    build: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let cache = cache();
    let folder = cache.join(format!("{kind}-{}", fingerprint(source)?));
    if folder.is_dir() {
        // Its age decides which builds the cache keeps.
        let _ = std::fs::File::open(&folder).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        return Ok(folder);
    }
    std::fs::create_dir_all(&cache).map_err(Error::io("create", &cache))?;
    let aside = tempfile::Builder::new()
        .prefix(&format!("new-{kind}-"))
        .tempdir_in(&cache)
        .map_err(Error::io("create a folder in", &cache))?;
    let start = Instant::now();
    build(aside.path())?;
    eprintln!("    built in {} s", start.elapsed().as_secs());
    let aside = aside.keep();
    if let Err(error) = std::fs::rename(&aside, &folder) {
        let _ = std::fs::remove_dir_all(&aside);
        // Another run may have been faster.
        if !folder.is_dir() {
            return Err(Error::io("create", &folder)(error));
        }
    }
    forget_old(&cache, kind);
    Ok(folder)
}

fn cache() -> PathBuf {
    if let Some(folder) = std::env::var_os("SLIPWAY_CLUSTER_CACHE") {
        return folder.into();
    }
    let user = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cache")));
    user.unwrap_or_else(std::env::temp_dir).join("slipway/cluster")
}

/// Removes builds beyond the newest; one that runs stays usable, since it is open.
fn forget_old(cache: &Path, kind: &str) {
    let prefix = format!("{kind}-");
    let mut builds: Vec<_> = std::fs::read_dir(cache)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .filter_map(|entry| Some((entry.metadata().and_then(|data| data.modified()).ok()?, entry.path())))
        .collect();
    builds.sort();
    let old = builds.len().saturating_sub(KEPT);
    for (_, folder) in builds.drain(..old) {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Names sources and the Go that builds them.
fn fingerprint(source: &Path) -> Result<String, Error> {
    let mut files = Vec::new();
    // A folder below with a module of its own is not part of this one.
    let walk = walkdir::WalkDir::new(source).sort_by_file_name().into_iter().filter_entry(|entry| {
        entry.depth() == 0 || !entry.file_type().is_dir() || !entry.path().join("go.mod").exists()
    });
    for entry in walk {
        let entry = entry.map_err(|error| Error::io("read", source)(error.into()))?;
        if entry.file_type().is_file() && !beside(entry.path()) {
            files.push(entry.into_path());
        }
    }
    let mut hash = Sha256::new();
    hash.update(output(go(source).args(["env", "GOVERSION", "GOARCH"]))?);
    for file in files {
        let data = std::fs::read(&file).map_err(Error::io("read", &file))?;
        hash.update(file.strip_prefix(source).unwrap_or(&file).as_os_str().as_encoded_bytes());
        hash.update(data.len().to_le_bytes());
        hash.update(data);
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Files that are no part of the programs.
fn beside(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("smoke") || name.ends_with("_test.go") || name.ends_with(".md")
}

/// The version that a go.mod requires.
fn required(file: &Path, module: &'static str) -> Result<String, Error> {
    let text = std::fs::read_to_string(file).map_err(Error::io("read", file))?;
    version_of(&text, module).ok_or_else(|| Error::NotRequired { path: file.to_owned(), module })
}

fn version_of(text: &str, module: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(module)).then(|| words.next().map(str::to_owned))?
    })
}

fn major_minor(version: &str) -> (&str, &str) {
    let mut parts = version.trim_start_matches('v').split('.');
    (parts.next().unwrap_or(""), parts.next().unwrap_or(""))
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map_err(Error::io("read", folder))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension().is_some_and(|end| end == "yaml") && !path.ends_with("kustomization.yaml")
        })
        .collect();
    files.sort();
    Ok(files)
}

/// At low priority and two at a time: it takes minutes, and the machine has other work.
fn go_build(source: &Path, to: &Path, flags: &str, package: &str) -> Result<(), Error> {
    let mut command = Command::new("nice");
    command.args([
        "-n",
        "10",
        "go",
        "build",
        "-p",
        "2",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags",
        flags,
        "-o",
    ]);
    command.arg(to).arg(package).current_dir(source).env("CGO_ENABLED", "0");
    run(&mut command)
}

fn go(source: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(source);
    command
}

/// Runs a program whose output the terminal may have.
pub fn run(command: &mut Command) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(Common::start(program))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Failed { command: text(command), status, output: String::new() })
    }
}

/// Runs a program and gives its standard output.
pub fn output(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().map_err(|source| match (program.as_str(), source.kind()) {
        ("go", std::io::ErrorKind::NotFound) => Error::NoGo,
        _ => Common::start(program.as_str())(source).into(),
    })?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let output =
        format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    Err(Error::Failed { command: text(command), status: done.status, output })
}

fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_decide_whether_to_build() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("main.go", "a");
        let first = fingerprint(folder.path()).unwrap();
        write("main_test.go", "b");
        write("README.md", "c");
        write("smoke.yaml", "d");
        std::fs::create_dir(folder.path().join("other")).unwrap();
        write("other/go.mod", "module other");
        assert_eq!(fingerprint(folder.path()).unwrap(), first);
        write("main.go", "e");
        assert_ne!(fingerprint(folder.path()).unwrap(), first);
    }

    #[test]
    fn finds_a_required_version() {
        let text = "module a\n\nrequire (\n\tk8s.io/kubernetes v1.35.4\n)\nreplace (\n\tk8s.io/api => k8s.io/api v0.35.4\n)\n";
        assert_eq!(version_of(text, "k8s.io/kubernetes").as_deref(), Some("v1.35.4"));
        assert_eq!(version_of(text, "k8s.io/kube"), None);
        assert_eq!(major_minor("v1.35.4"), ("1", "35"));
    }

    #[test]
    fn keeps_the_newest_builds_of_a_kind() {
        let cache = tempfile::tempdir().unwrap();
        for (age, name) in ["a-1", "a-2", "a-3", "a-4", "b-1"].iter().enumerate() {
            let folder = cache.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(age as u64);
            std::fs::File::open(&folder).unwrap().set_modified(time).unwrap();
        }
        forget_old(cache.path(), "a");
        let left = |name| cache.path().join(name).exists();
        assert!(!left("a-1") && left("a-2") && left("a-3") && left("a-4") && left("b-1"));
    }
}
