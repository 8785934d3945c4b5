//! What a command ends with when it does not succeed, and the public exit codes.

use slipway_types::{ApiError, ErrorCode};

/// Exit codes. They are public API.
pub mod exit {
    /// What was asked for ran and failed.
    pub const FAILED: u8 = 1;
    /// The command line or a file is wrong.
    pub const USAGE: u8 = 2;
    /// The named thing does not exist.
    pub const NOT_FOUND: u8 = 3;
    /// It exists already, is in use, or changed meanwhile.
    pub const CONFLICT: u8 = 4;
    /// The engine is unreachable.
    pub const UNREACHABLE: u8 = 5;
    /// `run` and `exec`: the container could not be made.
    pub const CONTAINER_FAILED: u8 = 125;
}

/// A failed command: what to say and how to exit.
#[derive(Debug)]
pub struct Failure {
    /// What to say; absent when everything was said already.
    pub error: Option<ApiError>,
    /// Exit code of the process.
    pub exit_code: u8,
}

impl Failure {
    /// Nothing more to say.
    pub fn silent(exit_code: u8) -> Self {
        Self { error: None, exit_code }
    }

    /// A mistake on the command line or in a file of the user's.
    pub fn usage(message: impl Into<String>) -> Self {
        ApiError::new(ErrorCode::InvalidArgument, message).into()
    }

    /// The same failure under another exit code.
    #[must_use]
    pub fn exiting(mut self, exit_code: u8) -> Self {
        self.exit_code = exit_code;
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.error = self.error.map(|error| error.with_hint(hint));
        self
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit_code = match error.code {
            ErrorCode::InvalidArgument => exit::USAGE,
            ErrorCode::NotFound => exit::NOT_FOUND,
            ErrorCode::Conflict => exit::CONFLICT,
            ErrorCode::Unauthorized
            | ErrorCode::Failed
            | ErrorCode::DataLoss
            | ErrorCode::ResourceExhausted
            | ErrorCode::Unavailable
            | ErrorCode::Internal => exit::FAILED,
        };
        Self { error: Some(error), exit_code }
    }
}

/// An IO error of a path, as a failure.
pub fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorCode::NotFound,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorCode::ResourceExhausted,
        _ => ErrorCode::Failed,
    };
    let mut api = ApiError::new(code, format!("cannot {what} {}", path.display()));
    api.causes.push(error.to_string());
    api.into()
}
