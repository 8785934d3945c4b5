//! `slipway build -`: a context, or a Dockerfile alone, on standard input.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slipway_image::build::{CancelFlag, dockerfile, is_archive, unpack_context};
use tempfile::TempDir;

use crate::failure::{self, Failure};
use crate::interrupt::not_ignored;

const INPUT: &str = "standard input";
const PREFIX: &str = "slipway-context-";
/// How old a folder must be before it counts as left behind: a new one is not locked at once.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// What standard input held; the folder is gone when this is dropped, or the process is told to end.
pub(super) struct Given {
    folder: TempDir,
    /// The Dockerfile, when there was nothing else.
    pub(super) dockerfile: Option<String>,
    /// Locked as long as this process lives, which tells others that the folder is in use.
    _lock: File,
}

impl Given {
    /// The context folder.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Reads all of standard input.
pub(super) fn read() -> Result<Given, Failure> {
    sweep(&std::env::temp_dir());
    let folder = tempfile::Builder::new().prefix(PREFIX).tempdir().map_err(fail)?;
    let lock = File::open(folder.path()).map_err(fail)?;
    lock.try_lock().map_err(|error| fail(error.into()))?;
    let ending = Ending::watch(folder.path())?;
    let mut input = io::stdin().lock();
    // What it is shows in its beginning; only a tar may be longer than a Dockerfile.
    let mut start = Vec::new();
    input.by_ref().take(dockerfile::MAX_TEXT as u64 + 1).read_to_end(&mut start).map_err(fail)?;
    let mut spooled = tempfile::tempfile().map_err(fail)?;
    spooled.write_all(&start).and_then(|()| spooled.rewind()).map_err(fail)?;
    if !is_archive(&mut spooled).map_err(fail)? {
        return Ok(Given { folder, dockerfile: Some(text(&*start)?), _lock: lock });
    }
    drop(start);
    spooled.seek(SeekFrom::End(0)).map_err(fail)?;
    io::copy(&mut input, &mut spooled).map_err(fail)?;
    spooled.rewind().map_err(fail)?;
    ending.unless_told(|cancel| unpack_context(&mut spooled, folder.path(), cancel)).map_err(|error| {
        let mut api = slipway_types::ApiError::from_error(slipway_types::ErrorCode::InvalidArgument, &error);
        api.message = format!("cannot use the build context on {INPUT}: {}", api.message);
        Failure::from(api)
    })?;
    Ok(Given { folder, dockerfile: None, _lock: lock })
}

fn fail(error: io::Error) -> Failure {
    failure::io("read the build context from", Path::new(INPUT), &error)
}

/// Reads a Dockerfile.
pub(super) fn text(input: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    input
        .take(dockerfile::MAX_TEXT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failure::io("read the Dockerfile from", Path::new(INPUT), &error))?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() <= dockerfile::MAX_TEXT);
    text.ok_or_else(|| {
        Failure::usage(format!(
            "{INPUT} is neither a tar (plain, gzip, bzip2, xz or zstd) nor a Dockerfile (text of at most {} bytes)",
            dockerfile::MAX_TEXT
        ))
    })
}

/// The folder's removal when the process is told to end: a process that is interrupted runs no destructors.
struct Ending {
    cancel: CancelFlag,
    /// Held by whoever writes into the folder.
    writing: Arc<Mutex<()>>,
}

impl Ending {
    fn watch(folder: &Path) -> Result<Self, Failure> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let ending = Self { cancel: CancelFlag::new(), writing: Arc::default() };
        // One that the caller ignores, as `nohup` does, stays ignored.
        let mut signals = signal_hook::iterator::Signals::new(not_ignored(&[SIGHUP, SIGINT, SIGTERM]))
            .map_err(|error| failure::io("watch signals for", folder, &error))?;
        let (folder, cancel, writing) =
            (folder.to_owned(), ending.cancel.clone(), Arc::clone(&ending.writing));
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                cancel.cancel();
                // Never given back: the process ends with it.
                let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
                // Best effort: the process ends either way, as it would have without this.
                let _ = std::fs::remove_dir_all(&folder);
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        });
        Ok(ending)
    }

    /// Writes into the folder. When the process was told to end, this waits for that.
    fn unless_told<T>(&self, write: impl FnOnce(&CancelFlag) -> T) -> T {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let written = write(&self.cancel);
        drop(writing);
        while self.cancel.is_cancelled() {
            std::thread::park();
        }
        written
    }
}

/// Removes folders of this user's whose processes were killed. Best effort: they only take space.
fn sweep(temporary: &Path) {
    let Ok(entries) = std::fs::read_dir(temporary) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && let Some((path, _lock)) = left_behind(entry.path())
        {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// The folder, locked, if it is this user's and nobody's any more.
fn left_behind(path: PathBuf) -> Option<(PathBuf, File)> {
    let flags = (rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW).bits() as i32;
    let folder = File::options().read(true).custom_flags(flags).open(&path).ok()?;
    let metadata = folder.metadata().ok()?;
    let old = metadata.modified().ok()?.elapsed().ok()? >= LEFT_BEHIND;
    let mine = metadata.uid() == rustix::process::geteuid().as_raw();
    (old && mine && folder.try_lock().is_ok()).then_some((path, folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_processes_left_is_swept() {
        let temporary = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - 2 * LEFT_BEHIND;
        let make = |name: &str, time| {
            let path = temporary.path().join(name);
            std::fs::create_dir_all(path.join("inside")).unwrap();
            let folder = File::open(&path).unwrap();
            folder.set_modified(time).unwrap();
            (path, folder)
        };
        let (gone, unlocked) = make("slipway-context-gone", old);
        drop(unlocked);
        let (used, lock) = make("slipway-context-used", old);
        lock.try_lock().unwrap();
        let (new, _) = make("slipway-context-new", std::time::SystemTime::now());
        let (other, _) = make("other", old);
        sweep(temporary.path());
        assert!(!gone.exists());
        assert!(used.exists() && new.exists() && other.exists());
    }

    #[test]
    fn a_dockerfile_is_bounded_text() {
        assert_eq!(text(&b"FROM x\n"[..]).unwrap(), "FROM x\n");
        assert!(text(io::repeat(b'x')).is_err());
        assert!(text(&[0xff_u8][..]).is_err());
    }
}
