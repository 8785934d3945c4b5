//! Services: deployed, rolled out, taken back, refused and deleted, with faults in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use slipway_kubernetes::apply::{ApplyOptions, Change, DryRun};
use slipway_kubernetes::client::{ExecOptions, LogOptions};
use slipway_kubernetes::engine::{
    EngineOptions, KubernetesEngine, Publication, PublishError, Publisher, ServiceReport,
};
use slipway_kubernetes::render::render_service;
use slipway_kubernetes::spec::*;
use slipway_orchestrator::engine::{ModelPin, ObservedReplica};
use slipway_orchestrator::{Absence, Desired, Engine, Pass, Revision, Rollout};
use slipway_types::container::Limits;
use slipway_types::model::ModelFormat;
use slipway_types::service::{ReplicaState, ServiceSpec};
use slipway_types::{Digest, Reference};
use tokio::io::AsyncReadExt;

use super::bed::{Bed, OWNER, bed, bed_any, say, wait};
use super::proxy;

pub struct Registry {
    pub namespace: String,
    pub image: Reference,
}

impl Publisher for Registry {
    fn service(&self, revision: &Revision) -> Result<Publication<ServiceDeployment>, PublishError> {
        Ok(Publication::Ready(deployment(&self.namespace, &self.image, revision)))
    }

    fn gateway(&self) -> Result<Option<Publication<GatewayDeployment>>, PublishError> {
        Ok(None)
    }

    fn try_again(&self, _service: &str, _lost: bool) {}
}

fn deployment(namespace: &str, image: &Reference, revision: &Revision) -> ServiceDeployment {
    // A revision says by its image that the registry has none.
    let reference = match revision.spec.image.as_str() {
        "missing" => format!("{}@sha256:{}", image.to_string().split('@').next().unwrap(), "0".repeat(64))
            .parse()
            .unwrap(),
        _ => image.clone(),
    };
    ServiceDeployment {
        spec: revision.spec.clone(),
        revision: revision.number,
        namespace: namespace.into(),
        image: ImagePin {
            reference,
            run_as: RunAs::User { uid: 1000, gid: 1000 },
            architectures: Vec::new(),
        },
        workload: Workload::Model {
            content: ModelContent {
                reference: image.clone(),
                format: ModelFormat::Sklearn,
                labels: Vec::new(),
                delivery: ModelDelivery::Auto,
            },
            tools: image.clone(),
        },
        exposure: Exposure::ClusterIp,
        gateway: None,
        autoscaling: None,
        resources: PodResources::default(),
        placement: Placement::default(),
        environment: Environment::default(),
        egress: false,
        scrape_from: None,
    }
}

pub fn revision(number: u64, change: impl FnOnce(&mut ServiceSpec)) -> Revision {
    let digest = || Digest::from_sha256([7; 32]);
    let mut spec = ServiceSpec {
        name: "my_model".into(),
        image: "image".into(),
        model: "digits".into(),
        version: number,
        replicas: 2,
        limits: Limits { memory: Some(64 << 20), ..Limits::default() },
        ..ServiceSpec::default()
    };
    change(&mut spec);
    Revision {
        number,
        spec,
        image_id: digest(),
        model: Some(ModelPin { manifest: digest(), format: ModelFormat::Sklearn, labels: Vec::new() }),
    }
}

struct Driven {
    engine: Arc<KubernetesEngine>,
    start: Instant,
}

impl Driven {
    async fn new(bed: &Bed, cluster: slipway_kubernetes::Cluster) -> Self {
        let registry = Arc::new(Registry { namespace: bed.namespace.clone(), image: bed.image.clone() });
        let options = EngineOptions { patience: Duration::from_secs(5), ..EngineOptions::new(OWNER) };
        let engine = KubernetesEngine::start(cluster, registry, options).await.unwrap();
        Self { engine: Arc::new(engine), start: Instant::now() }
    }

    async fn pass(&self, desired: &Desired) -> Result<(Pass, Vec<ObservedReplica>), String> {
        let (engine, desired, now) = (self.engine.clone(), [desired.clone()], self.start.elapsed());
        tokio::task::spawn_blocking(move || {
            let mut seen = Vec::new();
            let pass = engine.pass(&desired, now, &mut |replicas| {
                seen = replicas.to_vec();
                Ok(())
            });
            pass.map(|pass| (pass, seen)).map_err(|error| format!("{error:?}"))
        })
        .await
        .unwrap()
    }

    async fn until(
        &self,
        what: &str,
        desired: &Desired,
        seconds: u64,
        so: impl Fn(&Pass, &ServiceReport, &[ObservedReplica]) -> bool,
    ) -> (Pass, Vec<ObservedReplica>) {
        wait(what, seconds, async || {
            let (pass, replicas) = self.pass(desired).await?;
            let report = self.engine.report(desired.service()).unwrap();
            if so(&pass, &report, &replicas) {
                Ok((pass, replicas))
            } else {
                Err(format!("{pass:?}\n{replicas:#?}"))
            }
        })
        .await
    }
}

