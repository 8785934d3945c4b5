//! Reads manifests that others wrote: what is wrong with them, by line, and what a project file keeps of them.
//!
//! Reading never fails: every document gives findings, and as much of a tree as can be had.

mod check;
mod convert;
mod lint;
mod selectors;
mod shape;
mod tree;

pub use convert::{Imported, LeftOut, convert};
pub use tree::{Document, Entry, Kind, Node};

/// Largest file that is read, in bytes.
pub const MAX_FILE: usize = 4 << 20;

/// Something about a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// How bad it is.
    pub severity: Severity,
    /// Stable name of the kind of finding, such as `missing-kind`.
    pub code: &'static str,
    /// What is wrong, in a sentence.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The API server refuses it, or it cannot work.
    Error,
    /// It works, and will surprise.
    Warning,
}

/// A file of manifests as it was read.
#[derive(Clone, Debug, Default)]
pub struct Analysis {
    /// Its documents, as far as they could be read.
    pub documents: Vec<Document>,
    /// What is to be said about them, by line.
    pub findings: Vec<Finding>,
}

impl Analysis {
    /// Whether something in the file cannot work.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Reads a file of manifests.
pub fn analyze(text: &str) -> Analysis {
    let mut findings = Vec::new();
    if text.len() > MAX_FILE {
        findings.push(Finding {
            line: 1,
            column: 1,
            severity: Severity::Error,
            code: "too-large",
            message: format!("the file has {} bytes; more than {MAX_FILE} are not read", text.len()),
            fix: "import its parts one by one".to_owned(),
        });
        return Analysis { documents: Vec::new(), findings };
    }
    let documents = tree::read(text, &mut findings);
    for document in &documents {
        check::document(document, &mut findings);
        lint::document(document, &mut findings);
    }
    selectors::check(&documents, &mut findings);
    if documents.is_empty() && findings.is_empty() {
        let fix = "begin with `apiVersion:` and `kind:`";
        findings.push(check::error((1, 1), "no-object", "there is no document in the file", fix));
    }
    findings.sort();
    findings.dedup();
    Analysis { documents, findings }
}

#[cfg(test)]
mod tests;
