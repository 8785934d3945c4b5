//! A service and the gateway before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use slipway_types::Reference;
pub use slipway_types::expose::{Exposure, RouteParent};
use slipway_types::model::ModelFormat;
use slipway_types::service::{Autoscale, ServiceSpec};

use super::pod::{Environment, ImagePin, Placement, PodResources};
use crate::render::HTTP_PORT;

/// A service as it shall run in a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceDeployment {
    /// The declared service.
    pub spec: ServiceSpec,
    /// Number of its revision.
    pub revision: u64,
    /// Namespace.
    pub namespace: String,
    /// Its image.
    pub image: ImagePin,
    /// What its pods run.
    pub workload: Workload,
    /// How it is reached from outside of the cluster.
    #[serde(default)]
    pub exposure: Exposure,
    /// The gateway that routes to it, where it serves a model; clients reach the pods themselves when absent.
    #[serde(default)]
    pub gateway: Option<GatewayRef>,
    /// Autoscaling; `spec.replicas` pods run when absent.
    #[serde(default)]
    pub autoscaling: Option<Autoscaling>,
    /// Resources; the limits of `spec` when they are empty.
    #[serde(default)]
    pub resources: PodResources,
    /// Where its pods run.
    #[serde(default)]
    pub placement: Placement,
    /// Environment that is secret.
    #[serde(default)]
    pub environment: Environment,
    /// Whether pods may open connections of their own. Replicas on one host may not either.
    #[serde(default)]
    pub egress: bool,
    /// Namespace of a monitoring system that may read `/metrics` of the pods.
    #[serde(default)]
    pub scrape_from: Option<String>,
}

/// What the pods of a service run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(clippy::large_enum_variant, reason = "there is one for each service, and nothing is to be gained")]
pub enum Workload {
    /// Slipway's runner, which serves a model.
    Model {
        /// The model.
        content: ModelContent,
        /// Image with `/slipway/slipway-runner` and `/slipway/python`, by digest.
        tools: Reference,
    },
    /// What the image itself runs.
    Image {
        /// Port that it listens on. Without one nobody asks the pods for anything.
        port: Option<u16>,
    },
}

impl ServiceDeployment {
    /// The gateway before the pods. It knows models, so an image that is run as it is has none.
    pub fn gateway(&self) -> Option<&GatewayRef> {
        self.gateway.as_ref().filter(|_| matches!(self.workload, Workload::Model { .. }))
    }

    /// Port on which the pods answer; absent where they answer nobody.
    pub fn port(&self) -> Option<u16> {
        match self.workload {
            Workload::Model { .. } => Some(HTTP_PORT),
            Workload::Image { port } => port,
        }
    }
}

/// A model version in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelContent {
    /// An image whose only layer has the model's files below `/model`, by digest.
    pub reference: Reference,
    /// Format of the files.
    pub format: ModelFormat,
    /// Aliases of the version.
    #[serde(default)]
    pub labels: Vec<String>,
    /// How it reaches the pods.
    #[serde(default)]
    pub delivery: ModelDelivery,
}

/// How a model reaches a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelDelivery {
    /// As an image volume where the cluster has them, else copied by an init container.
    #[default]
    Auto,
    /// Copied by an init container.
    Copy,
    /// Below `/model` of the serving image.
    Bundled,
}

/// Our gateway in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayRef {
    /// Name, as given to [`GatewayDeployment`].
    pub name: String,
}

/// How many pods run, by load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Autoscaling {
    /// Fewest; 0 lets the gateway scale to none.
    pub min: u32,
    /// Most.
    pub max: u32,
    /// Mean use of the requested CPU to hold, in percent; 70 when no target at all is given.
    pub cpu_percent: Option<u32>,
    /// Mean use of the requested memory to hold, in percent.
    pub memory_percent: Option<u32>,
    /// Targets of our own metrics.
    pub metrics: Vec<MetricTarget>,
}

impl From<Autoscale> for Autoscaling {
    fn from(range: Autoscale) -> Self {
        Self {
            min: range.min,
            max: range.max,
            cpu_percent: range.cpu_percent,
            memory_percent: range.memory_percent,
            metrics: Vec::new(),
        }
    }
}

/// A metric of the pods and the mean that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricTarget {
    /// Name in the metrics API, such as `slipway_requests_in_progress`.
    pub name: String,
    /// Mean per pod, a quantity.
    pub average: String,
}

/// Our gateway in a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayDeployment {
    /// Name, `slipway-gateway` by custom.
    pub name: String,
    /// Namespace, whose services it routes to.
    pub namespace: String,
    /// Image with `/slipway`, by digest.
    pub image: ImagePin,
    /// How many pods; two leave no single point of failure.
    pub replicas: u32,
    /// How it is reached from outside.
    #[serde(default)]
    pub exposure: Exposure,
    /// Resources.
    #[serde(default)]
    pub resources: PodResources,
    /// Where its pods run.
    #[serde(default)]
    pub placement: Placement,
    /// Annotations of its Services, which load balancers read.
    #[serde(default)]
    pub service_annotations: BTreeMap<String, String>,
}
