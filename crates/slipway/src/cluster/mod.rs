//! The engine of a Kubernetes cluster, put together.

mod runs;

use std::sync::Arc;
use std::time::Duration;

use slipway_kubernetes::apply::{Applier, Inventory};
use slipway_kubernetes::watch::{WatchOptions, Watcher, usual};
use slipway_kubernetes::{ConnectOptions, Discovery, connect as connect_to};
use slipway_orchestrator::{Desired, Endpoint, Engine, EngineError, LogLines, ObservedReplica, Pass};
use slipway_types::container::{ContainerId, LogOptions};
use slipway_types::engine::ClusterSpec;
use slipway_types::service::ReplicaUsage;

use crate::daemon::{App, Connected};

/// Connects to a cluster, which must answer.
pub fn connect(app: &Arc<App>, spec: &ClusterSpec) -> Result<Connected, EngineError> {
    let unavailable = |error: Box<dyn std::error::Error + Send + Sync>| EngineError::Unavailable(error);
    let options = ConnectOptions {
        kubeconfig: spec.kubeconfig.clone(),
        context: spec.context.clone(),
        namespace: spec.namespace.clone(),
        proxy: spec.proxy.clone(),
        ..ConnectOptions::default()
    };
    app.handle.block_on(async {
        let cluster = connect_to(&options).await.map_err(|error| unavailable(Box::new(error)))?;
        let place = format!("namespace {} of {}", cluster.namespace(), cluster.server());
        let discovery = Arc::new(Discovery::new(cluster.clone()));
        discovery.capabilities().await.map_err(|error| unavailable(Box::new(error)))?;
        let watcher = Arc::new(Watcher::start(&cluster, usual(&[]), WatchOptions::default()));
        let applier = Applier::new(cluster, discovery);
        let inventory = Inventory::new(applier.clone()).map_err(|error| unavailable(Box::new(error)))?;
        let store = Arc::clone(watcher.store());
        let runs = runs::ClusterRuns::new(
            app.handle.clone(),
            spec.clone(),
            applier,
            Arc::new(inventory),
            store,
            watcher,
        );
        Ok(Connected { engine: Arc::new(NoServices), place, runs: Some(Arc::new(runs)), changes: None })
    })
}

/// Services on a cluster follow.
struct NoServices;

impl Engine for NoServices {
    fn pass(
        &self,
        desired: &[Desired],
        _: Duration,
        publish: &mut dyn FnMut(&[ObservedReplica]) -> Result<(), EngineError>,
    ) -> Result<Pass, EngineError> {
        publish(&[])?;
        let forgotten = desired.iter().filter(|one| matches!(one, Desired::Absent { .. }));
        Ok(Pass { forgotten: forgotten.map(|one| one.service().to_owned()).collect(), ..Pass::default() })
    }

    fn try_again(&self, _: &str) {}

    fn observe(&self) -> Result<Vec<ObservedReplica>, EngineError> {
        Ok(Vec::new())
    }

    fn endpoint(&self, _: &str) -> Endpoint {
        Endpoint::Pending { reason: "services on clusters follow".into() }
    }

    fn usage(&self) -> Result<Vec<ReplicaUsage>, EngineError> {
        Ok(Vec::new())
    }

    fn log(&self, replica: &ContainerId, _: &LogOptions) -> Result<Box<dyn LogLines>, EngineError> {
        Err(EngineError::NotFound(replica.clone()))
    }
}
