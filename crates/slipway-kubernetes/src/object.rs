//! One object of a cluster, as JSON, with the reason why it is there.

use serde_json::Value;

use crate::names::NAME_ANNOTATION;
use crate::render::OWNER_LABEL;

/// An object to apply or to write to a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    json: Value,
    why: String,
}

/// Who has an object already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// Something of Slipway's with this name.
    Named(&'a str),
    /// Another daemon, by its id.
    Daemon(&'a str),
    /// Something that Slipway did not make.
    Stranger,
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

    /// Whose object of this name the cluster has already, if it is not this one's: another daemon's, that of another name
    /// that is mapped alike, or something that Slipway did not make. What was exported and applied by hand is nobody's
    /// and can be taken. `live` is what the cluster has.
    pub fn taken_by<'a>(&self, live: &'a Value) -> Option<Owner<'a>> {
        let daemon = live["metadata"]["labels"][OWNER_LABEL].as_str();
        if let Some(daemon) = daemon.filter(|daemon| self.json["metadata"]["labels"][OWNER_LABEL] != *daemon)
        {
            return Some(Owner::Daemon(daemon));
        }
        let annotation = |object: &'a Value| object["metadata"]["annotations"][NAME_ANNOTATION].as_str();
        let ours = self.json["metadata"]["annotations"][NAME_ANNOTATION].as_str();
        match annotation(live) {
            None if ours.is_some() => Some(Owner::Stranger),
            Some(other) if Some(other) != ours => Some(Owner::Named(other)),
            _ => None,
        }
    }

    fn text(&self, pointer: &str) -> &str {
        self.json.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn another_names_object_is_not_taken_over() {
        let live = |name: Option<&str>| {
            let annotations = name.map(|name| json!({ NAME_ANNOTATION: name })).unwrap_or_default();
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a-1", "annotations": annotations}})
        };
        let object = Object::new("x", live(Some("模型")));
        assert_eq!(object.taken_by(&live(Some("模型"))), None);
        assert_eq!(object.taken_by(&live(Some("型"))), Some(Owner::Named("型")));
        assert_eq!(object.taken_by(&live(None)), Some(Owner::Stranger));
        assert_eq!(object.key().kind, "Service");
        let of = |owner: &str| {
            let mut json = live(Some("模型"));
            json["metadata"]["labels"] = json!({ OWNER_LABEL: owner });
            json
        };
        assert_eq!(object.taken_by(&of("one")), Some(Owner::Daemon("one")));
        let owned = Object::new("x", of("one"));
        assert_eq!(owned.taken_by(&of("one")), None);
        assert_eq!(owned.taken_by(&of("two")), Some(Owner::Daemon("two")));
        assert_eq!(owned.taken_by(&live(Some("模型"))), None, "it was exported and applied by hand");
    }
}
