//! A service whose parts are in a registry, and the gateway before it, as they are in a cluster.

use slipway_kubernetes::spec::{
    Exposure, GatewayDeployment, GatewayRef, ImagePin, ModelContent, ModelDelivery, Placement, PodResources,
    RunAs, ServiceDeployment, Workload,
};
use slipway_types::Reference;
use slipway_types::engine::ClusterSpec;
use slipway_types::image::Platform;
use slipway_types::publish::PublishedService;

use crate::daemon::publish::GATEWAY_USER;

/// Name of our gateway in its namespace; all services of the namespace share it.
pub const GATEWAY: &str = "slipway-gateway";
/// How many pods it has where nobody says.
pub const GATEWAY_REPLICAS: u32 = 2;

/// As the engine of a cluster runs it.
pub fn on_engine(
    published: PublishedService,
    exposure: Option<Exposure>,
    engine: &ClusterSpec,
    namespace: &str,
) -> ServiceDeployment {
    let gateway = (engine.gateway_replicas > 0).then(|| GatewayRef { name: GATEWAY.to_owned() });
    ServiceDeployment {
        exposure: exposure.unwrap_or_else(|| match (&gateway, &published.model) {
            (None, Some(_)) => engine.exposure.clone(),
            // What the engine says is how the gateway is reached, where there is one. An image that is run as it is is
            // not shown to anybody unless a user says so.
            (Some(_), _) | (_, None) => Exposure::ClusterIp,
        }),
        gateway,
        placement: placement(engine),
        ..deployment(published, namespace)
    }
}

/// The gateway before the services of a cluster that has one.
pub fn gateway_on_engine(image: Reference, engine: &ClusterSpec, namespace: &str) -> GatewayDeployment {
    let (uid, gid) = GATEWAY_USER;
    GatewayDeployment {
        name: GATEWAY.to_owned(),
        namespace: namespace.to_owned(),
        // Of this host's program.
        image: ImagePin {
            reference: image,
            run_as: RunAs::User { uid, gid },
            architectures: vec![Platform::host().architecture],
        },
        replicas: engine.gateway_replicas,
        exposure: engine.exposure.clone(),
        resources: PodResources::default(),
        placement: placement(engine),
        service_annotations: Default::default(),
    }
}

/// Where pods of an engine run, and by which credentials their images are pulled.
fn placement(engine: &ClusterSpec) -> Placement {
    Placement { image_pull_secrets: engine.pull_secrets.clone(), ..Placement::default() }
}

/// With the defaults of everything that a published service says nothing of.
fn deployment(published: PublishedService, namespace: &str) -> ServiceDeployment {
    let run_as = match (published.uid, published.gid) {
        (0, _) => RunAs::Root,
        (uid, gid) => RunAs::User { uid, gid },
    };
    let autoscaling = published.spec.autoscale.map(Into::into);
    ServiceDeployment {
        spec: published.spec,
        revision: published.revision,
        namespace: namespace.to_owned(),
        image: ImagePin { reference: published.image, run_as, architectures: vec![published.architecture] },
        workload: match published.model {
            Some(model) => Workload::Model {
                content: ModelContent {
                    reference: model.reference,
                    format: model.format,
                    labels: model.labels,
                    delivery: ModelDelivery::Auto,
                },
                tools: model.tools,
            },
            None => Workload::Image { port: published.port },
        },
        exposure: Exposure::ClusterIp,
        gateway: None,
        autoscaling,
        resources: PodResources::default(),
        placement: Placement::default(),
        environment: Default::default(),
        egress: false,
        scrape_from: None,
    }
}
