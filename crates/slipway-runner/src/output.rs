//! `slipway-runner output`: the folders of a training run's output, before its program starts.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why the folders cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub(crate) struct OutputError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path = path.to_owned();
    move |source| OutputError { what, path, source }
}

/// Makes the folder of the checkpoints, or leaves it as the last attempt did, and an empty one for the model: half a model
/// of an attempt that failed is no part of the next one's.
pub(crate) fn folders(checkpoints: &Path, model: &Path) -> Result<(), OutputError> {
    match fs::symlink_metadata(model) {
        Ok(about) if about.is_dir() => fs::remove_dir_all(model).map_err(failed("empty", model))?,
        Ok(_) => fs::remove_file(model).map_err(failed("replace", model))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at", model)(error)),
    }
    for path in [checkpoints, model] {
        // Another rank may make it at this moment.
        DirBuilder::new().recursive(true).create(path).map_err(failed("create", path))?;
    }
    // Whatever user the program takes on.
    fs::set_permissions(model, Permissions::from_mode(0o777)).map_err(failed("open up", model))?;
    match fs::set_permissions(checkpoints, Permissions::from_mode(0o777)) {
        // One that somebody else made before is as they want it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done.map_err(failed("open up", checkpoints)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_stay_and_the_model_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (checkpoints, model) = (dir.path().join("checkpoints"), dir.path().join("ranks/0/model"));
        for _ in 0..2 {
            folders(&checkpoints, &model).unwrap();
            assert!(fs::read_dir(&model).unwrap().next().is_none());
            for path in [&checkpoints, &model] {
                assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o777);
            }
            fs::create_dir(model.join("deep")).unwrap();
            fs::write(model.join("deep/half"), "h").unwrap();
            fs::write(checkpoints.join("last"), "1").unwrap();
        }
        fs::remove_dir_all(&model).unwrap();
        std::os::unix::fs::symlink(&checkpoints, &model).unwrap();
        folders(&checkpoints, &model).unwrap();
        assert!(fs::symlink_metadata(&model).unwrap().is_dir());
        assert_eq!(fs::read_to_string(checkpoints.join("last")).unwrap(), "1");
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(folders(&dir.path().join("file/x"), &model).is_err());
    }
}
