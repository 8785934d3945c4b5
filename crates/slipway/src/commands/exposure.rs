//! Flags that say how something is reached from outside of a cluster; several commands have them.

use slipway_types::expose::{Exposure, RouteParent};

use crate::failure::Failure;

/// Port where none is named.
const HTTP: u16 = 80;

/// The way in.
#[derive(Clone, Debug, clap::Args)]
pub struct ExposureArgs {
    /// Type of the Service that clients use [default: ClusterIP]
    #[arg(long = "type", value_enum, ignore_case = true, value_name = "TYPE")]
    kind: Option<ServiceKind>,
    /// Port of a Service of type NodePort or LoadBalancer [default: 80, or that of an image which is run as it is]; such an
    /// image is taken to listen on it where nobody knows on which it does
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Port of the nodes for type NodePort [default: the cluster chooses]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    node_port: Option<u16>,
    /// Reach it under this host name through an Ingress
    #[arg(long, value_name = "HOST", group = "way_in")]
    ingress: Option<String>,
    /// Class of the Ingress [default: the cluster's]
    #[arg(long, value_name = "CLASS", requires = "ingress")]
    ingress_class: Option<String>,
    /// Secret with the certificate of the Ingress
    #[arg(long, value_name = "SECRET", requires = "ingress")]
    tls_secret: Option<String>,
    /// Reach it under this host name through an HTTPRoute of the Gateway API
    #[arg(long, value_name = "HOST", group = "way_in", requires = "parent")]
    route: Option<String>,
    /// Gateway of the Gateway API that takes the HTTPRoute
    #[arg(long, value_name = "[NAMESPACE/]NAME", requires = "route")]
    parent: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ServiceKind {
    #[value(name = "ClusterIP")]
    ClusterIp,
    #[value(name = "NodePort")]
    NodePort,
    #[value(name = "LoadBalancer")]
    LoadBalancer,
}

impl ExposureArgs {
    /// The port, where one was named.
    pub fn named_port(&self) -> Option<u16> {
        self.port
    }

    /// Whether any of them was given.
    pub fn is_given(&self) -> bool {
        self.kind.is_some()
            || self.port.is_some()
            || self.node_port.is_some()
            || self.ingress.is_some()
            || self.route.is_some()
    }

    /// Whether an HTTPRoute is asked for.
    pub fn uses_route(&self) -> bool {
        self.route.is_some()
    }

    /// What they say.
    pub fn exposure(&self) -> Result<Exposure, Failure> {
        let kind = self.kind.unwrap_or(ServiceKind::ClusterIp);
        if let Some(host) = self.ingress.as_ref().or(self.route.as_ref()) {
            if kind != ServiceKind::ClusterIp {
                return Err(Failure::usage("--type is for a service without --ingress and --route"));
            }
            let parent = self.parent.as_ref().map(|parent| match parent.split_once('/') {
                Some((namespace, name)) => RouteParent {
                    name: name.to_owned(),
                    namespace: Some(namespace.to_owned()),
                    section: None,
                },
                None => RouteParent { name: parent.clone(), namespace: None, section: None },
            });
            return Ok(Exposure::Host {
                host: host.clone(),
                parent,
                ingress_class: self.ingress_class.clone(),
                tls_secret: self.tls_secret.clone(),
            });
        }
        if self.node_port.is_some() && kind != ServiceKind::NodePort {
            return Err(Failure::usage("--node-port needs --type NodePort"));
        }
        let port = self.port.unwrap_or(HTTP);
        Ok(match kind {
            ServiceKind::ClusterIp => Exposure::ClusterIp,
            ServiceKind::NodePort => Exposure::NodePort { port, node_port: self.node_port },
            ServiceKind::LoadBalancer => Exposure::LoadBalancer { port },
        })
    }
}
