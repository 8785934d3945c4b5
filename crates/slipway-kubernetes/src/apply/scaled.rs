//! Deployments whose pods somebody else counts.

use std::borrow::Cow;

use serde_json::Value;

use super::{Applier, ApplyError, Conflict};
use crate::client::{Resource, Selection};
use crate::object::Object;

const REPLICAS: &str = ".spec.replicas";
/// Who scales by hand. An autoscaler has the name of the program that it is part of: `kube-controller-manager`, `k3s`.
const BY_HAND: &str = "kubectl";

impl Applier {
    /// Applies an object, and gives the answer with the autoscaler to which the number of pods is left: two who set it
    /// would undo each other's work. Only a field that another owns is left out, so that none is lost by it.
    ///
    /// An object that says nothing of the number is sent with the one that `live` has: given up by its last owner, a number
    /// becomes 1. A number that an autoscaler left, which is gone, is nobody's, and is taken.
    pub(super) async fn patch(
        &self,
        resource: &Resource,
        object: &Object,
        live: Option<&Value>,
        force: bool,
        dry_run: bool,
    ) -> Result<(Value, Option<String>), ApplyError> {
        let kept = self.kept_number(object, live).await?;
        let mut json = Cow::Borrowed(object.json());
        if let Some(kept) = &kept {
            json.to_mut()["spec"]["replicas"] = kept.clone();
        }
        let send = async |json: &Value, force| {
            let answer = self.cluster().apply(resource, json, &self.manager, force, dry_run).await;
            answer.map_err(|source| ApplyError::api(object, source))
        };
        let error = match send(&json, force).await {
            Ok(answer) => return Ok((answer, None)),
            Err(error) => error,
        };
        let ApplyError::Conflict { conflicts, .. } = &error else { return Err(error) };
        if !conflicts.iter().any(is_number) {
            return Err(error);
        }
        let scaler = if kept.is_some() { None } else { self.scaler_of(object).await };
        if kept.is_none() && scaler.is_none() {
            let left = conflicts.iter().all(|one| is_number(one) && one.scaled && one.owner != BY_HAND);
            return if left { Ok((send(&json, true).await?, None)) } else { Err(error) };
        }
        if let Some(spec) = json.to_mut()["spec"].as_object_mut() {
            spec.remove("replicas");
        }
        Ok((send(&json, force).await?, scaler))
    }

    /// The number of pods of a Deployment that is there, where `object` says none.
    async fn kept_number(&self, object: &Object, live: Option<&Value>) -> Result<Option<Value>, ApplyError> {
        let Some(live) =
            live.filter(|_| object.kind() == "Deployment" && object.json()["spec"]["replicas"].is_null())
        else {
            return Ok(None);
        };
        // Of some only the metadata is known.
        let whole = if live["spec"].is_null() { self.live(object, true).await? } else { None };
        Ok(whole.as_ref().unwrap_or(live).pointer("/spec/replicas").cloned())
    }

    /// The autoscaler of an object, whoever made it. Where none can be listed, there is none: the conflict is told.
    async fn scaler_of(&self, object: &Object) -> Option<String> {
        let resource =
            Resource::well_known("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers");
        let listed = self.cluster().list(&resource, object.namespace(), &Selection::default()).await.ok()?;
        listed.items.iter().find_map(|one| {
            let target = &one["spec"]["scaleTargetRef"];
            (target["kind"] == object.kind() && target["name"] == object.name())
                .then(|| one["metadata"]["name"].as_str().unwrap_or_default().to_owned())
        })
    }
}

fn is_number(conflict: &Conflict) -> bool {
    conflict.field == REPLICAS
}
