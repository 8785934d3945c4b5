//! What goes wrong between Slipway and a registry.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use slipway_types::image::Platform;
use slipway_types::{Digest, ErrorCode};

use crate::store::StoreError;

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

/// Why a pull failed. Nothing that was not verified stays in the store.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No endpoint gave what was asked for; the source is the last one's word, which is the registry's own.
    #[error("cannot pull {reference}{}", tried_before(mirrors))]
    Request {
        /// What was pulled.
        reference: String,
        /// One line for each mirror that failed before.
        mirrors: Vec<String>,
        /// Why.
        source: Box<RequestError>,
    },
    /// The image does not exist for this platform.
    #[error("{reference} has no image for {wanted}; it has {}", listed(available))]
    NoPlatform {
        /// What was pulled.
        reference: String,
        /// The platform asked for.
        wanted: Platform,
        /// The platforms there are, as the registry writes them.
        available: Vec<String>,
    },
    /// Something has a type that Slipway does not read.
    #[error("{reference} has a {what} of type `{media_type}`, which is {}", media_type_fault(media_type))]
    MediaType {
        /// What was pulled.
        reference: String,
        /// `manifest`, `layer` or `configuration`.
        what: &'static str,
        /// Its type.
        media_type: String,
    },
    /// A manifest or configuration says something that cannot be.
    #[error("the {what} of {reference} is not valid: {reason}")]
    Invalid {
        /// What was pulled.
        reference: String,
        /// `manifest`, `index` or `configuration`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A model artifact was pulled as an image, or the other way round.
    #[error("{reference} is {found}, not {wanted}")]
    OtherKind {
        /// What was pulled.
        reference: String,
        /// What it is.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A layer could not be unpacked: it breaks a safety rule, is damaged, or the store failed.
    #[error("cannot unpack layer {layer} of {reference}")]
    Unpack {
        /// What was pulled.
        reference: String,
        /// Digest of the layer's blob.
        layer: Digest,
        /// Why.
        source: Box<StoreError>,
    },
    /// The store failed.
    #[error("cannot keep {reference} in the store")]
    Store {
        /// What was pulled.
        reference: String,
        /// Why.
        source: Box<StoreError>,
    },
    /// A task of the pull ended without a result: Slipway's fault, or its end.
    #[error("the pull of {reference} was cut off")]
    Interrupted {
        /// What was pulled.
        reference: String,
    },
}

fn tried_before(mirrors: &[String]) -> String {
    if mirrors.is_empty() {
        String::new()
    } else {
        format!(" (mirrors asked before: {})", mirrors.join("; "))
    }
}

fn listed(platforms: &[String]) -> String {
    if platforms.is_empty() { "none".to_owned() } else { platforms.join(", ") }
}

fn media_type_fault(media_type: &str) -> &'static str {
    if media_type.contains("foreign") || media_type.contains("nondistributable") {
        "kept outside of registries and cannot be pulled from one"
    } else if media_type.contains("manifest.v1") && media_type.contains("docker") {
        "Docker's first image format, out of use since 2017: push the image again with a current tool"
    } else {
        "not one that Slipway reads"
    }
}

impl PullError {
    /// The kind.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Request { source, .. } => source.code(),
            Self::NoPlatform { .. } => ErrorCode::NotFound,
            Self::MediaType { .. } | Self::OtherKind { .. } => ErrorCode::InvalidArgument,
            Self::Invalid { .. } => ErrorCode::DataLoss,
            Self::Unpack { source, .. } | Self::Store { source, .. } => store_code(source),
            Self::Interrupted { .. } => ErrorCode::Internal,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Request { source, .. } => source.hint(),
            Self::NoPlatform { .. } => Some("choose another with `--platform`".to_owned()),
            Self::OtherKind { wanted, .. } if *wanted == IMAGE => {
                Some("models are pulled with `slipway model import`".to_owned())
            }
            Self::Unpack { source, .. } | Self::Store { source, .. } if source.is_out_of_space() => {
                Some("free space with `slipway system prune`".to_owned())
            }
            _ => None,
        }
    }
}

/// The kind of a failure of the store.
pub(crate) fn store_code(error: &StoreError) -> ErrorCode {
    match error {
        e if e.is_out_of_space() => ErrorCode::ResourceExhausted,
        e if e.is_not_found() => ErrorCode::NotFound,
        e if e.is_conflict() => ErrorCode::Conflict,
        StoreError::DigestMismatch { .. }
        | StoreError::Archive(_)
        | StoreError::InvalidConfig(_)
        | StoreError::LayersDiffer { .. }
        | StoreError::DamagedIndex { .. }
        | StoreError::LayerChanged { .. }
        | StoreError::LayerWithoutSource { .. } => ErrorCode::DataLoss,
        StoreError::BlobTooLarge { .. } | StoreError::TooLong { .. } => ErrorCode::ResourceExhausted,
        _ => ErrorCode::Internal,
    }
}

pub(crate) const IMAGE: &str = "an image";
pub(crate) const MODEL: &str = "a model artifact";

/// Why a push failed. Blobs that were sent stay at the registry and are not sent again.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry refused, or could not be reached.
    #[error("cannot push {reference}")]
    Request {
        /// Where to.
        reference: String,
        /// Why.
        source: Box<RequestError>,
    },
    /// What is pushed is not in the store, or the store failed.
    #[error("cannot read what is pushed to {reference}")]
    Store {
        /// Where to.
        reference: String,
        /// Why.
        source: Box<StoreError>,
    },
    /// A layer could not be compressed.
    #[error("cannot compress layer {layer}")]
    Compress {
        /// Its diff id.
        layer: Digest,
        /// Why.
        source: Box<StoreError>,
    },
    /// The manifest in the store cannot be read.
    #[error("the manifest {manifest} in the store is not valid: {reason}")]
    Invalid {
        /// Which.
        manifest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// The reference pins a digest that is not the one of what is pushed.
    #[error("{reference} names another digest than the {manifest} of what is pushed")]
    OtherDigest {
        /// Where to.
        reference: String,
        /// Digest of the manifest.
        manifest: Digest,
    },
    /// A task of the push ended without a result: Slipway's fault, or its end.
    #[error("the push to {reference} was cut off")]
    Interrupted {
        /// Where to.
        reference: String,
    },
}

impl PushError {
    /// The kind.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Request { source, .. } => source.code(),
            Self::Store { source, .. } | Self::Compress { source, .. } => store_code(source),
            Self::Interrupted { .. } => ErrorCode::Internal,
            Self::Invalid { .. } => ErrorCode::DataLoss,
            Self::OtherDigest { .. } => ErrorCode::InvalidArgument,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Request { source, .. } => source.hint(),
            Self::Store { source, .. } | Self::Compress { source, .. } if source.is_out_of_space() => {
                Some("free space with `slipway system prune`".to_owned())
            }
            Self::OtherDigest { .. } => Some("push to a tag".to_owned()),
            _ => None,
        }
    }
}

/// Why a log-in failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot log in to {registry}")]
pub struct LoginError {
    /// Registry.
    pub registry: String,
    /// Why.
    pub source: Box<RequestError>,
}

impl LoginError {
    /// The kind.
    pub fn code(&self) -> ErrorCode {
        self.source.code()
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match &*self.source {
            RequestError::Unauthorized { .. } | RequestError::Forbidden { .. } => Some(
                "check user name and password; where two-factor log-in is on, an access token takes the password's place"
                    .to_owned(),
            ),
            other => other.hint(),
        }
    }
}
