//! Credentials of registries, in a file that only root may read.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use slipway_types::image::Credentials;
use slipway_types::{ApiError, ErrorCode};

fn path(root: &Path) -> PathBuf {
    root.join("credentials.json")
}

/// All credentials by registry.
pub fn load(root: &Path) -> Result<BTreeMap<String, Credentials>, ApiError> {
    let path = path(root);
    match std::fs::read(&path) {
        // The text of a parse error may quote the file: it is left out.
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| {
            ApiError::new(ErrorCode::DataLoss, format!("{} is no list of credentials", path.display()))
                .with_hint("remove it and log in again")
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(failed("read", &path, &error)),
    }
}

/// Adds, replaces (`Some`) or removes (`None`) the credentials of a registry.
pub fn set(root: &Path, registry: &str, credentials: Option<Credentials>) -> Result<bool, ApiError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = load(root)?;
    let before = match credentials {
        Some(credentials) => all.insert(registry.to_owned(), credentials),
        None => all.remove(registry),
    };
    let path = path(root);
    let aside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let _ = std::fs::remove_file(&aside);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(&serde_json::to_vec(&all)?)?;
        file.sync_all()?;
        std::fs::rename(&aside, &path)?;
        std::fs::File::open(root)?.sync_all()
    };
    write().map_err(|error| failed("write", &path, &error))?;
    Ok(before.is_some())
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> ApiError {
    let mut api = ApiError::new(ErrorCode::Internal, format!("cannot {what} {}", path.display()));
    api.causes.push(error.to_string());
    api
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_root_may_read_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let secret = Credentials::Token("hush".into());
        assert!(!set(dir.path(), "a:5000", Some(secret.clone())).unwrap());
        assert_eq!(std::fs::metadata(path(dir.path())).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load(dir.path()).unwrap()["a:5000"], secret);
        assert!(set(dir.path(), "a:5000", None).unwrap());
        std::fs::write(path(dir.path()), "hush").unwrap();
        assert!(!format!("{:?}", load(dir.path()).unwrap_err()).contains("hush"));
    }
}
