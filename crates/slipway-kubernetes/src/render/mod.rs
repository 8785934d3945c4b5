//! From specifications to objects. One file a concern; the functions here put them together.
//!
//! The order of the objects is the order in which they are applied: what others refer to comes first.

mod autoscaling;
mod collector;
mod config;
mod deployment;
mod disruption;
mod gateway;
mod image;
pub mod inventory;
mod labels;
mod network_policy;
mod pod;
pub mod rbac;
mod resources;
mod route;
mod service;
mod training;
mod volumes;

use slipway_types::Reference;

use crate::Capabilities;
use crate::names::{self, NameError};
use crate::object::Object;
use crate::spec::{GatewayDeployment, ServiceDeployment, TrainingRun, Workload};
use crate::validate::{self, Invalid};

pub use collector::COLLECTOR_LABEL;
pub use deployment::SERVER;
pub use gateway::GATEWAY_PORT;
pub use labels::{
    ATTEMPT_LABEL, GATEWAY_LABEL, OWNER_LABEL, REVISION_LABEL, ROUTE_ANNOTATION, RUN_LABEL, SERVICE_LABEL,
    VERSION_LABEL,
};
pub use pod::HTTP_PORT;
pub(crate) use training::job_of;
pub use training::{METRICS_FILE, MODEL_FOLDER, MPI_TOKEN, rank_output};

/// What a specification is in a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered {
    /// Objects, in the order in which they are applied.
    pub objects: Vec<Object>,
    /// What the cluster cannot give although it was asked for, in a sentence each.
    pub warnings: Vec<String>,
}

impl Rendered {
    fn add(&mut self, why: impl Into<String>, mut json: serde_json::Value) {
        strip_nulls(&mut json);
        self.objects.push(Object::new(why, json));
    }

    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }
}

/// Why a specification cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A name cannot be mapped.
    #[error("`{original}` cannot be a name in a cluster")]
    Name {
        /// The name.
        original: String,
        /// Why.
        #[source]
        source: NameError,
    },
    /// A value breaks a rule of Kubernetes.
    #[error("{what} cannot be used")]
    Invalid {
        /// Which value, such as `namespace`.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: Invalid,
    },
    /// A value contradicts another, or makes no sense.
    #[error("{what}: {reason}")]
    Contradiction {
        /// Which value.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// An image is named by a tag, which may move between two pods.
    #[error("{what} `{reference}` is not named by digest")]
    Unpinned {
        /// Which image.
        what: &'static str,
        /// Its reference.
        reference: Reference,
    },
    /// The cluster lacks what is needed.
    #[error("the cluster has no {missing}, which {what} needs")]
    Unsupported {
        /// What is missing.
        missing: &'static str,
        /// What needs it.
        what: String,
    },
}

/// A service: configuration, pods, the Services before them, scaling, and its way out of the cluster.
pub fn render_service(spec: &ServiceDeployment, caps: &Capabilities) -> Result<Rendered, RenderError> {
    namespace(&spec.namespace)?;
    pinned("image", &spec.image.reference)?;
    if let Workload::Model { content, tools } = &spec.workload {
        pinned("model", &content.reference)?;
        pinned("tools image", tools)?;
    }
    let id = labels::Identity::service(spec)?;
    if spec.gateway.as_ref().is_some_and(|gateway| gateway.name == id.name) {
        return Err(RenderError::Contradiction {
            what: "name",
            reason: format!("`{}` is the name of the gateway", spec.spec.name),
        });
    }
    let mut out = Rendered::default();
    let secret = config::secret(&spec.environment, &id, &mut out)?;
    rbac::no_token_account(&id, &mut out);
    // Before the pods, so that none ever runs without it.
    if let Workload::Model { .. } = spec.workload {
        network_policy::for_service(spec, &id, &mut out)?;
    }
    let scaling = autoscaling::plan(spec, caps, &mut out)?;
    deployment::render(spec, caps, &id, secret.as_deref(), scaling.as_ref(), &mut out)?;
    service::render(spec, &id, &mut out)?;
    if let Some(scaling) = &scaling {
        autoscaling::render(scaling, &id, &mut out);
    }
    let fewest = scaling.as_ref().map_or(spec.spec.replicas, |scaling| scaling.min);
    disruption::render(fewest, &id, &mut out);
    route::render(&spec.exposure, &id, caps, &mut out)?;
    Ok(out)
}

/// One attempt of a training run.
pub fn render_training(run: &TrainingRun, caps: &Capabilities) -> Result<Rendered, RenderError> {
    namespace(&run.namespace)?;
    pinned("image", &run.image.reference)?;
    pinned("tools image", &run.tools)?;
    training::render(run, caps)
}

/// What fetches the output of a run: a Job whose pod mounts it. The run's account and claim must be there.
pub fn render_collector(run: &TrainingRun) -> Result<Rendered, RenderError> {
    namespace(&run.namespace)?;
    pinned("tools image", &run.tools)?;
    let mut out = Rendered::default();
    collector::render(run, &mut out)?;
    Ok(out)
}

/// The claim with a run's output, and the folder in it.
pub(crate) fn output_place(run: &TrainingRun) -> Result<(String, Option<String>), RenderError> {
    training::output_mount(run, &labels::Identity::run(run)?)
}

/// The gateway of a namespace.
pub fn render_gateway(gateway: &GatewayDeployment, caps: &Capabilities) -> Result<Rendered, RenderError> {
    namespace(&gateway.namespace)?;
    pinned("gateway image", &gateway.image.reference)?;
    gateway::render(gateway, caps)
}

fn namespace(name: &str) -> Result<(), RenderError> {
    validate::dns_1123_label(name).map_err(|source| RenderError::Invalid { what: "namespace", source })
}

fn pinned(what: &'static str, reference: &Reference) -> Result<(), RenderError> {
    match reference.digest() {
        Some(_) => Ok(()),
        None => Err(RenderError::Unpinned { what, reference: reference.clone() }),
    }
}

fn map(original: &str) -> Result<String, RenderError> {
    names::map(original).map_err(|source| RenderError::Name { original: original.to_owned(), source })
}

/// Objects are written with `null` where something is not asked for; the API server shall not see it.
fn strip_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}
