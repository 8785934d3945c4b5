//! Quotas that are used up, and that are raised.

use super::super::Cluster;
use super::super::engine::{load, service};
use super::super::train;
use super::*;

/// Allows this many pods in the namespace.
fn allow(cluster: &Cluster, pods: u32) {
    let object = serde_json::json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"},
        "spec": {"hard": {"pods": pods.to_string()}}});
    let raw = object.to_string();
    let file = std::env::temp_dir().join(format!("{}-quota.json", cluster.namespace));
    std::fs::write(&file, raw).unwrap();
    cluster.kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]);
    std::fs::remove_file(file).unwrap();
    // It counts a moment later.
    wait_for("the quota to count", Duration::from_secs(30), || {
        let hard =
            cluster.kubectl(&["get", "resourcequota", "few", "--output", "jsonpath={.status.hard.pods}"]);
        (hard == pods.to_string()).then_some(())
    });
}

const TOLD: [&str; 3] = ["quota `few` of the namespace is used up", "pods=1", "have the quota raised"];

#[test]
fn a_service_waits_for_its_quota() {
    let Some(cluster) = Cluster::connect("quota") else { return };
    let s = Slipway::new();
    use_account(&s, &cluster);
    s.busybox();
    page_image(&s, "one", "first", 0);
    page_image(&s, "two", "second", 0);
    allow(&cluster, 0);
    let refused = s.run(&["deploy", NAME, "--image", "web:one", "--replicas", "1"]).fails(1);
    assert!(TOLD.iter().all(|part| refused.contains(part)), "{refused}");
    allow(&cluster, 1);
    wait_until_ready(&s, &cluster, 1);
    let at = serve(&s, &cluster, "one", "1");
    load(at, "/index.html", "").during(|| {
        let refused = s.run(&["scale", NAME, "2"]).fails(1);
        assert!(TOLD.iter().all(|part| refused.contains(part)), "{refused}");
        assert_sentence(service(&s, NAME)["failing"].as_str().unwrap(), &TOLD);
        let shown = s.run(&["services", NAME]).ok();
        assert!(shown.contains("quota `few`"), "{shown}");
        allow(&cluster, 2);
        wait_until_ready(&s, &cluster, 2);

        // A rollout needs one pod more than there are.
        let refused = s.run(&["deploy", NAME, "--image", "web:two"]).fails(1);
        assert!(
            refused.contains("quota `few`") && refused.contains("revision 1 goes on serving"),
            "{refused}"
        );
        assert_eq!(page(at), (200, "first".to_owned()));
        allow(&cluster, 3);
        wait_until_ready(&s, &cluster, 2);
    });
    assert_eq!(page(at), (200, "second".to_owned()));
    end(s, &cluster);
}

#[test]
fn a_run_waits_for_its_quota() {
    let Some(cluster) = Cluster::connect("runquota") else { return };
    let s = Slipway::new();
    train::project(&s);
    use_account(&s, &cluster);
    allow(&cluster, 1);
    let id = train::train(&s, &["--detach"]).ok();
    let id = id.trim();
    let note = wait_for("the quota to be told", PATIENCE, || {
        let shown = train::run(&s, id);
        assert_eq!(shown["state"], "running", "{shown}\n{}", cluster.state());
        shown["note"].as_str().filter(|note| note.contains("quota")).map(str::to_owned)
    });
    assert_sentence(&note, &TOLD);
    allow(&cluster, 2);
    wait_for("the run to end", PATIENCE, || {
        let shown = train::run(&s, id);
        assert_ne!(shown["state"], "failed", "{shown}\n{}", cluster.state());
        (shown["state"] == "succeeded").then_some(())
    });
    train::end(s, &cluster);
}
