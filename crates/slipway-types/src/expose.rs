//! How a service, or a gateway, is reached from outside of a cluster.

use serde::{Deserialize, Serialize};

/// How a service is reached from outside of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Exposure {
    /// Not at all.
    #[default]
    ClusterIp,
    /// On a port of every node.
    NodePort {
        /// Port of the Service.
        port: u16,
        /// Port of the nodes; the cluster chooses when absent.
        #[serde(default)]
        node_port: Option<u16>,
    },
    /// Through a load balancer of the provider.
    LoadBalancer {
        /// Port.
        port: u16,
    },
    /// Under a host name: an HTTPRoute where the Gateway API and a parent are there, else an Ingress.
    Host {
        /// Host name.
        host: String,
        /// Gateway that takes the HTTPRoute.
        #[serde(default)]
        parent: Option<RouteParent>,
        /// Class of the Ingress; the cluster's default when absent.
        #[serde(default)]
        ingress_class: Option<String>,
        /// Secret with the certificate, for the Ingress.
        #[serde(default)]
        tls_secret: Option<String>,
    },
}

impl std::fmt::Display for Exposure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClusterIp => f.write_str("Within its cluster only."),
            Self::NodePort { port, node_port: None } => {
                write!(f, "On a port of the nodes, and on port {port}.")
            }
            Self::NodePort { port, node_port: Some(node) } => {
                write!(f, "On port {node} of the nodes, and on port {port}.")
            }
            Self::LoadBalancer { port } => write!(f, "Through a load balancer, on port {port}."),
            Self::Host { host, .. } => write!(f, "As {host}."),
        }
    }
}

/// A Gateway of the Gateway API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteParent {
    /// Its name.
    pub name: String,
    /// Its namespace; the service's when absent.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Listener; all when absent.
    #[serde(default)]
    pub section: Option<String>,
}

/// Body of `POST /v1/services/expose`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposeRequest {
    /// Name of a declared service.
    pub service: String,
    /// How it shall be reached.
    pub exposure: Exposure,
    /// The port, where one was named.
    #[serde(default)]
    pub port: Option<u16>,
    /// Takes over what others own of its objects.
    #[serde(default)]
    pub take_over: bool,
}
