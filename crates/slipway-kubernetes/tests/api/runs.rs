//! Attempts of gangs, against a cluster whose controllers are played by the test.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use slipway_kubernetes::apply::Inventory;
use slipway_kubernetes::reason::{ReasonKind, RunEnd};
use slipway_kubernetes::runs::{Budget, Progress, RunOptions, RunPhase, RunUpdate, Runs};
use slipway_kubernetes::spec::*;
use slipway_kubernetes::watch::{WatchOptions, Watcher, usual};
use tokio::sync::{mpsc, watch};

use super::engine::reference;
use super::fake::{Fake, NAMESPACE, OWNER, eventually, status};

pub fn run() -> TrainingRun {
    TrainingRun {
        run: "digits-7".into(),
        owner: Some(OWNER.into()),
        project: "digits".into(),
        attempt: 0,
        namespace: NAMESPACE.into(),
        image: ImagePin { reference: reference("image"), run_as: RunAs::Root, architectures: Vec::new() },
        tools: reference("tools"),
        command: vec!["python".into(), "train.py".into()],
        ranks: 2,
        min_ranks: None,
        processes: 1,
        launcher: Launcher::Torchrun,
        env: Vec::new(),
        environment: Environment::default(),
        resources: PodResources::default(),
        placement: Placement::default(),
        workspace: VolumeSource::Bundled,
        data: None,
        output: Storage::New { size: 1 << 30, class: None, shared: true },
        deadline: None,
        grace: 1,
        gang: Gang::Emulated,
        egress: false,
    }
}

/// Name of an attempt.
pub fn attempt(number: u32) -> String {
    TrainingRun { attempt: number, ..run() }.attempt_name().unwrap()
}

pub fn pods_of(fake: &Fake, job: &str, status: impl Fn(usize) -> Value) {
    let live = fake.get("jobs", job).unwrap();
    let template = &live["spec"]["template"]["metadata"];
    for n in 0..2 {
        let mut annotations = template["annotations"].clone();
        annotations["batch.kubernetes.io/job-completion-index"] = n.to_string().into();
        fake.put(
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "status": status(n), "spec": {"nodeName": "node-1"},
                "metadata": {"name": format!("{job}-{n}"), "labels": template["labels"], "annotations": annotations}}),
        );
    }
}

pub fn end(fake: &Fake, plural: &str, job: &str, condition: &str) {
    fake.edit(plural, job, |live| {
        live["status"] =
            json!({"conditions": [{"type": condition, "status": "True", "reason": "x", "message": "m"}]});
    });
}

pub fn ended(code: i64, at: &str) -> Value {
    json!({"phase": if code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": [{"name": "rank", "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "finishedAt": at, "reason": "Error"}}}]})
}

pub struct Bed {
    pub fake: Fake,
    pub runs: Runs,
    _watcher: Watcher,
}

pub async fn bed(options: RunOptions) -> Bed {
    bed_of(Fake::new(), options).await
}

pub async fn bed_of(fake: Fake, options: RunOptions) -> Bed {
    bed_of_owner(fake, OWNER, options).await
}

pub async fn bed_of_owner(fake: Fake, owner: &str, options: RunOptions) -> Bed {
    let applier = fake.applier_of(owner);
    let fast = WatchOptions { pause: Duration::from_millis(10), ..WatchOptions::default() };
    let caps = applier.discovery().capabilities().await.unwrap();
    let mut more = Vec::new();
    if caps.jobset.is_some() {
        more.push(applier.discovery().resource("jobset.x-k8s.io/v1alpha2", "JobSet").await.unwrap());
    }
    let watcher = Watcher::start(applier.cluster(), usual(owner, &more), fast);
    assert!(watcher.store().filled(Duration::from_secs(5)).await);
    let inventory = Arc::new(Inventory::new(applier.clone()).unwrap());
    let runs = Runs::new(applier, inventory, watcher.store().clone(), options);
    Bed { fake, runs, _watcher: watcher }
}

pub struct Driven {
    pub handle: tokio::task::JoinHandle<(Option<RunEnd>, TrainingRun)>,
    pub updates: mpsc::Receiver<RunUpdate>,
    pub cancel: watch::Sender<bool>,
}

fn drive(bed: &Bed, retries: u32) -> Driven {
    drive_run(bed, retries, run())
}

pub fn drive_run(bed: &Bed, retries: u32, run: TrainingRun) -> Driven {
    let (sender, updates) = mpsc::channel(1000);
    let (cancel, cancelled) = watch::channel(false);
    let runs = bed.runs.clone();
    let handle = tokio::spawn(async move {
        let mut run = run;
        let end = runs
            .drive(&mut run, Progress::default(), Budget { retries }, &|_, _| Ok(()), sender, cancelled)
            .await
            .unwrap();
        (end, run)
    });
    Driven { handle, updates, cancel }
}

async fn wait_for_job(bed: &Bed, job: &str) {
    eventually(job, || bed.fake.get("jobs", job).is_some()).await;
}

