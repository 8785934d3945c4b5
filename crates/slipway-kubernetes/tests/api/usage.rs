//! What replicas use, as metrics-server tells it, and what is said where it does not.

use std::sync::Arc;

use serde_json::{Value, json};
use slipway_orchestrator::Engine;
use slipway_types::service::ReplicaUsage;

use super::engine::{Bed, present, ready};
use super::fake::{Fake, OWNER, eventually, status, whole};

async fn usage(bed: &Bed) -> Result<Vec<ReplicaUsage>, String> {
    let engine = Arc::clone(&bed.engine);
    let usage = tokio::task::spawn_blocking(move || engine.usage()).await.unwrap();
    usage.map_err(|error| {
        assert!(std::error::Error::source(&error).is_none(), "one sentence: {error:?}");
        error.to_string()
    })
}

/// Answers under the API of measurements: to its own path, and to that of the pods.
fn answers(bed: &Bed, (api, pods): (u16, u16)) {
    bed.fake.clear_faults();
    bed.fake.fault(move |_, path| {
        let rest = path.strip_prefix("/apis/metrics.k8s.io/v1beta1")?;
        let item = json!({"metadata": {"name": "a-1"},
            "containers": [{"usage": {"cpu": "328602380n", "memory": "1484Ki"}}]});
        Some(match if rest.is_empty() { api } else { pods } {
            200 => whole(200, &json!({"items": [item], "resources": []})),
            code => status(code, "Refused", "refused", Value::Null),
        })
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said_in_one_sentence_and_noticed_once_it_is_there() {
    let bed = Bed::over(Fake::new(), OWNER).await;
    let desired = present("a", 1, None);
    bed.pass(std::slice::from_ref(&desired), 1).await.0.unwrap();
    bed.roll("a", &ready(), 2);
    eventually("the pods are seen", || bed.engine.store().snapshot().of("Pod").len() == 2).await;
    let lacks = "install metrics-server";
    for (codes, expected) in [
        ((404, 404), lacks),
        // A Role that does not name the API is asked first, whether anything serves it or not.
        ((404, 403), lacks),
        ((200, 403), "`slipway engine rbac --with metrics`"),
        ((503, 503), "kubectl get apiservice"),
    ] {
        answers(&bed, codes);
        let said = usage(&bed).await.unwrap_err();
        assert!(said.contains(expected), "{codes:?}: {said}");
    }
    // Nothing that was known before stands in the way.
    answers(&bed, (200, 200));
    let measured = usage(&bed).await.unwrap();
    assert_eq!(measured.len(), 1);
    assert_eq!(
        (measured[0].service.as_str(), measured[0].cpu_millis, measured[0].memory),
        ("a", 329, 1484 << 10)
    );
}
