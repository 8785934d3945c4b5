//! The OCI image configuration as a build makes it: inherited from the base, changed by instructions.
//!
//! Fields are those of the OCI image specification (`config.md`) and Docker's additions to it: `Healthcheck`,
//! `OnBuild`, `Shell` and `StopTimeout`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use slipway_types::Digest;

use super::dockerfile::{Command, Healthcheck};

/// What an image without a PATH gets, as Docker has it.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(default, deserialize_with = "lenient_time", skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) author: Option<String>,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub(crate) os_version: Option<String>,
    #[serde(default, rename = "os.features", skip_serializing_if = "Option::is_none")]
    pub(crate) os_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
    #[serde(default)]
    pub(crate) config: ContainerConfig,
    #[serde(default)]
    pub(crate) rootfs: RootFs,
    /// Entries of the base stay as they are, whatever they hold.
    #[serde(default)]
    pub(crate) history: Vec<Value>,
}

/// The part that says how a container runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ContainerConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exposed_ports: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) volumes: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) working_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) healthcheck: Option<HealthConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shell: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) on_build: Option<Vec<String>>,
}

/// Docker's health check; durations in nanoseconds, 0 inherits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct HealthConfig {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) retries: i64,
}

/// The layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Base images with a date that is none are still good bases.
fn lenient_time<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

impl ImageConfig {
    /// What `FROM scratch` starts with.
    pub(crate) fn scratch(platform: &slipway_types::image::Platform) -> Self {
        Self {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            config: ContainerConfig {
                env: Some(vec![format!("PATH={DEFAULT_PATH}")]),
                working_dir: Some("/".to_owned()),
                ..ContainerConfig::default()
            },
            ..Self::default()
        }
    }

    /// Adds an entry to the history.
    pub(crate) fn record(&mut self, created: Option<Timestamp>, created_by: &str, empty: bool) {
        let mut entry = Map::new();
        if let Some(created) = created {
            entry.insert("created".to_owned(), created.to_string().into());
        }
        entry.insert("created_by".to_owned(), created_by.into());
        if let Some(author) = &self.author {
            entry.insert("author".to_owned(), author.clone().into());
        }
        if empty {
            entry.insert("empty_layer".to_owned(), true.into());
        }
        self.history.push(Value::Object(entry));
    }
}

impl ContainerConfig {
    /// The value of a variable of the environment.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().flatten().rev().find_map(|pair| match pair.split_once('=') {
            Some((key, value)) if key == name => Some(value),
            None if pair == name => Some(""),
            _ => None,
        })
    }

    /// Sets a variable in its place, or adds it at the end.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        let env = self.env.get_or_insert_default();
        let pair = format!("{name}={value}");
        match env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
            Some(old) => *old = pair,
            None => env.push(pair),
        }
    }

    /// Program and arguments that a shell form is appended to.
    pub(crate) fn shell(&self) -> Vec<String> {
        match &self.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        }
    }

    /// The working directory, absolute.
    pub(crate) fn working_dir(&self) -> &str {
        match self.working_dir.as_deref() {
            None | Some("") => "/",
            Some(path) => path,
        }
    }

    /// A command as the configuration keeps it.
    pub(crate) fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.iter().map(|word| word.text.clone()).collect(),
            Command::Shell(word) => self.shell().into_iter().chain([word.text.clone()]).collect(),
        }
    }
}

impl HealthConfig {
    /// What HEALTHCHECK asks for.
    pub(crate) fn new(check: &Healthcheck) -> Self {
        let Healthcheck::Check { command, interval, timeout, start_period, start_interval, retries } = check
        else {
            return Self { test: vec!["NONE".to_owned()], ..Self::default() };
        };
        let test = match command {
            Command::Shell(word) => vec!["CMD-SHELL".to_owned(), word.text.clone()],
            Command::Exec(words) => {
                std::iter::once("CMD".to_owned()).chain(words.iter().map(|word| word.text.clone())).collect()
            }
        };
        let nanos = |duration: &Option<std::time::Duration>| {
            duration.map_or(0, |duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
        };
        Self {
            test,
            interval: nanos(interval),
            timeout: nanos(timeout),
            start_period: nanos(start_period),
            start_interval: nanos(start_interval),
            retries: i64::from(retries.unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_docker_writes() {
        let text = r#"{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","container":"x",
            "config":{"Hostname":"","Env":["PATH=/bin","A=1"],"Cmd":["sh"],"Entrypoint":null,"OnBuild":null,
            "Volumes":null,"Labels":null,"ArgsEscaped":true},"rootfs":{"type":"layers","diff_ids":[]},
            "history":[{"created":"x","created_by":"/bin/sh -c #(nop)","odd":1}]}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.variable("A"), Some("1"));
        assert_eq!(config.history[0]["odd"], 1);
        let again = serde_json::to_value(&config).unwrap();
        assert!(again.get("container").is_none() && again["config"].get("Entrypoint").is_none());
    }

    #[test]
    fn variables_keep_their_place() {
        let mut config = ContainerConfig::default();
        for (name, value) in [("A", "1"), ("B", "2"), ("A", "3=4")] {
            config.set_variable(name, value);
        }
        assert_eq!(config.env.as_deref().unwrap(), ["A=3=4", "B=2"]);
        assert_eq!(config.variable("A"), Some("3=4"));
    }
}
