//! Checks the specification of a pod.

use std::collections::BTreeSet;

use serde_json::Value;

use super::object::{Problems, list};
use super::{dns_1123_label, env_name, label_key, label_value, port_name, quantity};

/// Longest string that the kernel passes to a program, less a margin for the name of the variable.
const MAX_ENV_VALUE: usize = 128 * 1024 - 1024;

pub(super) fn check(spec: &Value, path: &str, problems: &mut Problems) {
    let at = |field: &str| format!("{path}.{field}");
    let volumes: BTreeSet<&str> = list(&spec["volumes"]).filter_map(|v| v["name"].as_str()).collect();
    list(&spec["volumes"]).for_each(|v| problems.rule(&at("volumes.name"), &v["name"], dns_1123_label));
    problems.unique(&at("volumes"), list(&spec["volumes"]).map(|v| v["name"].as_str()));
    if list(&spec["containers"]).next().is_none() {
        problems.add(&at("containers"), "it is empty");
    }
    let claims: BTreeSet<&str> = list(&spec["resourceClaims"]).filter_map(|c| c["name"].as_str()).collect();
    let all = || list(&spec["initContainers"]).chain(list(&spec["containers"]));
    problems.unique(&at("containers.name"), all().map(|c| c["name"].as_str()));
    for one in all() {
        container(one, &at("containers"), &volumes, &claims, problems);
    }
    for (key, value) in spec["nodeSelector"].as_object().into_iter().flatten() {
        problems.rule(&at("nodeSelector"), &Value::from(key.as_str()), label_key);
        problems.rule(&at("nodeSelector"), value, label_value);
    }
    for volume in list(&spec["volumes"]) {
        if let Some(size) = volume.pointer("/emptyDir/sizeLimit") {
            problems.rule(&at("volumes.emptyDir.sizeLimit"), size, quantity);
        }
    }
}

fn container(
    one: &Value,
    path: &str,
    volumes: &BTreeSet<&str>,
    claims: &BTreeSet<&str>,
    problems: &mut Problems,
) {
    let at = |field: &str| format!("{path}.{field}");
    problems.rule(&at("name"), &one["name"], dns_1123_label);
    if one["image"].as_str().is_none_or(|image| image.is_empty() || image.contains(char::is_whitespace)) {
        problems.add(&at("image"), "it is missing or no image reference");
    }
    for port in list(&one["ports"]) {
        if port.get("name").is_some() {
            problems.rule(&at("ports.name"), &port["name"], port_name);
        }
        if !(1..=65535).contains(&port["containerPort"].as_u64().unwrap_or(0)) {
            problems.add(&at("ports.containerPort"), "it must be between 1 and 65535");
        }
    }
    problems.unique(&at("ports.name"), list(&one["ports"]).filter_map(|p| p["name"].as_str()));
    for variable in list(&one["env"]) {
        problems.rule(&at("env"), &variable["name"], env_name);
        if variable["value"].as_str().is_some_and(|v| v.len() > MAX_ENV_VALUE) {
            problems.add(&at("env"), format!("the value of {} is larger than 127 KiB", variable["name"]));
        }
    }
    problems.unique(&at("env"), list(&one["env"]).map(|v| v["name"].as_str()));
    for mount in list(&one["volumeMounts"]) {
        let name = mount["name"].as_str().unwrap_or_default();
        if !volumes.contains(name) {
            problems.add(&at("volumeMounts"), format!("there is no volume `{name}`"));
        }
        let target = mount["mountPath"].as_str().unwrap_or_default();
        if !target.starts_with('/') || target.contains(':') {
            problems
                .add(&at("volumeMounts.mountPath"), format!("`{target}` is no absolute path without `:`"));
        }
    }
    problems.unique(&at("volumeMounts"), list(&one["volumeMounts"]).map(|m| m["mountPath"].as_str()));
    for field in ["requests", "limits"] {
        for (key, value) in one["resources"][field].as_object().into_iter().flatten() {
            problems.rule(&at("resources"), &Value::from(key.as_str()), label_key);
            problems.rule(&at("resources"), value, quantity);
        }
    }
    for claim in list(&one["resources"]["claims"]) {
        let name = claim["name"].as_str().unwrap_or_default();
        if !claims.contains(name) {
            problems.add(&at("resources.claims"), format!("there is no claim `{name}`"));
        }
    }
}
