//! Pods that wait for an image which the registry has again.

use serde_json::Value;

use crate::apply::{Applier, ApplyError};
use crate::client::{Dependents, Resource};
use crate::object::Object;
use crate::reason::{self, ReasonKind};
use crate::render::REVISION_LABEL;

/// Deletes pods of a revision whose image could not be pulled: their Deployment makes others, which ask for it at once,
/// where a kubelet waits for minutes. `pods` are those of the service, each with the events about it.
pub(super) async fn renew(
    applier: &Applier,
    revision: u64,
    pods: &[(&Value, Vec<&Value>)],
) -> Result<(), ApplyError> {
    let revision = revision.to_string();
    let resource = Resource::well_known("", "v1", "Pod", "pods");
    for (pod, events) in pods {
        let waits = reason::pod(pod, events).is_some_and(|reason| reason.kind == ReasonKind::Image);
        let metadata = &pod["metadata"];
        let (name, uid) = (metadata["name"].as_str(), metadata["uid"].as_str());
        let (true, Some(name), Some(uid)) = (waits, name, uid) else { continue };
        if metadata["labels"][REVISION_LABEL] != revision.as_str() {
            continue;
        }
        let cluster = applier.cluster();
        let deleted = cluster.delete(&resource, cluster.namespace(), name, uid, Dependents::Background).await;
        deleted.map_err(|source| ApplyError::api(&Object::new("", (*pod).clone()), source))?;
    }
    Ok(())
}
