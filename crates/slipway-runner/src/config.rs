//! The configuration file.

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slipway_types::service::RunnerConfig;

/// Largest configuration file, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the configuration {} is not valid", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the configuration {} is larger than {MAX_SIZE} bytes", path.display())]
    Size { path: PathBuf },
    #[error("the configuration {}: `{key}` must not be 0", path.display())]
    Zero { path: PathBuf, key: &'static str },
}

/// Reads and checks it.
pub(crate) fn read(path: &Path) -> Result<RunnerConfig, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read)?.len() > MAX_SIZE {
        return Err(ConfigError::Size { path: path.to_owned() });
    }
    let text = std::fs::read(path).map_err(read)?;
    let config: RunnerConfig = serde_json::from_slice(&text)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
    let keys = [
        ("max_body", config.max_body),
        ("timeout_ms", config.timeout_ms),
        ("batch.max_size", config.batch.max_size.into()),
        ("batch.max_queue", config.batch.max_queue.into()),
    ];
    match keys.into_iter().find(|(_, value)| *value == 0) {
        Some((key, _)) => Err(ConfigError::Zero { path: path.to_owned(), key }),
        None => Ok(config),
    }
}

/// Lets the process have as many connections as it is allowed to.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Without it there are fewer connections, which is no reason not to serve.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"service":"s","model":"m","version":1,"format":"python","model_dir":"/model",
        "socket":"/run/slipway/http.sock","python_dir":"/slipway/python","max_body":1000,"timeout_ms":1000}"#;

    fn read_text(text: &str) -> Result<RunnerConfig, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(read_text(GOOD).unwrap().batch.max_size, 32);
        assert!(matches!(read(Path::new("/does/not/exist")), Err(ConfigError::Read { .. })));
        assert!(matches!(read_text("{}"), Err(ConfigError::Parse { .. })));
        assert!(matches!(
            read_text(&GOOD.replace("{\"service\"", "{\"x\":1,\"service\"")),
            Err(ConfigError::Parse { .. })
        ));
        assert!(matches!(read_text(&" ".repeat(2 << 20)), Err(ConfigError::Size { .. })));
        let zero = read_text(&GOOD.replace("\"timeout_ms\":1000", "\"timeout_ms\":0")).unwrap_err();
        assert!(zero.to_string().ends_with("`timeout_ms` must not be 0"), "{zero}");
    }
}
