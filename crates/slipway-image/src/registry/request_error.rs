//! What goes wrong in one exchange with a registry.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use slipway_types::{Digest, ErrorCode};

/// What the TLS library says of a server whose certificate is that of an authority.
const AUTHORITY_AS_SERVER: &str = "CaUsedAsEndEntity";

/// One error that a registry reported in its own words (`errors[]` of the distribution API).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryAnswer {
    /// Stable code, for example `MANIFEST_UNKNOWN`; may be empty.
    pub code: String,
    /// Text for people; may be empty.
    pub message: String,
}

/// Everything that a registry reported with one reply. Shown as `: CODE: message; …`, or as nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryAnswers(pub Vec<RegistryAnswer>);

impl fmt::Display for RegistryAnswers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, answer) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { ": " } else { "; " })?;
            match (answer.code.is_empty(), answer.message.is_empty()) {
                (false, false) => write!(f, "{}: {}", answer.code, answer.message)?,
                (false, true) => f.write_str(&answer.code)?,
                _ => f.write_str(&answer.message)?,
            }
        }
        Ok(())
    }
}

/// The innermost reason of a network failure, without addresses that may hold signed queries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NetworkCause(pub String);

/// Why an exchange with one registry host failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The trusted certificates of a registry's settings cannot be used.
    #[error("cannot use the certificates in {}, which the settings of {host} name", path.display())]
    CaFile {
        /// Registry.
        host: String,
        /// File that the settings name.
        path: PathBuf,
        /// Why.
        source: NetworkCause,
    },
    /// A mirror in the settings is no `host[:port][/prefix]`, or a host cannot be part of an address.
    #[error("`{address}` in the registry settings is not `host`, `host:port` or `host:port/prefix`")]
    Address {
        /// The text.
        address: String,
    },
    /// No connection came about.
    #[error("cannot connect to {host}")]
    Connect {
        /// Host asked.
        host: String,
        /// Why.
        source: NetworkCause,
        /// Whether it answered before, so that asking again makes sense.
        answered_before: bool,
    },
    /// The server's certificate was not accepted.
    #[error("the certificate of {host} is not trusted")]
    Certificate {
        /// Host asked.
        host: String,
        /// Why.
        source: NetworkCause,
    },
    /// Nothing came for too long.
    #[error("{host} did not answer within {seconds} s")]
    Timeout {
        /// Host asked.
        host: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The connection ended in the middle.
    #[error("the connection to {host} broke")]
    Broken {
        /// Host asked.
        host: String,
        /// Why.
        source: NetworkCause,
    },
    /// 401: credentials are missing or refused.
    #[error("{host} {}{answers}", if *with_credentials { "refused the credentials" } else { "asks for credentials" })]
    Unauthorized {
        /// Registry, as `slipway login` names it.
        host: String,
        /// Whether credentials were sent.
        with_credentials: bool,
        /// The registry's words.
        answers: RegistryAnswers,
    },
    /// 403: known, and not allowed.
    #[error("{host} denies access to {what} (403){answers}")]
    Forbidden {
        /// Registry.
        host: String,
        /// What was asked for.
        what: String,
        /// Whether credentials were sent.
        with_credentials: bool,
        /// The registry's words.
        answers: RegistryAnswers,
    },
    /// 404.
    #[error("{host} has no {what}{answers}")]
    NotFound {
        /// Registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's words.
        answers: RegistryAnswers,
    },
    /// 429.
    #[error("{host} limits how often it can be asked (429){answers}")]
    Limited {
        /// Registry.
        host: String,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
        /// The registry's words.
        answers: RegistryAnswers,
    },
    /// Another status that is no success.
    #[error("{host} answered {status} when asked for {what}{answers}")]
    Status {
        /// Host that answered.
        host: String,
        /// HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
        /// The registry's words.
        answers: RegistryAnswers,
    },
    /// The reply breaks the distribution API.
    #[error("{host} does not answer as a registry does: {problem}")]
    Protocol {
        /// Host that answered.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// Content does not have the digest that was promised.
    #[error("{host} sent another {what} than promised: promised {promised}, received {received}")]
    Digest {
        /// Registry.
        host: String,
        /// What was asked for.
        what: &'static str,
        /// What the manifest, the reference or the reply's header said.
        promised: Digest,
        /// What came.
        received: Digest,
    },
    /// Content does not have the size that was promised.
    #[error(
        "{host} sent {what} {digest} in another size than promised: promised {promised} bytes, received {received}"
    )]
    Size {
        /// Registry.
        host: String,
        /// What was asked for.
        what: &'static str,
        /// Which.
        digest: Digest,
        /// Bytes by the descriptor.
        promised: u64,
        /// Bytes that came, as far as they were counted.
        received: u64,
    },
    /// Content is larger than Slipway accepts.
    #[error("the {what} at {host} is larger than the {limit} bytes that are accepted")]
    TooLarge {
        /// Registry.
        host: String,
        /// What was asked for.
        what: &'static str,
        /// The most bytes that are accepted.
        limit: u64,
    },
    /// A file of the store could not be read for sending.
    #[error("cannot read blob {digest} of the store")]
    LocalBlob {
        /// Which.
        digest: Digest,
        /// Why.
        source: std::io::Error,
    },
}

