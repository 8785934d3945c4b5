//! Deployments whose pods somebody else counts.

use serde_json::Value;

use super::{Applier, ApplyError};
use crate::client::{Resource, Selection};
use crate::object::Object;

const REPLICAS: &str = ".spec.replicas";

impl Applier {
    /// Applies an object, and gives the answer with the autoscaler to which the number of pods is left: two who set it
    /// would undo each other's work. Only a field that another owns is left out, so that none is lost by it.
    pub(super) async fn patch(
        &self,
        resource: &Resource,
        object: &Object,
        force: bool,
        dry_run: bool,
    ) -> Result<(Value, Option<String>), ApplyError> {
        let (cluster, manager) = (self.cluster(), &self.manager);
        let error = match cluster.apply(resource, object.json(), manager, force, dry_run).await {
            Ok(answer) => return Ok((answer, None)),
            Err(source) => ApplyError::api(object, source),
        };
        let counted = match &error {
            ApplyError::Conflict { conflicts, .. } => conflicts.iter().any(|one| one.field == REPLICAS),
            _ => false,
        };
        let scaler = if counted { self.scaler_of(object).await } else { None };
        let Some(scaler) = scaler else { return Err(error) };
        let mut rest = object.json().clone();
        if let Some(spec) = rest["spec"].as_object_mut() {
            spec.remove("replicas");
        }
        let answer = cluster.apply(resource, &rest, manager, force, dry_run).await;
        Ok((answer.map_err(|source| ApplyError::api(object, source))?, Some(scaler)))
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
