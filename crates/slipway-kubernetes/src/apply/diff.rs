//! What applying an object would change, field by field.

use serde_json::{Map, Value};

use super::error::Conflict;
use crate::object::ObjectKey;

/// What the server keeps for itself.
const SERVERS: [&str; 6] =
    ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"];

/// What applying an object would change.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which object.
    pub key: ObjectKey,
    /// Whether it would be made.
    pub new: bool,
    /// Fields that would change, in order; empty for a new object.
    pub fields: Vec<FieldChange>,
    /// Fields that others own: without taking over, nothing of it is applied.
    pub conflicts: Vec<Conflict>,
}

/// One field that would change.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// Path, such as `.spec.template.spec.containers[server].image`.
    pub path: String,
    /// What it is; `None` where it is not there.
    pub before: Option<Value>,
    /// What it would be; `None` where it would go.
    pub after: Option<Value>,
}

impl Difference {
    pub(super) fn new(
        key: ObjectKey,
        live: Option<&Value>,
        would_be: &Value,
        conflicts: Vec<Conflict>,
    ) -> Self {
        let Some(live) = live else { return Self { key, new: true, fields: Vec::new(), conflicts } };
        let mut fields = Vec::new();
        compare("", Some(&bare(live)), Some(&bare(would_be)), &mut fields);
        if key.kind == "Secret" && key.group.is_empty() {
            fields.iter_mut().filter(|f| secret(&f.path)).for_each(mask);
        }
        Self { key, new: false, fields, conflicts }
    }

    /// Whether applying changes nothing.
    pub fn is_empty(&self) -> bool {
        !self.new && self.fields.is_empty() && self.conflicts.is_empty()
    }
}

fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            SERVERS.iter().for_each(|key| {
                metadata.remove(*key);
            });
            // The server's own count of rollouts.
            if let Some(notes) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                notes.remove("deployment.kubernetes.io/revision");
            }
        }
    }
    object
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, out: &mut Vec<FieldChange>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                compare(&format!("{path}{}", step(key)), a.get(key), b.get(key), out);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => match (named(a), named(b)) {
            (Some(a), Some(b)) => {
                for (name, one) in &a {
                    compare(&format!("{path}[{name}]"), Some(one), b.get(name), out);
                }
                for (name, one) in b.iter().filter(|(name, _)| !a.contains_key(*name)) {
                    compare(&format!("{path}[{name}]"), None, Some(one), out);
                }
            }
            _ => {
                for index in 0..a.len().max(b.len()) {
                    compare(&format!("{path}[{index}]"), a.get(index), b.get(index), out);
                }
            }
        },
        _ => out.push(FieldChange { path: path.to_owned(), before: before.cloned(), after: after.cloned() }),
    }
}

fn step(key: &str) -> String {
    if key.bytes().all(|b| b.is_ascii_alphanumeric()) { format!(".{key}") } else { format!("[{key:?}]") }
}

/// A list whose items have names that differ, by name.
fn named(list: &[Value]) -> Option<Map<String, Value>> {
    let mut map = Map::new();
    for item in list {
        if map.insert(item["name"].as_str()?.to_owned(), item.clone()).is_some() {
            return None;
        }
    }
    Some(map)
}

fn secret(path: &str) -> bool {
    path.starts_with(".data") || path.starts_with(".stringData")
}

/// Tells that a value changes, and not from what to what.
fn mask(field: &mut FieldChange) {
    if field.before.is_some() {
        field.before = Some("***** (before)".into());
    }
    if field.after.is_some() {
        field.after = Some("***** (after)".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(kind: &str) -> ObjectKey {
        ObjectKey { group: String::new(), kind: kind.into(), namespace: "n".into(), name: "a".into() }
    }

    #[test]
    fn tells_fields_by_name() {
        let live = json!({"metadata": {"uid": "1", "labels": {"a/b": "1"}}, "status": {"x": 1},
            "spec": {"containers": [{"name": "s", "image": "a"}, {"name": "t"}], "args": ["x"]}});
        let next = json!({"metadata": {"uid": "2", "labels": {"a/b": "2"}},
            "spec": {"containers": [{"name": "t"}, {"name": "s", "image": "b"}], "args": ["x", "y"]}});
        let difference = Difference::new(key("Pod"), Some(&live), &next, Vec::new());
        let told: Vec<&str> = difference.fields.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(told, [r#".metadata.labels["a/b"]"#, ".spec.args[1]", ".spec.containers[s].image"]);
        assert!(Difference::new(key("Pod"), Some(&live), &live, Vec::new()).is_empty());
        assert!(!Difference::new(key("Pod"), None, &live, Vec::new()).is_empty());
    }

    #[test]
    fn secrets_are_masked() {
        let live = json!({"data": {"password": "b2xk", "gone": "eA=="}});
        let next = json!({"data": {"password": "bmV3"}});
        let difference = Difference::new(key("Secret"), Some(&live), &next, Vec::new());
        let text = format!("{difference:?}");
        assert!(!text.contains("b2xk") && !text.contains("bmV3") && !text.contains("eA=="), "{text}");
        assert_eq!(difference.fields.len(), 2);
    }
}
