//! What is applied, what is refused, and what is pruned.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use slipway_kubernetes::Object;
use slipway_kubernetes::apply::{ApplyError, ApplyOptions, Change, DryRun, Inventory};

use super::fake::{Fake, status};

fn config(name: &str, original: &str, text: &str) -> Object {
    Object::new(
        "x",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": text}, "metadata": {"name": name,
            "namespace": "team-a", "labels": {"app.kubernetes.io/managed-by": "slipway", "x": original},
            "annotations": {"slipway.dev/name": original}}}),
    )
}

#[tokio::test]
async fn creates_changes_and_leaves_alone() {
    let fake = Fake::new();
    let applier = fake.applier();
    let go = |text: &'static str, options| {
        let applier = applier.clone();
        async move { applier.apply(&config("a", "a", text), options).await.unwrap().change }
    };
    let really = ApplyOptions::default();
    let server = ApplyOptions { dry_run: DryRun::Server, ..really };
    let client = ApplyOptions { dry_run: DryRun::Client, ..really };
    assert_eq!(go("1", client).await, Change::NotSent);
    assert_eq!(fake.requests().len(), 0);
    assert_eq!(go("1", server).await, Change::Created);
    assert_eq!(fake.get("configmaps", "a"), None);
    assert_eq!(go("1", really).await, Change::Created);
    assert_eq!(go("1", really).await, Change::Unchanged);
    assert_eq!(go("2", really).await, Change::Changed);
    let patches = fake.requests().into_iter().filter(|(method, _)| method == Method::PATCH);
    for (_, path) in patches {
        assert!(
            path.contains("fieldManager=slipway-") && path.contains("&force=false&fieldValidation=Strict"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn another_ones_object_stays() {
    let fake = Fake::new();
    fake.put("configmaps", json!({"metadata": {"name": "a"}, "data": {"a": "theirs"}}));
    let error = fake.applier().apply(&config("a", "a", "1"), ApplyOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("Slipway did not make"), "{error}");
    let force = ApplyOptions { force: true, ..ApplyOptions::default() };
    fake.applier().apply(&config("a", "a", "1"), force).await.unwrap_err();
    fake.put("configmaps", config("b", "B_b", "1").json().clone());
    let error = fake.applier().apply(&config("b", "b", "1"), ApplyOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("belongs to `B_b`"), "{error}");
    assert_eq!(fake.get("configmaps", "a").unwrap()["data"]["a"], "theirs");
}

#[tokio::test]
async fn a_conflict_is_told_and_force_is_only_sent_when_asked_for() {
    let fake = Fake::new();
    fake.fault(|method, path| {
        (method == Method::PATCH && path.contains("force=false")).then(|| {
            let cause = json!({"reason": "FieldManagerConflict", "field": ".data.a",
                "message": "conflict with \"kubectl-edit\" using v1"});
            status(409, "Conflict", "Apply failed with 1 conflict", json!({"causes": [cause]}))
        })
    });
    let applier = fake.applier();
    let error = applier.apply(&config("a", "a", "1"), ApplyOptions::default()).await.unwrap_err();
    let ApplyError::Conflict { conflicts, .. } = &error else { panic!("{error}") };
    assert_eq!((conflicts[0].owner.as_str(), conflicts[0].field.as_str()), ("kubectl-edit", ".data.a"));
    assert!(
        fake.count(|_, path| path.contains("force=true")) == 0 && error.to_string().contains("--take-over")
    );
    applier
        .apply(&config("a", "a", "1"), ApplyOptions { force: true, ..ApplyOptions::default() })
        .await
        .unwrap();
    let difference = applier.diff(&config("a", "a", "2")).await.unwrap();
    assert_eq!((difference.conflicts.len(), difference.fields[0].path.as_str()), (1, ".data.a"));
}

#[tokio::test]
async fn diff_tells_what_would_change_and_changes_nothing() {
    let fake = Fake::new();
    let applier = fake.applier();
    assert!(applier.diff(&config("a", "a", "1")).await.unwrap().new);
    applier.apply(&config("a", "a", "1"), ApplyOptions::default()).await.unwrap();
    // Somebody else's annotation on the server's side is not ours to show.
    assert!(applier.diff(&config("a", "a", "1")).await.unwrap().is_empty());
    let difference = applier.diff(&config("a", "a", "2")).await.unwrap();
    assert_eq!(difference.fields.len(), 1);
    assert_eq!(
        (difference.fields[0].before.clone(), difference.fields[0].after.clone()),
        (Some(json!("1")), Some(json!("2")))
    );
    assert_eq!(fake.get("configmaps", "a").unwrap()["data"]["a"], "1");
}

#[tokio::test]
async fn refusals_are_sentences() {
    let fake = Fake::new();
    let mut message = r#"configmaps "a" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=2, limited: count/configmaps=2"#;
    for expected in ["quota `q`", "is being deleted"] {
        fake.clear_faults();
        let text = message;
        fake.fault(move |m, _| (m == Method::PATCH).then(|| status(403, "Forbidden", text, Value::Null)));
        let error = fake.applier().apply(&config("a", "a", "1"), ApplyOptions::default()).await.unwrap_err();
        let told = error.sentence();
        assert!(told.contains("ConfigMap `a`") && told.contains(expected) && !told.contains('\n'), "{told}");
        message = r#"configmaps "a" is forbidden: unable to create new content in namespace team-a because it is being terminated"#;
    }
}

#[tokio::test]
async fn the_inventory_finds_what_is_wanted_no_more() {
    let fake = Fake::new();
    let applier = fake.applier();
    let inventory = Arc::new(Inventory::new(applier.clone()).unwrap());
    let mut objects = vec![config("a", "a", "1"), config("b", "a", "1"), config("other", "o", "1")];
    inventory.adopt(&mut objects).await.unwrap();
    let kinds = &fake.get("configmaps", inventory.set().parent_name()).unwrap()["metadata"]["annotations"]["applyset.kubernetes.io/contains-group-kinds"];
    assert_eq!(kinds, "ConfigMap");
    applier.apply_all(&objects, ApplyOptions::default()).await.unwrap();
    // Not a member, though it looks like ours.
    fake.put("configmaps", config("lookalike", "a", "1").json().clone());
    let live = inventory.members(Some(("x", "a"))).await.unwrap();
    assert_eq!(live.len(), 2);
    let pruned = inventory.prune(&live, &objects[..1]).await.unwrap();
    assert_eq!(pruned.deleted.len(), 1);
    assert_eq!(fake.names("configmaps"), ["a", "lookalike", "other", inventory.set().parent_name()]);
    // A second set of kinds is added to the first, also by another process.
    let again = Inventory::new(applier).unwrap();
    let mut more = vec![Object::new(
        "x",
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "p", "namespace": "team-a"}}),
    )];
    again.adopt(&mut more).await.unwrap();
    let kinds = &fake.get("configmaps", inventory.set().parent_name()).unwrap()["metadata"]["annotations"]["applyset.kubernetes.io/contains-group-kinds"];
    assert_eq!(kinds, "ConfigMap,PodDisruptionBudget.policy");
    assert!(!again.remove_if_empty().await.unwrap());
    again.remove_all(("x", "a")).await.unwrap();
    again.remove_all(("x", "o")).await.unwrap();
    assert!(again.remove_if_empty().await.unwrap());
    assert_eq!(fake.names("configmaps"), ["lookalike"]);
}
