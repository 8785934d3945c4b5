//! What fails in every task.

use std::io;
use std::path::{Path, PathBuf};

/// What fails in every task.
#[derive(Debug, thiserror::Error)]
pub enum Common {
    /// A file or folder.
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A program that could not be started.
    #[error("cannot start {program}")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    /// Programs that are not installed.
    #[error(
        "missing: {programs}; install with `apt-get install -y --no-install-recommends {packages}`, or add `--install`"
    )]
    Missing { programs: String, packages: String },
}

impl Common {
    /// For `map_err` on a path, into the error of any task.
    pub fn io<E: From<Self>>(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> E {
        move |source| Self::Io { action, path: path.to_owned(), source }.into()
    }

    /// For `map_err` on the start of a program.
    pub fn start(program: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Start { program: program.into(), source }
    }

    /// Programs that are not installed, and the packages that have them.
    pub fn missing(programs: impl Into<String>, packages: impl Into<String>) -> Self {
        Self::Missing { programs: programs.into(), packages: packages.into() }
    }
}

/// An error and its sources, in one line where each of them is one.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
