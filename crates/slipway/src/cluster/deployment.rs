//! A service whose parts are in a registry, and the gateway before it, as they are in a cluster.

use slipway_kubernetes::spec::{
    Exposure, GatewayDeployment, ImagePin, ModelContent, ModelDelivery, Placement, PodResources, RunAs,
    ServiceDeployment,
};
use slipway_types::Reference;
use slipway_types::image::Platform;
use slipway_types::publish::PublishedService;

use crate::daemon::publish::GATEWAY_USER;

/// Name of our gateway in its namespace; all services of the namespace share it.
pub const GATEWAY: &str = "slipway-gateway";
/// How many pods it has where nobody says.
pub const GATEWAY_REPLICAS: u32 = 2;

/// With the defaults of everything that a published service says nothing of.
pub fn deployment(published: PublishedService, namespace: &str) -> ServiceDeployment {
    let run_as = match (published.uid, published.gid) {
        (0, _) => RunAs::Root,
        (uid, gid) => RunAs::User { uid, gid },
    };
    ServiceDeployment {
        spec: published.spec,
        revision: published.revision,
        namespace: namespace.to_owned(),
        image: ImagePin { reference: published.image, run_as, architectures: vec![published.architecture] },
        model: ModelContent {
            reference: published.model,
            format: published.format,
            labels: published.labels,
            delivery: ModelDelivery::Auto,
        },
        tools: published.tools,
        exposure: Exposure::ClusterIp,
        gateway: None,
        autoscaling: None,
        resources: PodResources::default(),
        placement: Placement::default(),
        environment: Default::default(),
        egress: false,
        scrape_from: None,
    }
}

/// The gateway of a namespace, with the defaults of everything. Its image is of this host's program.
pub fn gateway(image: Reference, namespace: &str) -> GatewayDeployment {
    let (uid, gid) = GATEWAY_USER;
    GatewayDeployment {
        name: GATEWAY.to_owned(),
        namespace: namespace.to_owned(),
        image: ImagePin {
            reference: image,
            run_as: RunAs::User { uid, gid },
            architectures: vec![Platform::host().architecture],
        },
        replicas: GATEWAY_REPLICAS,
        exposure: Exposure::ClusterIp,
        resources: PodResources::default(),
        placement: Placement::default(),
        service_annotations: Default::default(),
    }
}
