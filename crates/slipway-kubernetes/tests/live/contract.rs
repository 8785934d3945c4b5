//! The engine keeps the contract of all engines on a real cluster, each case in a namespace of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use slipway_kubernetes::client::ExecOptions;
use slipway_kubernetes::engine::{EngineOptions, KubernetesEngine};
use slipway_orchestrator::contract::engine::{Harness, run};
use slipway_orchestrator::{Engine, Revision};
use slipway_types::container::ContainerId;
use tokio::runtime::Runtime;

use super::bed::{Bed, OWNER, bed, say};
use super::image::KILL;
use super::services::{Registry, revision};

/// A namespace, which goes with it.
struct Place {
    bed: Option<Bed>,
    runtime: Runtime,
    began: Instant,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(bed) = self.bed.take().filter(|_| !std::thread::panicking()) {
            say(&format!("a case: after {:.1} s", self.began.elapsed().as_secs_f64()));
            self.runtime.block_on(bed.end());
        }
    }
}

struct Real {
    engine: KubernetesEngine,
    place: Arc<Place>,
}

impl Real {
    fn over(place: Arc<Place>) -> Self {
        let options = EngineOptions {
            patience: Duration::from_secs(6),
            telling: Duration::from_secs(3),
            ..EngineOptions::new(OWNER)
        };
        let bed = place.bed.as_ref().unwrap();
        let registry = Arc::new(Registry { namespace: bed.namespace.clone(), image: bed.image.clone() });
        let engine = place.runtime.block_on(async {
            KubernetesEngine::start(bed.cluster().await, registry, options).await.unwrap()
        });
        Self { engine, place }
    }

    fn revision(service: &str, number: u64, replicas: u32, image: &str, env: &[&str]) -> Revision {
        revision(number, |spec| {
            service.clone_into(&mut spec.name);
            image.clone_into(&mut spec.image);
            spec.replicas = replicas;
            // Some difference, without which a revision starts no pods.
            spec.env =
                env.iter().map(|one| (*one).to_owned()).chain([format!("REVISION={number}")]).collect();
        })
    }
}

impl Harness for Real {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn good(&self, service: &str, number: u64, replicas: u32) -> Revision {
        Self::revision(service, number, replicas, "image", &[])
    }

    fn failing(&self, service: &str, number: u64, replicas: u32) -> Revision {
        Self::revision(service, number, replicas, "image", &["BROKEN=1"])
    }

    fn impossible(&self, service: &str, number: u64, replicas: u32) -> Revision {
        Self::revision(service, number, replicas, "missing", &[])
    }

    fn kill(&self, replica: &ContainerId) {
        let pod = self.engine.pod(replica).unwrap();
        let options = ExecOptions {
            command: KILL.iter().map(|&word| word.to_owned()).collect(),
            ..ExecOptions::default()
        };
        self.place.runtime.block_on(async {
            // The container may end before it says how the program ended.
            let cluster = self.engine.applier().cluster();
            let _ = cluster.exec(cluster.namespace(), &pod, &options).await.unwrap().exit_code().await;
        });
    }

    fn now(&self) -> Duration {
        self.place.began.elapsed()
    }

    fn pass_time(&self) {
        std::thread::sleep(Duration::from_millis(200));
    }

    fn reopen(self) -> Self {
        let Self { engine, place } = self;
        drop(engine);
        Self::over(place)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(180)
    }
}

#[test]
fn kept_on_a_real_cluster() {
    let runtime = Runtime::new().unwrap();
    if runtime.block_on(bed("contract")).map(|bed| runtime.block_on(bed.end())).is_none() {
        return;
    }
    let cases = AtomicUsize::new(0);
    run(|| {
        let runtime = Runtime::new().unwrap();
        let name = format!("contract-{}", cases.fetch_add(1, Ordering::Relaxed));
        let bed = runtime.block_on(bed(&name));
        Real::over(Arc::new(Place { bed, runtime, began: Instant::now() }))
    });
}
