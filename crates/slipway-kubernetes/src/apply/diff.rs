//! What applying an object would change, field by field and as a text.

use serde_json::{Map, Value};
use similar::TextDiff;

use super::error::Conflict;
use crate::export::yaml::to_yaml;
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
    /// It as it is; `None` where it is not there. Without what the server keeps for itself, and secrets are masked.
    pub before: Option<Value>,
    /// It as it would be, likewise; `None` where it would go.
    pub after: Option<Value>,
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
        let secret_one = key.kind == "Secret" && key.group.is_empty();
        let mut fields = Vec::new();
        let (mut before, mut after) = (live.map(bare), Some(bare(would_be)));
        if let (Some(before), Some(after)) = (&before, &after) {
            compare("", Some(before), Some(after), &mut fields);
        }
        if secret_one {
            fields.iter_mut().filter(|f| secret(&f.path)).for_each(mask);
            mask_values(&mut before, &mut after);
        }
        Self { key, new: live.is_none(), fields, conflicts, before, after }
    }

    /// What it is to remove `live`.
    pub(crate) fn removed(key: ObjectKey, live: &Value) -> Self {
        let (mut before, mut after) = (Some(bare(live)), None);
        if key.kind == "Secret" && key.group.is_empty() {
            mask_values(&mut before, &mut after);
        }
        Self { key, new: false, fields: Vec::new(), conflicts: Vec::new(), before, after }
    }

    /// As a unified diff of YAML; empty where nothing changes.
    pub fn unified(&self) -> String {
        let text = |object: &Option<Value>| object.as_ref().map(to_yaml).unwrap_or_default();
        let (before, after) = (text(&self.before), text(&self.after));
        let name = format!("{}/{}", self.key.kind.to_ascii_lowercase(), self.key.name);
        TextDiff::from_lines(&before, &after)
            .unified_diff()
            .header(&format!("{name} (in the cluster)"), &format!("{name} (as declared)"))
            .to_string()
    }

    /// Whether applying changes nothing.
    pub fn is_empty(&self) -> bool {
        self.before == self.after && self.fields.is_empty() && self.conflicts.is_empty()
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

/// The values of a Secret, of which it is told only whether they change.
fn mask_values(before: &mut Option<Value>, after: &mut Option<Value>) {
    const SAME: &str = "*****";
    for section in ["data", "stringData"] {
        let values = |object: &Option<Value>| -> Map<String, Value> {
            object.as_ref().and_then(|object| object[section].as_object()).cloned().unwrap_or_default()
        };
        let (old, new) = (values(before), values(after));
        let sides = [(before.as_mut(), &old, &new, "(before)"), (after.as_mut(), &new, &old, "(after)")];
        for (object, own, other, which) in sides {
            let Some(shown) =
                object.and_then(|object| object.get_mut(section)).and_then(Value::as_object_mut)
            else {
                continue;
            };
            for (key, value) in shown {
                let changes = other.get(key).is_some_and(|other| Some(other) != own.get(key));
                *value = if changes { format!("{SAME} {which}").into() } else { SAME.into() };
            }
        }
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
        let text = difference.unified();
        for line in
            ["-  gone: \"*****\"", "-  password: \"***** (before)\"", "+  password: \"***** (after)\""]
        {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let gone = Difference::removed(key("Secret"), &live);
        let text = format!("{gone:?}{}", gone.unified());
        assert!(
            !text.contains("b2xk") && text.contains("-  password: \"*****\"") && !gone.is_empty(),
            "{text}"
        );
        let made = Difference::new(key("Secret"), None, &next, Vec::new());
        let text = format!("{made:?}{}", made.unified());
        assert!(
            !text.contains("bmV3") && text.contains("+  password: \"*****\"") && !made.is_empty(),
            "{text}"
        );
    }

    #[test]
    fn texts_show_what_changes_and_where() {
        let live = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "uid": "1", "managedFields": []},
            "spec": {"type": "ClusterIP", "ports": [{"port": 80}]}, "status": {"x": 1}});
        let mut next = live.clone();
        assert_eq!(Difference::new(key("Service"), Some(&live), &next, Vec::new()).unified(), "");
        next["spec"]["type"] = "NodePort".into();
        let text = Difference::new(key("Service"), Some(&live), &next, Vec::new()).unified();
        assert!(
            text.starts_with("--- service/a (in the cluster)\n+++ service/a (as declared)\n@@ "),
            "{text}"
        );
        assert!(text.contains("\n-  type: ClusterIP\n+  type: NodePort\n"), "{text}");
        for left_out in ["uid", "managedFields", "status"] {
            assert!(!text.contains(left_out), "{text}");
        }
    }
}
