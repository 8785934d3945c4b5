//! The way of a run's output back.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use slipway_image::build::{CancelFlag, unpack};
use slipway_types::run::RunSpec;
use slipway_types::{ApiError, ErrorCode};

use super::super::driver::{Driver, Keeper, Plan};
use super::super::io;
use super::keeping::Keeping;
use super::{LOOK, PAUSE};

/// How long a model that is ready is asked for.
const FETCH_TIME: Duration = Duration::from_secs(3600);
/// What a tar may have beside the content of its files.
const TAR_MARGIN: u64 = 64 << 20;

/// Brings the output here. False when the daemon ends meanwhile.
pub(super) fn fetch(keeping: &Keeping, spec: &RunSpec) -> Result<bool, ApiError> {
    let plan = keeping.plan();
    let plan = plan.ok_or_else(|| ApiError::new(ErrorCode::Internal, "the plan of the run is lost"))?;
    let until = Instant::now() + FETCH_TIME;
    loop {
        keeping.note(Some("fetching the model".to_owned()));
        let fetched = keeping
            .app
            .engines
            .driver(&keeping.app, &keeping.engine)
            .and_then(|driver| fetch_once(&*driver, &plan, &keeping.folder, spec.gang.storage));
        let error = match fetched {
            Ok(()) => return Ok(true),
            Err(_) if keeping.app.is_stopping() => return Ok(false),
            // A full disk is often full for a moment only.
            Err(error)
                if Instant::now() < until
                    && matches!(error.code, ErrorCode::Unavailable | ErrorCode::ResourceExhausted) =>
            {
                error
            }
            Err(error) => return Err(error),
        };
        keeping.note(Some(format!("the model cannot be fetched yet: {}", error.chain())));
        let again = Instant::now() + PAUSE;
        while Instant::now() < again {
            if keeping.app.is_stopping() {
                return Ok(false);
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn fetch_once(driver: &dyn Driver, plan: &Plan, folder: &Path, storage: u64) -> Result<(), ApiError> {
    let aside = tempfile::tempfile_in(folder).map_err(|e| io("create a file in", folder, &e))?;
    let mut bounded = Bounded { file: aside, left: storage.saturating_add(TAR_MARGIN) };
    driver.collect(plan, &mut bounded)?;
    let mut aside = bounded.file;
    aside.rewind().map_err(|e| io("read what was fetched in", folder, &e))?;
    let output = folder.join("output");
    match std::fs::remove_dir_all(&output) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io("replace", &output, &e)),
        _ => {}
    }
    // Where a program would have found it here.
    let model = output.join("model");
    std::fs::create_dir_all(&model).map_err(|e| io("create", &model, &e))?;
    let unpacked = unpack(&mut aside, &output, "the run's output", &CancelFlag::new());
    unpacked.map(drop).map_err(|error| ApiError::from_error(ErrorCode::Failed, &error))
}

/// A file that takes no more than it should.
struct Bounded {
    file: File,
    left: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the model has more bytes than `train.storage` gives it",
            ));
        }
        let written = self.file.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
