//! The error that crosses the daemon's API: a code, what failed, why, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure it is. Only the API edge maps it to HTTP, only `main` to exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself is wrong.
    InvalidArgument,
    /// The named thing does not exist.
    NotFound,
    /// It exists already, is in use, or is in a state that forbids this.
    Conflict,
    /// Credentials are missing or refused.
    Unauthorized,
    /// What was asked for ran and failed: a build step, a training run.
    Failed,
    /// Content does not match its digest or breaks a safety rule.
    DataLoss,
    /// Space, memory or another resource ran out.
    ResourceExhausted,
    /// Something needed is not there now: a registry, an engine.
    Unavailable,
    /// A fault of Slipway itself.
    Internal,
}

/// An error as the API sends it and as the command line shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The kind.
    pub code: ErrorCode,
    /// What failed.
    pub message: String,
    /// Why, outermost first; each line adds something that the one before does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    /// An error without causes or hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// Takes the message and the causes from an error and its sources.
    pub fn from_error(code: ErrorCode, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Self { code, message: error.to_string(), causes, hint: None }
    }

    /// The message and its causes in one line, as for a log.
    pub fn chain(&self) -> String {
        self.causes.iter().fold(self.message.clone(), |text, cause| format!("{text}: {cause}"))
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}
