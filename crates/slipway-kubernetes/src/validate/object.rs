//! Checks a whole object by the rules that the API server applies beyond its schema.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    MAX_CONFIG, MAX_LABEL, annotations_fit, config_key, dns_1035_label, dns_1123_label, dns_1123_subdomain,
    hostname, label_key, label_value, pod, port_name,
};

/// Everything that the API server would refuse about an object although its schema allows it, each as
/// `path: reason`. Empty for a valid one.
pub fn check_object(object: &Value) -> Vec<String> {
    let mut problems = Problems::default();
    let kind = object["kind"].as_str().unwrap_or_default();
    if kind.is_empty() || object["apiVersion"].as_str().unwrap_or_default().is_empty() {
        problems.add("", "it needs `apiVersion` and `kind`");
    }
    metadata(&object["metadata"], "metadata", &mut problems);
    name(kind, object["metadata"]["name"].as_str().unwrap_or_default(), &mut problems);
    let spec = &object["spec"];
    match kind {
        "Deployment" => workload(spec, "spec", &mut problems),
        "Job" => job(object, &mut problems),
        "JobSet" => {
            for (at, entry) in list(&spec["replicatedJobs"]).enumerate() {
                let path = format!("spec.replicatedJobs[{at}].template.spec.template");
                template(&entry["template"]["spec"]["template"], &path, &mut problems);
            }
        }
        "Service" => service(spec, &mut problems),
        "ConfigMap" | "Secret" => config(object, &mut problems),
        "HorizontalPodAutoscaler" => {
            let bound = |key: &str| spec[key].as_u64().unwrap_or(1);
            if bound("minReplicas") < 1 || bound("minReplicas") > bound("maxReplicas") {
                problems.add("spec.minReplicas", "it must be between 1 and maxReplicas");
            }
            if list(&spec["metrics"]).next().is_none() {
                problems.add("spec.metrics", "it is empty");
            }
        }
        "PodDisruptionBudget" if spec["minAvailable"].is_null() == spec["maxUnavailable"].is_null() => {
            problems.add("spec", "it needs either `minAvailable` or `maxUnavailable`");
        }
        "HTTPRoute" => list(&spec["hostnames"]).for_each(|h| problems.rule("spec.hostnames", h, hostname)),
        "Ingress" => list(&spec["rules"])
            .filter(|rule| !rule["host"].is_null())
            .for_each(|rule| problems.rule("spec.rules.host", &rule["host"], hostname)),
        _ => {}
    }
    problems.0
}

#[derive(Default)]
pub(super) struct Problems(Vec<String>);

impl Problems {
    pub(super) fn add(&mut self, path: &str, reason: impl std::fmt::Display) {
        self.0.push(format!("{path}: {reason}"));
    }

    pub(super) fn rule(&mut self, path: &str, text: &Value, rule: fn(&str) -> Result<(), super::Invalid>) {
        match text.as_str() {
            Some(text) => {
                if let Err(invalid) = rule(text) {
                    self.add(path, invalid);
                }
            }
            None => self.add(path, "it is missing or no text"),
        }
    }

    /// Reports what occurs twice.
    pub(super) fn unique<T: Ord + std::fmt::Debug>(&mut self, path: &str, items: impl Iterator<Item = T>) {
        let mut seen = BTreeSet::new();
        for item in items {
            if seen.contains(&item) {
                self.add(path, format!("{item:?} occurs twice"));
            }
            seen.insert(item);
        }
    }
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn metadata(metadata: &Value, path: &str, problems: &mut Problems) {
    if let Some(namespace) = metadata.get("namespace") {
        problems.rule(&format!("{path}.namespace"), namespace, dns_1123_label);
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        let path = format!("{path}.labels");
        problems.rule(&path, &Value::from(key.as_str()), label_key);
        problems.rule(&path, value, label_value);
    }
    let annotations = || metadata["annotations"].as_object().into_iter().flatten();
    for (key, value) in annotations() {
        let path = format!("{path}.annotations");
        problems.rule(&path, &Value::from(key.to_lowercase()), label_key);
        if !value.is_string() {
            problems.add(&path, format!("the value of `{key}` is no text"));
        }
    }
    if !annotations_fit(annotations().map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default()))) {
        problems.add(&format!("{path}.annotations"), "they are larger than 256 KiB");
    }
}

fn name(kind: &str, name: &str, problems: &mut Problems) {
    let rule = match kind {
        "Service" => dns_1035_label,
        "Namespace" | "Job" | "JobSet" => dns_1123_label,
        _ => dns_1123_subdomain,
    };
    problems.rule("metadata.name", &Value::from(name), rule);
}

fn workload(spec: &Value, path: &str, problems: &mut Problems) {
    let labels = &spec["template"]["metadata"]["labels"];
    match spec["selector"]["matchLabels"].as_object() {
        None => problems.add(&format!("{path}.selector"), "it is missing"),
        Some(wanted) => {
            for (key, value) in wanted {
                if labels.get(key) != Some(value) {
                    let reason = format!("`{key}` is not a label of the template");
                    problems.add(&format!("{path}.selector"), reason);
                }
            }
        }
    }
    template(&spec["template"], &format!("{path}.template"), problems);
}

