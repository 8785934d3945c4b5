//! Services through passes, against a cluster whose controllers are played by the test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use slipway_kubernetes::engine::{
    EngineOptions, KubernetesEngine, Publication, PublishError, Publisher, Reach, ServiceReport,
};
use slipway_kubernetes::spec::*;
use slipway_kubernetes::watch::WatchOptions;
use slipway_orchestrator::engine::{ModelPin, ObservedReplica};
use slipway_orchestrator::{Absence, Desired, Endpoint, Engine, Pass, Revision, Rollout};
use slipway_types::Digest;
use slipway_types::model::ModelFormat;
use slipway_types::service::{ReplicaState, ServiceSpec};

use super::fake::{Fake, NAMESPACE, OWNER, eventually, status};

#[derive(Default)]
pub struct Registry {
    underway: Mutex<bool>,
    exposure: Mutex<Exposure>,
}

impl Publisher for Registry {
    fn service(&self, revision: &Revision) -> Result<Publication<ServiceDeployment>, PublishError> {
        if *self.underway.lock().unwrap() {
            return Ok(Publication::Underway("pushing the image".into()));
        }
        let exposure = self.exposure.lock().unwrap().clone();
        Ok(Publication::Ready(ServiceDeployment { exposure, ..deployment(revision) }))
    }

    fn gateway(&self) -> Result<Option<Publication<GatewayDeployment>>, PublishError> {
        Ok(None)
    }

    fn try_again(&self, _service: &str, _lost: bool) {}
}

pub fn reference(what: &str) -> slipway_types::Reference {
    format!("registry.example.com/{what}@sha256:{}", "05".repeat(32)).parse().unwrap()
}

fn deployment(revision: &Revision) -> ServiceDeployment {
    ServiceDeployment {
        spec: revision.spec.clone(),
        revision: revision.number,
        namespace: NAMESPACE.into(),
        image: ImagePin {
            reference: reference("image"),
            run_as: RunAs::User { uid: 1000, gid: 1000 },
            architectures: Vec::new(),
        },
        workload: Workload::Model {
            content: ModelContent {
                reference: reference("model"),
                format: ModelFormat::Sklearn,
                labels: Vec::new(),
                delivery: ModelDelivery::Auto,
            },
            tools: reference("tools"),
        },
        exposure: Exposure::ClusterIp,
        gateway: None,
        autoscaling: revision.spec.autoscale.map(Into::into),
        resources: PodResources::default(),
        placement: Placement::default(),
        environment: Environment::default(),
        egress: false,
        scrape_from: None,
    }
}

pub fn revision(name: &str, number: u64) -> Revision {
    let digest = || Digest::from_sha256([7; 32]);
    Revision {
        number,
        spec: ServiceSpec {
            name: name.into(),
            image: "image".into(),
            model: "digits".into(),
            version: number,
            replicas: 2,
            ..ServiceSpec::default()
        },
        image_id: digest(),
        model: Some(ModelPin { manifest: digest(), format: ModelFormat::Sklearn, labels: Vec::new() }),
    }
}

pub fn present(name: &str, target: u64, stable: Option<u64>) -> Desired {
    let stable = stable.map(|number| revision(name, number));
    Desired::Present { target: revision(name, target), stable, restarts: 0 }
}

pub struct Bed {
    pub fake: Fake,
    registry: Arc<Registry>,
    pub engine: Arc<KubernetesEngine>,
}

