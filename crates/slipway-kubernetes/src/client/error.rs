//! What the API server says when it refuses, and what keeps it from being reached.

use std::time::Duration;

use kube::client::AuthError;
use serde_json::Value;

/// Longest text of an answer that is no `Status`.
const MAX_TEXT: usize = 400;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server refused it.
    #[error("{}", .0.sentence())]
    Refused(Box<Refusal>),
    /// No connection, or it broke.
    #[error("cannot reach the API server at {server}")]
    Unreachable {
        /// Its address.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Credentials could not be had: an exec plugin failed, a token file is missing.
    #[error("no credentials for the API server at {server}")]
    Credentials {
        /// Its address.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It takes too long.
    #[error("the API server at {server} did not answer within {} s", .limit.as_secs())]
    Slow {
        /// Its address.
        server: String,
        /// The limit.
        limit: Duration,
    },
    /// The answer exceeds what is read.
    #[error("the API server's answer is larger than {} MiB", .limit >> 20)]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The answer is not what was asked for.
    #[error("the API server's answer to {path} is not JSON")]
    NotJson {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A name makes no path.
    #[error("`{path}` is no path of an API server")]
    BadPath {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: http::Error,
    },
}

/// What a server says when it refuses: the parts of a `Status` that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// One word, such as `Forbidden`.
    pub reason: String,
    /// What it says.
    pub message: String,
    /// Causes, each with a field.
    pub causes: Vec<Cause>,
    /// What it was about: kind and name.
    pub about: (String, String),
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// One cause of a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// One word, such as `FieldManagerConflict`.
    pub reason: String,
    /// What it says.
    pub message: String,
    /// Which field.
    pub field: String,
}

impl ApiError {
    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }

    /// The server's refusal, where it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// HTTP status of the refusal.
    pub fn code(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.code)
    }

    /// Whether the same request may succeed a moment later: nothing is wrong with it.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => matches!(refusal.code, 429 | 500 | 502 | 503 | 504),
            Self::Unreachable { .. } | Self::Slow { .. } => true,
            Self::Credentials { .. }
            | Self::TooLarge { .. }
            | Self::NotJson { .. }
            | Self::BadPath { .. } => false,
        }
    }

    fn credentials(server: String, error: AuthError) -> Self {
        Self::Credentials { server, source: discreet(error) }
    }

    pub(crate) fn from_kube(error: kube::Error, server: &str) -> Self {
        let server = server.to_owned();
        match error {
            kube::Error::Api(status) => {
                let text = serde_json::to_vec(&*status).unwrap_or_default();
                Self::refused(Refusal::read(status.code, None, &text))
            }
            kube::Error::Auth(source) => Self::credentials(server, source),
            kube::Error::Service(source) => match source.downcast::<kube::Error>() {
                Ok(inner) => Self::from_kube(*inner, &server),
                Err(source) => match source.downcast::<AuthError>() {
                    Ok(source) => Self::credentials(server, *source),
                    Err(source) => Self::Unreachable { server, source },
                },
            },
            other => Self::Unreachable { server, source: Box::new(other) },
        }
    }
}

/// What a credential plugin writes may hold the credentials, and what it is called with the secrets to get them by: of
/// neither is anything told.
pub(super) fn discreet(error: AuthError) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        AuthError::AuthExecRun { out, .. } => {
            let status = out.status;
            format!("the credential plugin of the kubeconfig failed ({status}): log in with it again").into()
        }
        AuthError::AuthExecParse(_) | AuthError::AuthExec(_) | AuthError::ParseTokenKey(_) => {
            "the credential plugin of the kubeconfig gave no credentials that can be read".into()
        }
        other => Box::new(other),
    }
}

impl Refusal {
    /// Reads an answer with an error status; what is no `Status` comes from something before the API server.
    pub fn read(code: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match serde_json::from_slice::<Value>(body) {
            Ok(status) if status["kind"] == "Status" || status["status"] == "Failure" => {
                let details = &status["details"];
                let causes = details["causes"].as_array().map_or(&[][..], Vec::as_slice);
                let seconds =
                    details["retryAfterSeconds"].as_u64().filter(|s| *s > 0).map(Duration::from_secs);
                Self {
                    code: status["code"]
                        .as_u64()
                        .and_then(|c| u16::try_from(c).ok())
                        .filter(|c| *c > 0)
                        .unwrap_or(code),
                    reason: text(&status["reason"]),
                    message: text(&status["message"]),
                    causes: causes
                        .iter()
                        .map(|cause| Cause {
                            reason: text(&cause["reason"]),
                            message: text(&cause["message"]),
                            field: text(&cause["field"]),
                        })
                        .collect(),
                    about: (text(&details["kind"]), text(&details["name"])),
                    retry_after: retry_after.or(seconds),
                }
            }
            _ => {
                let text = String::from_utf8_lossy(&body[..body.len().min(MAX_TEXT)]);
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                Self { code, message: text, retry_after, ..Self::default() }
            }
        }
    }

    /// The same in one sentence, with what to do.
    pub fn sentence(&self) -> String {
        crate::reason::refusal(self)
    }

    /// Whether the namespace is being deleted.
    pub fn namespace_ends(&self) -> bool {
        self.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
            || self.message.contains("because it is being terminated")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_a_status_and_what_is_none() {
        let status = json!({
            "kind": "Status", "status": "Failure", "message": "slow down", "reason": "TooManyRequests", "code": 429,
            "details": {"kind": "deployments", "name": "a", "retryAfterSeconds": 3,
                "causes": [{"reason": "X", "message": "m", "field": "spec.a"}]},
        });
        let refusal = Refusal::read(429, None, status.to_string().as_bytes());
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(3)));
        assert_eq!(refusal.about, ("deployments".to_owned(), "a".to_owned()));
        assert_eq!(refusal.causes[0].field, "spec.a");
        let page = Refusal::read(502, None, b"<html>\n<h1>Bad  Gateway</h1>");
        assert_eq!((page.code, page.message.as_str()), (502, "<html> <h1>Bad Gateway</h1>"));
        assert!(ApiError::refused(page).is_transient());
        assert!(!ApiError::refused(Refusal { code: 422, ..Refusal::default() }).is_transient());
    }
}
