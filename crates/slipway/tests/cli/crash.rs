//! SIGKILL for everything: nothing acknowledged is lost, requests resume, nothing is left behind.

use std::time::Duration;

use crate::support::{Slipway, kill, processes_with, tiny_project, wait_for};

const ONE: &str = "{\"instances\": [[1, 2]]}";

fn answers(s: &Slipway) -> Option<()> {
    (s.http("POST", "/v1/models/tiny:predict", ONE).0 == 200).then_some(())
}

fn resumes(s: &Slipway, after: &str) {
    wait_for(&format!("answers after {after}"), Duration::from_secs(30), || answers(s));
    wait_for(&format!("both replicas after {after}"), Duration::from_secs(30), || {
        s.run(&["services"]).ok().contains("2/2").then_some(())
    });
}

#[test]
fn services_come_back_from_every_kill() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    s.run(&["up", "p"]).ok();
    s.run(&["scale", "tiny", "2"]).ok();

    kill(s.daemon_pid(), "KILL");
    assert!(answers(&s).is_some(), "nothing that serves depends on the daemon");
    resumes(&s, "the daemon");

    kill(s.gateway_pid(), "KILL");
    resumes(&s, "the gateway");

    let containers = s.root().join("containers").to_str().unwrap().to_owned();
    let crashed = |count: usize| {
        wait_for("the crash to be seen", Duration::from_secs(10), || {
            (s.run(&["events"]).ok().matches("replica.crashed").count() >= count).then_some(())
        });
    };
    let shims = processes_with(&containers);
    assert!(!shims.is_empty());
    kill(shims[0], "KILL");
    crashed(1);
    resumes(&s, "a shim");

    let inside = |name: &str| s.processes_inside(name);
    kill(inside("slipway-runner")[0], "KILL");
    crashed(2);
    resumes(&s, "a replica");

    let workers = inside("slipway_worker");
    assert_eq!(workers.len(), 2);
    kill(workers[0], "KILL");
    wait_for("a new worker", Duration::from_secs(10), || {
        let now = inside("slipway_worker");
        (now.len() == 2 && !now.contains(&workers[0])).then_some(())
    });
    resumes(&s, "a worker");
    assert_eq!(
        s.run(&["events"]).ok().matches("replica.crashed").count(),
        2,
        "a worker is the runner's business"
    );
    assert!(s.run(&["events"]).ok().contains("gateway."));
    s.finish();
}

#[test]
fn a_killed_shim_ends_its_container() {
    let s = Slipway::new();
    s.busybox();
    s.run(&["run", "-d", "--name", "c", "box", "sleep", "600"]).ok();
    let containers = s.root().join("containers").to_str().unwrap().to_owned();
    let shim = processes_with(&containers)[0];
    kill(shim, "KILL");
    let seen = wait_for("the end to be seen", Duration::from_secs(10), || {
        let seen: serde_json::Value = serde_json::from_str(&s.run(&["inspect", "c"]).ok()).unwrap();
        (seen[0]["state"] == "exited").then(|| seen[0].clone())
    });
    assert_eq!(seen["exit"]["code"], 137, "{seen}");
    s.run(&["rm", "c"]).ok();
    s.finish();
}

#[test]
fn a_container_that_was_cut_short_does_not_keep_the_daemon_down() {
    let s = Slipway::new();
    s.busybox();
    for name in ["whole", "cut"] {
        s.run(&["run", "--name", name, "-v", "/data", "box", "true"]).ok();
    }
    let seen: serde_json::Value = serde_json::from_str(&s.run(&["inspect", "cut"]).ok()).unwrap();
    let folder = s.root().join("containers").join(seen[0]["id"].as_str().unwrap());
    kill(s.daemon_pid(), "KILL");
    // As when the kill came while its volumes were filled.
    std::fs::remove_file(folder.join("config.json")).unwrap();
    let list = wait_for("the daemon to come back", Duration::from_secs(20), || {
        let list = s.run(&["ps", "--all"]);
        (list.code == 0).then_some(list.stdout)
    });
    assert!(list.contains("whole") && !list.contains("cut"), "{list}");
    assert!(!folder.exists());
    s.run(&["run", "--rm", "--name", "cut", "box", "true"]).ok();
    s.run(&["rm", "whole"]).ok();
    s.finish();
}