fn template(value: &Value, path: &str, problems: &mut Problems) {
    metadata(&value["metadata"], &format!("{path}.metadata"), problems);
    pod::check(&value["spec"], &format!("{path}.spec"), problems);
}

fn job(object: &Value, problems: &mut Problems) {
    let spec = &object["spec"];
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if spec["completionMode"] == "Indexed" {
        let last = spec["completions"].as_u64().unwrap_or(1).saturating_sub(1);
        let host = format!("{name}-{last}");
        if host.len() > MAX_LABEL {
            problems
                .add("metadata.name", format!("`{host}`, the name of the last pod, exceeds 63 characters"));
        }
    }
    if spec.get("podFailurePolicy").is_some() && spec["template"]["spec"]["restartPolicy"] != "Never" {
        problems.add("spec.podFailurePolicy", "it needs `restartPolicy: Never`");
    }
    template(&spec["template"], "spec.template", problems);
}

fn service(spec: &Value, problems: &mut Problems) {
    let ports: Vec<&Value> = list(&spec["ports"]).collect();
    if ports.is_empty() && spec["clusterIP"] != "None" {
        problems.add("spec.ports", "it is empty");
    }
    for port in &ports {
        if ports.len() > 1 || port.get("name").is_some() {
            problems.rule("spec.ports.name", &port["name"], dns_1123_label);
        }
        if port["targetPort"].is_string() {
            problems.rule("spec.ports.targetPort", &port["targetPort"], port_name);
        }
        if !(1..=65535).contains(&port["port"].as_u64().unwrap_or(0)) {
            problems.add("spec.ports.port", "it must be between 1 and 65535");
        }
    }
    problems.unique("spec.ports.name", ports.iter().map(|p| p["name"].as_str()));
    for (key, value) in spec["selector"].as_object().into_iter().flatten() {
        problems.rule("spec.selector", &Value::from(key.as_str()), label_key);
        problems.rule("spec.selector", value, label_value);
    }
}

fn config(object: &Value, problems: &mut Problems) {
    let mut size = 0;
    for field in ["data", "stringData", "binaryData"] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            problems.rule(field, &Value::from(key.as_str()), config_key);
            match value.as_str() {
                Some(text) => size += text.len(),
                None => problems.add(field, format!("the value of `{key}` is no text")),
            }
        }
    }
    if size > MAX_CONFIG {
        problems.add("data", format!("it holds {size} bytes, more than 1 MiB"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"app": "a"}},
            "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": {
                "metadata": {"labels": {"app": "a"}},
                "spec": {
                    "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}],
                        "env": [{"name": "A", "value": "1"}], "resources": {"limits": {"cpu": "1"}},
                        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
                    "volumes": [{"name": "v", "emptyDir": {}}],
                }}},
        })
    }

    #[test]
    fn a_sound_one_passes_and_each_change_is_found() {
        assert_eq!(check_object(&deployment()), Vec::<String>::new());
        let pod = "/spec/template/spec";
        let container = "/spec/template/spec/containers/0";
        for (pointer, value, expected) in [
            ("/metadata/name".to_owned(), json!("my_model"), "metadata.name"),
            ("/metadata/labels/app".to_owned(), json!("not a label"), "metadata.labels"),
            ("/spec/selector/matchLabels/app".to_owned(), json!("b"), "spec.selector"),
            (format!("{container}/ports/0/name"), json!("a-name-that-is-too-long"), "ports.name"),
            (format!("{container}/ports/0/containerPort"), json!(0), "containerPort"),
            (format!("{container}/env/0/name"), json!("1A"), "env"),
            (format!("{container}/image"), json!(""), "image"),
            (format!("{container}/resources/limits/cpu"), json!("1 core"), "resources"),
            (format!("{container}/volumeMounts/0/name"), json!("w"), "volumeMounts"),
            (format!("{container}/volumeMounts/0/mountPath"), json!("v"), "mountPath"),
            (format!("{pod}/volumes/0/name"), json!("V"), "volumes"),
            (format!("{pod}/containers"), json!([]), "containers"),
        ] {
            let mut object = deployment();
            *object.pointer_mut(&pointer).unwrap() = value;
            let problems = check_object(&object);
            assert!(problems.iter().any(|p| p.contains(expected)), "{pointer}: {problems:?}");
        }
    }

    #[test]
    fn other_kinds() {
        let job = |name: &str| {
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {
                "completionMode": "Indexed", "completions": 1001,
                "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}})
        };
        assert!(check_object(&job(&"a".repeat(58))).is_empty());
        assert_eq!(check_object(&job(&"a".repeat(59))).len(), 1);
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "1a"}, "spec": {
            "ports": [{"port": 80}, {"port": 70000, "name": "http"}]}});
        assert_eq!(check_object(&service).len(), 3, "{:?}", check_object(&service));
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"},
            "data": {"a/b": "x", "c": "x".repeat(MAX_CONFIG)}});
        assert_eq!(check_object(&map).len(), 2);
        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "a"},
            "spec": {"minAvailable": 1, "maxUnavailable": 1}});
        assert_eq!(check_object(&budget).len(), 1);
        assert_eq!(check_object(&json!({})).len(), 2);
    }
}
