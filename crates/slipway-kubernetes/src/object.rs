//! One object of a cluster, as JSON, with the reason why it is there.

use serde_json::Value;

/// An object to apply or to write to a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    json: Value,
    why: String,
}

/// What identifies an object in a cluster, the version of its API aside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for objects of the whole cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Object {
    /// An object and one or two sentences on what it is for.
    pub fn new(why: impl Into<String>, json: Value) -> Self {
        Self { json, why: why.into() }
    }

    /// The object as the API server takes it.
    pub fn json(&self) -> &Value {
        &self.json
    }

    pub(crate) fn json_mut(&mut self) -> &mut Value {
        &mut self.json
    }

    /// What it is for, for people.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// `apiVersion`, such as `apps/v1`.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`; empty where there is none.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// What identifies it.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            group: self.api_version().split_once('/').map_or("", |(group, _)| group).to_owned(),
            kind: self.kind().to_owned(),
            namespace: self.namespace().to_owned(),
            name: self.name().to_owned(),
        }
    }

    fn text(&self, pointer: &str) -> &str {
        self.json.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}