#[tokio::test]
async fn a_gang_that_succeeds() {
    let bed = bed(RunOptions::default()).await;
    let mut driven = drive(&bed, 0);
    wait_for_job(&bed, &attempt(0)).await;
    pods_of(&bed.fake, &attempt(0), |_| json!({"phase": "Running"}));
    eventually("it runs", || bed.runs.phase(&run()) == RunPhase::Running { running: 2, reason: None }).await;
    pods_of(&bed.fake, &attempt(0), |_| ended(0, "1"));
    end(&bed.fake, "jobs", &attempt(0), "Complete");
    assert_eq!(driven.handle.await.unwrap().0, Some(RunEnd::Succeeded));
    let mut phases = Vec::new();
    while let Some(update) = driven.updates.recv().await {
        if let RunUpdate::Phase { phase, .. } = update {
            phases.push(phase);
        }
    }
    assert!(matches!(phases.last(), Some(RunPhase::Ended(RunEnd::Succeeded))), "{phases:?}");
    assert!(bed.runs.remove("digits-7").await.unwrap() >= 4);
    assert!(bed.fake.names("jobs").is_empty() && bed.fake.names("persistentvolumeclaims").is_empty());
    assert_eq!(
        bed.fake.names("configmaps"),
        [slipway_kubernetes::render::inventory::ApplySet::new(NAMESPACE, OWNER).unwrap().parent_name()]
    );
}

#[tokio::test]
async fn the_first_rank_that_fails_is_the_cause_and_the_gang_begins_again() {
    let bed = bed(RunOptions::default()).await;
    let mut driven = drive(&bed, 1);
    for number in 0..2 {
        let job = attempt(number);
        wait_for_job(&bed, &job).await;
        pods_of(&bed.fake, &job, |n| {
            if n == 1 { ended(3, "2026-01-01T00:00:01Z") } else { ended(1, "2026-01-01T00:00:05Z") }
        });
        end(&bed.fake, "jobs", &job, "Failed");
        if number == 0 {
            eventually("the attempt is removed as a whole", || bed.fake.get("jobs", &job).is_none()).await;
            assert!(bed.fake.get("jobs", &attempt(1)).is_none(), "its pods are still there");
            bed.fake.names("pods").iter().for_each(|name| drop(bed.fake.delete("pods", name)));
        }
    }
    let (end, run) = driven.handle.await.unwrap();
    let Some(RunEnd::Failed { rank, exit_code, reason }) = end else { panic!("{end:?}") };
    assert_eq!((rank, exit_code, reason.kind, run.attempt), (Some(1), Some(3), ReasonKind::Crash, 1));
    assert!(reason.text.contains("rank 1") && reason.text.contains("exit code 3"), "{}", reason.text);
    let mut restarts = Vec::new();
    while let Some(update) = driven.updates.recv().await {
        if let RunUpdate::Restart { attempt, progress, .. } = update {
            restarts.push((attempt, progress.charged, progress.disruptions));
        }
    }
    assert_eq!(restarts, [(1, 1, 0)]);
}

#[tokio::test]
async fn a_lost_node_is_not_charged() {
    let bed = bed(RunOptions::default()).await;
    let driven = drive(&bed, 0);
    wait_for_job(&bed, &attempt(0)).await;
    pods_of(&bed.fake, &attempt(0), |n| {
        if n == 1 {
            json!({"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True",
                "reason": "DeletionByTaintManager", "message": "Taint manager: deleting due to NoExecute taint"}]})
        } else {
            ended(1, "2026-01-01T00:00:00Z")
        }
    });
    end(&bed.fake, "jobs", &attempt(0), "Failed");
    eventually("it is removed", || bed.fake.get("jobs", &attempt(0)).is_none()).await;
    bed.fake.names("pods").iter().for_each(|name| drop(bed.fake.delete("pods", name)));
    wait_for_job(&bed, &attempt(1)).await;
    assert_eq!(bed.fake.names("persistentvolumeclaims").len(), 1, "the output is the same");
    pods_of(&bed.fake, &attempt(1), |_| ended(0, "1"));
    end(&bed.fake, "jobs", &attempt(1), "Complete");
    assert_eq!(driven.handle.await.unwrap().0, Some(RunEnd::Succeeded));
}

#[tokio::test]
async fn a_gang_that_never_comes_up_says_why() {
    let bed =
        bed(RunOptions { gang_time: Duration::from_millis(300), disruptions: 0, ..RunOptions::default() })
            .await;
    let driven = drive(&bed, 0);
    wait_for_job(&bed, &attempt(0)).await;
    pods_of(&bed.fake, &attempt(0), |n| match n {
        0 => json!({"phase": "Running"}),
        _ => json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}]}),
    });
    let Some(RunEnd::Failed { reason, .. }) = driven.handle.await.unwrap().0 else {
        panic!("it should fail")
    };
    assert!(
        reason.text.contains("not all 2 ranks came up in time: rank 1: no node takes it"),
        "{}",
        reason.text
    );
    assert!(reason.text.contains("GPU") && reason.kind == ReasonKind::Evicted, "{}", reason.text);
}

