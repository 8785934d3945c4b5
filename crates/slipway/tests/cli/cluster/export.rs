//! What `export kubernetes` and `engine rbac` write, applied with `kubectl`.

use serde_json::Value;

use super::Cluster;
use crate::support::{Slipway, workspace};

#[test]
fn an_exported_service_answers_as_the_native_one_does() {
    let Some(cluster) = Cluster::connect("export") else { return };
    const NAME: &str = "digits-sklearn";
    let s = Slipway::new();
    let packages = ["-p", "python3", "-p", "python3-pip", "-p", "python-is-python3"];
    s.run(&[&["base", "debian"][..], &packages, &["-t", "slipway/python:bookworm"]].concat()).ok();
    let project = workspace().join("examples").join(NAME);
    let up = s.run(&["up", project.to_str().unwrap()]);
    assert_eq!(up.code, 0, "{}\n{}", up.stdout, up.stderr);
    let request = project.join("request.json");
    let native: Value =
        serde_json::from_str(&s.run(&["predict", NAME, "--file", request.to_str().unwrap()]).ok()).unwrap();

    let folder = s.path("k8s");
    let folder = folder.to_str().unwrap();
    let export =
        ["export", "kubernetes", NAME, "--registry", &cluster.registry, "--namespace", &cluster.namespace];
    let export = [&export[..], &["-o", folder]].concat();
    s.run(&[&export[..], &["--replicas", "2"]].concat()).ok();
    cluster.apply(folder, NAME);
    assert_eq!(cluster.predict(NAME, NAME, &request), native);

    // Again: nothing differs, and nothing becomes new.
    let before = cluster.generations(folder);
    cluster.kubectl(&["diff", "--server-side", "-f", folder]);
    cluster.apply(folder, NAME);
    assert_eq!(cluster.generations(folder), before);
    assert_eq!(before.iter().filter(|(name, ..)| name.contains("Deployment")).count(), 1, "{before:?}");

    // Another shape of the same service is a change of the same objects, for newer clusters.
    let other = ["--type", "NodePort", "--kubernetes-version", "1.30", "--replicas", "1"];
    let changed = s.run(&[&export[..], &other].concat());
    assert_eq!(changed.code, 0, "{}", changed.stderr);
    cluster.apply(folder, NAME);
    // One pod needs no disruption budget, and the command says how the cluster gets rid of it.
    let kept: Vec<&str> =
        changed.stderr.lines().filter_map(|line| line.split_once("kubectl ")).map(|(_, rest)| rest).collect();
    let delete = kept.iter().find(|rest| rest.starts_with("delete ")).expect(&changed.stderr);
    assert!(delete.contains("poddisruptionbudget/"), "{delete}");
    cluster.kubectl(&delete.split_whitespace().collect::<Vec<_>>());
    assert_eq!(cluster.predict(NAME, NAME, &request), native);
    cluster.delete(folder);

    // The other forms apply as well.
    let kustomize = s.path("kustomize");
    let kustomize = kustomize.to_str().unwrap();
    let form =
        ["export", "kubernetes", NAME, "--registry", &cluster.registry, "--namespace", &cluster.namespace];
    s.run(&[&form[..], &["--kustomize", kustomize]].concat()).ok();
    cluster.kubectl(&["apply", "--server-side", "--dry-run=server", "-k", kustomize]);
    s.finish();
}

#[test]
fn the_engines_role_is_accepted() {
    let Some(cluster) = Cluster::connect_any("rbac") else { return };
    let s = Slipway::new();
    let text = s.run(&["engine", "rbac", "--namespace", &cluster.namespace]).ok();
    let file = s.write("role.yaml", &text);
    cluster.kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]);
    let account = format!("system:serviceaccount:{}:slipway", cluster.namespace);
    for (verb, what, expected) in [
        ("create", "deployments.apps", "yes"),
        ("patch", "services", "yes"),
        ("get", "pods/log", "yes"),
        ("create", "pods", "no"),
        ("list", "nodes", "no"),
    ] {
        let asked = cluster.command(&["auth", "can-i", verb, what, "--as", &account]);
        assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), expected, "{verb} {what}");
    }
}
