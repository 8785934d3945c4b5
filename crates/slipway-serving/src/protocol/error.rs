//! Errors as both protocols send them: `{"error": "…"}` and a status.

use bytes::Bytes;
use http::StatusCode;
use slipway_types::model::TensorSpec;

use crate::json::cursor::locate;
use crate::json::{Fault, SyntaxError, write};
use crate::model::PredictError;
use crate::signature::describe;

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProtocolError {
    /// HTTP status.
    pub status: StatusCode,
    /// Why, in words that name what was expected.
    pub message: String,
    /// Seconds after which it makes sense to try again.
    pub retry_after: Option<u32>,
    /// Methods that the path has, for 405.
    pub allow: Option<&'static str>,
}

impl ProtocolError {
    /// An error with nothing but a status and a text.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None, allow: None }
    }

    /// 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 501.
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// 503, to be tried again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// Malformed JSON: what, and where.
    pub fn syntax(text: &[u8], error: SyntaxError) -> Self {
        let (line, column) = locate(text, error.at);
        Self::invalid(format!("JSON Parse error: {} at line {line}, column {column}", error.kind))
    }

    /// A tensor that is not what the signature says.
    pub fn fault(text: &[u8], fault: Fault, spec: &TensorSpec) -> Self {
        match fault {
            Fault::Syntax(error) => Self::syntax(text, error),
            Fault::Value { at, message } => Self::input(text, at, &message, spec),
        }
    }

    /// Something about one input that the signature does not accept.
    pub fn input(text: &[u8], at: usize, message: &str, spec: &TensorSpec) -> Self {
        let (line, column) = locate(text, at);
        Self::invalid(format!("{message} (line {line}, column {column}): expected input {}", describe(spec)))
    }

    /// The body.
    pub fn body(&self) -> Bytes {
        let mut body = b"{\"error\":".to_vec();
        write::string(&mut body, &self.message);
        body.push(b'}');
        body.into()
    }
}

impl From<PredictError> for ProtocolError {
    fn from(error: PredictError) -> Self {
        let message = error.to_string();
        match error {
            PredictError::NotReady(_) | PredictError::Full(_) | PredictError::Died(_) => {
                Self::unavailable(message)
            }
            PredictError::Deadline(_) | PredictError::Hung(_) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, message)
            }
            PredictError::Refused { status, .. } => {
                let status = status.and_then(|s| StatusCode::from_u16(s).ok());
                Self::new(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), message)
            }
            PredictError::BadReply(_) | PredictError::Uneven(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
            PredictError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, message),
        }
    }
}
