//! `slipway-runner copy`: fills a volume of a pod from an image that has no program but this one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Deepest nesting of folders; models have 32 at most.
const MAX_DEPTH: usize = 64;
/// Name under which a file is written before it gets its own, in the same folder.
const ASIDE: &str = ".slipway-copy";

/// Why a folder was not copied. What arrived before is whole; the next try goes on from there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is neither a file nor a folder nor a link", .0.display())]
    Special(PathBuf),
    #[error("{} has the name under which files are copied", .0.display())]
    Reserved(PathBuf),
    #[error("{} is more than {MAX_DEPTH} folders deep", .0.display())]
    Depth(PathBuf),
    #[error("{} is no folder", .0.display())]
    NoFolder(PathBuf),
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CopyError {
    let path = path.to_owned();
    move |source| CopyError::Io { what, path, source }
}

/// Copies what is in `source` into the folder `target`, with modes. Each file appears whole or not at all, and what is
/// there already is replaced, so that an interrupted copy is simply done again. The mode of `target` itself is its
/// owner's business.
pub(crate) fn folder(source: &Path, target: &Path) -> Result<(), CopyError> {
    for path in [source, target] {
        if !fs::metadata(path).map_err(failed("open", path))?.is_dir() {
            return Err(CopyError::NoFolder(path.to_owned()));
        }
    }
    contents(source, target, 0)
}

fn contents(source: &Path, target: &Path, depth: usize) -> Result<(), CopyError> {
    if depth > MAX_DEPTH {
        return Err(CopyError::Depth(source.to_owned()));
    }
    for entry in fs::read_dir(source).map_err(failed("list", source))? {
        let entry = entry.map_err(failed("list", source))?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        if entry.file_name() == ASIDE {
            return Err(CopyError::Reserved(from));
        }
        let about = entry.metadata().map_err(failed("look at", &from))?;
        if about.is_dir() {
            let mode = about.permissions().mode() & 0o7777;
            make_folder(&to)?;
            contents(&from, &to, depth + 1)?;
            fs::set_permissions(&to, Permissions::from_mode(mode)).map_err(failed("set the mode of", &to))?;
        } else if about.is_file() {
            file(&from, target, &to, about.permissions().mode() & 0o7777)?;
        } else if about.is_symlink() {
            let aside = aside(target)?;
            let goal = fs::read_link(&from).map_err(failed("read the link", &from))?;
            std::os::unix::fs::symlink(goal, &aside).map_err(failed("make the link", &to))?;
            place(&aside, &to)?;
        } else {
            return Err(CopyError::Special(from));
        }
    }
    Ok(())
}

/// A folder that can be written to until its content is complete. One that a former try left may be closed already.
fn make_folder(path: &Path) -> Result<(), CopyError> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => {
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed("open up", path))
        }
        Ok(_) => {
            fs::remove_file(path).map_err(failed("replace", path))?;
            DirBuilder::new().mode(0o700).create(path).map_err(failed("create", path))
        }
        Err(_) => DirBuilder::new().mode(0o700).create(path).map_err(failed("create", path)),
    }
}

fn file(from: &Path, folder: &Path, to: &Path, mode: u32) -> Result<(), CopyError> {
    let aside = aside(folder)?;
    let mut source = File::open(from).map_err(failed("read", from))?;
    let mut copy = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .map_err(failed("create", &aside))?;
    io::copy(&mut source, &mut copy).map_err(failed("copy", from))?;
    copy.set_permissions(Permissions::from_mode(mode)).map_err(failed("set the mode of", to))?;
    copy.sync_all().map_err(failed("write", to))?;
    place(&aside, to)
}

/// The path to write to first; what a former try left there is removed.
fn aside(folder: &Path) -> Result<PathBuf, CopyError> {
    let path = folder.join(ASIDE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("replace", &path)(error)),
        _ => Ok(path),
    }
}

fn place(aside: &Path, to: &Path) -> Result<(), CopyError> {
    fs::rename(aside, to).map_err(failed("place", to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn copies_modes_and_links_and_may_be_repeated() {
        let folder_of = tempfile::tempdir().unwrap();
        let (source, target) = (folder_of.path().join("a"), folder_of.path().join("b"));
        fs::create_dir_all(source.join("deep/er")).unwrap();
        fs::create_dir(&target).unwrap();
        for (name, text, mode) in
            [("program", "#!", 0o755), ("deep/weights", "w", 0o444), ("deep/er/empty", "", 0o640)]
        {
            fs::write(source.join(name), text).unwrap();
            fs::set_permissions(source.join(name), Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("deep/weights", source.join("link")).unwrap();
        fs::set_permissions(source.join("deep"), Permissions::from_mode(0o555)).unwrap();
        let target_mode = mode(&target);

        for round in 0..2 {
            folder(&source, &target).unwrap();
            assert_eq!(fs::read_to_string(target.join("link")).unwrap(), "w", "{round}");
            assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new("deep/weights"));
            assert_eq!(mode(&target.join("program")), 0o755);
            assert_eq!(mode(&target.join("deep/weights")), 0o444);
            assert_eq!(mode(&target.join("deep")), 0o555);
            assert_eq!(mode(&target), target_mode);
            // What an interrupted try leaves: half a file aside, an old file, a file where a folder belongs.
            fs::write(target.join(ASIDE), "half").unwrap();
            fs::write(target.join("program"), "old").unwrap();
            fs::set_permissions(target.join("deep"), Permissions::from_mode(0o755)).unwrap();
            fs::remove_dir_all(target.join("deep/er")).unwrap();
            fs::write(target.join("deep/er"), "file").unwrap();
        }
        folder(&source, &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("program")).unwrap(), "#!");
        assert!(!target.join(ASIDE).exists() && target.join("deep/er/empty").is_file());
    }

    #[test]
    fn refuses_what_it_cannot_copy() {
        let folder_of = tempfile::tempdir().unwrap();
        let (source, target) = (folder_of.path().join("a"), folder_of.path().join("b"));
        fs::create_dir(&source).unwrap();
        assert!(matches!(folder(&source, &target), Err(CopyError::Io { .. })), "no target");
        fs::write(&target, "").unwrap();
        assert!(matches!(folder(&source, &target), Err(CopyError::NoFolder(_))));
        fs::remove_file(&target).unwrap();
        fs::create_dir(&target).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
        assert!(matches!(folder(&source, &target), Err(CopyError::Special(_))));
        drop(socket);
        fs::remove_file(source.join("socket")).unwrap();
        fs::write(source.join(ASIDE), "").unwrap();
        assert!(matches!(folder(&source, &target), Err(CopyError::Reserved(_))));
        fs::remove_file(source.join(ASIDE)).unwrap();
        let mut deep = source.clone();
        for _ in 0..MAX_DEPTH + 2 {
            deep.push("d");
        }
        fs::create_dir_all(deep).unwrap();
        assert!(matches!(folder(&source, &target), Err(CopyError::Depth(_))));
    }
}
