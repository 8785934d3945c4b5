//! Sends objects: server-side apply under one field manager per daemon, which never takes what others own unless told to.

mod diff;
mod error;
mod inventory;
mod scaled;

use std::sync::Arc;

use serde_json::Value;

use crate::client::{Cluster, Discovery, FIELD_MANAGER};
use crate::names::short_hash;
use crate::object::{Object, ObjectKey};

pub use diff::{Difference, FieldChange};
pub(crate) use error::chain;
pub use error::{ApplyError, Conflict};
pub use inventory::{Inventory, Pruned};

/// How objects are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Whether fields that others own become ours. Only when a user asked for it after they saw whose they are.
    pub force: bool,
    /// Whether it is only tried.
    pub dry_run: DryRun,
}

/// Whether, and where, an application is only tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DryRun {
    /// It is done.
    #[default]
    No,
    /// Here: the objects are rendered and checked, and nothing is sent.
    Client,
    /// By the server: admission, quotas and owners are checked, and nothing is kept.
    Server,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Created,
    /// It is another than before.
    Changed,
    /// It was as it shall be.
    Unchanged,
    /// Nothing was sent.
    NotSent,
}

/// An object that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What identifies it.
    pub key: ObjectKey,
    /// What became of it.
    pub change: Change,
    /// Which one it is, and in which state.
    pub mark: Mark,
    /// The HorizontalPodAutoscaler that decides how many pods it has.
    pub scaled_by: Option<String>,
}

/// By this it is told whether somebody else changed an object since: its UID and its generation, or its version where
/// the server counts no generations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// UID.
    pub uid: String,
    /// Generation or version.
    pub state: String,
}

impl Mark {
    /// The mark of an object of the cluster, or of its metadata.
    pub fn of(live: &Value) -> Self {
        let metadata = &live["metadata"];
        let state = match metadata["generation"].as_i64() {
            Some(generation) => format!("g{generation}"),
            None => metadata["resourceVersion"].as_str().unwrap_or_default().to_owned(),
        };
        Self { uid: metadata["uid"].as_str().unwrap_or_default().to_owned(), state }
    }
}

/// Applies objects to one cluster for one owner.
#[derive(Clone)]
pub struct Applier {
    cluster: Cluster,
    discovery: Arc<Discovery>,
    owner: Arc<str>,
    manager: Arc<str>,
}

impl Applier {
    /// For this cluster and owner. Its field manager is its own, so that of two daemons which make one object at the
    /// same moment the server refuses the second.
    pub fn new(cluster: Cluster, discovery: Arc<Discovery>, owner: &str) -> Self {
        let manager = format!("{FIELD_MANAGER}-{}", short_hash(owner.as_bytes())).into();
        Self { cluster, discovery, owner: owner.into(), manager }
    }

    /// Whose objects it applies.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What it serves.
    pub fn discovery(&self) -> &Arc<Discovery> {
        &self.discovery
    }

    /// Applies objects in their order, and stops at the first that fails.
    pub async fn apply_all(
        &self,
        objects: &[Object],
        options: ApplyOptions,
    ) -> Result<Vec<Applied>, ApplyError> {
        let mut applied = Vec::with_capacity(objects.len());
        for object in objects {
            applied.push(self.apply(object, options).await?);
        }
        Ok(applied)
    }

    /// Applies one object, unless another name has it.
    pub async fn apply(&self, object: &Object, options: ApplyOptions) -> Result<Applied, ApplyError> {
        check(object)?;
        if options.dry_run == DryRun::Client {
            return Ok(Applied {
                key: object.key(),
                change: Change::NotSent,
                mark: Mark::default(),
                scaled_by: None,
            });
        }
        let live = self.live(object, options.dry_run == DryRun::Server).await?;
        self.send(object, live.as_ref(), options).await
    }

    /// What the cluster has under an object's name, if this object may be applied over it. `known` is that, where it
    /// is known already: one request less.
    pub(crate) async fn base(
        &self,
        object: &Object,
        known: Option<&Value>,
    ) -> Result<Option<Value>, ApplyError> {
        check(object)?;
        let live = match known {
            Some(known) => Some(known.clone()),
            None => self.live(object, false).await?,
        };
        free(object, live.as_ref())?;
        Ok(live)
    }

