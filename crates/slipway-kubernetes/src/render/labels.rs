//! Names, labels and annotations of all objects that belong to one thing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{RenderError, map};
use crate::names::{self, NAME_ANNOTATION};
use crate::spec::{GatewayDeployment, ServiceDeployment, TrainingRun, Workload};

/// Label of pods and objects of a service: its mapped name.
pub const SERVICE_LABEL: &str = "slipway.dev/service";
/// Label of pods of a gateway: its name.
pub const GATEWAY_LABEL: &str = "slipway.dev/gateway";
/// Label of pods and objects of a run: its mapped id.
pub const RUN_LABEL: &str = "slipway.dev/run";
/// Label of pods of a run: the attempt.
pub const ATTEMPT_LABEL: &str = "slipway.dev/attempt";
/// Label of everything that a daemon keeps in a cluster, pods included: the daemon's id. What is only exported has none.
pub const OWNER_LABEL: &str = "slipway.dev/owner";
/// Label of pods of a service: the revision.
pub const REVISION_LABEL: &str = "slipway.dev/revision";
/// Label of pods of a service: the version of the model.
pub const VERSION_LABEL: &str = "app.kubernetes.io/version";
/// Annotation of the Service before a service's pods: what the gateway must know to route to them, as JSON.
pub const ROUTE_ANNOTATION: &str = "slipway.dev/route";

/// The labels that tools show.
const STANDARD: &str = "app.kubernetes.io";

/// What the objects of one service, run or gateway share.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Name of the objects.
    pub name: String,
    /// Name as the user wrote it.
    pub original: String,
    /// Namespace.
    pub namespace: String,
    /// Name of the Service before the pods, where `name` is taken by another.
    pub pods: String,
    /// Name of accounts, policies and claims. A run's are not called as the run: a service may be called so.
    pub own: String,
    /// What names of further objects are hashed with, beside the original name.
    scope: String,
    /// Labels by which pods are found; they never change.
    pub selector: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    /// Labels of pods only.
    pub pod_labels: BTreeMap<String, String>,
}

impl Identity {
    pub(super) fn service(spec: &ServiceDeployment) -> Result<Self, RenderError> {
        let original = &spec.spec.name;
        let name = map(original)?;
        let mut id = Self::new(original, name.clone(), &spec.namespace, "serving", "pods")?;
        id.selector.insert(SERVICE_LABEL.into(), name);
        id.pod_labels.insert(REVISION_LABEL.into(), spec.revision.to_string());
        if let Workload::Model { .. } = spec.workload {
            id.labels.insert(format!("{STANDARD}/part-of"), map(&spec.spec.model)?);
            id.pod_labels.insert(VERSION_LABEL.into(), spec.spec.version.to_string());
        }
        Ok(id)
    }

    pub(super) fn gateway(gateway: &GatewayDeployment) -> Result<Self, RenderError> {
        let name = map(&gateway.name)?;
        let mut id = Self::new(&gateway.name, name.clone(), &gateway.namespace, "gateway", "pods")?;
        id.selector.insert(GATEWAY_LABEL.into(), name);
        Ok(id)
    }

    pub(super) fn run(run: &TrainingRun) -> Result<Self, RenderError> {
        let name = run.name().map_err(|source| RenderError::Name { original: run.run.clone(), source })?;
        let mut id = Self::new(&run.run, name.clone(), &run.namespace, "training", "ranks")?;
        if let Some(owner) = &run.owner {
            id.scope = format!("training\0{owner}");
            id.pods = id.derived("ranks", &[])?;
        }
        id.own.clone_from(&id.pods);
        id.selector.insert(RUN_LABEL.into(), name);
        id.labels.insert(format!("{STANDARD}/part-of"), map(&run.project)?);
        id.pod_labels.insert(ATTEMPT_LABEL.into(), run.attempt.to_string());
        Ok(id)
    }

    fn new(
        original: &str,
        name: String,
        namespace: &str,
        component: &'static str,
        role: &str,
    ) -> Result<Self, RenderError> {
        let labels = BTreeMap::from([
            (format!("{STANDARD}/name"), name.clone()),
            (format!("{STANDARD}/component"), component.to_owned()),
            (format!("{STANDARD}/managed-by"), "slipway".to_owned()),
        ]);
        let mut id = Self {
            pods: String::new(),
            own: name.clone(),
            scope: component.to_owned(),
            name,
            original: original.to_owned(),
            namespace: namespace.to_owned(),
            selector: BTreeMap::new(),
            labels,
            pod_labels: BTreeMap::new(),
        };
        id.pods = id.derived(role, &[])?;
        Ok(id)
    }

    /// Name of another object of the same thing, which changes with its content.
    pub(super) fn derived(&self, role: &str, content: &[u8]) -> Result<String, RenderError> {
        names::derived(&self.scope, &self.original, role, content)
            .map_err(|source| RenderError::Name { original: self.original.clone(), source })
    }

    /// Labels of objects.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut all = self.labels.clone();
        all.extend(self.selector.clone());
        all
    }

    /// Metadata of an object called as the thing itself.
    pub(super) fn metadata(&self) -> Value {
        self.metadata_as(&self.name)
    }

    /// Metadata of an object with another name.
    pub(super) fn metadata_as(&self, name: &str) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(),
            "annotations": {NAME_ANNOTATION: self.original},
        })
    }

    /// Metadata of pods.
    pub(super) fn pod_metadata(&self) -> Value {
        let mut labels = self.labels();
        labels.extend(self.pod_labels.clone());
        json!({ "labels": labels, "annotations": {NAME_ANNOTATION: self.original} })
    }
}
