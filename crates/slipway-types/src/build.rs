//! Building images: the request, the events of its progress, and diagnostics with spans.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::container::{NetworkMode, OutputStream};
use crate::digest::Digest;

/// Body of `POST /v1/build`. The daemon reads the context where it lies; nothing is uploaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuildRequest {
    /// Absolute path of the context folder.
    pub context: PathBuf,
    /// The context is made for this build alone: nothing is remembered about its files.
    pub temporary_context: bool,
    /// Absolute path of the Dockerfile.
    pub dockerfile: PathBuf,
    /// Dockerfile text that was given on standard input, used instead of the file.
    pub dockerfile_text: Option<String>,
    /// References to give to the result.
    pub tags: Vec<String>,
    /// Stage to stop at.
    pub target: Option<String>,
    /// `--build-arg` values.
    pub build_args: BTreeMap<String, String>,
    /// Labels to add.
    pub labels: BTreeMap<String, String>,
    /// Executes every step anew.
    pub no_cache: bool,
    /// Network of RUN steps; the host's when absent.
    pub network: Option<NetworkMode>,
    /// Absolute path of a PEM bundle that RUN steps trust besides the image's own.
    pub ca_certificates: Option<PathBuf>,
    /// Asks the registry for newer base images.
    pub pull: bool,
    /// Only runs the checks.
    pub check_only: bool,
    /// Secrets by id, for `RUN --mount=type=secret`. In no layer, log or cache key.
    pub secrets: BTreeMap<String, Secret>,
    /// Absolute paths of SSH agents' sockets by id, for `RUN --mount=type=ssh`.
    pub ssh: BTreeMap<String, PathBuf>,
}

/// A secret's bytes, which no `Debug` shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl Secret {
    /// Most bytes, as Docker has it.
    pub const MAX: usize = 500 << 10;
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    /// One character for each byte: short for text, and lossless for the rest.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.iter().map(|&byte| char::from(byte)).collect::<String>().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
        let bytes =
            bytes.map_err(|_| serde::de::Error::custom("a secret has a character that is no byte"))?;
        if bytes.len() > Self::MAX {
            return Err(serde::de::Error::custom(format!("a secret has more than {} bytes", Self::MAX)));
        }
        Ok(Self(bytes))
    }
}

/// One line of a build's progress, as newline-delimited JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum BuildEvent {
    /// What the checks or the parser found.
    Diagnostic(Diagnostic),
    /// A step begins.
    StepStarted {
        /// Number of the step, from 1.
        step: u32,
        /// How many there are.
        total: u32,
        /// Stage name or number.
        stage: String,
        /// The instruction as written, on one line.
        instruction: String,
    },
    /// Output of a RUN step.
    Output {
        /// Its step.
        step: u32,
        /// Which output.
        stream: OutputStream,
        /// Text; may hold part of a line.
        text: String,
    },
    /// Progress of a transfer inside a step, such as a base image being pulled.
    Progress {
        /// Its step.
        step: u32,
        /// What moves.
        what: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
    },
    /// A step is done.
    StepFinished {
        /// Its step.
        step: u32,
        /// It was in the cache: nothing was executed.
        cached: bool,
        /// Seconds that it took.
        seconds: f64,
    },
    /// The image is complete and tagged.
    Finished {
        /// Digest of the image's configuration.
        image: Digest,
        /// References that now name it.
        tags: Vec<String>,
        /// Steps that were executed.
        executed: u32,
        /// Steps that came from the cache.
        cached: u32,
    },
    /// The build ended without an image.
    Failed(BuildFailure),
}

/// Why a build ended without an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildFailure {
    /// The error.
    pub error: crate::ApiError,
    /// Where in the Dockerfile.
    pub diagnostic: Option<Diagnostic>,
    /// Exit code of the failed RUN step.
    pub exit_code: Option<u8>,
    /// Last lines that the failed RUN step wrote.
    pub last_output: Vec<String>,
}

/// How serious a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The build goes on.
    Warning,
    /// The build cannot go on.
    Error,
}

/// Something to say about a place in a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How serious.
    pub severity: Severity,
    /// Stable name of the rule, for example `run-missing-file`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// Byte range in the Dockerfile's text.
    pub span: Span,
    /// 1-based line where the span starts.
    pub line: u32,
    /// 1-based column (in characters) where the span starts.
    pub column: u32,
}

/// A half-open byte range `start..end` of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_travel_whole_and_are_not_shown() {
        let secret = Secret((0..=255).collect());
        let text = serde_json::to_string(&secret).unwrap();
        assert_eq!(serde_json::from_str::<Secret>(&text).unwrap(), secret);
        assert_eq!(format!("{:?}", Secret(b"hunter2".to_vec())), "Secret(…)");
        let long = serde_json::to_string(&"x".repeat(Secret::MAX + 1)).unwrap();
        assert!(
            serde_json::from_str::<Secret>(&long).is_err()
                && serde_json::from_str::<Secret>("\"→\"").is_err()
        );
    }
}
