//! Gangs that an operator of the cluster starts. The cluster must have it, controller and all.

use super::Cluster;
use super::engine::use_cluster;
use super::train::{end, project, run, train, wait_for_line};
use crate::support::Slipway;

/// Whether the cluster serves a kind; said aloud where it does not.
fn serves(cluster: &Cluster, kind: &str) -> bool {
    if cluster.command(&["get", kind]).status.success() {
        return true;
    }
    super::skipped(&format!("the cluster has no {kind}"));
    false
}

/// Allows more than the usual Role does.
fn allow(s: &Slipway, cluster: &Cluster, api: &str) {
    let role = s.run(&["engine", "rbac", "--namespace", &cluster.namespace, "--with", api]).ok();
    let role = s.write("more.yaml", &role);
    cluster.kubectl(&["apply", "--server-side", "-f", role.to_str().unwrap()]);
}

#[test]
fn a_job_set_trains_begins_again_and_is_cancelled() {
    let Some(cluster) = Cluster::connect("jobset") else { return };
    if !serves(&cluster, "jobsets.jobset.x-k8s.io") {
        return;
    }
    let s = Slipway::new();
    project(&s);
    use_cluster(&s, &cluster);
    // The Role was made for a cluster without: what is there may not be used, and is not.
    let plain = train(&s, &[]);
    assert_eq!(plain.code, 0, "{}\n{}\n{}", plain.stdout, plain.stderr, cluster.state());
    allow(&s, &cluster, "jobset");
    let detached = train(&s, &["-d", "--retries", "1", "-e", "FAIL=1", "-e", "SECONDS=3"]).ok();
    let id = detached.trim();
    wait_for_line(&s, id, "[rank 0] rank 0 of 2, attempt 1, from 5");
    let sets = cluster.kubectl(&["get", "jobsets", "--output", "name"]);
    assert_eq!(sets.lines().count(), 1, "the first attempt's is gone: {sets}");
    wait_for_line(&s, id, "[rank 0] second 2");
    crate::support::wait_for("its end", std::time::Duration::from_secs(120), || {
        let shown = run(&s, id);
        assert_ne!(shown["state"], "failed", "{shown}\n{}", cluster.state());
        (shown["state"] == "succeeded").then_some(())
    });
    assert_eq!(run(&s, id)["attempt"], 2);
    let id = train(&s, &["-d", "--gang", "jobset", "-e", "SECONDS=600"]).ok();
    let id = id.trim();
    wait_for_line(&s, id, "[rank 1] second 1");
    s.run(&["runs", "--cancel", id]).ok();
    assert_eq!(run(&s, id)["state"], "cancelled");
    if !cluster.command(&["get", "podgroups.scheduling.volcano.sh"]).status.success() {
        let stderr = train(&s, &["--gang", "volcano"]).fails(1);
        assert!(stderr.contains("no Volcano"), "{stderr}");
    }
    end(s, &cluster);
    assert!(cluster.kubectl(&["get", "jobsets", "--output", "name"]).trim().is_empty());
}
