//! For which cluster an export is: what flags say, and what the engine knows of a service that runs on one.

use slipway_kubernetes::Capabilities;
use slipway_kubernetes::capabilities::Version;
use slipway_types::engine::{ClusterFacts, ClusterSpec};
use slipway_types::expose::Exposure;
use slipway_types::service::ServiceStatus;
use slipway_types::{ApiError, ErrorCode};

use super::super::Context;
use super::kubernetes::Args;
use crate::cluster::GATEWAY_REPLICAS;
use crate::failure::Failure;
use crate::query;

/// First version of Kubernetes in which image volumes can be switched on.
const IMAGE_VOLUMES: Version = Version::v1(31);

/// Where the objects would go.
pub struct Target {
    /// Registry, gateway and credentials.
    pub cluster: ClusterSpec,
    /// Namespace.
    pub namespace: String,
    /// How the service is reached; as `cluster` has it when absent.
    pub exposure: Option<Exposure>,
    /// What the cluster can.
    pub capabilities: Capabilities,
}

impl Target {
    /// The cluster of a service, or what flags say of another. With `--registry` nothing is asked of a cluster.
    pub fn of(context: &Context, args: &Args, service: &str) -> Result<Self, Failure> {
        let facts: Option<ClusterFacts> = match &args.registry {
            Some(_) => None,
            None => context.client()?.get(&query::path("/v1/service/cluster", &[("name", service)]))?,
        };
        if args.gateway {
            let path = query::path("/v1/service", &[("name", service)]);
            let status: ServiceStatus = context.client()?.get(&path)?;
            if status.spec.model.is_empty() {
                let text = format!("`{service}` is an image alone, and the gateway stands before models");
                return Err(Failure::usage(text).hint("leave out --gateway"));
            }
        }
        match facts {
            Some(facts) => Self::known(args, facts),
            None => Self::described(args),
        }
    }

    fn known(args: &Args, facts: ClusterFacts) -> Result<Self, Failure> {
        let known: Capabilities = serde_json::from_value(facts.capabilities)
            .map_err(|error| ApiError::from_error(ErrorCode::Internal, &error))?;
        let gateway_api = known.gateway_api.clone();
        let says_what_it_can = args.kubernetes_version.is_some() || args.image_volumes;
        let mut cluster = facts.cluster;
        if !args.pull_secrets.is_empty() {
            cluster.pull_secrets.clone_from(&args.pull_secrets);
        }
        if args.gateway {
            let usual =
                if cluster.gateway_replicas > 0 { cluster.gateway_replicas } else { GATEWAY_REPLICAS };
            cluster.gateway_replicas = args.gateway_replicas.unwrap_or(usual);
        }
        Ok(Self {
            cluster,
            namespace: args.namespace.clone().unwrap_or(facts.namespace),
            exposure: if args.exposure.is_given() { Some(args.exposure.exposure()?) } else { facts.exposure },
            capabilities: if says_what_it_can {
                Capabilities { gateway_api, ..capabilities(args)? }
            } else {
                known
            },
        })
    }

    fn described(args: &Args) -> Result<Self, Failure> {
        let registry = args.registry.clone().ok_or_else(|| {
            Failure::usage("--registry is missing: images have to be where the cluster can pull them").hint(
                "for example `--registry registry.example.com/team`; `slipway login` first if it asks for it",
            )
        })?;
        let gateway_replicas = args.gateway_replicas.unwrap_or(GATEWAY_REPLICAS);
        Ok(Self {
            cluster: ClusterSpec {
                registry,
                gateway_replicas: if args.gateway { gateway_replicas } else { 0 },
                pull_secrets: args.pull_secrets.clone(),
                ..ClusterSpec::default()
            },
            namespace: args.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            exposure: Some(args.exposure.exposure()?),
            capabilities: capabilities(args)?,
        })
    }
}

/// What flags say of a cluster, and no more.
fn capabilities(args: &Args) -> Result<Capabilities, Failure> {
    let mut caps = Capabilities { image_volumes: args.image_volumes, ..Capabilities::default() };
    if let Some(version) = args.kubernetes_version {
        caps.version = version;
        if args.image_volumes && version < IMAGE_VOLUMES {
            return Err(Failure::usage(format!("Kubernetes {version} has no image volumes"))
                .hint(format!("they came with {IMAGE_VOLUMES}; without them the model is copied")));
        }
    } else if args.image_volumes {
        caps.version = IMAGE_VOLUMES;
    }
    caps.gateway_api = args.exposure.uses_route().then(|| "v1".to_owned());
    // Nobody asked a cluster; who lets load decide has it measured.
    caps.metrics_api = true;
    Ok(caps)
}
