//! Clusters as engines: the connection, what is brought to the registry for them, and what a service is there.

mod deployment;
mod previews;
mod publisher;
mod runs;

use std::sync::Arc;

use slipway_kubernetes::client::{ConnectOptions, InCluster, connect};
use slipway_kubernetes::engine::{EngineOptions, KubernetesEngine, Previewer};
use slipway_orchestrator::EngineError;
use slipway_types::engine::ClusterSpec;

use crate::daemon::{App, Connected};
use crate::env_vars;

pub use deployment::{GATEWAY_REPLICAS, gateway_on_engine, on_engine};
use previews::ClusterPreviews;
use publisher::RegistryPublisher;
use runs::ClusterRuns;

/// Connects to a cluster and begins to watch its namespace.
pub fn engine(app: &Arc<App>, spec: &ClusterSpec) -> Result<Connected, EngineError> {
    let unavailable = |error: Box<dyn std::error::Error + Send + Sync>| EngineError::Unavailable(error);
    let owner = app.state.owner(|| slipway_native::random_id().to_string());
    let owner = owner.map_err(|error| unavailable(Box::new(error)))?;
    let options = ConnectOptions {
        kubeconfig: spec.kubeconfig.clone(),
        context: spec.context.clone(),
        namespace: spec.namespace.clone(),
        in_cluster: if spec.kubeconfig.is_empty() { pod_account() } else { None },
        proxy: spec.proxy.clone(),
        interactive: false,
        retry: None,
    };
    let cluster = app.handle.block_on(connect(&options)).map_err(|error| unavailable(Box::new(error)))?;
    let place = format!("{}, namespace {}", cluster.server(), cluster.namespace());
    let namespace = cluster.namespace().to_owned();
    let publisher = Arc::new(RegistryPublisher::new(app, spec, &namespace));
    let engine = app.handle.block_on(KubernetesEngine::start(cluster, publisher, EngineOptions::new(owner)));
    let engine = Arc::new(engine.map_err(|error| unavailable(Box::new(error)))?);
    let runs = ClusterRuns::new(
        app.handle.clone(),
        spec.clone(),
        engine.applier().clone(),
        Arc::clone(engine.inventory()),
        Arc::clone(engine.store()),
        Arc::clone(&engine) as _,
    );
    let changes = Some(engine.store().subscribe());
    let previewer = Previewer::new(engine.applier().clone(), Arc::clone(engine.inventory()));
    let previews = ClusterPreviews::new(app, spec, &namespace, previewer);
    Ok(Connected { engine, place, runs: Some(Arc::new(runs)), changes, previews: Some(Arc::new(previews)) })
}

/// The account of the pod that this process runs in, if it does.
pub fn pod_account() -> Option<InCluster> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = variable(env_vars::KUBERNETES_SERVICE_HOST)?;
    let port = variable(env_vars::KUBERNETES_SERVICE_PORT)?;
    Some(InCluster::new(&host, &port))
}
