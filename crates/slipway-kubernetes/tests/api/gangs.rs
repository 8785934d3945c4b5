//! Gangs that something in the cluster starts, whose controllers are played by the test.

use std::time::Duration;

use serde_json::{Value, json};
use slipway_kubernetes::reason::{ReasonKind, RunEnd};
use slipway_kubernetes::runs::{GangError, RunOptions, RunPhase, RunUpdate};
use slipway_kubernetes::spec::{Gang, TrainingRun};
use slipway_types::run::{self, GangBy};

use super::fake::{Fake, JOB_SET, LOCAL_QUEUE, OWNER, VOLCANO_GROUP, WORKLOAD, eventually};
use super::runs::{Bed, attempt, bed, bed_of, drive_run, end, ended, pods_of, run};

fn by(gang: Gang) -> TrainingRun {
    TrainingRun { gang, ..run() }
}

fn kueue() -> Gang {
    Gang::Kueue { queue: "gpus".into() }
}

fn asked(by: GangBy) -> run::Gang {
    run::Gang { ranks: 2, by, ..run::Gang::default() }
}

async fn forget_pods(bed: &Bed) {
    bed.fake.names("pods").iter().for_each(|name| drop(bed.fake.delete("pods", name)));
}

#[tokio::test]
async fn what_the_cluster_has_is_used_where_one_may() {
    let fake = Fake::new();
    fake.serve(&[JOB_SET, VOLCANO_GROUP, LOCAL_QUEUE, WORKLOAD]);
    let bed = bed_of(fake, RunOptions::default()).await;
    let auto = async || bed.runs.gang(&asked(GangBy::Auto)).await.unwrap();
    assert_eq!(auto().await, Gang::Volcano { queue: None }, "Kueue has no queue here");
    bed.fake.put("localqueues", json!({"metadata": {"name": "gpus"}}));
    assert_eq!(auto().await, kueue());
    bed.fake.deny("list localqueues");
    bed.fake.deny("create podgroups");
    assert_eq!(auto().await, Gang::JobSet);
    bed.fake.deny("create jobsets");
    assert_eq!(auto().await, Gang::Emulated, "a Role of before they were installed");
    // What is asked for is not left out silently.
    assert_eq!(bed.runs.gang(&asked(GangBy::JobSet)).await.unwrap(), Gang::JobSet);
    assert_eq!(bed.runs.gang(&asked(GangBy::Kueue)).await.unwrap(), kueue());
    assert_eq!(bed.runs.gang(&asked(GangBy::None)).await.unwrap(), Gang::Emulated);
    let missing = bed.runs.gang(&asked(GangBy::PodGroup)).await.unwrap_err();
    assert!(matches!(missing, GangError::NotServed(_)), "{missing}");
}

#[tokio::test]
async fn what_is_installed_later_is_found() {
    let bed = bed(RunOptions::default()).await;
    assert_eq!(bed.runs.gang(&asked(GangBy::Auto)).await.unwrap(), Gang::Emulated);
    bed.runs.gang(&asked(GangBy::JobSet)).await.unwrap_err();
    bed.fake.serve(&[JOB_SET]);
    assert_eq!(bed.runs.gang(&asked(GangBy::JobSet)).await.unwrap(), Gang::JobSet);
}

/// What JobSet's controller makes of one.
fn job_of_set(fake: &Fake, set: &str) -> String {
    let live = fake.get("jobsets", set).unwrap();
    let template = &live["spec"]["replicatedJobs"][0]["template"];
    let name = format!("{set}-n-0");
    let metadata = json!({"name": name, "labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"]});
    fake.put(
        "jobs",
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}),
    );
    name
}

