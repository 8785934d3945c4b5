//! Why a benchmark ended early.

use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use crate::error::Common;

/// Longest part of a program's output that an error repeats, in lines.
const LINES: usize = 12;

/// Why a benchmark, or one contender in it, could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Ctrl-C, or a request to end.
    #[error("interrupted; everything that was started has been stopped")]
    Interrupted,
    /// What fails in every task.
    #[error(transparent)]
    Common(#[from] Common),
    /// A program that ended with something else than 0.
    #[error("`{command}` failed ({status}){}", last_lines(output))]
    Failed { command: String, status: ExitStatus, output: String },
    /// A program that took too long.
    #[error("`{command}` was not done after {} s{}", limit.as_secs(), last_lines(output))]
    Slow { command: String, limit: Duration, output: String },
    /// A program that should run and has ended.
    #[error("{name} ended{}", last_lines(output))]
    Ended { name: String, output: String },
    /// Something answered, but not what it should.
    #[error("{what}: {got}")]
    Unexpected { what: String, got: String },
    /// Building Slipway.
    #[error("{0}")]
    Build(String),
}

impl Error {
    /// For `map_err` on a path.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Common::io(action, path)
    }

    /// Something answered, but not what it should.
    pub fn unexpected(what: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Unexpected { what: what.into(), got: got.into() }
    }
}

fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    if last.is_empty() { String::new() } else { format!(":\n    {}", last.join("\n    ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

    #[test]
    fn repeats_the_end_of_long_output_and_the_cause() {
        let output: String = (0..40).map(|n| format!("line {n}\n\n")).collect();
        let ended = Error::Ended { name: "dockerd".into(), output }.to_string();
        assert!(ended.starts_with("dockerd ended:\n    line 28\n") && ended.ends_with("line 39"), "{ended}");
        assert_eq!(Error::Ended { name: "x".into(), output: String::new() }.to_string(), "x ended");
        let io = Error::io("open", Path::new("/a"))(io::Error::other("broken"));
        assert_eq!(chain(&io), "cannot open /a: broken");
    }
}
