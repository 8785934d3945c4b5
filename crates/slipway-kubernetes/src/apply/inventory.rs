//! What of ours a namespace has, and the removal of what is wanted no more.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;

use super::{Applier, ApplyError, ApplyOptions};
use crate::client::{Dependents, DiscoverError, Selection};
use crate::object::{Object, ObjectKey};
use crate::render::inventory::{ApplySet, Doomed, KINDS_ANNOTATION, PART_OF_LABEL};

/// How often, and with which pauses, it is looked whether deleted objects are gone.
const GOING_LOOKS: u32 = 40;
const GOING_PAUSE: Duration = Duration::from_millis(250);

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Objects that were deleted.
    pub deleted: Vec<ObjectKey>,
}

/// The inventory of one owner in one namespace.
pub struct Inventory {
    applier: Applier,
    set: ApplySet,
    /// Kinds that the parent names as far as we know; held while it is written, so that no kind is lost between two.
    kinds: Mutex<Option<BTreeSet<(String, String)>>>,
}

impl Inventory {
    /// The inventory of the applier's owner in the cluster's chosen namespace.
    pub fn new(applier: Applier) -> Result<Self, ApplyError> {
        let set = ApplySet::new(applier.cluster().namespace(), applier.owner())?;
        Ok(Self { applier, set, kinds: Mutex::new(None) })
    }

    /// The set.
    pub fn set(&self) -> &ApplySet {
        &self.set
    }

    fn namespace(&self) -> &str {
        self.applier.cluster().namespace()
    }

    /// Makes objects members, and has the parent name their kinds before any of them is applied: what dies in between is
    /// found again.
    pub async fn adopt(&self, objects: &mut [Object]) -> Result<(), ApplyError> {
        self.set.adopt(objects);
        let wanted: BTreeSet<(String, String)> = objects.iter().map(|o| kind(&o.key())).collect();
        let mut known = self.kinds.lock().await;
        // It may have gone with its namespace, so what was known is not believed.
        let mut all = self.recorded().await?;
        if wanted.is_subset(&all) {
            *known = Some(all);
            return Ok(());
        }
        all.extend(wanted);
        self.write(&all).await?;
        *known = Some(all);
        Ok(())
    }

    /// Writes the parent again, which somebody deleted. Nothing happens where none was written.
    pub(crate) async fn restore(&self) -> Result<(), ApplyError> {
        match &*self.kinds.lock().await {
            Some(known) => self.write(known).await,
            None => Ok(()),
        }
    }

    async fn write(&self, kinds: &BTreeSet<(String, String)>) -> Result<(), ApplyError> {
        let keys: Vec<ObjectKey> = kinds.iter().map(|(group, kind)| self.key_of(group, kind)).collect();
        let options = ApplyOptions { force: true, ..ApplyOptions::default() };
        self.applier.apply(&self.set.parent(&keys), options).await?;
        Ok(())
    }

    fn key_of(&self, group: &str, kind: &str) -> ObjectKey {
        ObjectKey {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: self.namespace().to_owned(),
            name: String::new(),
        }
    }

    /// Kinds that the parent names, as group and kind.
    async fn recorded(&self) -> Result<BTreeSet<(String, String)>, ApplyError> {
        let resource = self.applier.discovery().resource("v1", "ConfigMap").await?;
        let parent = self
            .applier
            .cluster()
            .get_metadata(&resource, self.namespace(), self.set.parent_name())
            .await
            .map_err(|source| self.failed(source))?;
        let text = parent
            .as_ref()
            .and_then(|parent| parent["metadata"]["annotations"][KINDS_ANNOTATION].as_str())
            .unwrap_or_default();
        let kinds = text.split(',').filter(|kind| !kind.is_empty());
        Ok(kinds
            .map(|one| match one.split_once('.') {
                Some((kind, group)) => (group.to_owned(), kind.to_owned()),
                None => (String::new(), one.to_owned()),
            })
            .collect())
    }

