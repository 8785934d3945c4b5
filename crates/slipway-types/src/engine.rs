//! Engines: where services and training runs run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::expose::Exposure;

/// The engine that is always there: this host.
pub const NATIVE: &str = "native";

/// A namespace of a Kubernetes cluster, as a user chose it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// Files of the kubeconfig, absolute; the first that sets a value wins. Empty inside a cluster.
    #[serde(default)]
    pub kubeconfig: Vec<PathBuf>,
    /// Context; the current one when absent.
    #[serde(default)]
    pub context: Option<String>,
    /// Namespace; the context's, else `default`, when absent.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Proxy to the API server for clusters that name none.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Registry that images are pushed to and that the cluster pulls from: `host[:port][/path]`.
    pub registry: String,
    /// How many pods of our gateway stand before the services; none, and clients reach the pods themselves, when 0.
    pub gateway_replicas: u32,
    /// How the gateway is reached from outside of the cluster.
    #[serde(default)]
    pub exposure: Exposure,
    /// Secrets of the namespace with the registry's credentials.
    #[serde(default)]
    pub pull_secrets: Vec<String>,
    /// Storage class of the claims of training runs; the cluster's default when absent.
    #[serde(default)]
    pub storage_class: Option<String>,
}

/// What is to be known of a cluster to write what a service becomes there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// As a user chose it.
    pub cluster: ClusterSpec,
    /// Its namespace.
    pub namespace: String,
    /// How the service is reached, where a user said so.
    #[serde(default)]
    pub exposure: Option<Exposure>,
    /// What the cluster can, in the notation of the crate that renders for it.
    pub capabilities: serde_json::Value,
}

/// Body of `PUT /v1/engines`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UseEngine {
    /// Name.
    pub name: String,
    /// What it is; absent for one that is known already.
    #[serde(default)]
    pub cluster: Option<ClusterSpec>,
    /// Whether services and runs that name no engine are to run there from now on.
    #[serde(default)]
    pub default: bool,
}

/// An engine, as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Name.
    pub name: String,
    /// Whether services and runs that name no engine run there.
    pub default: bool,
    /// Its cluster; absent for this host.
    #[serde(default)]
    pub cluster: Option<ClusterSpec>,
    /// Where it is: an address of an API server and a namespace, or this host.
    pub place: String,
    /// Services that are declared to run there.
    pub services: usize,
    /// Why it cannot be asked now.
    #[serde(default)]
    pub trouble: Option<String>,
}
