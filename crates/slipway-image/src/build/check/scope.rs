//! Variables: what is known of ARG and ENV at each instruction.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use crate::build::words::{self, Expansion};

/// Build arguments that Docker sets itself in the scope of FROM, and that a stage may declare without a value.
pub(super) const PLATFORM_ARGS: [&str; 8] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
];

/// Variables that RUN and expansion see without any ARG.
pub(super) const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Variables of one stage, or of FROM.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// Values; none where a variable is set to something that is not known here.
    values: BTreeMap<String, Option<String>>,
    /// Names that ARG or ENV declared.
    declared: BTreeSet<String>,
    /// Names that ENV set: ARG does not override them.
    env: BTreeSet<String>,
    /// Whether every variable of the base image is known.
    complete: bool,
}

/// A word whose value may not be known.
pub(super) struct Resolved {
    /// The value; none where it hangs on something unknown.
    pub(super) value: Option<String>,
    /// Variables without a value, with their place in the word.
    pub(super) unset: Vec<(String, slipway_types::build::Span)>,
}

impl Scope {
    /// An empty scope; `complete` when every variable of the base image will be set in it.
    pub(super) fn new(complete: bool) -> Self {
        Self { complete, ..Self::default() }
    }

    pub(super) fn set_env(&mut self, name: &str, value: Option<String>) {
        self.env.insert(name.to_owned());
        self.set(name, value);
    }

    pub(super) fn set_arg(&mut self, name: &str, value: Option<String>) {
        self.declared.insert(name.to_owned());
        if !self.env.contains(name) {
            self.set(name, value);
        }
    }

    /// An ARG that nobody gave a value.
    pub(super) fn declare(&mut self, name: &str) {
        self.declared.insert(name.to_owned());
    }

    fn set(&mut self, name: &str, value: Option<String>) {
        self.declared.insert(name.to_owned());
        self.values.insert(name.to_owned(), value);
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn is_declared(&self, name: &str) -> bool {
        self.declared.contains(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.declared.iter()
    }

    /// The value of a variable, where it is known.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned().flatten()
    }

    /// Expands a word of an instruction. A word with bad syntax has no value; the parser has said so.
    pub(super) fn resolve(&self, word: &str, escape: char) -> Resolved {
        let unknown = Cell::new(false);
        let lookup = |name: &str| match self.values.get(name) {
            Some(Some(value)) => Some(value.clone()),
            Some(None) => {
                unknown.set(true);
                Some(String::new())
            }
            None => {
                if !self.complete && !self.declared.contains(name) {
                    unknown.set(true);
                }
                None
            }
        };
        match words::expand_fully(word, &lookup, escape) {
            Ok(Expansion { text, unset, .. }) => Resolved { value: (!unknown.get()).then_some(text), unset },
            Err(_) => Resolved { value: None, unset: Vec::new() },
        }
    }
}
