//! The inventory: an ApplySet, by which what was applied once and is wanted no more is found again. Each owner, which is
//! one daemon by its state folder, has one of its own in a namespace.

use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::{Value, json};

use super::{OWNER_LABEL, RenderError, namespace};
use crate::names::{digest, short_hash};
use crate::object::{Object, ObjectKey};
use crate::validate;

/// Label of every member of a set.
pub(crate) const PART_OF_LABEL: &str = "applyset.kubernetes.io/part-of";
/// Label of the parent of a set.
const ID_LABEL: &str = "applyset.kubernetes.io/id";
/// Annotation of the parent with the kinds that the set may hold.
pub(crate) const KINDS_ANNOTATION: &str = "applyset.kubernetes.io/contains-group-kinds";
const TOOLING_ANNOTATION: &str = "applyset.kubernetes.io/tooling";
/// Beginning of the name of the ConfigMap that is the parent.
const PARENT: &str = "slipway-inventory";

/// Kinds that pods refer to, which may not vanish before them.
const LAST: [&str; 4] = ["ConfigMap", "Secret", "ServiceAccount", "ResourceClaimTemplate"];
/// Holds data: it goes when its run is deleted by name, never because something is wanted no more.
const KEPT: &str = "PersistentVolumeClaim";

/// An object to delete, and only if it still is the one that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// What identifies it.
    pub key: ObjectKey,
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its UID, the precondition of the deletion: another object may have its name by then.
    pub uid: String,
}

/// What one owner keeps in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplySet {
    namespace: String,
    owner: String,
    parent: String,
    id: String,
}

impl ApplySet {
    /// The set of an owner in a namespace. The owner is an id that never changes, of letters and digits.
    pub fn new(in_namespace: &str, owner: &str) -> Result<Self, RenderError> {
        namespace(in_namespace)?;
        if owner.is_empty() {
            let reason = "an id is needed, by which its objects are told from those of others".to_owned();
            return Err(RenderError::Contradiction { what: "owner", reason });
        }
        validate::label_value(owner).map_err(|source| RenderError::Invalid { what: "owner", source })?;
        let parent = format!("{PARENT}-{}", short_hash(owner.as_bytes()));
        // KEP-3659: name, namespace, kind and group of the parent; the group of a ConfigMap is empty.
        let digest = digest(format!("{parent}.{in_namespace}.ConfigMap.").as_bytes());
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest);
        Ok(Self {
            namespace: in_namespace.to_owned(),
            owner: owner.to_owned(),
            parent,
            id: format!("applyset-{text}-v1"),
        })
    }

    /// Whose it is.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Name of the parent.
    pub fn parent_name(&self) -> &str {
        &self.parent
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Marks objects as members, and what the cluster makes from them as the owner's.
    pub fn adopt(&self, objects: &mut [Object]) {
        for object in objects {
            let json = object.json_mut();
            json["metadata"]["labels"][PART_OF_LABEL] = self.id.as_str().into();
            json["metadata"]["labels"][OWNER_LABEL] = self.owner.as_str().into();
            if let Some(spec) = json.get_mut("spec") {
                label_templates(spec, &self.owner);
            }
        }
    }

    /// Whether an object that the cluster has is a member.
    pub fn has(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        labels[PART_OF_LABEL] == self.id.as_str() && labels[OWNER_LABEL] == self.owner.as_str()
    }

    /// What of `live`, the objects that the cluster has, is to be deleted: members that are wanted no more. What is no
    /// member, has no UID, holds data, or is being deleted already is left alone. In the order in which it is deleted: what others
    /// refer to goes last.
    pub fn prune(&self, live: &[Value], wanted: &[Object]) -> Vec<Doomed> {
        self.prune_all_but(live, &wanted.iter().map(Object::key).collect())
    }

    /// The same, by the keys of what is wanted.
    pub fn prune_all_but<'a>(
        &self,
        live: impl IntoIterator<Item = &'a Value>,
        wanted: &BTreeSet<ObjectKey>,
    ) -> Vec<Doomed> {
        let mut doomed: Vec<Doomed> = live
            .into_iter()
            .filter(|object| self.has(object) && object["metadata"]["deletionTimestamp"].is_null())
            .filter_map(|object| {
                let uid = object["metadata"]["uid"].as_str()?.to_owned();
                let object = Object::new("", object.clone());
                let key = object.key();
                let ours = key.namespace == self.namespace && key.kind != KEPT && !wanted.contains(&key);
                ours.then(|| Doomed { api_version: object.api_version().to_owned(), key, uid })
            })
            .collect();
        doomed.sort_by_key(|one| (LAST.contains(&one.key.kind.as_str()), one.key.clone()));
        doomed
    }

    /// The parent: it tells which kinds to look through, so it must name those that are there and those that will be.
    pub fn parent<'a>(&self, keys: impl IntoIterator<Item = &'a ObjectKey>) -> Object {
        let kinds: BTreeSet<String> = keys
            .into_iter()
            .map(|key| match key.group.as_str() {
                "" => key.kind.clone(),
                group => format!("{}.{group}", key.kind),
            })
            .collect();
        let kinds: Vec<String> = kinds.into_iter().collect();
        Object::new(
            "The inventory of what one daemon of Slipway keeps in this namespace.",
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": self.parent,
                    "namespace": self.namespace,
                    "labels": {
                        ID_LABEL: self.id,
                        OWNER_LABEL: self.owner,
                        "app.kubernetes.io/managed-by": "slipway",
                    },
                    "annotations": {
                        TOOLING_ANNOTATION: concat!("slipway/v", env!("CARGO_PKG_VERSION")),
                        KINDS_ANNOTATION: kinds.join(","),
                    },
                },
            }),
        )
    }
}

