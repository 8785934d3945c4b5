//! The daemon's requests, as the API server's audit log counts them. The daemon has a user of its own there, so nothing of
//! the cluster's own programs or of kubectl is in it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::error::Error;

/// Name of the daemon's account.
pub const ACCOUNT: &str = "slipway-bench";

/// What is logged: requests of one account, once each, when they are answered; a watch when it begins.
pub fn policy(namespace: &str) -> String {
    let user = format!("users: [\"system:serviceaccount:{namespace}:{ACCOUNT}\"]");
    format!(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n\
         - {{level: Metadata, {user}, verbs: [watch], omitStages: [RequestReceived, ResponseComplete]}}\n\
         - {{level: Metadata, {user}, omitStages: [RequestReceived, ResponseStarted]}}\n\
         - {{level: None}}\n"
    )
}

/// Requests by verb.
pub type Counts = BTreeMap<String, u64>;

/// All requests of some counts.
pub fn total(counts: &Counts) -> u64 {
    counts.values().sum()
}

/// The log, read on and on.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    read: std::cell::Cell<u64>,
}

impl Audit {
    /// The log in a file, from now on.
    pub fn new(path: &Path) -> Self {
        let read = std::fs::metadata(path).map_or(0, |about| about.len());
        Self { path: path.to_owned(), read: read.into() }
    }

    /// Requests since the last call.
    pub fn since(&self) -> Result<Counts, Error> {
        let failed = || Error::io("read", &self.path);
        let mut file = std::fs::File::open(&self.path).map_err(failed())?;
        file.seek(SeekFrom::Start(self.read.get())).map_err(failed())?;
        let mut reader = BufReader::new(file);
        let (mut counts, mut line) = (Counts::new(), Vec::new());
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).map_err(failed())?;
            // The last line may still be written.
            if length == 0 || line.last() != Some(&b'\n') {
                return Ok(counts);
            }
            self.read.set(self.read.get() + length as u64);
            let event: Value = serde_json::from_slice(&line).map_err(|error| {
                Error::unexpected("the audit log has a line that is not JSON", error.to_string())
            })?;
            let verb = event["verb"].as_str().unwrap_or("other");
            *counts.entry(verb.to_owned()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn counts_each_line_once_and_leaves_half_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut file = std::fs::File::create(&path).unwrap();
        let audit = Audit::new(&path);
        file.write_all(b"{\"verb\":\"get\"}\n{\"verb\":\"patch\"}\n{\"verb\":\"g").unwrap();
        assert_eq!(audit.since().unwrap(), Counts::from([("get".into(), 1), ("patch".into(), 1)]));
        file.write_all(b"et\"}\n").unwrap();
        assert_eq!(total(&audit.since().unwrap()), 1);
        assert_eq!(total(&audit.since().unwrap()), 0);
    }
}
