//! What a cluster decides without running a container. Holds on real nodes and on those that kwok plays.

use std::time::Duration;

use serde_json::Value;

use super::faults::use_account;
use super::train::end;
use super::{Cluster, build_image, delete};
use crate::support::{Slipway, wait_for};

#[test]
fn pods_are_counted_wherever_they_are() {
    let Some(cluster) = Cluster::connect_any("played") else { return };
    let s = Slipway::new();
    s.busybox();
    build_image(&s, "web", "web:1", "", "httpd -f -p 9000 -h /tmp & wait");
    use_account(&s, &cluster);

    s.run(&["deploy", "web", "--image", "web:1", "--replicas", "3"]).ok();
    let shown = |count: usize| {
        let text = s.run(&["services", "--format", "json"]).ok();
        let services: Value = serde_json::from_str(&text).unwrap();
        let replicas = services[0]["replicas"].as_array().unwrap();
        let as_declared = |one: &Value| one["state"] == "ready" && one["revision"] == services[0]["revision"];
        (replicas.len() == count && replicas.iter().all(as_declared)).then_some(())
    };
    wait_for("three ready replicas", Duration::from_secs(60), || shown(3));
    s.run(&["scale", "web", "1"]).ok();
    wait_for("one ready replica", Duration::from_secs(60), || shown(1));
    // Another revision, by another setting.
    s.run(&["deploy", "web", "--image", "web:1", "--replicas", "2", "-e", "TEXT=two"]).ok();
    wait_for("two ready replicas of the second revision", Duration::from_secs(60), || shown(2));
    delete(&s, "web");
    end(s, &cluster);
}
