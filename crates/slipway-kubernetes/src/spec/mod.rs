//! What is rendered: services, training runs and the gateway, with everything that they name resolved to content.

mod pod;
mod service;
mod training;

pub use pod::{
    Environment, Gpus, ImagePin, Placement, PodResources, RunAs, SecretRef, Toleration, VolumeSource,
};
pub use service::{
    Autoscaling, Exposure, GatewayDeployment, GatewayRef, MetricTarget, ModelContent, ModelDelivery,
    RouteParent, ServiceDeployment, Workload,
};
pub use training::{Gang, Launcher, Storage, TrainingRun};