/// Templates of pods, and of Jobs that have templates of pods.
fn label_templates(spec: &mut Value, owner: &str) {
    match spec {
        Value::Object(fields) => {
            for (key, field) in fields {
                if key == "template" && field.is_object() {
                    field["metadata"]["labels"][OWNER_LABEL] = owner.into();
                }
                label_templates(field, owner);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| label_templates(item, owner)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::{check_object, label_value};

    #[test]
    fn members_and_parent_know_each_other() {
        let set = ApplySet::new("team-a", "one").unwrap();
        assert!(label_value(set.id()).is_ok() && set.id() != ApplySet::new("team-b", "one").unwrap().id());
        assert!(ApplySet::new("Team", "one").is_err());
        assert!(ApplySet::new("team-a", "").is_err() && ApplySet::new("team-a", "of both").is_err());
        let mut objects = [Object::new(
            "x",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "team-a"}}),
        )];
        assert!(!set.has(objects[0].json()));
        set.adopt(&mut objects);
        assert!(set.has(objects[0].json()));
        let keys = [objects[0].key(), objects[0].key()];
        let parent = set.parent(&keys);
        assert_eq!(parent.json()["metadata"]["annotations"][KINDS_ANNOTATION], "Deployment.apps");
        assert!(check_object(parent.json()).is_empty());
    }

    #[test]
    fn owners_share_nothing() {
        let [one, two] = ["one", "two"].map(|owner| ApplySet::new("team-a", owner).unwrap());
        assert!(one.id() != two.id() && one.parent_name() != two.parent_name());
        let mut objects = [Object::new(
            "x",
            json!({"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {"name": "a", "namespace": "team-a"},
                "spec": {"replicatedJobs": [{"template": {"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}}]}}),
        )];
        one.adopt(&mut objects);
        let job = &objects[0].json()["spec"]["replicatedJobs"][0]["template"];
        assert_eq!(job["metadata"]["labels"][OWNER_LABEL], "one");
        assert_eq!(job["spec"]["template"]["metadata"]["labels"], json!({"a": "b", OWNER_LABEL: "one"}));
        let mut live = objects[0].json().clone();
        live["metadata"]["uid"] = "1".into();
        assert!(one.has(&live) && !two.has(&live));
        assert_eq!(two.prune(std::slice::from_ref(&live), &[]), []);
        assert_eq!(one.prune(&[live], &[]).len(), 1);
    }

    #[test]
    fn prunes_members_only_and_by_uid() {
        let set = ApplySet::new("team-a", "one").unwrap();
        let object = |kind: &str, name: &str, uid: &str| {
            let mut one = [Object::new(
                "x",
                json!({"apiVersion": "v1", "kind": kind,
                    "metadata": {"name": name, "namespace": "team-a", "uid": uid}}),
            )];
            set.adopt(&mut one);
            let [one] = one;
            one
        };
        let wanted = [object("Service", "kept", "1")];
        let mut stranger = object("Service", "stranger", "2").json().clone();
        stranger["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "slipway"});
        let mut going = object("Service", "going", "3").json().clone();
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let mut elsewhere = object("Service", "elsewhere", "4").json().clone();
        elsewhere["metadata"]["namespace"] = "team-b".into();
        let mut nameless = object("Service", "no-uid", "5").json().clone();
        nameless["metadata"]["uid"] = Value::Null;
        let live = [
            wanted[0].json().clone(),
            stranger,
            going,
            elsewhere,
            nameless,
            object("PersistentVolumeClaim", "checkpoints", "8").json().clone(),
            object("ConfigMap", "old", "6").json().clone(),
            object("Service", "old", "7").json().clone(),
        ];
        let doomed = set.prune(&live, &wanted);
        let told: Vec<(&str, &str)> = doomed.iter().map(|d| (d.key.kind.as_str(), d.uid.as_str())).collect();
        assert_eq!(told, [("Service", "7"), ("ConfigMap", "6")]);
    }
}
