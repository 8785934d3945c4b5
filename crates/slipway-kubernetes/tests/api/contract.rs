//! The engine keeps the contract of all engines, over a cluster that is played, also one that misbehaves all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use slipway_kubernetes::engine::{EngineOptions, KubernetesEngine, container_id};
use slipway_kubernetes::watch::WatchOptions;
use slipway_orchestrator::contract::engine::{Harness, run};
use slipway_orchestrator::{Engine, Revision};
use slipway_types::container::ContainerId;
use tokio::runtime::Runtime;

use super::controllers::Controllers;
use super::engine::{Registry, revision};
use super::fake::{Fake, OWNER, status};

struct Played {
    engine: KubernetesEngine,
    fake: Fake,
    controllers: Controllers,
    runtime: Arc<Runtime>,
    origin: Instant,
}

impl Played {
    fn new(fake: Fake) -> Self {
        let controllers = Controllers::start(fake.clone());
        Self::over(fake, controllers, Arc::new(Runtime::new().unwrap()), Instant::now())
    }

    fn over(fake: Fake, controllers: Controllers, runtime: Arc<Runtime>, origin: Instant) -> Self {
        let options = EngineOptions {
            patience: Duration::from_millis(400),
            telling: Duration::from_millis(300),
            retry_first: Duration::from_millis(50),
            retry_most: Duration::from_millis(200),
            watch: WatchOptions {
                pause: Duration::from_millis(5),
                most: Duration::from_millis(50),
                ..WatchOptions::default()
            },
            ..EngineOptions::new(OWNER)
        };
        let engine = runtime.block_on(async {
            KubernetesEngine::start(fake.cluster(), Arc::new(Registry::default()), options).await.unwrap()
        });
        Self { engine, fake, controllers, runtime, origin }
    }

    fn revision(behaviour: &str, service: &str, number: u64, replicas: u32) -> Revision {
        let mut revision = revision(service, number);
        revision.spec.replicas = replicas;
        revision.spec.env = vec![format!("BEHAVIOUR={behaviour}")];
        revision
    }
}

impl Harness for Played {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn good(&self, service: &str, number: u64, replicas: u32) -> Revision {
        Self::revision("good", service, number, replicas)
    }

    fn failing(&self, service: &str, number: u64, replicas: u32) -> Revision {
        Self::revision("failing", service, number, replicas)
    }

    fn impossible(&self, service: &str, number: u64, replicas: u32) -> Revision {
        Self::revision("impossible", service, number, replicas)
    }

    fn kill(&self, replica: &ContainerId) {
        let is_it = |pod: &String| {
            let pod = self.fake.get("pods", pod);
            pod.as_ref().and_then(container_id).as_ref() == Some(replica)
        };
        let pod = self.fake.names("pods").into_iter().find(is_it).unwrap();
        self.controllers.kill(&self.fake, &pod);
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn pass_time(&self) {
        self.controllers.pass_time(Duration::from_millis(10));
    }

    fn reopen(self) -> Self {
        let Self { engine, fake, controllers, runtime, origin } = self;
        drop(engine);
        Self::over(fake, controllers, runtime, origin)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

#[test]
fn kept_over_a_cluster() {
    run(|| Played::new(Fake::new()));
}

/// Watches that live for a twentieth of a second, versions that are forgotten all the time, and every seventh request
/// refused with 429 and every eleventh with 500.
#[test]
fn kept_over_a_cluster_that_misbehaves() {
    let [refused, forgotten] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    run(|| {
        let fake = Fake::new();
        fake.watch_life(Duration::from_millis(50));
        let (counted, mut count) = (Arc::clone(&refused), 0_u64);
        fake.fault(move |_, _| {
            count += 1;
            let (code, reason) = match count {
                n if n % 7 == 3 => (429, "TooManyRequests"),
                n if n % 11 == 5 => (500, "InternalError"),
                _ => return None,
            };
            counted.fetch_add(1, Ordering::Relaxed);
            Some(status(code, reason, "a fault", json!({})))
        });
        let (forgetful, counted) = (fake.clone(), Arc::clone(&forgotten));
        let mut watches = 0_u64;
        fake.fault(move |method, path| {
            watches += u64::from(*method == Method::GET && path.contains("watch=true"));
            if watches % 50 == 49 {
                watches = 0;
                counted.fetch_add(1, Ordering::Relaxed);
                forgetful.forget_soon();
            }
            None
        });
        Played::new(fake)
    });
    let [refused, forgotten] = [refused, forgotten].map(|count| count.load(Ordering::Relaxed));
    assert!(refused > 100 && forgotten > 10, "{refused} refused, versions forgotten {forgotten} times");
}
