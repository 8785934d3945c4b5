//! Requests are repeated where that helps, and only there.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use slipway_kubernetes::client::{ApiError, Dependents, Resource};

use super::fake::{Fake, NAMESPACE, status};

fn config_maps() -> Resource {
    Resource::well_known("", "v1", "ConfigMap", "configmaps")
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    for (code, reason) in [(429, "TooManyRequests"), (500, "InternalError"), (503, "ServiceUnavailable")] {
        let fake = Fake::new();
        fake.put("configmaps", json!({"metadata": {"name": "a"}}));
        let mut left = 3;
        fake.fault(move |_, _| {
            left -= 1;
            (left >= 0).then(|| status(code, reason, "not now", Value::Null))
        });
        let found = fake.cluster().get_object(&config_maps(), NAMESPACE, "a").await.unwrap();
        assert!(found.is_some(), "{code}");
        assert_eq!(fake.requests().len(), 4, "{code}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_not() {
    for code in [401, 403, 409, 422] {
        let fake = Fake::new();
        fake.fault(move |_, _| Some(status(code, "No", "no", Value::Null)));
        let error = fake.cluster().get("/version").await.unwrap_err();
        assert_eq!((error.code(), fake.requests().len()), (Some(code), 1));
    }
}

#[tokio::test]
async fn waits_as_long_as_it_is_told() {
    let fake = Fake::new();
    let mut first = true;
    fake.fault(move |_, _| {
        std::mem::take(&mut first).then(|| {
            let mut answer = status(429, "TooManyRequests", "slow down", Value::Null);
            answer.headers_mut().insert("retry-after", "1".parse().unwrap());
            answer
        })
    });
    let start = Instant::now();
    fake.cluster().get("/version").await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn gives_up_in_the_end_and_says_so() {
    let fake = Fake::new();
    fake.fault(|_, _| Some(status(429, "TooManyRequests", "slow down", json!({"retryAfterSeconds": 3}))));
    let error = fake.cluster().get("/version").await.unwrap_err();
    assert!(error.to_string().contains("try again later"), "{error}");
    assert!(matches!(error, ApiError::Refused(_)) && fake.requests().len() < 4);
}

#[tokio::test]
async fn only_the_object_that_was_seen_is_deleted() {
    let fake = Fake::new();
    fake.put("configmaps", json!({"metadata": {"name": "a", "uid": "one"}}));
    let cluster = fake.cluster();
    let delete = |uid: &'static str| {
        let cluster = cluster.clone();
        async move { cluster.delete(&config_maps(), NAMESPACE, "a", uid, Dependents::Background).await }
    };
    assert!(!delete("two").await.unwrap());
    assert!(fake.get("configmaps", "a").is_some());
    assert!(delete("one").await.unwrap());
    assert!(!delete("one").await.unwrap());
}

#[tokio::test]
async fn a_missing_kind_is_asked_for_again_and_not_for_ever() {
    let fake = Fake::new();
    let discovery = slipway_kubernetes::Discovery::new(fake.cluster());
    assert_eq!(discovery.resource("apps/v1", "Deployment").await.unwrap().plural, "deployments");
    discovery.resource("apps/v1", "Deployment").await.unwrap();
    assert_eq!(fake.requests().len(), 1);
    for _ in 0..5 {
        let error = discovery.resource("apps/v1", "Nothing").await.unwrap_err();
        assert!(error.to_string().contains("serves no Nothing of apps/v1"), "{error}");
    }
    assert_eq!(fake.requests().len(), 1, "a miss within seconds of the answer asks nobody");
    let group = discovery.resource_of_group("policy", "PodDisruptionBudget").await.unwrap();
    assert_eq!(group.api_version(), "policy/v1");
    assert_eq!(discovery.capabilities().await.unwrap().version.minor, 33);
}
