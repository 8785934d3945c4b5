//! What pods use, from the metrics API (`metrics.k8s.io/v1beta1`).

use serde_json::Value;
use slipway_orchestrator::EngineError;
use slipway_types::service::ReplicaUsage;

use super::container_id;
use crate::client::{ApiError, Cluster, escape};
use crate::names::NAME_ANNOTATION;
use crate::render::SERVICE_LABEL;
use crate::watch::Snapshot;

const API: &str = "/apis/metrics.k8s.io/v1beta1";

/// What each replica uses.
pub(super) async fn of(cluster: &Cluster, snapshot: &Snapshot) -> Result<Vec<ReplicaUsage>, EngineError> {
    let (namespace, label) = (escape(cluster.namespace()), escape(SERVICE_LABEL));
    let measured =
        match cluster.get(&format!("{API}/namespaces/{namespace}/pods?labelSelector={label}")).await {
            Ok(measured) => measured,
            Err(error) => return Err(why(cluster, error).await),
        };
    let items = measured["items"].as_array().map_or(&[][..], Vec::as_slice);
    Ok(items.iter().filter_map(|item| usage(item, snapshot)).collect())
}

/// Why nothing is known. Who may not list the measurements is told so where nobody measures, too; what the cluster
/// serves, everybody may see.
async fn why(cluster: &Cluster, error: ApiError) -> EngineError {
    let text = match error.code() {
        Some(403 | 404) if cluster.get(API).await.is_err_and(|none| none.code() == Some(404)) => {
            "nothing measures pods in this cluster: install metrics-server".to_owned()
        }
        Some(403) => format!(
            "what pods use may not be read in namespace {}: have the Role granted that `slipway engine rbac --with metrics` prints",
            cluster.namespace()
        ),
        Some(503) => {
            "what measures pods in this cluster does not answer: `kubectl get apiservice v1beta1.metrics.k8s.io` says why"
                .to_owned()
        }
        _ => return EngineError::Unavailable(Box::new(error)),
    };
    EngineError::Lacks(text)
}

fn usage(item: &Value, snapshot: &Snapshot) -> Option<ReplicaUsage> {
    let pod = snapshot.get("Pod", item["metadata"]["name"].as_str()?)?;
    let containers = item["containers"].as_array()?;
    let sum = |what: &str| -> f64 {
        containers.iter().filter_map(|one| number(one["usage"][what].as_str()?)).sum()
    };
    let limits = pod["spec"]["containers"].as_array().map_or(&[][..], Vec::as_slice).iter();
    let limits = limits.map(|one| one["resources"]["limits"]["memory"].as_str().and_then(number));
    // Where one of them has none, nothing limits the pod.
    let limit: Option<f64> = if limits.len() == 0 { None } else { limits.sum() };
    Some(ReplicaUsage {
        container: container_id(pod)?,
        service: pod["metadata"]["annotations"][NAME_ANNOTATION].as_str()?.to_owned(),
        cpu_millis: (sum("cpu") * 1e3).round() as u64,
        memory: sum("memory") as u64,
        memory_limit: limit.map(|bytes| bytes as u64),
    })
}

/// A quantity of Kubernetes as a number.
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
fn number(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1048576.0),
        ("Gi", 1073741824.0),
        ("Ti", 1099511627776.0),
        ("Pi", 1125899906842624.0),
        ("Ei", 1152921504606846976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let suffix = SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (digits, factor) = suffix.unwrap_or((text, 1.0));
    digits.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities() {
        for (text, expected) in [
            ("250m", 0.25),
            ("12345678n", 0.012345678),
            ("2", 2.0),
            ("1Ki", 1024.0),
            ("1e3", 1000.0),
            ("3G", 3e9),
        ] {
            let read = number(text).unwrap();
            assert!((read - expected).abs() < 1e-9 * expected, "{text}: {read}");
        }
        assert_eq!(number("many"), None);
    }

    #[test]
    fn the_sum_of_a_pods_containers() {
        let mut snapshot = Snapshot::default();
        snapshot.insert(
            json!({"kind": "Pod", "metadata": {"name": "p", "uid": "0a1b2c3d-0000-4000-8000-000000000001",
            "annotations": {NAME_ANNOTATION: "my_model"}},
            "spec": {"containers": [{"resources": {"limits": {"memory": "64Mi"}}}]}}),
        );
        let item = json!({"metadata": {"name": "p"}, "containers": [
            {"usage": {"cpu": "100m", "memory": "1Mi"}}, {"usage": {"cpu": "50000000n", "memory": "512Ki"}}]});
        let usage = usage(&item, &snapshot).unwrap();
        assert_eq!((usage.cpu_millis, usage.memory, usage.memory_limit), (150, 1536 << 10, Some(64 << 20)));
        assert_eq!(usage.service, "my_model");
    }
}
