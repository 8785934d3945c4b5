//! What is mounted into every serving container besides its image: the runner and the Python worker.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use slipway_serving::WORKER_FILES;

use crate::containers::folder;
use crate::error::{NativeError, io};

/// The folder that becomes `/slipway` inside.
#[derive(Clone, Debug)]
pub struct ServingFiles {
    folder: PathBuf,
}

impl ServingFiles {
    /// Writes the runner's and the worker's files below `root`, where they are not there already. Folders of other
    /// versions stay: replicas that run have them mounted.
    pub fn install(root: &Path, runner: &Path) -> Result<Self, NativeError> {
        let program = std::fs::read(runner).map_err(io("read the runner", runner))?;
        let mut hash = Fnv::new();
        hash.add(&program);
        for (path, content) in WORKER_FILES {
            hash.add(path.as_bytes());
            hash.add(content);
        }
        let target = root.join(format!("{:016x}", hash.0));
        if target.is_dir() {
            return Ok(Self { folder: target });
        }
        folder(root, 0o700)?;
        let aside = root.join(format!("new-{}", std::process::id()));
        if aside.exists() {
            std::fs::remove_dir_all(&aside).map_err(io("remove", &aside))?;
        }
        folder(&aside, 0o755)?;
        write(&aside.join("slipway-runner"), &program, 0o755)?;
        for (path, content) in WORKER_FILES {
            let file = aside.join("python").join(path);
            if let Some(parent) = file.parent() {
                folder(parent, 0o755)?;
            }
            write(&file, content, 0o644)?;
        }
        std::fs::rename(&aside, &target).map_err(io("place", &target))?;
        File::open(root).and_then(|dir| dir.sync_all()).map_err(io("sync", root))?;
        Ok(Self { folder: target })
    }

    /// The folder on this host.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), NativeError> {
    let mut file = File::create(path).map_err(io("create", path))?;
    file.write_all(content).map_err(io("write", path))?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(io("write", path))?;
    file.sync_all().map_err(io("sync", path))
}

/// FNV-1a with 64 bits: names a version of our own files; nothing is trusted because of it.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_runner_gets_another_folder() {
        let dir = tempfile::tempdir().unwrap();
        let runner = dir.path().join("runner");
        std::fs::write(&runner, "one").unwrap();
        let root = dir.path().join("serving");
        let first = ServingFiles::install(&root, &runner).unwrap();
        let again = ServingFiles::install(&root, &runner).unwrap();
        assert_eq!(first.folder(), again.folder());
        assert!(first.folder().join("python/slipway_worker/__main__.py").is_file());
        std::fs::write(&runner, "two").unwrap();
        let second = ServingFiles::install(&root, &runner).unwrap();
        assert_ne!(first.folder(), second.folder());
        assert!(first.folder().is_dir());
    }
}