impl RequestError {
    /// The kind.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::CaFile { .. } | Self::Address { .. } => ErrorCode::InvalidArgument,
            Self::Connect { .. }
            | Self::Certificate { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Limited { .. }
            | Self::Protocol { .. } => ErrorCode::Unavailable,
            Self::Unauthorized { .. } | Self::Forbidden { .. } => ErrorCode::Unauthorized,
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::Status { status, .. } => match status {
                400..=499 => ErrorCode::Failed,
                _ => ErrorCode::Unavailable,
            },
            Self::Digest { .. } | Self::Size { .. } => ErrorCode::DataLoss,
            Self::TooLarge { .. } => ErrorCode::ResourceExhausted,
            Self::LocalBlob { .. } => ErrorCode::Internal,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unauthorized { host, with_credentials: false, .. } => Some(format!(
                "log in with `slipway login {host}`; a registry may also answer so for a repository that does not exist"
            )),
            Self::Unauthorized { host, .. } => {
                Some(format!("log in again with `slipway login {host}`, or check that the account may do this"))
            }
            Self::Forbidden { host, with_credentials: false, .. } => {
                Some(format!("log in with `slipway login {host}`"))
            }
            Self::Connect { host, .. } | Self::Timeout { host, .. }
                if host == slipway_types::reference::DEFAULT_REGISTRY =>
            {
                Some(
                    "where Docker Hub cannot be reached, set a mirror: `mirrors = [\"host:port\"]` under \
                     `[registries.\"docker.io\"]` in the settings, or make a base image with `slipway base debian`"
                        .to_owned(),
                )
            }
            Self::Connect { host, .. } => {
                Some(format!("check the registry's address and that it runs, or set a mirror for `{host}` in the settings"))
            }
            Self::Certificate { host, source } if source.0.contains(AUTHORITY_AS_SERVER) => Some(format!(
                "{host} presents a certificate authority's own certificate (CA:TRUE, as plain `openssl req -x509` makes \
                 it), which no server may use: make one with `-addext basicConstraints=critical,CA:FALSE` and name \
                 it as `ca_file`, or let that authority sign one for the server"
            )),
            Self::Certificate { host, .. } => Some(format!(
                "name the certificate authority's PEM file as `ca_file` under `[registries.\"{host}\"]` in the settings"
            )),
            Self::Limited { host, .. } => {
                Some(format!("wait a while; `slipway login {host}` often raises the limit"))
            }
            Self::Digest { .. } | Self::Size { .. } => Some(
                "nothing of it was kept; the registry, or something between, changes content: try again, and tell its operator"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Whether the same request can succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Broken { .. } | Self::Limited { .. } => true,
            Self::Connect { answered_before, .. } => *answered_before,
            Self::Status { status, .. } => matches!(status, 408 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// How long the registry asked to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether content was changed: never answered by asking somebody else.
    pub(crate) fn is_corruption(&self) -> bool {
        matches!(self, Self::Digest { .. } | Self::Size { .. })
    }

    /// The error and its reason on one line, for lists of what was tried.
    pub(crate) fn one_line(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self} ({source})"),
            None => self.to_string(),
        }
    }
}
