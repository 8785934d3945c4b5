//! Reads the routing table's file whenever it changes.
//!
//! The file is looked at every 50 ms rather than watched: a look costs a microsecond, works on every file system, and
//! needs no folder to exist beforehand.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use slipway_types::service::RoutingTable;

use crate::error::GatewayError;
use crate::shared::Shared;
use crate::table::TableError;

const INTERVAL: Duration = Duration::from_millis(50);
/// Largest file that is read.
const MAX_FILE: u64 = 64 << 20;

/// Why the file is not taken.
#[derive(Debug, thiserror::Error)]
enum RoutesError {
    #[error("cannot read the file")]
    Read(#[source] io::Error),
    #[error("the file is larger than {MAX_FILE} bytes")]
    TooLarge,
    #[error("the file is no routing table")]
    Parse(#[source] serde_json::Error),
    #[error("the table cannot be used")]
    Table(#[source] TableError),
}

/// The thread that looks at the file.
#[derive(Debug)]
pub(crate) struct Watcher {
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Reads the file once, then again whenever it changes.
    pub(crate) fn start(shared: Arc<Shared>, path: PathBuf) -> Result<Self, GatewayError> {
        let mut seen = None;
        look(&shared, &path, &mut seen);
        let closing = Arc::new(AtomicBool::new(false));
        let thread = {
            let closing = Arc::clone(&closing);
            let work = move || {
                while !closing.load(Relaxed) {
                    std::thread::park_timeout(INTERVAL);
                    look(&shared, &path, &mut seen);
                }
            };
            std::thread::Builder::new().name("routes".to_owned()).spawn(work).map_err(GatewayError::Worker)?
        };
        Ok(Self { closing, thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.closing.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// What tells one state of a file from another. A renamed file has another inode, and its own times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn look(shared: &Shared, path: &Path, seen: &mut Option<Stamp>) {
    let stamp = match std::fs::metadata(path) {
        Ok(metadata) => Stamp::of(&metadata),
        // Not there yet, or its writer is gone: what is in force stays.
        Err(_) => return,
    };
    if *seen == Some(stamp) {
        return;
    }
    *seen = Some(stamp);
    match load(shared, path) {
        Ok(()) => {}
        Err(error) => {
            shared.routes.stale.store(true, Relaxed);
            shared.routes.failures.fetch_add(1, Relaxed);
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(path = %path.display(), %error, cause, "routing table not taken; the one before stays");
        }
    }
}

fn load(shared: &Shared, path: &Path) -> Result<(), RoutesError> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(RoutesError::Read)?;
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(RoutesError::Read)?;
    if text.len() as u64 > MAX_FILE {
        return Err(RoutesError::TooLarge);
    }
    let new: RoutingTable = serde_json::from_slice(&text).map_err(RoutesError::Parse)?;
    shared.take(&new).map_err(RoutesError::Table)
}