impl Bed {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut EngineOptions)) -> Self {
        let fake = Fake::new();
        fake.watch_life(Duration::from_millis(200));
        Self::start(fake, OWNER, change).await
    }

    /// An engine of an owner's.
    pub async fn over(fake: Fake, owner: &str) -> Self {
        Self::start(fake, owner, |_| {}).await
    }

    async fn start(fake: Fake, owner: &str, change: impl FnOnce(&mut EngineOptions)) -> Self {
        let registry = Arc::new(Registry::default());
        let mut options = EngineOptions {
            patience: Duration::from_secs(30),
            watch: WatchOptions { pause: Duration::from_millis(10), ..WatchOptions::default() },
            ..EngineOptions::new(owner)
        };
        change(&mut options);
        let engine = KubernetesEngine::start(fake.cluster(), registry.clone(), options).await.unwrap();
        Self { fake, registry, engine: Arc::new(engine) }
    }

    pub async fn pass(
        &self,
        desired: &[Desired],
        seconds: u64,
    ) -> (Result<Pass, String>, Vec<ObservedReplica>) {
        let (engine, desired) = (self.engine.clone(), desired.to_vec());
        tokio::task::spawn_blocking(move || {
            let mut seen = Vec::new();
            let mut publish = |replicas: &[ObservedReplica]| {
                seen = replicas.to_vec();
                Ok(())
            };
            let pass = engine.pass(&desired, Duration::from_secs(seconds), &mut publish);
            (
                pass.map_err(|error| {
                    format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string))
                }),
                seen,
            )
        })
        .await
        .unwrap()
    }

    pub fn report(&self, service: &str) -> ServiceReport {
        self.engine.report(service).unwrap()
    }

    /// Passes until the report is as wanted.
    pub async fn until(
        &self,
        desired: &Desired,
        at: u64,
        so: impl Fn(&ServiceReport, &Pass) -> bool,
    ) -> Pass {
        let mut last = None;
        for _ in 0..100 {
            let (pass, _) = self.pass(std::slice::from_ref(desired), at).await;
            let pass = pass.unwrap();
            let report = self.report(desired.service());
            if so(&report, &pass) {
                return pass;
            }
            last = Some((report, pass));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never so: {last:#?}");
    }

    /// Plays the controllers: pods of the Deployment's template, with this status.
    pub fn roll(&self, name: &str, pod_status: &Value, available: u64) {
        self.fake.edit("deployments", name, |deployment| {
            let generation = deployment["metadata"]["generation"].clone();
            deployment["status"] = json!({"observedGeneration": generation, "replicas": 2, "updatedReplicas": 2,
                "availableReplicas": available});
        });
        let deployment = self.fake.get("deployments", name).unwrap();
        let template = &deployment["spec"]["template"]["metadata"];
        for n in 0..2 {
            self.fake.put(
                "pods",
                json!({"apiVersion": "v1", "kind": "Pod", "status": pod_status, "metadata": {
                    "name": format!("{name}-{n}"), "labels": template["labels"], "annotations": template["annotations"]}}),
            );
        }
    }
}

/// What a pass tells of a kind.
pub fn told(pass: &Pass, kind: &str) -> Option<String> {
    pass.notices.iter().find(|notice| notice.kind == kind).map(|notice| notice.message.clone())
}

pub fn ready() -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
}

