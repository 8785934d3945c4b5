//! Why a build ended without an image.

use std::io;
use std::path::PathBuf;

use slipway_types::build::{BuildFailure, Diagnostic, Severity, Span};
use slipway_types::reference::InvalidReference;
use slipway_types::{ApiError, ErrorCode};

pub use super::context::ContextError;
pub use super::copy::{ArchiveError, CopyError, ModeError, OwnerError, SelectError};
use super::dockerfile::{InvalidPort, LineIndex};
pub use super::fetch::FetchError;
use super::ignore::IgnoreError;
use super::runner::StepError;
pub use super::tree::TreeError;
use super::words::ExpandError;
use crate::store::StoreError;

/// Why a build ended without an image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile cannot be read.
    #[error("cannot read the Dockerfile `{path}`")]
    Dockerfile {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The parser or the checks found errors; they were reported as events.
    #[error("{count} error(s) in `{path}`, the first in line {}: {}", first.line, first.message)]
    Invalid {
        /// The Dockerfile.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first.
        first: Box<Diagnostic>,
    },
    /// The request names a stage that is not there.
    #[error("the Dockerfile has no stage `{target}`")]
    UnknownTarget {
        /// What was asked for.
        target: String,
        /// Names that there are.
        known: Vec<String>,
    },
    /// A tag of the request is no reference.
    #[error("the result cannot be tagged as asked")]
    Tag(#[from] InvalidReference),
    /// `SOURCE_DATE_EPOCH` is not a number of seconds.
    #[error("SOURCE_DATE_EPOCH is `{0}`: expected seconds since 1970")]
    Epoch(String),
    /// The context cannot be used.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The bundle of `--ca-certificates` cannot be used.
    #[error("cannot use the certificates in `{path}`: {reason}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An instruction failed.
    #[error("{}", .0.kind)]
    Step(Box<StepFailure>),
    /// The finished image cannot be stored.
    #[error("cannot store the image")]
    Store(#[from] StoreError),
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
}

/// An instruction that failed.
#[derive(Debug)]
pub struct StepFailure {
    /// Where it is in the Dockerfile.
    pub diagnostic: Diagnostic,
    /// What went wrong.
    pub kind: StepErrorKind,
    /// What to do about it.
    pub hint: Option<String>,
    /// The last lines that it wrote.
    pub last_output: Vec<String>,
}

/// What went wrong in an instruction.
#[derive(Debug, thiserror::Error)]
pub enum StepErrorKind {
    /// A variable or quote in a word.
    #[error("cannot expand `{word}`: {source}")]
    Expand {
        /// The word as written.
        word: String,
        /// Why. It is part of the message already.
        source: ExpandError,
    },
    /// FROM or `--from` names no valid image.
    #[error("`{text}` names no image: {}", source.reason)]
    Reference {
        /// The text as expanded.
        text: String,
        /// Why. It is part of the message already.
        source: InvalidReference,
    },
    /// FROM expands to nothing.
    #[error("FROM `{0}` expands to nothing")]
    EmptyBase(String),
    /// The base image cannot be had.
    #[error("cannot get the base image `{image}`: {error}")]
    Base {
        /// The reference.
        image: String,
        /// Why. It is part of the message already.
        error: ApiError,
    },
    /// The base image's configuration makes no sense.
    #[error("the configuration of `{image}` cannot be read")]
    BaseConfig {
        /// The reference.
        image: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The base image is for another machine.
    #[error("`{image}` is for {actual}, and {wanted} was asked for")]
    WrongPlatform {
        /// The reference.
        image: String,
        /// What it is for.
        actual: String,
        /// What was asked for.
        wanted: String,
    },
    /// RUN in a stage for another machine.
    #[error("this stage is for {platform}, and this machine ({host}) cannot run its programs")]
    ForeignPlatform {
        /// The stage's platform.
        platform: String,
        /// The host's.
        host: String,
    },
    /// `--platform` makes no sense.
    #[error("`{0}` is not a platform: expected `os/architecture` such as `linux/amd64`")]
    Platform(String),
    /// An ONBUILD trigger of the base makes no sense.
    #[error("the base image has the ONBUILD trigger `{trigger}`, which is wrong: {reason}")]
    Trigger {
        /// The trigger.
        trigger: String,
        /// Why.
        reason: String,
    },
    /// A RUN step ended with a status that is not 0.
    #[error("`{command}` ended with exit code {code}{}", if *oom_killed { ": it ran out of memory" } else { "" })]
    Exit {
        /// The command, on one line.
        command: String,
        /// Its status.
        code: u8,
        /// The kernel ended it for lack of memory.
        oom_killed: bool,
    },
    /// A RUN step could not be run.
    #[error(transparent)]
    Runner(StepError),
    /// The stage's file system cannot be opened.
    #[error("cannot open the stage's file system")]
    OpenRoot(#[source] io::Error),
    /// A file that a step needs beside its file system cannot be prepared.
    #[error("cannot prepare `{path}`")]
    Prepare {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A source of COPY or ADD names nothing.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// COPY or ADD failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A source cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// `--chown`.
    #[error("cannot use `--chown={text}`")]
    Owner {
        /// The flag's value.
        text: String,
        /// Why.
        #[source]
        source: OwnerError,
    },
    /// `--chmod`.
    #[error("cannot use `--chmod={text}`")]
    Mode {
        /// The flag's value.
        text: String,
        /// Why.
        #[source]
        source: ModeError,
    },
    /// `--exclude`.
    #[error("cannot use `--exclude`")]
    Exclude(#[source] IgnoreError),
    /// `--checksum`.
    #[error("`{0}` is not a checksum: expected `sha256:` and 64 hexadecimal digits")]
    Checksum(String),
    /// A URL of ADD cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Several sources and a destination that is no folder.
    #[error("several sources need a folder as destination, and `{0}` does not end with `/`")]
    NotAFolder(String),
    /// Something that Slipway does not do yet.
    #[error("{what} is not supported yet")]
    Unsupported {
        /// What.
        what: String,
    },
    /// A secret that the caller did not give.
    #[error("this build was given no secret `{0}`")]
    NoSecret(String),
    /// A secret that is to be a variable and cannot.
    #[error("the secret `{0}` is no text, so no variable can hold it")]
    SecretNotText(String),
    /// An SSH agent that the caller did not give.
    #[error("this build was given no SSH agent `{0}`")]
    NoAgent(String),
    /// A file that is no agent's socket.
    #[error("`{0}` is not the socket of an SSH agent")]
    NotAnAgent(PathBuf),
    /// EXPOSE.
    #[error(transparent)]
    Port(#[from] InvalidPort),
    /// The store.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
}

/// A failure inside a step, before it is known where the step is.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Box<StepErrorKind>,
    /// Part of the instruction that it is about.
    pub(crate) span: Option<Span>,
    pub(crate) hint: Option<String>,
    pub(crate) last_output: Vec<String>,
}

impl<E: Into<StepErrorKind>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self { kind: Box::new(error.into()), span: None, hint: None, last_output: Vec::new() }
    }
}

impl Fault {
    pub(crate) fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Places the failure in the Dockerfile.
    pub(crate) fn place(self, lines: &LineIndex<'_>, instruction: Span) -> BuildError {
        if self.kind.is_cancelled() {
            return BuildError::Cancelled;
        }
        let span = self.span.unwrap_or(instruction);
        let hint = self.hint.or_else(|| self.kind.hint());
        let message = self.kind.to_string();
        let diagnostic = lines.diagnostic(Severity::Error, self.kind.code(), span, message, hint.clone());
        BuildError::Step(Box::new(StepFailure {
            diagnostic,
            kind: *self.kind,
            hint,
            last_output: self.last_output,
        }))
    }
}

impl StepErrorKind {
    fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Cancelled
                | Self::Runner(StepError::Cancelled)
                | Self::Tree(TreeError::Cancelled)
                | Self::Select(SelectError::Cancelled)
                | Self::Fetch(FetchError::Cancelled)
                | Self::Copy(CopyError::Tree(TreeError::Cancelled))
        )
    }

    /// Whether a file system is full.
    fn is_out_of_space(&self) -> bool {
        let full = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        match self {
            Self::Store(error) => error.is_out_of_space(),
            Self::Copy(error) => error.io_source().is_some_and(full),
            Self::Tree(TreeError::Io { source, .. })
            | Self::OpenRoot(source)
            | Self::Prepare { source, .. }
            | Self::Fetch(FetchError::Write(source))
            | Self::Runner(StepError::Host { source, .. }) => full(source),
            _ => false,
        }
    }

    /// Stable name, as the diagnostic has it.
    fn code(&self) -> &'static str {
        match self {
            Self::Expand { .. } => "expand-failed",
            Self::Reference { .. } | Self::EmptyBase(_) => "invalid-image",
            Self::Base { .. } | Self::BaseConfig { .. } => "base-unavailable",
            Self::WrongPlatform { .. } | Self::ForeignPlatform { .. } | Self::Platform(_) => "wrong-platform",
            Self::Trigger { .. } => "invalid-onbuild",
            Self::Exit { .. } => "run-failed",
            Self::Runner(_) | Self::OpenRoot(_) | Self::Prepare { .. } => "step-not-started",
            Self::Select(_) => "source-missing",
            Self::Copy(_) | Self::Tree(_) | Self::NotAFolder(_) => "copy-failed",
            Self::Owner { .. } | Self::Mode { .. } => "invalid-owner",
            Self::Exclude(_) => "invalid-pattern",
            Self::Checksum(_) => "invalid-checksum",
            Self::Fetch(FetchError::Mismatch { .. }) => "wrong-checksum",
            Self::Fetch(_) => "fetch-failed",
            Self::Unsupported { .. } => "unsupported",
            Self::NoSecret(_) | Self::SecretNotText(_) => "secret-missing",
            Self::NoAgent(_) | Self::NotAnAgent(_) => "agent-missing",
            Self::Port(_) => "invalid-port",
            Self::Store(_) => "store-failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn error_code(&self) -> ErrorCode {
        if self.is_out_of_space() {
            return ErrorCode::ResourceExhausted;
        }
        match self {
            Self::Base { error, .. } => error.code,
            Self::Exit { .. } | Self::Runner(StepError::Start { .. }) | Self::Cancelled => ErrorCode::Failed,
            Self::Store(_) | Self::Runner(_) | Self::OpenRoot(_) | Self::Prepare { .. } => {
                ErrorCode::Internal
            }
            Self::Copy(error) if error.io_source().is_some() => ErrorCode::Internal,
            Self::Tree(TreeError::Changed(_)) => ErrorCode::Conflict,
            Self::Fetch(error) => error.code(),
            _ => ErrorCode::InvalidArgument,
        }
    }

    /// What to do about it, where that does not depend on more than the failure itself.
    fn hint(&self) -> Option<String> {
        if self.is_out_of_space() {
            return Some("free space, for example with `slipway system prune`, and build again".to_owned());
        }
        let hint = match self {
            Self::Base { error, .. } => return error.hint.clone(),
            Self::Runner(StepError::Start { hint, .. }) => return hint.clone(),
            Self::Select(SelectError::Outside(_)) => {
                "COPY and ADD see only the context folder; move the file into it or build from a folder above"
            }
            Self::Select(SelectError::Ignored(_)) => {
                "remove the pattern from the ignore file, or add one with `!`"
            }
            Self::Select(SelectError::Missing { .. }) => {
                "paths count from the context folder (the last argument of `slipway build`)"
            }
            Self::Tree(TreeError::Special { .. })
            | Self::Copy(CopyError::Tree(TreeError::Special { .. })) => "add it to .dockerignore",
            Self::Tree(TreeError::Changed(_)) | Self::Copy(CopyError::Tree(TreeError::Changed(_))) => {
                "build again when nothing writes to the context"
            }
            Self::Mode { source: ModeError::Symbolic(_), .. } => {
                "write classes, an operator and permissions, such as `u+x,go-w`, or a number such as 755"
            }
            Self::Fetch(FetchError::Certificate { .. }) => "give its authority with `--ca-certificates FILE`",
            Self::Fetch(FetchError::NoName(_)) => "end the URL with a file name",
            Self::NotAFolder(_) => "add a `/` at its end",
            Self::WrongPlatform { .. } => "name an image for this platform, or say `FROM --platform=`",
            Self::ForeignPlatform { .. } => "take `--platform` out of this FROM, or only COPY in this stage",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl BuildError {
    /// What crosses the API.
    pub fn into_failure(self) -> BuildFailure {
        let code = match &self {
            Self::Dockerfile { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorCode::NotFound
            }
            Self::Step(failure) => failure.kind.error_code(),
            Self::Store(error) if error.is_out_of_space() => ErrorCode::ResourceExhausted,
            Self::Store(_) | Self::Context(ContextError::Hashes(_)) => ErrorCode::Internal,
            Self::Cancelled => ErrorCode::Failed,
            _ => ErrorCode::InvalidArgument,
        };
        let mut error = ApiError::from_error(code, &self);
        error.hint = match &self {
            Self::Step(failure) => failure.hint.clone(),
            Self::Dockerfile { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("name the file with `-f FILE`".to_owned())
            }
            Self::UnknownTarget { known, .. } if !known.is_empty() => {
                Some(format!("stages with names: {}", known.join(", ")))
            }
            Self::Invalid { first, .. } => first.hint.clone(),
            Self::Store(error) if error.is_out_of_space() => {
                Some("free space, for example with `slipway system prune`, and build again".to_owned())
            }
            _ => None,
        };
        match self {
            Self::Step(failure) => {
                error.causes = sources(&failure.kind);
                let exit_code = match failure.kind {
                    StepErrorKind::Exit { code, .. } => Some(code),
                    _ => None,
                };
                BuildFailure {
                    error,
                    diagnostic: Some(failure.diagnostic),
                    exit_code,
                    last_output: failure.last_output,
                }
            }
            Self::Invalid { first, .. } => {
                BuildFailure { error, diagnostic: Some(*first), exit_code: None, last_output: Vec::new() }
            }
            _ => BuildFailure { error, diagnostic: None, exit_code: None, last_output: Vec::new() },
        }
    }
}

/// The causes below an error, except those that its message has already.
fn sources(kind: &StepErrorKind) -> Vec<String> {
    match kind {
        StepErrorKind::Expand { .. } | StepErrorKind::Reference { .. } => Vec::new(),
        StepErrorKind::Base { error, .. } => error.causes.clone(),
        kind => ApiError::from_error(ErrorCode::Failed, kind).causes,
    }
}