    fn failed(&self, source: crate::client::ApiError) -> ApplyError {
        ApplyError::Inventory { namespace: self.namespace().to_owned(), source }
    }

    /// Metadata of all members, or of those with a label more, of the kinds that the parent names.
    pub async fn members(&self, label: Option<(&str, &str)>) -> Result<Vec<Value>, ApplyError> {
        let mut selector = format!("{PART_OF_LABEL}={}", self.set.id());
        if let Some((key, value)) = label {
            selector.push_str(&format!(",{key}={value}"));
        }
        let selection = Selection { metadata_only: true, ..Selection::labelled(selector) };
        let mut members = Vec::new();
        for (group, kind) in self.recorded().await? {
            let resource = match self.applier.discovery().resource_of_group(&group, &kind).await {
                Ok(resource) => resource,
                // Whatever defined the kind was removed, and its objects with it.
                Err(DiscoverError::NoKind { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let listed = self.applier.cluster().list(&resource, self.namespace(), &selection).await;
            members.extend(listed.map_err(|source| self.failed(source))?.items);
        }
        Ok(members)
    }

    /// Deletes those of `live` that are members and not wanted, each only if it still is the one that was seen.
    pub async fn prune(&self, live: &[Value], wanted: &[Object]) -> Result<Pruned, ApplyError> {
        let mut pruned = Pruned::default();
        for doomed in self.set.prune(live, wanted) {
            if self.delete(&doomed).await? {
                pruned.deleted.push(doomed.key);
            }
        }
        Ok(pruned)
    }

    /// Deletes members with a label, claims with their data included.
    pub async fn remove_all(&self, label: (&str, &str)) -> Result<Pruned, ApplyError> {
        let live = self.members(Some(label)).await?;
        let mut pruned = self.prune(&live, &[]).await?;
        for claim in live.iter().filter(|one| one["kind"] == "PersistentVolumeClaim" && self.set.has(one)) {
            let key = Object::new("", claim.clone()).key();
            let uid = claim["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            let doomed = Doomed { key, api_version: "v1".to_owned(), uid };
            if self.delete(&doomed).await? {
                pruned.deleted.push(doomed.key);
            }
        }
        Ok(pruned)
    }

    /// Deletes all members but claims, and the parent once they are gone.
    pub async fn remove_everything(&self) -> Result<(), ApplyError> {
        let live = self.members(None).await?;
        self.prune(&live, &[]).await?;
        for _ in 0..GOING_LOOKS {
            if self.remove_if_empty().await? || self.recorded().await?.is_empty() {
                break;
            }
            tokio::time::sleep(GOING_PAUSE).await;
        }
        Ok(())
    }

    /// Deletes one object. `false`: it was gone.
    pub(crate) async fn delete(&self, doomed: &Doomed) -> Result<bool, ApplyError> {
        let resource = self.applier.discovery().resource(&doomed.api_version, &doomed.key.kind).await?;
        self.applier
            .cluster()
            .delete(&resource, &doomed.key.namespace, &doomed.key.name, &doomed.uid, Dependents::Background)
            .await
            .map_err(|source| self.failed(source))
    }

    /// Removes the parent when the set has no member left.
    pub async fn remove_if_empty(&self) -> Result<bool, ApplyError> {
        let mut known = self.kinds.lock().await;
        if !self.members(None).await?.is_empty() {
            return Ok(false);
        }
        let resource = self.applier.discovery().resource("v1", "ConfigMap").await?;
        let cluster = self.applier.cluster();
        let parent = cluster
            .get_metadata(&resource, self.namespace(), self.set.parent_name())
            .await
            .map_err(|source| self.failed(source))?;
        let Some(uid) = parent.as_ref().and_then(|parent| parent["metadata"]["uid"].as_str()) else {
            return Ok(false);
        };
        *known = None;
        cluster
            .delete(&resource, self.namespace(), self.set.parent_name(), uid, Dependents::Background)
            .await
            .map_err(|source| self.failed(source))
    }
}

fn kind(key: &ObjectKey) -> (String, String) {
    (key.group.clone(), key.kind.clone())
}
