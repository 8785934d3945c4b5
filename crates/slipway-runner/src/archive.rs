//! `slipway-runner archive`: what a training run left on its volume, as a tar on standard output.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use tar::{Builder, EntryType, Header};

/// Deepest nesting of folders; models have 32 at most.
const MAX_DEPTH: usize = 64;

/// Why a folder was not archived. What was written before is no archive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is neither a file nor a folder nor a link", .0.display())]
    Special(PathBuf),
    #[error("{} is more than {MAX_DEPTH} folders deep", .0.display())]
    Depth(PathBuf),
    #[error("{} is no folder", .0.display())]
    NoFolder(PathBuf),
    #[error("`{}` is no name of something in a folder", .0.display())]
    Name(PathBuf),
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io { what, path, source }
}

/// Writes what is in `folder`, or of that only what has one of `names`, as a tar, sorted and with modes. A name that is
/// not there is left out: what a program may write, it need not.
pub(crate) fn folder(folder: &Path, names: &[OsString], out: impl Write) -> Result<(), ArchiveError> {
    if !fs::metadata(folder).map_err(failed("open", folder))?.is_dir() {
        return Err(ArchiveError::NoFolder(folder.to_owned()));
    }
    let mut archive = Builder::new(out);
    if names.is_empty() {
        contents(&mut archive, folder, Path::new(""), 0)?;
    }
    for name in names {
        let path = Path::new(name);
        if !matches!(path.components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
            return Err(ArchiveError::Name(path.to_owned()));
        }
        entry(&mut archive, folder, path, 0)?;
    }
    archive.into_inner().and_then(|mut out| out.flush()).map_err(ArchiveError::Write)
}

fn contents(
    archive: &mut Builder<impl Write>,
    root: &Path,
    inside: &Path,
    depth: usize,
) -> Result<(), ArchiveError> {
    let path = root.join(inside);
    if depth > MAX_DEPTH {
        return Err(ArchiveError::Depth(path));
    }
    let names = fs::read_dir(&path).map_err(failed("list", &path))?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<OsString>>>().map_err(failed("list", &path))?;
    names.sort();
    names.iter().try_for_each(|name| entry(archive, root, &inside.join(name), depth))
}

fn entry(
    archive: &mut Builder<impl Write>,
    root: &Path,
    inside: &Path,
    depth: usize,
) -> Result<(), ArchiveError> {
    let path = root.join(inside);
    let about = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        about => about.map_err(failed("look at", &path))?,
    };
    let mut header = Header::new_gnu();
    header.set_mode(about.permissions().mode() & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    if about.is_dir() {
        header.set_entry_type(EntryType::Directory);
        archive.append_data(&mut header, inside, io::empty()).map_err(ArchiveError::Write)?;
        contents(archive, root, inside, depth + 1)
    } else if about.is_file() {
        header.set_entry_type(EntryType::Regular);
        header.set_size(about.len());
        let file = File::open(&path).map_err(failed("read", &path))?;
        let mut exact = Exact { file, left: about.len(), failure: None };
        let written = archive.append_data(&mut header, inside, &mut exact);
        match exact.failure {
            Some(source) => Err(failed("read", &path)(source)),
            None if written.is_ok() && exact.left > 0 => Err(ArchiveError::Changed(path)),
            None => written.map_err(ArchiveError::Write),
        }
    } else if about.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        let goal = fs::read_link(&path).map_err(failed("read the link", &path))?;
        archive.append_link(&mut header, inside, AsRef::<OsStr>::as_ref(&goal)).map_err(ArchiveError::Write)
    } else {
        Err(ArchiveError::Special(path))
    }
}

/// As much of a file as its header says, and what kept it from being read: the archive's own errors are others.
struct Exact {
    file: File,
    left: u64,
    failure: Option<io::Error>,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        match self.file.read(&mut buffer[..most]) {
            Ok(count) => {
                self.left -= count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.failure = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archived(of: &Path, names: &[&str]) -> Result<Vec<(String, u32, String)>, ArchiveError> {
        let names: Vec<OsString> = names.iter().map(OsString::from).collect();
        let mut bytes = Vec::new();
        folder(of, &names, &mut bytes)?;
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            if let Some(goal) = entry.link_name().unwrap() {
                text = format!("-> {}", goal.display());
            }
            (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap(), text)
        });
        Ok(entries.collect())
    }

    #[test]
    fn writes_what_is_there_with_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("model/deep")).unwrap();
        fs::create_dir(path("checkpoints")).unwrap();
        for (name, text, mode) in [
            ("model/weights", "w", 0o644),
            ("model/deep/empty", "", 0o600),
            ("metrics.jsonl", "{}\n", 0o644),
            ("checkpoints/last", "large", 0o644),
        ] {
            fs::write(path(name), text).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(path("model"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(path("model/deep"), fs::Permissions::from_mode(0o755)).unwrap();
        let long = "l".repeat(200);
        std::os::unix::fs::symlink(&long, path("model/link")).unwrap();

        let found = archived(dir.path(), &["model", "metrics.jsonl", "absent"]).unwrap();
        let expected = [
            ("model", 0o777, ""),
            ("model/deep", 0o755, ""),
            ("model/deep/empty", 0o600, ""),
            ("model/link", 0o777, &format!("-> {long}")),
            ("model/weights", 0o644, "w"),
            ("metrics.jsonl", 0o644, "{}\n"),
        ];
        assert_eq!(found, expected.map(|(name, mode, text)| (name.to_owned(), mode, text.to_owned())));
        let all = archived(&path("model"), &[]).unwrap();
        assert_eq!(
            all.iter().map(|e| e.0.as_str()).collect::<Vec<_>>(),
            ["deep", "deep/empty", "link", "weights"]
        );
    }

    #[test]
    fn refuses_what_is_no_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert!(matches!(archived(&path("absent"), &[]), Err(ArchiveError::Io { .. })));
        fs::write(path("file"), "").unwrap();
        assert!(matches!(archived(&path("file"), &[]), Err(ArchiveError::NoFolder(_))));
        for name in ["..", "a/b", "/etc", "", "."] {
            assert!(matches!(archived(dir.path(), &[name]), Err(ArchiveError::Name(_))), "{name}");
        }
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert!(matches!(archived(dir.path(), &[]), Err(ArchiveError::Special(_))));
        let mut deep = path("deep");
        (0..MAX_DEPTH + 2).for_each(|_| deep.push("d"));
        fs::create_dir_all(deep).unwrap();
        assert!(matches!(archived(dir.path(), &["deep"]), Err(ArchiveError::Depth(_))));
    }

    #[test]
    fn a_file_that_shrinks_is_no_content() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "long").unwrap();
        let file = File::open(dir.path().join("a")).unwrap();
        let mut exact = Exact { file, left: 9, failure: None };
        io::copy(&mut exact, &mut io::sink()).unwrap();
        assert_eq!(exact.left, 5);
    }
}