fn present(target: &Revision, stable: Option<&Revision>) -> Desired {
    Desired::Present { target: target.clone(), stable: stable.cloned(), restarts: 0 }
}

fn steady(_: &Pass, report: &ServiceReport, _: &[ObservedReplica]) -> bool {
    report.rollout == Rollout::Steady
}

fn stalled(pass: &Pass) -> Option<&str> {
    pass.notices.iter().find(|notice| notice.kind == "rollout.stalled").map(|notice| notice.message.as_str())
}

async fn names(bed: &Bed, path: &str) -> Vec<String> {
    let list = bed.get(&path.replace("NS", &bed.namespace)).await;
    let ours = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["metadata"]["labels"]["app.kubernetes.io/component"] == "serving");
    ours.map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_service() {
    let Some(bed) = bed("life").await else { return };
    let driven = Driven::new(&bed, bed.cluster().await).await;
    let one = revision(1, |_| {});
    let (pass, replicas) = driven.until("two pods serve", &present(&one, None), 120, steady).await;
    assert_eq!(pass.completed, [("my_model".to_owned(), 1)]);
    let engine = driven.engine.clone();
    let pods: Vec<String> = replicas.iter().filter_map(|replica| engine.pod(&replica.container)).collect();
    assert_eq!(pods.len(), 2);

    // What is exported is what is there.
    let applier = engine.applier().clone();
    let caps = applier.discovery().capabilities().await.unwrap();
    let rendered = render_service(&deployment(&bed.namespace, &bed.image, &one), &caps).unwrap();
    for object in &rendered.objects {
        let mut object = [object.clone()];
        engine.inventory().set().adopt(&mut object);
        let difference = applier.diff(&object[0]).await.unwrap();
        assert!(difference.is_empty(), "{difference:#?}");
        let options = ApplyOptions { dry_run: DryRun::Server, ..ApplyOptions::default() };
        assert_eq!(applier.apply(&object[0], options).await.unwrap().change, Change::Unchanged);
    }

    let mut logs = applier
        .cluster()
        .logs(
            &bed.namespace,
            &pods[0],
            &LogOptions { container: Some("server".into()), ..LogOptions::default() },
        )
        .await
        .unwrap();
    let (time, line) = logs.next().await.unwrap().unwrap();
    assert!(time.is_some() && line.contains("serving /etc/slipway/runner.json"), "{line}");
    let mut process = applier
        .cluster()
        .exec(
            &bed.namespace,
            &pods[0],
            &ExecOptions {
                container: Some("server".into()),
                command: ["/bin/sh", "-c", "cat /model/weights; exit 7"].map(str::to_owned).into(),
                ..ExecOptions::default()
            },
        )
        .await
        .unwrap();
    let mut out = String::new();
    process.stdout().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!((out.as_str(), process.exit_code().await.unwrap()), ("42\n", 7));

    // Another manager's field is not taken.
    let name = names(&bed, "/apis/apps/v1/namespaces/NS/deployments").await[0].clone();
    let path = format!("/apis/apps/v1/namespaces/{}/deployments/{name}", bed.namespace);
    bed.send("PATCH", &path, json!({"spec": {"replicas": 1}})).await;
    let (pass, _) = driven
        .until("the conflict is told", &present(&one, Some(&one)), 40, |_, report, _| report.reason.is_some())
        .await;
    let reason = pass.services["my_model"].failing.clone().unwrap();
    assert!(reason.contains(".spec.replicas is owned by"), "{reason}");
    assert_eq!(bed.get(&path).await["spec"]["replicas"], 1);
    let mut objects = rendered.objects.clone();
    engine.inventory().set().adopt(&mut objects);
    let force = ApplyOptions { force: true, ..ApplyOptions::default() };
    applier.apply_all(&objects, force).await.unwrap();
    driven.until("taken over, as asked", &present(&one, Some(&one)), 90, steady).await;

    let two = revision(2, |spec| spec.env = vec!["A=b".into()]);
    driven.until("the second revision", &present(&two, Some(&one)), 120, steady).await;
    let (_, replicas) = driven
        .until("its pods alone", &present(&two, Some(&two)), 60, |_, _, replicas| {
            replicas.len() == 2 && replicas.iter().all(|r| r.state == ReplicaState::Ready)
        })
        .await;
    assert!(replicas.iter().all(|r| r.revision == 2));

    for (number, what, expected) in [
        (
            3,
            Box::new(|spec: &mut ServiceSpec| spec.env = vec!["BROKEN=1".into()])
                as Box<dyn Fn(&mut ServiceSpec)>,
            "exit code 3",
        ),
        (4, Box::new(|spec: &mut ServiceSpec| spec.image = "missing".into()), "is not in the registry"),
    ] {
        let bad = revision(number, what);
        let desired = present(&bad, Some(&two));
        let (pass, replicas) =
            driven.until("the reason is told", &desired, 90, |pass, _, _| stalled(pass).is_some()).await;
        assert!(stalled(&pass).unwrap().contains(expected), "{pass:#?}");
        assert!(replicas.iter().filter(|r| r.state == ReplicaState::Ready).count() >= 2, "{replicas:#?}");
        driven
            .until("the stable revision is back", &desired, 90, |_, report, replicas| {
                matches!(report.rollout, Rollout::Stalled { .. })
                    && replicas.len() == 2
                    && replicas.iter().all(|r| r.revision == 2 && r.state == ReplicaState::Ready)
            })
            .await;
    }

    let absent = Desired::Absent { service: "my_model".into(), why: Absence::Deleted };
    wait("everything is gone", 90, async || {
        let (pass, _) = driven.pass(&absent).await?;
        if pass.forgotten.is_empty() { Err(format!("{pass:?}")) } else { Ok(()) }
    })
    .await;
    for path in [
        "/api/v1/namespaces/NS/pods",
        "/api/v1/namespaces/NS/services",
        "/api/v1/namespaces/NS/configmaps",
        "/api/v1/namespaces/NS/serviceaccounts",
        "/apis/apps/v1/namespaces/NS/deployments",
        "/apis/policy/v1/namespaces/NS/poddisruptionbudgets",
        "/apis/networking.k8s.io/v1/namespaces/NS/networkpolicies",
    ] {
        assert_eq!(names(&bed, path).await, Vec::<String>::new(), "{path}");
    }
    let inventory = engine.inventory().clone();
    assert!(inventory.remove_if_empty().await.unwrap());
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_proxy_that_cuts_and_refuses() {
    let Some(bed) = bed("faults").await else { return };
    let (address, faults) = proxy::start(bed.account_client().await, Duration::from_secs(5)).await;
    let driven = Driven::new(&bed, bed.cluster_at(&address).await).await;
    let one = revision(1, |_| {});
    wait("two pods serve", 180, async || {
        let (pass, _) = driven.pass(&present(&one, None)).await?;
        if pass.services["my_model"].rollout == Rollout::Steady { Ok(()) } else { Err(format!("{pass:?}")) }
    })
    .await;
    let two = revision(2, |spec| spec.env = vec!["A=b".into()]);
    wait("the second revision", 180, async || {
        let (pass, _) = driven.pass(&present(&two, Some(&one))).await?;
        if pass.services["my_model"].rollout == Rollout::Steady { Ok(()) } else { Err(format!("{pass:?}")) }
    })
    .await;
    let (refused, cut) = (faults.refused.load(Ordering::Relaxed), faults.cut.load(Ordering::Relaxed));
    say(&format!("{refused} requests refused, {cut} watches cut"));
    assert!(refused > 5 && cut > 20);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_and_namespaces_that_end_are_told() {
    let Some(bed) = bed_any("refusals").await else { return };
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}});
    bed.send("POST", &format!("/api/v1/namespaces/{}/resourcequotas", bed.namespace), quota).await;
    // A finalizer keeps the namespace ending until the test has seen it.
    let hold = json!({"metadata": {"name": "hold", "finalizers": ["slipway.dev/test"]}});
    let held = format!("/api/v1/namespaces/{}/configmaps", bed.namespace);
    bed.send("POST", &held, hold).await;
    let driven = Driven::new(&bed, bed.cluster().await).await;
    let one = revision(1, |_| {});
    let desired = present(&one, None);
    let (pass, _) = driven
        .until("the quota is told", &desired, 60, |_, report, _| {
            report.reason.as_deref().is_some_and(|reason| reason.contains("quota"))
        })
        .await;
    let reason = driven.engine.report("my_model").unwrap().reason.unwrap();
    assert!(reason.contains("quota `few`"), "{pass:#?}");
    let _: Value = bed
        .admin
        .request(
            http::Request::delete(format!("/api/v1/namespaces/{}", bed.namespace)).body(Vec::new()).unwrap(),
        )
        .await
        .unwrap();
    let applier = driven.engine.applier().clone();
    let other = render_service(
        &deployment(&bed.namespace, &bed.image, &revision(2, |spec| spec.name = "other".into())),
        &slipway_kubernetes::Capabilities::default(),
    )
    .unwrap();
    let told = wait("the end of the namespace is told", 60, async || {
        // The Role goes first of all, or last; as long as it is there, this is what is said.
        match applier.apply(&other.objects[0], ApplyOptions::default()).await {
            Err(error) if error.sentence().contains("is being deleted") => Ok(error.sentence()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(told.contains("wait until it is gone"), "{told}");
    bed.send("PATCH", &format!("{held}/hold"), json!({"metadata": {"finalizers": null}})).await;
}