    /// Applies an object over what [`Applier::base`] gave.
    pub(crate) async fn send(
        &self,
        object: &Object,
        live: Option<&Value>,
        options: ApplyOptions,
    ) -> Result<Applied, ApplyError> {
        free(object, live)?;
        let resource = self.discovery.resource(object.api_version(), object.kind()).await?;
        let dry_run = options.dry_run == DryRun::Server;
        let (answer, scaled_by) = self.patch(&resource, object, live, options.force, dry_run).await?;
        let change = match live {
            None => Change::Created,
            // A dry run keeps the version; only what the objects hold tells.
            Some(live) if dry_run => {
                let difference = Difference::new(object.key(), Some(live), &answer, Vec::new());
                if difference.is_empty() { Change::Unchanged } else { Change::Changed }
            }
            Some(live) if live["metadata"]["resourceVersion"] == answer["metadata"]["resourceVersion"] => {
                Change::Unchanged
            }
            Some(_) => Change::Changed,
        };
        Ok(Applied { key: object.key(), change, mark: Mark::of(&answer), scaled_by })
    }

    pub(crate) async fn live(&self, object: &Object, whole: bool) -> Result<Option<Value>, ApplyError> {
        let resource = self.discovery.resource(object.api_version(), object.kind()).await?;
        let (namespace, name) = (object.namespace(), object.name());
        let found = if whole {
            self.cluster.get_object(&resource, namespace, name).await
        } else {
            self.cluster.get_metadata(&resource, namespace, name).await
        };
        found.map_err(|source| ApplyError::api(object, source))
    }

    /// What applying would change: the server is asked, and keeps nothing. Fields that are not ours show nowhere, and
    /// secrets are masked.
    pub async fn diff(&self, object: &Object) -> Result<Difference, ApplyError> {
        check(object)?;
        let resource = self.discovery.resource(object.api_version(), object.kind()).await?;
        let live = self.live(object, true).await?;
        if let Some(owner) = live.as_ref().and_then(|live| object.taken_by(live)) {
            return Err(ApplyError::taken(object, owner));
        }
        let (would_be, conflicts) = match self.patch(&resource, object, live.as_ref(), false, true).await {
            Ok((answer, _)) => (answer, Vec::new()),
            Err(ApplyError::Conflict { conflicts, .. }) => {
                (self.patch(&resource, object, live.as_ref(), true, true).await?.0, conflicts)
            }
            Err(other) => return Err(other),
        };
        Ok(Difference::new(object.key(), live.as_ref(), &would_be, conflicts))
    }
}

/// Whether an object may be applied over what is there.
fn free(object: &Object, live: Option<&Value>) -> Result<(), ApplyError> {
    let Some(live) = live else { return Ok(()) };
    if let Some(owner) = object.taken_by(live) {
        return Err(ApplyError::taken(object, owner));
    }
    if !live["metadata"]["deletionTimestamp"].is_null() {
        return Err(ApplyError::Ending { kind: object.kind().to_owned(), name: object.name().to_owned() });
    }
    Ok(())
}

fn check(object: &Object) -> Result<(), ApplyError> {
    match crate::validate::check_object(object.json()).into_iter().next() {
        None => Ok(()),
        Some(wrong) => Err(ApplyError::Wrong {
            kind: object.kind().to_owned(),
            name: object.name().to_owned(),
            message: wrong.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn marks_ignore_status_where_generations_are_counted() {
        let object = |generation: Value, version: &str| json!({"metadata": {"uid": "u", "generation": generation, "resourceVersion": version}});
        assert_eq!(Mark::of(&object(json!(2), "10")), Mark::of(&object(json!(2), "11")));
        assert_ne!(Mark::of(&object(json!(2), "10")), Mark::of(&object(json!(3), "11")));
        assert_ne!(Mark::of(&object(Value::Null, "10")), Mark::of(&object(Value::Null, "11")));
    }
}
