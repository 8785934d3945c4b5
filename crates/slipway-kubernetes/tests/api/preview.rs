//! What applying a service would do, told without doing it.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use slipway_kubernetes::apply::{ApplyOptions, Inventory};
use slipway_kubernetes::engine::{Previewer, Tried, Verdict};
use slipway_kubernetes::spec::*;
use slipway_types::service::ServiceSpec;

use super::engine::reference;
use super::fake::{Fake, NAMESPACE, status};

fn service(image: &str) -> ServiceDeployment {
    ServiceDeployment {
        spec: ServiceSpec { name: "my_model".into(), replicas: 2, ..ServiceSpec::default() },
        revision: 1,
        namespace: NAMESPACE.into(),
        image: ImagePin {
            reference: reference(image),
            run_as: RunAs::User { uid: 1000, gid: 1000 },
            architectures: Vec::new(),
        },
        workload: Workload::Image { port: Some(8080) },
        exposure: Exposure::ClusterIp,
        gateway: None,
        autoscaling: None,
        resources: PodResources::default(),
        placement: Placement::default(),
        environment: Environment {
            secrets: [("API_KEY".to_owned(), "hunter2".to_owned())].into(),
            secret_refs: Vec::new(),
        },
        egress: false,
        scrape_from: None,
    }
}

/// A cluster in which a service was applied, and what tells of it.
async fn bed(spec: &ServiceDeployment) -> (Fake, Previewer) {
    let fake = Fake::new();
    let applier = fake.applier();
    let inventory = Arc::new(Inventory::new(applier.clone()).unwrap());
    let previewer = Previewer::new(applier.clone(), Arc::clone(&inventory));
    let mut objects = previewer.render(spec).await.unwrap().objects;
    inventory.adopt(&mut objects).await.unwrap();
    applier.apply_all(&objects, ApplyOptions::default()).await.unwrap();
    (fake, previewer)
}

fn verdicts(tried: &[Tried]) -> Vec<(String, String)> {
    let told = |one: &Tried| match &one.verdict {
        Ok(verdict) => format!("{verdict:?}"),
        Err(error) => error.sentence(),
    };
    tried.iter().map(|one| (one.key.kind.clone(), told(one))).collect()
}

fn kinds<'a>(told: &'a [(String, String)], verdict: &str) -> Vec<&'a str> {
    told.iter().filter(|(_, what)| what == verdict).map(|(kind, _)| kind.as_str()).collect()
}

#[tokio::test]
async fn the_server_is_asked_and_keeps_nothing() {
    let (fake, previewer) = bed(&service("one")).await;
    let before = fake.requests().len();
    let (_, tried) = previewer.on_server(&service("one")).await.unwrap();
    assert!(tried.iter().all(|one| matches!(one.verdict, Ok(Verdict::Unchanged))), "{tried:?}");

    let mut other = service("two");
    other.environment.secrets = [("API_KEY".to_owned(), "letmein".to_owned())].into();
    let (rendered, tried) = previewer.on_server(&other).await.unwrap();
    let told = verdicts(&tried);
    // Another Secret by another content; the one before goes, and the budget is as it was.
    assert_eq!(kinds(&told, "Created"), ["Secret"]);
    assert_eq!(kinds(&told, "Configured"), ["Deployment"]);
    assert_eq!(kinds(&told, "Removed"), ["Secret"]);
    assert_eq!(kinds(&told, "Unchanged"), ["ServiceAccount", "Service", "PodDisruptionBudget"]);
    assert_eq!(rendered.objects.len() + 1, tried.len());

    // One object is refused: the others are still told of.
    fake.fault(|method, path| {
        let refused = method == Method::PATCH && path.contains("/services/");
        refused.then(|| {
            let cause = json!({"reason": "FieldManagerConflict", "field": ".spec.type",
                "message": "conflict with \"kubectl-edit\" using v1"});
            status(409, "Conflict", "Apply failed with 1 conflict", json!({"causes": [cause]}))
        })
    });
    let (_, tried) = previewer.on_server(&other).await.unwrap();
    let told = verdicts(&tried);
    let (_, why) = told.iter().find(|(kind, _)| kind == "Service").unwrap();
    assert!(why.contains(".spec.type is owned by `kubectl-edit`"), "{why}");
    assert_eq!(kinds(&told, "Configured"), ["Deployment"]);

    let wrote = |(method, path): &(Method, String)| {
        *method != Method::GET && !(*method == Method::PATCH && path.contains("dryRun=All"))
    };
    assert!(!fake.requests()[before..].iter().any(wrote), "{:?}", fake.requests());
}

#[tokio::test]
async fn differences_are_what_changes_and_no_more() {
    let (fake, previewer) = bed(&service("one")).await;
    assert_eq!(previewer.differences(&service("one")).await.unwrap(), []);

    let mut other = service("two");
    other.environment.secrets = [("API_KEY".to_owned(), "letmein".to_owned())].into();
    let differences = previewer.differences(&other).await.unwrap();
    let text: String = differences.iter().map(|difference| difference.unified()).collect();
    let changed =
        |sign: &str, part: &str| text.lines().any(|line| line.starts_with(sign) && line.contains(part));
    assert!(changed("-", "registry.example.com/one@") && changed("+", "registry.example.com/two@"), "{text}");
    assert!(text.contains("--- secret/") && text.contains("+++ secret/"), "{text}");
    for value in ["hunter2", "aHVudGVyMg", "letmein", "bGV0bWVpbg"] {
        assert!(!text.contains(value), "{text}");
    }
    assert!(!text.contains("service/"), "what stays is not shown: {text}");

    // Somebody else's hand is what differs.
    fake.edit("deployments", "my-model-535d4cfe", |deployment| deployment["spec"]["replicas"] = 7.into());
    let differences = previewer.differences(&service("one")).await.unwrap();
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0].fields[0].path, ".spec.replicas");
    assert!(differences[0].unified().contains("-  replicas: 7\n+  replicas: 2\n"));
    assert_eq!(fake.get("deployments", "my-model-535d4cfe").unwrap()["spec"]["replicas"], Value::from(7));
}