fn no_image() -> Value {
    json!({"phase": "Pending", "containerStatuses": [{"name": "server", "image": "registry.example.com/image",
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}, "restartCount": 0}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_applies_some_services_and_the_next_ones_the_others() {
    let bed = Bed::with(|options| options.applied_at_once = 2).await;
    let desired: Vec<Desired> = (0..5).map(|n| present(&format!("s{n}"), 1, None)).collect();
    for (pass, expected) in [2, 4, 5, 5].into_iter().enumerate() {
        let now = pass as u64;
        let (done, _) = bed.pass(&desired, now).await;
        let done = done.unwrap();
        let there = (0..5).filter(|n| bed.fake.get("deployments", &format!("s{n}")).is_some()).count();
        assert_eq!((there, done.services.len()), (expected, 5), "pass {pass}");
        if expected < 5 {
            assert_eq!(done.wake_at, Some(Duration::from_secs(now)), "the others come at once");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deploys_observes_and_then_leaves_alone() {
    let bed = Bed::new().await;
    let desired = present("my_model", 1, None);
    let (pass, _) = bed.pass(std::slice::from_ref(&desired), 1).await;
    let pass = pass.unwrap();
    assert!(matches!(pass.services["my_model"].rollout, Rollout::Progressing { .. }));
    assert!(told(&pass, "rollout.started").is_some(), "{pass:?}");
    let name = &bed.fake.names("deployments")[0].clone();
    assert!(name.starts_with("my-model-"));
    bed.roll(name, &ready(), 2);
    let pass = bed.until(&desired, 2, |report, _| report.rollout == Rollout::Steady).await;
    assert_eq!(pass.completed, [("my_model".to_owned(), 1)]);
    assert!(told(&pass, "rollout.completed").unwrap().contains("2 replicas are ready"), "{pass:?}");
    assert_eq!(bed.report("my_model").address.map(|a| a.reach), Ok(Reach::Cluster));
    let url = format!("http://{name}.{NAMESPACE}.svc");
    let desired = present("my_model", 1, Some(1));
    bed.until(&desired, 2, |report, _| report.answers).await;
    assert_eq!(bed.engine.endpoint("my_model"), Endpoint::Url { url, reachable: true });
    bed.until(&desired, 3, |report, pass| report.rollout == Rollout::Steady && pass.wake_at.is_none()).await;
    // What is as it shall be costs no request at all.
    bed.fake.forget_requests();
    let (pass, replicas) = bed.pass(std::slice::from_ref(&desired), 60).await;
    assert!(pass.unwrap().completed.is_empty());
    assert_eq!(bed.fake.count(|_, path| !path.contains("watch=true")), 0, "{:?}", bed.fake.requests());
    assert_eq!(replicas.len(), 2);
    assert!(replicas.iter().all(|r| r.state == ReplicaState::Ready && r.service == "my_model"));
    // What somebody else changes is put right.
    bed.fake.edit("services", name, |service| service["spec"]["ports"][0]["port"] = 81.into());
    bed.until(&desired, 61, |_, _| bed.fake.get("services", name).unwrap()["spec"]["ports"][0]["port"] == 80)
        .await;
    bed.until(&desired, 62, |report, _| report.rollout == Rollout::Steady).await;
    bed.fake.delete("networkpolicies", name);
    bed.until(&desired, 63, |_, _| bed.fake.get("networkpolicies", name).is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_never_starts_is_taken_back() {
    let bed = Bed::new().await;
    bed.pass(&[present("a", 1, None)], 1).await.0.unwrap();
    bed.roll("a", &ready(), 2);
    bed.until(&present("a", 1, None), 2, |report, _| report.rollout == Rollout::Steady).await;
    let desired = present("a", 2, Some(1));
    bed.pass(std::slice::from_ref(&desired), 10).await.0.unwrap();
    let configs = bed.fake.names("configmaps").len();
    bed.roll("a", &no_image(), 0);
    let pass = bed.until(&desired, 11, |report, _| report.reason.is_some()).await;
    assert!(told(&pass, "replica.start_failed").unwrap().contains("is not in the registry"), "{pass:#?}");
    assert_eq!(pass.services["a"].failing, None, "it may pass");
    let pass = bed.until(&desired, 45, |_, pass| !pass.notices.is_empty()).await;
    let stalled = told(&pass, "rollout.stalled").unwrap();
    assert!(stalled.contains("Revision 2 does not come up and revision 1 is put back"), "{pass:#?}");
    let label = |bed: &Bed| {
        bed.fake.get("deployments", "a").unwrap()["spec"]["template"]["metadata"]["labels"]["slipway.dev/revision"].clone()
    };
    let pass = bed.until(&desired, 46, |_, _| label(&bed) == "1").await;
    assert!(matches!(pass.services["a"].rollout, Rollout::Stalled { .. }));
    bed.roll("a", &ready(), 2);
    // Another daemon does not try it again by itself.
    let options = EngineOptions::new(OWNER);
    let other = KubernetesEngine::start(bed.fake.cluster(), bed.registry.clone(), options).await.unwrap();
    let bed = Bed { engine: Arc::new(other), ..bed };
    let pass = bed.until(&desired, 1, |report, _| report.reason.is_some()).await;
    assert!(
        matches!(&pass.services["a"].rollout, Rollout::Stalled { reason, .. } if reason.contains("registry")),
        "{pass:#?}"
    );
    assert_eq!(label(&bed), "1");
    assert_eq!(bed.fake.names("configmaps").len(), configs, "what either revision needs stays");
    // A user who asks again is believed: the failed revision is tried once more, and its failure told once more.
    bed.engine.try_again("a");
    let (pass, _) = bed.pass(std::slice::from_ref(&desired), 2).await;
    assert_eq!(pass.unwrap().services["a"].failing, None);
    bed.until(&desired, 2, |_, _| label(&bed) == "2").await;
    bed.roll("a", &no_image(), 0);
    bed.until(&desired, 3, |report, _| report.reason.is_some()).await;
    let pass = bed.until(&desired, 200, |report, _| report.failing.is_some()).await;
    assert!(told(&pass, "rollout.stalled").is_some(), "{pass:#?}");
    bed.until(&desired, 201, |_, _| label(&bed) == "1").await;
    bed.roll("a", &ready(), 2);
    // A third revision is tried, and what only the first two had goes.
    let desired = present("a", 3, Some(1));
    bed.until(&desired, 202, |_, _| label(&bed) == "3").await;
    bed.roll("a", &ready(), 2);
    bed.until(&desired, 203, |report, _| report.rollout == Rollout::Steady).await;
    let desired = present("a", 3, Some(3));
    bed.until(&desired, 204, |_, _| bed.fake.names("configmaps").len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_deleted_leaves_nothing() {
    let bed = Bed::new().await;
    bed.pass(&[present("a", 1, None), present("b", 1, None)], 1).await.0.unwrap();
    bed.roll("a", &ready(), 2);
    bed.fake.put(
        "configmaps",
        json!({"metadata": {"name": "theirs", "labels": {"slipway.dev/service": "a",
        "app.kubernetes.io/managed-by": "slipway"}, "annotations": {"slipway.dev/name": "a"}}}),
    );
    eventually("the pods are seen", || bed.engine.store().snapshot().of("Pod").len() == 2).await;
    let absent = [Desired::Absent { service: "a".into(), why: Absence::Deleted }, present("b", 1, None)];
    for at in 2..100 {
        let (pass, _) = bed.pass(&absent, at).await;
        let pass = pass.unwrap();
        if bed.fake.get("deployments", "a").is_none() {
            // Pods that end are kept apart until they have ended.
            let pods = bed.fake.names("pods").len();
            assert!(pods == 0 || bed.fake.get("networkpolicies", "a").is_some());
            // The cluster's garbage collector.
            bed.fake.names("pods").iter().for_each(|name| drop(bed.fake.delete("pods", name)));
        }
        if !pass.forgotten.is_empty() {
            break;
        }
        assert!(at < 99, "{pass:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bed.fake.names("deployments"), ["b"]);
    assert!(bed.fake.get("configmaps", "theirs").is_some(), "no member of the set");
    assert!(!bed.fake.names("services").contains(&"a".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_images_and_tells_refusals_once() {
    let bed = Bed::new().await;
    *bed.registry.underway.lock().unwrap() = true;
    let desired = present("a", 1, None);
    let (pass, _) = bed.pass(std::slice::from_ref(&desired), 1).await;
    pass.unwrap();
    assert_eq!(bed.engine.endpoint("a"), Endpoint::Pending { reason: "pushing the image".into() });
    assert!(bed.fake.names("deployments").is_empty());
    *bed.registry.underway.lock().unwrap() = false;
    bed.fake.fault(|method, path| {
        (method == Method::PATCH && path.contains("/deployments/")).then(|| {
            status(
                403,
                "Forbidden",
                r#"admission webhook "no.example.com" denied the request: no"#,
                Value::Null,
            )
        })
    });
    let (pass, _) = bed.pass(std::slice::from_ref(&desired), 2).await;
    let pass = pass.unwrap();
    let refused = told(&pass, "service.refused").unwrap();
    assert!(refused.contains("webhook `no.example.com` refuses it (no)"), "{pass:#?}");
    let wake = pass.wake_at.unwrap();
    assert_eq!(wake, Duration::from_secs(4));
    let before = bed.fake.requests().len();
    let (pass, _) = bed.pass(std::slice::from_ref(&desired), 3).await;
    let pass = pass.unwrap();
    let reason = bed.report("a").reason;
    assert!(pass.notices.is_empty() && reason.unwrap().contains("webhook"), "{pass:#?}");
    let asked = bed.fake.requests()[before..].iter().filter(|(_, path)| !path.contains("watch=true")).count();
    assert_eq!(asked, 0, "it waits");
    let (pass, _) = bed.pass(std::slice::from_ref(&desired), 5).await;
    assert!(pass.unwrap().notices.is_empty(), "the same is told once");
    bed.fake.clear_faults();
    bed.pass(std::slice::from_ref(&desired), 100).await.0.unwrap();
    assert_eq!(bed.fake.names("deployments"), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_nothing_is_concluded() {
    let bed = Bed::new().await;
    let desired = present("a", 1, None);
    bed.pass(std::slice::from_ref(&desired), 1).await.0.unwrap();
    bed.fake.fault(|_, _| Some(status(503, "ServiceUnavailable", "restarting", Value::Null)));
    let engine = bed.engine.clone();
    eventually("the copy is old", || {
        let store = engine.store().clone();
        matches!(store.health(), slipway_kubernetes::watch::Health::Old { .. })
    })
    .await;
    let (pass, replicas) =
        bed.pass(&[Desired::Absent { service: "a".into(), why: Absence::Deleted }], 2).await;
    assert!(pass.unwrap_err().contains("not available") && replicas.is_empty());
    assert!(bed.fake.get("deployments", "a").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_came_later_is_left_out_until_it_is_watched() {
    let bed = Bed::new().await;
    bed.fake.serve(&[("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")]);
    bed.engine.applier().discovery().refresh();
    *bed.registry.exposure.lock().unwrap() = Exposure::Host {
        host: "a.example.com".into(),
        parent: Some(RouteParent { name: "front".into(), namespace: None, section: None }),
        ingress_class: None,
        tls_secret: None,
    };
    let desired = present("a", 1, None);
    bed.pass(std::slice::from_ref(&desired), 1).await.0.unwrap();
    bed.roll("a", &ready(), 2);
    let pass = bed.until(&desired, 2, |report, _| report.rollout == Rollout::Steady).await;
    assert_eq!((bed.fake.names("ingresses"), bed.fake.names("httproutes").len()), (vec!["a".into()], 0));
    assert!(told(&pass, "service.refused").is_none(), "{pass:#?}");
    // The next daemon watches it, uses it, and removes what took its place.
    let other = KubernetesEngine::start(bed.fake.cluster(), bed.registry.clone(), EngineOptions::new(OWNER));
    let bed = Bed { engine: Arc::new(other.await.unwrap()), ..bed };
    bed.until(&desired, 3, |report, _| {
        report.rollout == Rollout::Steady && bed.fake.names("ingresses").is_empty()
    })
    .await;
    assert_eq!(bed.fake.names("httproutes"), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inventory_that_somebody_deletes_is_written_again() {
    let bed = Bed::new().await;
    let desired = present("a", 1, None);
    bed.pass(std::slice::from_ref(&desired), 1).await.0.unwrap();
    bed.roll("a", &ready(), 2);
    bed.until(&desired, 2, |report, _| report.rollout == Rollout::Steady).await;
    let inventory = |bed: &Bed| {
        let name = bed.engine.inventory().set().parent_name();
        let parent = bed.fake.get("configmaps", name)?;
        Some(parent["metadata"]["annotations"]["applyset.kubernetes.io/contains-group-kinds"].clone())
    };
    let before = inventory(&bed).unwrap();
    assert!(before.as_str().unwrap().contains("Deployment.apps"), "{before}");
    bed.fake.delete("configmaps", bed.engine.inventory().set().parent_name());
    bed.until(&desired, 3, |_, _| inventory(&bed).is_some()).await;
    assert_eq!(inventory(&bed).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pod_of_a_service_that_ran_is_no_failed_rollout() {
    let bed = Bed::new().await;
    bed.pass(&[present("a", 1, None)], 1).await.0.unwrap();
    bed.roll("a", &ready(), 2);
    bed.until(&present("a", 1, None), 2, |report, _| report.rollout == Rollout::Steady).await;
    let desired = present("a", 1, Some(1));
    bed.roll("a", &no_image(), 1);
    bed.until(&desired, 3, |report, _| report.reason.is_some()).await;
    let pass = bed.until(&desired, 300, |report, _| report.reason.is_some()).await;
    assert_eq!(pass.services["a"].failing, None, "{pass:#?}");
    assert!(matches!(pass.services["a"].rollout, Rollout::Progressing { .. }), "{pass:#?}");
    assert!(told(&pass, "rollout.stalled").is_none(), "{pass:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_own_is_told_until_a_user_takes_it_over() {
    let bed = Bed::new().await;
    let desired = present("a", 1, None);
    bed.pass(std::slice::from_ref(&desired), 1).await.0.unwrap();
    bed.roll("a", &ready(), 2);
    bed.until(&desired, 2, |report, _| report.rollout == Rollout::Steady).await;
    let conflict = || {
        bed.fake.fault(|method, path| {
            let refused = method == Method::PATCH && path.contains("/deployments/");
            (refused && path.contains("force=false")).then(|| {
                let cause = json!({"reason": "FieldManagerConflict", "field": ".spec.replicas",
                    "message": "conflict with \"hpa\" using apps/v1"});
                status(409, "Conflict", "Apply failed with 1 conflict", json!({"causes": [cause]}))
            })
        });
        bed.fake.edit("deployments", "a", |one| {
            one["spec"]["replicas"] = 3.into();
            one["metadata"]["generation"] = (one["metadata"]["generation"].as_i64().unwrap() + 1).into();
        });
    };
    conflict();
    bed.until(&desired, 20, |report, _| report.failing.is_some()).await;
    let report = bed.report("a");
    let failing = report.failing.as_deref().unwrap();
    assert!(
        failing.contains(".spec.replicas is owned by `hpa`") && failing.contains("--take-over"),
        "{failing}"
    );
    assert!(report.address.is_ok(), "what runs goes on to answer: {report:?}");
    // The same while it waits.
    let (pass, _) = bed.pass(std::slice::from_ref(&desired), 21).await;
    assert_eq!(pass.unwrap().services["a"].failing.as_deref(), Some(failing));
    let replicas = || bed.fake.get("deployments", "a").unwrap()["spec"]["replicas"].clone();
    assert_eq!(replicas(), 3);
    bed.engine.take_over("a");
    bed.until(&desired, 22, |report, _| report.failing.is_none()).await;
    assert_eq!(replicas(), 2);
    // Once, and not from then on.
    conflict();
    bed.until(&desired, 60, |report, _| report.failing.is_some()).await;
    assert_eq!(replicas(), 3);
}
