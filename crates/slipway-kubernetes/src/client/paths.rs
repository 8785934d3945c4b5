//! Paths of resources.

use serde::{Deserialize, Serialize};

/// What the API server serves a kind as.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version of it.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Name in paths.
    pub plural: String,
    /// Whether it is in a namespace.
    pub namespaced: bool,
}

impl Resource {
    /// A namespaced kind that every cluster has.
    pub fn well_known(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        let text = str::to_owned;
        Self {
            group: text(group),
            version: text(version),
            kind: text(kind),
            plural: text(plural),
            namespaced: true,
        }
    }

    /// `apiVersion`, such as `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Path of an object, or of all in a namespace.
    pub fn path(&self, namespace: &str, name: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let mut path = format!("{root}/{}", self.api_version());
        if self.namespaced && !namespace.is_empty() {
            path.push_str(&format!("/namespaces/{}", escape(namespace)));
        }
        path.push_str(&format!("/{}", self.plural));
        if let Some(name) = name {
            path.push_str(&format!("/{}", escape(name)));
        }
        path
    }
}

/// A text as part of a path or a query.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let pods = Resource::well_known("", "v1", "Pod", "pods");
        assert_eq!(pods.path("a", None), "/api/v1/namespaces/a/pods");
        let jobs = Resource::well_known("batch", "v1", "Job", "jobs");
        assert_eq!(jobs.path("a", Some("b/../c")), "/apis/batch/v1/namespaces/a/jobs/b%2F..%2Fc");
        assert_eq!(escape("a=b,c in (d)"), "a%3Db%2Cc%20in%20%28d%29");
    }
}
