//! A Deployment of ours whose pods an autoscaler counts.

use serde_json::{Value, json};
use slipway_kubernetes::apply::{ApplyError, ApplyOptions, Change, DryRun};
use slipway_kubernetes::object::Object;

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
    fake.scale("a", 5);
    // Somebody's hand, or an autoscaler of another Deployment: that is for people to settle.
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
