//! Two daemons in one namespace never touch what the other keeps.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use slipway_orchestrator::{Absence, Desired, Engine, Rollout};

use super::engine::{Bed, present, ready, told};
use super::fake::{Fake, OWNER, eventually};

const OTHER: &str = "9f8e7d6c";

/// Everything of an owner's, as it is.
fn everything_of(fake: &Fake, owner: &str) -> Vec<Value> {
    let kinds = [
        "configmaps",
        "serviceaccounts",
        "services",
        "deployments",
        "pods",
        "networkpolicies",
        "poddisruptionbudgets",
    ];
    let all =
        kinds.iter().flat_map(|kind| fake.names(kind).into_iter().filter_map(|name| fake.get(kind, &name)));
    all.filter(|object| object["metadata"]["labels"]["slipway.dev/owner"] == owner).collect()
}

async fn two() -> (Bed, Bed) {
    let fake = Fake::new();
    fake.watch_life(Duration::from_millis(200));
    (Bed::over(fake.clone(), OWNER).await, Bed::over(fake, OTHER).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_keeps_is_no_leftover_and_no_replica() {
    let (one, two) = two().await;
    one.pass(&[present("a", 1, None)], 1).await.0.unwrap();
    one.roll("a", &ready(), 2);
    one.until(&present("a", 1, Some(1)), 2, |report, pass| {
        report.rollout == Rollout::Steady && pass.replicas.len() == 2
    })
    .await;
    let before = everything_of(&one.fake, OWNER);
    assert!(before.len() >= 7, "{before:#?}");
    // The other has nothing declared, then a service of its own, then nothing again.
    two.pass(&[], 1).await.0.unwrap();
    two.pass(&[present("b", 1, None)], 2).await.0.unwrap();
    two.roll("b", &ready(), 2);
    let pass = two
        .until(&present("b", 1, None), 3, |report, pass| {
            report.rollout == Rollout::Steady && pass.replicas.len() >= 2
        })
        .await;
    assert!(
        pass.replicas.iter().all(|replica| replica.service == "b") && pass.replicas.len() == 2,
        "{pass:?}"
    );
    assert_eq!(everything_of(&one.fake, OTHER).len(), before.len());
    for at in 4..200 {
        let (pass, replicas) = two.pass(&[], at).await;
        assert!(pass.unwrap().forgotten.is_empty());
        if two.fake.get("deployments", "b").is_none() {
            two.fake
                .names("pods")
                .iter()
                .filter(|pod| pod.starts_with("b-"))
                .for_each(|pod| drop(two.fake.delete("pods", pod)));
        }
        if replicas.is_empty() && everything_of(&two.fake, OTHER).len() == 1 {
            break;
        }
        assert!(at < 199, "{:#?}", everything_of(&two.fake, OTHER));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(two.engine.inventory().remove_if_empty().await.unwrap());
    assert_eq!(everything_of(&one.fake, OWNER), before, "nothing of the first was touched");
    assert_eq!(one.engine.observe().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_has_is_refused_in_one_sentence() {
    let (one, two) = two().await;
    one.pass(&[present("a", 1, None)], 1).await.0.unwrap();
    let before = everything_of(&one.fake, OWNER);
    one.fake.forget_requests();
    let desired = present("a", 7, None);
    let (pass, _) = two.pass(std::slice::from_ref(&desired), 1).await;
    let pass = pass.unwrap();
    let refused = told(&pass, "service.refused").unwrap();
    assert!(
        refused.contains(&format!("belongs to another daemon of Slipway, `{OWNER}`: use another name")),
        "{refused}"
    );
    assert_eq!(pass.services["a"].failing.as_deref().map(|why| format!("{why}.")), Some(refused));
    // Nothing but its own inventory was written, and a deletion does not reach the other's either.
    let written =
        |method: &Method, path: &str| *method != Method::GET && !path.contains("slipway-inventory-");
    assert_eq!(one.fake.count(written), 0, "{:?}", one.fake.requests());
    let absent = Desired::Absent { service: "a".into(), why: Absence::Deleted };
    let (pass, _) = two.pass(std::slice::from_ref(&absent), 2).await;
    assert_eq!(pass.unwrap().forgotten, ["a"]);
    assert_eq!(everything_of(&one.fake, OWNER), before);
    // Once the first has deleted it, the name is free.
    for at in 2..100 {
        let (pass, _) = one.pass(std::slice::from_ref(&absent), at).await;
        if !pass.unwrap().forgotten.is_empty() {
            break;
        }
        assert!(at < 99);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    two.pass(&[desired], 100).await.0.unwrap();
    let deployment = one.fake.get("deployments", "a").unwrap();
    assert_eq!(deployment["metadata"]["labels"]["slipway.dev/owner"], OTHER);
    assert_eq!(deployment["spec"]["template"]["metadata"]["labels"]["slipway.dev/owner"], OTHER);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_exported_and_applied_by_hand_can_be_taken() {
    let (one, two) = two().await;
    two.pass(&[present("a", 1, None)], 1).await.0.unwrap();
    for kind in [
        "configmaps",
        "serviceaccounts",
        "services",
        "deployments",
        "networkpolicies",
        "poddisruptionbudgets",
    ] {
        for name in two.fake.names(kind).into_iter().filter(|name| !name.starts_with("slipway-inventory")) {
            two.fake.edit(kind, &name, |object| {
                let labels = object["metadata"]["labels"].as_object_mut().unwrap();
                labels.remove("slipway.dev/owner");
                labels.remove("applyset.kubernetes.io/part-of");
            });
        }
    }
    eventually("the second has lost it", || two.engine.store().snapshot().get("Deployment", "a").is_none())
        .await;
    one.pass(&[present("a", 1, None)], 1).await.0.unwrap();
    let deployment = one.fake.get("deployments", "a").unwrap();
    assert_eq!(deployment["metadata"]["labels"]["slipway.dev/owner"], OWNER);
}
