//! A Deployment of ours whose pods an autoscaler counts.

use serde_json::{Value, json};
use slipway_kubernetes::apply::{ApplyError, ApplyOptions, Change, DryRun};
use slipway_kubernetes::object::Object;
use slipway_orchestrator::Desired;
use slipway_types::service::Autoscale;

use super::engine::{Bed, present, ready, told};
use super::fake::{Fake, OWNER};

fn deployment(replicas: u64, image: &str) -> Object {
    let text = include_str!("scaled.json").replace("IMAGE", image);
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["spec"]["replicas"] = replicas.into();
    Object::new("x", json)
}

fn autoscaler(of: &str) -> Value {
    json!({"metadata": {"name": "theirs"}, "spec": {"scaleTargetRef":
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": of}, "minReplicas": 1, "maxReplicas": 9}})
}

#[tokio::test]
async fn the_number_of_pods_is_left_to_an_autoscaler_and_the_rest_is_applied() {
    let fake = Fake::new();
    let applier = fake.applier();
    let really = ApplyOptions::default();
    applier.apply(&deployment(2, "one"), really).await.unwrap();
    fake.scale_as("kubectl", "a", 5);
    // Somebody's hand, and an autoscaler of another Deployment: that is for people to settle.
    fake.put("horizontalpodautoscalers", autoscaler("b"));
    let error = applier.apply(&deployment(2, "two"), really).await.unwrap_err();
    assert!(matches!(error, ApplyError::Conflict { .. }), "{error}");
    assert_eq!(applier.diff(&deployment(2, "one")).await.unwrap().conflicts.len(), 1);

    fake.put("horizontalpodautoscalers", autoscaler("a"));
    let server = ApplyOptions { dry_run: DryRun::Server, ..really };
    assert_eq!(applier.apply(&deployment(2, "one"), server).await.unwrap().change, Change::Unchanged);
    assert!(applier.diff(&deployment(2, "one")).await.unwrap().is_empty());
    let applied = applier.apply(&deployment(2, "two"), really).await.unwrap();
    assert_eq!((applied.change, applied.scaled_by.as_deref()), (Change::Changed, Some("theirs")));
    let spec = fake.get("deployments", "a").unwrap()["spec"].take();
    assert_eq!(
        (&spec["replicas"], &spec["template"]["spec"]["containers"][0]["image"]),
        (&json!(5), &json!("two"))
    );
    // Who asks to take it over gets it, for as long as the autoscaler lets them.
    let force = ApplyOptions { force: true, ..really };
    assert_eq!(applier.apply(&deployment(2, "two"), force).await.unwrap().scaled_by, None);
    assert_eq!(fake.get("deployments", "a").unwrap()["spec"]["replicas"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_scaled_by_another_runs_on() {
    let bed = Bed::over(Fake::new(), OWNER).await;
    let desired = present("a", 1, None);
    bed.pass(std::slice::from_ref(&desired), 1).await.0.unwrap();
    bed.roll("a", &ready(), 2);
    bed.until(&desired, 2, |report, _| report.reason.is_none()).await;
    bed.fake.put("horizontalpodautoscalers", autoscaler("a"));
    bed.fake.scale("a", 2 + 3);
    // A new revision goes through, and says who counts.
    let desired = present("a", 2, Some(1));
    let at = "/spec/template/metadata/labels/slipway.dev~1revision";
    let pass = bed.until(&desired, 30, |_, pass| told(pass, "rollout.started").is_some()).await;
    let warned = told(&pass, "service.warning").expect("a warning");
    assert_eq!(warned, "HorizontalPodAutoscaler `theirs` decides how many pods run.");
    let live = bed.fake.get("deployments", "a").unwrap();
    assert_eq!((live.pointer(at), &live["spec"]["replicas"]), (Some(&json!("2")), &json!(5)));
}

#[tokio::test]
async fn a_number_that_is_given_up_stays_and_one_that_was_left_is_taken() {
    let fake = Fake::new();
    let applier = fake.applier();
    let really = ApplyOptions::default();
    let replicas = || fake.get("deployments", "a").unwrap()["spec"]["replicas"].clone();
    let of_nobody = |image| {
        let mut json = deployment(0, image).json().clone();
        json["spec"].as_object_mut().unwrap().remove("replicas");
        Object::new("x", json)
    };
    applier.apply(&deployment(3, "one"), really).await.unwrap();
    assert!(applier.diff(&of_nobody("one")).await.unwrap().is_empty());
    applier.apply(&of_nobody("two"), really).await.unwrap();
    assert_eq!(replicas(), 3, "the autoscaler begins there");
    fake.put("horizontalpodautoscalers", autoscaler("a"));
    fake.scale("a", 5);
    applier.apply(&of_nobody("three"), really).await.unwrap();
    assert_eq!(replicas(), 5);
    fake.delete("horizontalpodautoscalers", "theirs");
    applier.apply(&deployment(2, "three"), really).await.unwrap();
    assert_eq!(replicas(), 2, "nobody else gives one any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn load_decides_from_one_declaration_to_another() {
    let fake = Fake::new();
    fake.serve(&[("metrics.k8s.io", "v1beta1", "PodMetrics", "pods")]);
    let bed = Bed::over(fake, OWNER).await;
    let declared = |scaled: bool| {
        let mut desired = present("a", 1, None);
        if let Desired::Present { target, .. } = &mut desired {
            target.spec.autoscale =
                scaled.then_some(Autoscale { min: 2, max: 6, cpu_percent: None, memory_percent: None });
        }
        desired
    };
    let replicas = || bed.fake.get("deployments", "a").unwrap()["spec"]["replicas"].clone();
    let scaler = || bed.fake.get("horizontalpodautoscalers", "a");
    bed.until(&declared(true), 1, |_, _| scaler().is_some()).await;
    assert_eq!(replicas(), 2, "not one pod until it is looked at by the autoscaler");
    let range = scaler().unwrap()["spec"].take();
    assert_eq!((&range["minReplicas"], &range["maxReplicas"]), (&json!(2), &json!(6)));
    bed.fake.scale("a", 5);
    bed.roll("a", &ready(), 5);
    bed.until(&declared(true), 20, |report, _| report.reason.is_none()).await;
    assert_eq!(replicas(), 5);
    bed.until(&declared(false), 30, |_, _| scaler().is_none() && replicas() == 2).await;
    // And back: what is there is where it begins.
    bed.fake.edit("deployments", "a", |deployment| deployment["spec"]["replicas"] = 2.into());
    bed.until(&declared(true), 40, |_, _| scaler().is_some()).await;
    assert_eq!(replicas(), 2);
}