#[tokio::test]
async fn a_job_set_that_fails_begins_again_as_another() {
    let fake = Fake::new();
    fake.serve(&[JOB_SET]);
    let bed = bed_of(fake, RunOptions::default()).await;
    let mut driven = drive_run(&bed, 1, by(Gang::JobSet));
    let set = attempt(0);
    eventually("the set", || bed.fake.get("jobsets", &set).is_some()).await;
    assert_eq!(bed.fake.get("jobsets", &set).unwrap()["spec"]["failurePolicy"]["maxRestarts"], 0);
    let nobody = |phase: &RunPhase| matches!(phase, RunPhase::Pending { reason: Some(reason), .. } if reason.text.contains("controller of JobSet"));
    eventually("nobody makes its Job", || nobody(&bed.runs.phase(&by(Gang::JobSet)))).await;
    let job = job_of_set(&bed.fake, &set);
    pods_of(&bed.fake, &job, |n| {
        if n == 1 { ended(3, "2026-01-01T00:00:01Z") } else { json!({"phase": "Running"}) }
    });
    end(&bed.fake, "jobs", &job, "Failed");
    eventually("the set is removed", || bed.fake.get("jobsets", &set).is_none()).await;
    assert!(bed.fake.get("jobsets", &attempt(1)).is_none(), "its pods are still there");
    // The cluster's garbage collector.
    bed.fake.delete("jobs", &job);
    forget_pods(&bed).await;
    let set = attempt(1);
    eventually("the next set", || bed.fake.get("jobsets", &set).is_some()).await;
    let job = job_of_set(&bed.fake, &set);
    pods_of(&bed.fake, &job, |_| json!({"phase": "Running"}));
    let second = TrainingRun { attempt: 1, ..by(Gang::JobSet) };
    eventually("it runs", || bed.runs.phase(&second) == RunPhase::Running { running: 2, reason: None }).await;
    pods_of(&bed.fake, &job, |_| ended(0, "1"));
    end(&bed.fake, "jobs", &job, "Complete");
    assert_eq!(driven.handle.await.unwrap().0, Some(RunEnd::Succeeded));
    let mut restarts = Vec::new();
    while let Some(update) = driven.updates.recv().await {
        if let RunUpdate::Restart { reason, .. } = update {
            restarts.push(reason);
        }
    }
    assert!(restarts.len() == 1 && restarts[0].contains("rank 1"), "{restarts:?}");
    bed.runs.remove("digits-7").await.unwrap();
    assert!(bed.fake.names("jobsets").is_empty() && bed.fake.names("services").is_empty());
}

#[tokio::test]
async fn a_job_set_whose_controller_is_not_there_is_given_up() {
    let fake = Fake::new();
    fake.serve(&[JOB_SET]);
    let options =
        RunOptions { gang_time: Duration::from_millis(300), disruptions: 0, ..RunOptions::default() };
    let bed = bed_of(fake, options).await;
    let Some(RunEnd::Failed { reason, .. }) = drive_run(&bed, 0, by(Gang::JobSet)).handle.await.unwrap().0
    else {
        panic!("it should fail")
    };
    assert!(reason.text.contains("controller of JobSet running"), "{}", reason.text);
}

