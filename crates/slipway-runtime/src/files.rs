//! Files of a container's folder: bounded reads, writes that are whole or absent, the shim's lock, its sockets.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::Serialize;

/// File that the shim keeps locked while it lives.
pub(crate) const LOCK_FILE: &str = "shim.lock";

/// The file's bytes; an error when there are more than `max`.
pub(crate) fn read_capped(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    read_file_capped(File::open(path)?, max)
}

/// As [`read_capped`], of an open file.
pub(crate) fn read_file_capped(file: File, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {max} bytes")));
    }
    Ok(bytes)
}

/// Writes `DIR/NAME` aside and renames it into place. With `sync`, it is on disk when this returns.
pub(crate) fn write_json(dir: &Path, name: &str, value: &impl Serialize, sync: bool) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let aside = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(&bytes)?;
    if sync {
        file.sync_data()?;
    }
    std::fs::rename(&aside, dir.join(name))?;
    if sync {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// The lock of a living shim.
///
/// A POSIX record lock belongs to the process: it goes when the shim dies, however it dies, and is not inherited by
/// the children that libcontainer clones. The shim must therefore never open the file a second time.
#[derive(Debug)]
pub(crate) struct ShimLock {
    _file: File,
}

/// What a lock file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockState {
    /// No shim was ever started.
    Absent,
    /// There was one; it is gone.
    Free,
    /// It lives (or the container is being recovered).
    Held,
}

impl ShimLock {
    /// Takes the lock; `None` when another shim has it.
    ///
    /// The file gets its name when it is locked: one that is there and free means a shim that died.
    pub(crate) fn acquire(dir: &Path) -> io::Result<Option<Self>> {
        let aside = dir.join(format!("{LOCK_FILE}.{}", std::process::id()));
        let path = dir.join(LOCK_FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&aside)?;
        rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
        match rustix::fs::renameat_with(CWD, &aside, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(Some(Self { _file: file })),
            Err(Errno::EXIST) => std::fs::remove_file(&aside)?,
            Err(errno) => return Err(errno.into()),
        }
        let file = lock_file(dir)?;
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Whether a shim lives. Takes no lock, so it cannot get in the way of one that starts.
pub(crate) fn lock_state(dir: &Path) -> io::Result<LockState> {
    let file = match lock_file(dir) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LockState::Absent),
        Err(error) => return Err(error),
    };
    Ok(if crate::sys::lock_holder(&file)?.is_some() { LockState::Held } else { LockState::Free })
}

/// The living shim's process id.
pub(crate) fn shim_pid(dir: &Path) -> io::Result<Option<u32>> {
    Ok(crate::sys::lock_holder(&lock_file(dir)?)?.filter(|pid| *pid != 0))
}

/// Keeps shims out while a dead one's container is cleaned up. Unlike a shim's, this lock belongs to the open file, so
/// threads of one process exclude each other.
#[derive(Debug)]
pub(crate) struct RecoveryLock {
    _file: File,
}

impl RecoveryLock {
    /// Takes the lock; `None` when a shim lives or another recovery runs.
    pub(crate) fn acquire(dir: &Path) -> io::Result<Option<Self>> {
        let file = lock_file(dir)?;
        Ok(crate::sys::lock_open_file(&file)?.then_some(Self { _file: file }))
    }
}

fn lock_file(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(dir.join(LOCK_FILE))
}

/// A folder, for use as the base of `*at` calls.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Listens on `DIR/NAME`, readable and writable by root only. The path may exceed the 108 bytes of a socket address.
pub(crate) fn bind(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let base = open_dir(dir)?;
    let path = through(&base, name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The mode is that of the moment of creation: no window in which others could connect.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(&path);
    rustix::process::umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the socket at `path`, however long that is.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "not the path of a socket");
    let dir = path.parent().ok_or_else(missing)?;
    let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(missing)?;
    let base = open_dir(dir)?;
    UnixStream::connect(through(&base, name))
}

fn through(base: &impl AsFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", base.as_fd().as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_capped(&path, 5).unwrap(), b"12345");
        assert_eq!(read_capped(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_socket_deeper_than_its_address_allows() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let _listener = bind(&deep, "shim.sock").unwrap();
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(deep.join("shim.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        connect(&deep.join("shim.sock")).unwrap();
        assert!(connect(&deep.join("other.sock")).is_err());
        drop(bind(&deep, "shim.sock").expect("a stale socket is replaced"));
    }

    #[test]
    fn recovery_locks_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(lock_state(dir.path()).unwrap(), LockState::Absent);
        assert!(RecoveryLock::acquire(dir.path()).is_err());
        std::fs::write(dir.path().join(LOCK_FILE), b"").unwrap();
        assert_eq!(lock_state(dir.path()).unwrap(), LockState::Free);
        let first = RecoveryLock::acquire(dir.path()).unwrap().expect("free");
        assert!(RecoveryLock::acquire(dir.path()).unwrap().is_none());
        assert_eq!(lock_state(dir.path()).unwrap(), LockState::Held);
        drop(first);
        assert_eq!(lock_state(dir.path()).unwrap(), LockState::Free);
    }
}