#[tokio::test]
async fn cancelled_and_deleted() {
    let bed = bed(RunOptions::default()).await;
    let driven = drive(&bed, 3);
    wait_for_job(&bed, &attempt(0)).await;
    driven.cancel.send(true).unwrap();
    assert_eq!(driven.handle.await.unwrap().0, None);
    assert!(bed.fake.get("jobs", &attempt(0)).is_none());
    let driven = drive(&bed, 0);
    wait_for_job(&bed, &attempt(0)).await;
    eventually("it is seen", || bed.runs.phase(&run()) != RunPhase::Missing).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    bed.fake.delete("jobs", &attempt(0));
    let Some(RunEnd::Failed { reason, .. }) = driven.handle.await.unwrap().0 else {
        panic!("it should fail")
    };
    assert!(reason.text.contains("somebody deleted its Job"), "{}", reason.text);
}

#[tokio::test]
async fn quotas_that_keep_pods_away_are_told() {
    let bed = bed(RunOptions::default()).await;
    let driven = drive(&bed, 0);
    wait_for_job(&bed, &attempt(0)).await;
    let uid = bed.fake.get("jobs", &attempt(0)).unwrap()["metadata"]["uid"].clone();
    bed.fake.put(
        "events",
        json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "FailedCreate", "involvedObject": {"uid": uid},
            "lastTimestamp": "2026-01-01T00:00:00Z", "message": "Error creating: pods \"x\" is forbidden: exceeded quota: gpu, requested: pods=1, used: pods=4, limited: pods=4"}),
    );
    let quota = |phase: &RunPhase| matches!(phase, RunPhase::Pending { reason: Some(reason), .. } if reason.kind == ReasonKind::Quota);
    eventually("the quota is told", || quota(&bed.runs.phase(&run()))).await;
    driven.cancel.send(true).unwrap();
    driven.handle.await.unwrap();
}

/// Somebody deletes the pods of a Job; they are there as long as nobody ends them.
fn going(fake: &Fake) {
    for name in fake.names("pods") {
        fake.edit("pods", &name, |pod| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:09Z".into());
    }
}

#[tokio::test]
async fn pods_that_nobody_ends_on_a_lost_node_hold_up_no_gang() {
    let options = RunOptions { removal: Duration::ZERO, ..RunOptions::default() };
    let bed = bed(options).await;
    let driven = drive(&bed, 0);
    wait_for_job(&bed, &attempt(0)).await;
    let condition =
        |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason});
    let unheard = json!({"type": "Ready", "status": "False"});
    let ready = condition("ContainersReady", "True", "");
    pods_of(&bed.fake, &attempt(0), |_| json!({"phase": "Running", "conditions": [unheard, ready]}));
    eventually("it may come back", || {
        matches!(bed.runs.phase(&run()), RunPhase::Running { reason: Some(reason), .. }
            if reason.kind == ReasonKind::NodeLost && reason.text.starts_with("rank 0: "))
    })
    .await;
    let taken = condition("DisruptionTarget", "True", "DeletionByTaintManager");
    pods_of(&bed.fake, &attempt(0), |_| json!({"phase": "Running", "conditions": [unheard, taken]}));
    going(&bed.fake);
    wait_for_job(&bed, &attempt(1)).await;
    pods_of(&bed.fake, &attempt(1), |_| ended(0, "1"));
    end(&bed.fake, "jobs", &attempt(1), "Complete");
    assert_eq!(driven.handle.await.unwrap().0, Some(RunEnd::Succeeded));
}

#[tokio::test]
async fn a_rank_that_somebody_deletes_is_no_failure_of_the_program() {
    let bed = bed(RunOptions::default()).await;
    let mut driven = drive(&bed, 0);
    wait_for_job(&bed, &attempt(0)).await;
    pods_of(&bed.fake, &attempt(0), |_| ended(137, "2026-01-01T00:00:09Z"));
    going(&bed.fake);
    end(&bed.fake, "jobs", &attempt(0), "Failed");
    eventually("the attempt is removed", || bed.fake.get("jobs", &attempt(0)).is_none()).await;
    bed.fake.names("pods").iter().for_each(|name| drop(bed.fake.delete("pods", name)));
    wait_for_job(&bed, &attempt(1)).await;
    // With its namespace there can be no other, and that is what is said.
    bed.fake.fault(|method, path| {
        (method == Method::PATCH && path.contains(&format!("/jobs/{}", attempt(2)))).then(|| {
            let text = "jobs \"digits-7-a2\" is forbidden: unable to create new content in namespace ml because it is being terminated";
            status(403, "Forbidden", text, Value::Null)
        })
    });
    pods_of(&bed.fake, &attempt(1), |_| ended(137, "2026-01-01T00:00:09Z"));
    going(&bed.fake);
    end(&bed.fake, "jobs", &attempt(1), "Failed");
    let (end, _) = driven.handle.await.unwrap();
    let Some(RunEnd::Failed { reason, .. }) = end else { panic!("{end:?}") };
    assert!(reason.text.contains("namespace ml is being deleted"), "{}", reason.text);
    let mut told = Vec::new();
    while let Some(update) = driven.updates.recv().await {
        if let RunUpdate::Restart { reason, .. } = update {
            told.push(reason);
        }
    }
    assert_eq!(told, ["rank 0: somebody deleted its pod"]);
}
