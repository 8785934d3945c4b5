//! Why a task on a cluster failed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::error::Common;

/// Why a task on a cluster failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What fails in every task.
    #[error(transparent)]
    Common(#[from] Common),
    /// A program that ended with something else than 0.
    #[error("`{command}` failed ({status}){}", indented(output))]
    Failed { command: String, status: ExitStatus, output: String },
    /// Not root.
    #[error("a cluster needs root: its node makes containers; run it with sudo")]
    Unprivileged,
    /// No Go.
    #[error("no `go` in PATH: Go 1.26 or later builds the components; see https://go.dev/dl")]
    NoGo,
    /// No cluster.
    #[error("no cluster runs in {}; start one with `cargo xtask cluster up`", .0.display())]
    Down(PathBuf),
    /// A file that does not say what it should.
    #[error("cannot read {}", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// The cluster refused.
    #[error("the cluster refused `{request}`: {answer}")]
    Refused { request: String, answer: String },
    /// A go.mod without what is looked for.
    #[error("{} does not require {module}", path.display())]
    NotRequired { path: PathBuf, module: &'static str },
    /// The real node.
    #[error("the real node is not ready: {0}")]
    NodeNotReady(String),
    /// Something in the smoke test.
    #[error("{what}{}", indented(got))]
    Unexpected { what: String, got: String },
    /// What `down` could not remove.
    #[error("not everything is removed:{}", .0.iter().map(|line| format!("\n  {line}")).collect::<String>())]
    Left(Vec<String>),
}

impl Error {
    /// For `map_err` on a path.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Common::io(action, path)
    }
}

fn indented(output: &str) -> String {
    output.trim().lines().map(|line| format!("\n  {line}")).collect()
}
