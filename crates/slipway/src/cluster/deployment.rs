//! A service whose parts are in a registry, as it is in a cluster.

use slipway_kubernetes::spec::{
    Exposure, ImagePin, ModelContent, ModelDelivery, Placement, PodResources, RunAs, ServiceDeployment,
};
use slipway_types::publish::PublishedService;

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