fn workload(fake: &Fake, job: &str, message: &str) {
    let uid = fake.get("jobs", job).unwrap()["metadata"]["uid"].clone();
    fake.put(
        "workloads",
        json!({"metadata": {"name": format!("job-{job}"), "labels": {"kueue.x-k8s.io/job-uid": uid}},
            "spec": {"active": true}, "status": {"conditions": [
                {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": message}]}}),
    );
}

#[tokio::test]
async fn a_queue_holds_a_gang_and_its_place_may_be_taken_away() {
    let fake = Fake::new();
    fake.serve(&[LOCAL_QUEUE, WORKLOAD]);
    // Nobody but the queue ends an attempt that waits.
    let options = RunOptions {
        gang_time: Duration::from_millis(10),
        ask_queue: Duration::from_millis(20),
        ..RunOptions::default()
    };
    let bed = bed_of(fake, options).await;
    let job = attempt(0);
    let mut driven = drive_run(&bed, 0, by(kueue()));
    eventually("the job", || bed.fake.get("jobs", &job).is_some()).await;
    let live = bed.fake.get("jobs", &job).unwrap();
    assert_eq!(live["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "gpus");
    assert_eq!(live["spec"]["suspend"], true);
    workload(&bed.fake, &job, "insufficient unused quota for cpu");
    let mut waits = false;
    while !waits {
        let update = driven.updates.recv().await.unwrap();
        if let RunUpdate::Phase { phase: RunPhase::Pending { reason: Some(reason), .. }, .. } = update {
            waits = reason.text.contains("in the queue gpus: insufficient unused quota");
        }
    }
    // It is admitted; another process that drives the run does not suspend it again.
    bed.fake.edit("jobs", &job, |live| live["spec"]["suspend"] = false.into());
    pods_of(&bed.fake, &job, |_| json!({"phase": "Running"}));
    eventually("it runs", || bed.runs.phase(&by(kueue())) == RunPhase::Running { running: 2, reason: None })
        .await;
    bed.runs.start(&by(kueue())).await.unwrap();
    assert_eq!(bed.fake.get("jobs", &job).unwrap()["spec"]["suspend"], false);
    // The queue stops it: its programs end by its signal, which is no failure of theirs.
    bed.fake.edit("jobs", &job, |live| live["spec"]["suspend"] = true.into());
    pods_of(&bed.fake, &job, |_| ended(143, "2026-01-01T00:00:01Z"));
    end(&bed.fake, "jobs", &job, "Failed");
    eventually("it is removed", || bed.fake.get("jobs", &job).is_none()).await;
    forget_pods(&bed).await;
    eventually("it waits again", || bed.fake.get("jobs", &attempt(1)).is_some()).await;
    bed.fake.edit("jobs", &attempt(1), |live| live["spec"]["suspend"] = false.into());
    pods_of(&bed.fake, &attempt(1), |_| ended(0, "1"));
    end(&bed.fake, "jobs", &attempt(1), "Complete");
    let (end, run) = driven.handle.await.unwrap();
    assert_eq!((end, run.attempt), (Some(RunEnd::Succeeded), 1), "it had no retries");
}

#[tokio::test]
async fn a_group_for_the_scheduler_goes_with_its_attempt() {
    let fake = Fake::new();
    fake.serve(&[VOLCANO_GROUP]);
    let bed = bed_of(fake, RunOptions::default()).await;
    let driven = drive_run(&bed, 1, by(Gang::Volcano { queue: None }));
    let job = attempt(0);
    eventually("the job", || bed.fake.get("jobs", &job).is_some()).await;
    assert_eq!(bed.fake.get("podgroups", &job).unwrap()["spec"]["minMember"], 2);
    let template = &bed.fake.get("jobs", &job).unwrap()["spec"]["template"];
    assert_eq!(template["spec"]["schedulerName"], "volcano");
    assert_eq!(template["metadata"]["annotations"]["scheduling.k8s.io/group-name"], job.as_str());
    pods_of(&bed.fake, &job, |_| ended(1, "2026-01-01T00:00:01Z"));
    end(&bed.fake, "jobs", &job, "Failed");
    eventually("the group is removed", || bed.fake.get("podgroups", &job).is_none()).await;
    forget_pods(&bed).await;
    eventually("the next group", || bed.fake.get("podgroups", &attempt(1)).is_some()).await;
    driven.cancel.send(true).unwrap();
    assert_eq!(driven.handle.await.unwrap().0, None);
    assert!(bed.fake.names("podgroups").is_empty() && bed.fake.names("jobs").is_empty());
}

#[tokio::test]
async fn two_daemons_have_a_run_of_one_id() {
    let fake = Fake::new();
    let one = bed_of(fake.clone(), RunOptions::default()).await;
    let two = super::runs::bed_of_owner(fake.clone(), "4e5f6071", RunOptions::default()).await;
    let other = TrainingRun { owner: Some("4e5f6071".into()), ..run() };
    let (first, second) = (drive_run(&one, 0, run()), drive_run(&two, 0, other.clone()));
    let names = [attempt(0), other.attempt_name().unwrap()];
    for name in &names {
        eventually("both jobs", || fake.get("jobs", name).is_some()).await;
        pods_of(&fake, name, |_| json!({"phase": "Running"}));
    }
    eventually("one runs", || one.runs.phase(&run()) == RunPhase::Running { running: 2, reason: None }).await;
    eventually("the other runs", || two.runs.phase(&other) == RunPhase::Running { running: 2, reason: None })
        .await;
    // The names of ranks are of one run's pods alone.
    let selectors: Vec<Value> = fake
        .names("services")
        .iter()
        .map(|name| fake.get("services", name).unwrap()["spec"]["selector"].clone())
        .collect();
    assert!(selectors.len() == 2 && selectors[0] != selectors[1], "{selectors:?}");
    pods_of(&fake, &names[0], |_| ended(4, "2026-01-01T00:00:01Z"));
    end(&fake, "jobs", &names[0], "Failed");
    let Some(RunEnd::Failed { exit_code, .. }) = first.handle.await.unwrap().0 else { panic!("it fails") };
    assert_eq!(exit_code, Some(4));
    one.runs.remove("digits-7").await.unwrap();
    assert_eq!(fake.names("jobs"), [names[1].clone()], "the other's is left alone");
    pods_of(&fake, &names[1], |_| ended(0, "1"));
    end(&fake, "jobs", &names[1], "Complete");
    assert_eq!(second.handle.await.unwrap().0, Some(RunEnd::Succeeded));
    two.runs.remove("digits-7").await.unwrap();
    assert!(fake.names("jobs").is_empty() && fake.names("persistentvolumeclaims").is_empty());
}

#[tokio::test]
async fn an_output_that_is_kept_is_all_that_stays() {
    let bed = bed(RunOptions::default()).await;
    let driven = drive_run(&bed, 0, run());
    eventually("the job", || bed.fake.get("jobs", &attempt(0)).is_some()).await;
    pods_of(&bed.fake, &attempt(0), |_| ended(0, "1"));
    end(&bed.fake, "jobs", &attempt(0), "Complete");
    driven.handle.await.unwrap();
    bed.runs.release("digits-7").await.unwrap();
    for plural in ["jobs", "services", "serviceaccounts", "networkpolicies"] {
        assert!(bed.fake.names(plural).is_empty(), "{plural}");
    }
    let claims = bed.fake.names("persistentvolumeclaims");
    assert_eq!(claims, [slipway_kubernetes::runs::output_claim(&run()).unwrap()]);
    assert_eq!(slipway_kubernetes::runs::model_folder(&run()), "ranks/0/model");
    bed.runs.remove("digits-7").await.unwrap();
    assert!(bed.fake.names("persistentvolumeclaims").is_empty());
}

#[tokio::test]
async fn secrets_are_in_no_template() {
    let bed = bed(RunOptions::default()).await;
    let mut run = run();
    run.environment.secrets.insert("HF_TOKEN".into(), "hf_s3cret".into());
    let driven = drive_run(&bed, 0, run);
    eventually("the job", || bed.fake.get("jobs", &attempt(0)).is_some()).await;
    let job = bed.fake.get("jobs", &attempt(0)).unwrap();
    assert!(!job.to_string().contains("hf_s3cret"), "{job}");
    let env = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    let token = env.iter().find(|one| one["name"] == "HF_TOKEN").unwrap();
    let [secret] = &bed.fake.names("secrets")[..] else { panic!("one Secret") };
    assert_eq!(token["valueFrom"]["secretKeyRef"], json!({"name": secret, "key": "HF_TOKEN"}));
    assert_eq!(bed.fake.get("secrets", secret).unwrap()["data"]["HF_TOKEN"], "aGZfczNjcmV0");
    driven.cancel.send(true).unwrap();
    driven.handle.await.unwrap();
    bed.runs.remove("digits-7").await.unwrap();
    assert!(bed.fake.names("secrets").is_empty());
}

#[tokio::test]
async fn a_deadline_is_the_programs_own() {
    // A queue that suspended nothing is not blamed for what fails.
    let fake = Fake::new();
    fake.serve(&[LOCAL_QUEUE, WORKLOAD]);
    let bed = bed_of(fake, RunOptions::default()).await;
    let driven = drive_run(&bed, 0, by(kueue()));
    eventually("the job", || bed.fake.get("jobs", &attempt(0)).is_some()).await;
    bed.fake.edit("jobs", &attempt(0), |live| live["spec"]["suspend"] = false.into());
    pods_of(&bed.fake, &attempt(0), |_| ended(1, "2026-01-01T00:00:01Z"));
    end(&bed.fake, "jobs", &attempt(0), "Failed");
    let Some(RunEnd::Failed { reason, .. }) = driven.handle.await.unwrap().0 else { panic!("it fails") };
    assert_eq!(reason.kind, ReasonKind::Crash);
    assert_eq!(bed.fake.get("jobs", &attempt(0)).unwrap()["metadata"]["labels"]["slipway.dev/owner"], OWNER);
}
