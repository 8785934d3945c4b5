//! Resolved settings: flags over environment over `settings.toml` over defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use slipway_types::image::{Registry, RegistrySettings};

use crate::env_vars;
use crate::failure::{self, Failure};

const DEFAULT_ROOT: &str = "/var/lib/slipway";
const DEFAULT_FILE: &str = "/etc/slipway/settings.toml";
/// Where the gateway listens unless settings say otherwise.
pub const DEFAULT_GATEWAY: &str = "127.0.0.1:8080";

/// Where things are and how they are reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of all state.
    pub root: PathBuf,
    /// The settings file, whether it exists or not.
    pub file: PathBuf,
    /// What the file says.
    pub values: SettingsFile,
}

/// `settings.toml`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsFile {
    /// Address of the gateway.
    pub gateway: GatewaySettings,
    /// Registries by name, their mirrors and certificates.
    pub registries: BTreeMap<String, Registry>,
}

/// `[gateway]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// Address and port to listen on.
    pub listen: String,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self { listen: DEFAULT_GATEWAY.to_owned() }
    }
}

impl Settings {
    /// Reads the settings that apply to this process.
    pub fn resolve(root: Option<PathBuf>) -> Result<Self, Failure> {
        let root = root
            .or_else(|| std::env::var_os(env_vars::SLIPWAY_ROOT).map(PathBuf::from))
            .unwrap_or_else(|| DEFAULT_ROOT.into());
        let root = std::path::absolute(&root).map_err(|e| failure::io("resolve", &root, &e))?;
        let file = std::env::var_os(env_vars::SLIPWAY_SETTINGS).map(PathBuf::from);
        let explicit = file.is_some();
        let file = file.unwrap_or_else(|| DEFAULT_FILE.into());
        let values = read(&file, explicit)?;
        Ok(Self { root, file, values })
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("daemon.sock")
    }

    /// The registry settings as the file has them now, so that a change needs no restart.
    pub fn current_registries(&self) -> Result<RegistrySettings, Failure> {
        Ok(RegistrySettings { registries: read(&self.file, false)?.registries })
    }
}

fn read(path: &Path, must_exist: bool) -> Result<SettingsFile, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| toml_failure(path, &text, &error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            Ok(SettingsFile::default())
        }
        Err(error) => Err(failure::io("read the settings file", path, &error)),
    }
}

/// A TOML error with its file, line and column.
pub fn toml_failure(path: &Path, text: &str, error: &toml::de::Error) -> Failure {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Failure::usage(format!("{}:{line}:{column}: {}", path.display(), error.message().trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mirrors_and_points_at_mistakes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.toml");
        std::fs::write(&file, "[registries.\"docker.io\"]\nmirrors = [\"127.0.0.1:5000\"]\n").unwrap();
        let values = read(&file, true).unwrap();
        assert_eq!(values.gateway.listen, DEFAULT_GATEWAY);
        assert_eq!(values.registries["docker.io"].mirrors, ["127.0.0.1:5000"]);

        std::fs::write(&file, "[gateway]\nlisten = 8\n").unwrap();
        let failure = read(&file, true).unwrap_err();
        assert_eq!(failure.exit_code, failure::exit::USAGE);
        assert!(failure.error.unwrap().message.contains("settings.toml:2:10"));
    }
}
