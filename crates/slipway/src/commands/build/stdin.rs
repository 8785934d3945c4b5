//! `slipway build -`: a context, or a Dockerfile alone, on standard input.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use slipway_image::build::unpack_context;
use tempfile::TempDir;

use crate::failure::{self, Failure};

/// Longest Dockerfile that is read.
const MAX_DOCKERFILE: u64 = 4 << 20;
const INPUT: &str = "standard input";

/// What standard input held; the folder is gone when this is dropped, or the process is told to end.
pub(super) struct Given {
    folder: TempDir,
    /// The Dockerfile, when there was nothing else.
    pub(super) dockerfile: Option<String>,
}

impl Given {
    /// The context folder.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Reads all of standard input.
pub(super) fn read() -> Result<Given, Failure> {
    let fail = |error: io::Error| failure::io("read the build context from", Path::new(INPUT), &error);
    let folder = tempfile::Builder::new().prefix("slipway-context-").tempdir().map_err(fail)?;
    remove_when_told_to_end(folder.path().to_owned())?;
    // A tar is told by its content, so it is read twice.
    let mut spooled = tempfile::tempfile().map_err(fail)?;
    io::copy(&mut io::stdin().lock(), &mut spooled).map_err(fail)?;
    spooled.rewind().map_err(fail)?;
    let is_tar = unpack_context(&mut spooled, folder.path()).map_err(|error| {
        let mut api = slipway_types::ApiError::from_error(slipway_types::ErrorCode::InvalidArgument, &error);
        api.message = format!("cannot use the build context on {INPUT}: {}", api.message);
        Failure::from(api)
    })?;
    let dockerfile = if is_tar { None } else { Some(text(&mut spooled)?) };
    Ok(Given { folder, dockerfile })
}

fn text(file: &mut File) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    file.take(MAX_DOCKERFILE)
        .read_to_end(&mut bytes)
        .map_err(|error| failure::io("read the Dockerfile from", Path::new(INPUT), &error))?;
    String::from_utf8(bytes).map_err(|_| {
        Failure::usage(format!("{INPUT} is neither a tar (plain, gzip, bzip2, xz or zstd) nor a Dockerfile"))
    })
}

/// A process that is interrupted runs no destructors.
fn remove_when_told_to_end(folder: PathBuf) -> Result<(), Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])
        .map_err(|error| failure::io("watch signals for", &folder, &error))?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Best effort: the process ends either way, as it would have without this.
            let _ = std::fs::remove_dir_all(&folder);
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
    Ok(())
}
