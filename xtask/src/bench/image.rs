//! The tiny image that all engines run: a static busybox and nothing else.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::error::Error;
use super::packages::BUSYBOX;
use super::process::find_program;
use crate::error::Common;

/// Commands of busybox that the image has.
const COMMANDS: [&str; 3] = ["true", "sh", "cat"];

/// Makes the root file system as a folder.
pub fn folder(root: &Path) -> Result<(), Error> {
    let bin = root.join("bin");
    for folder in [&bin, &root.join("proc"), &root.join("dev"), &root.join("sys"), &root.join("tmp")] {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    let busybox = bin.join("busybox");
    let source = find_program(BUSYBOX.programs).unwrap_or_else(|| BUSYBOX.programs[0].into());
    let program = std::fs::read(&source).map_err(Error::io("read", &source))?;
    if is_dynamic(&program) {
        let programs = format!("a static busybox ({} is not)", source.display());
        return Err(Common::missing(programs, BUSYBOX.package).into());
    }
    std::fs::write(&busybox, program).map_err(Error::io("write", &busybox))?;
    std::fs::set_permissions(&busybox, PermissionsExt::from_mode(0o755))
        .map_err(Error::io("change", &busybox))?;
    for command in COMMANDS {
        let link = bin.join(command);
        symlink("busybox", &link).map_err(Error::io("create", &link))?;
    }
    Ok(())
}

/// Debian's other busybox package has the same path; its program names a loader, which the image lacks.
fn is_dynamic(program: &[u8]) -> bool {
    program[..program.len().min(4096)].windows(9).any(|bytes| bytes == b"/ld-linux")
}

/// Makes the root file system and packs it, as `docker import` and `slipway import` take it.
pub fn tar(scratch: &Path) -> Result<PathBuf, Error> {
    let (root, file) = (scratch.join("tiny"), scratch.join("tiny.tar"));
    folder(&root)?;
    let pack = || {
        let mut tar = tar::Builder::new(File::create(&file)?);
        tar.follow_symlinks(false);
        tar.append_dir_all(".", &root)?;
        tar.into_inner()?.sync_all()
    };
    pack().map_err(Error::io("write", &file))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_commands() {
        let scratch = tempfile::tempdir().unwrap();
        let file = tar(scratch.path()).unwrap();
        let mut archive = tar::Archive::new(File::open(file).unwrap());
        let names: Vec<PathBuf> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned()).collect();
        for command in COMMANDS {
            assert!(names.contains(&Path::new("bin").join(command)), "{names:?}");
        }
        let output =
            std::process::Command::new(scratch.path().join("tiny/bin/sh")).args(["-c", "echo ok"]).output();
        assert_eq!(output.unwrap().stdout, b"ok\n");
        assert!(is_dynamic(&std::fs::read("/bin/sh").unwrap()));
    }
}
