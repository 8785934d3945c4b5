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
    let root = s.root().to_str().unwrap().to_owned();

    kill(s.daemon_pid(), "KILL");
    assert!(answers(&s).is_some(), "nothing that serves depends on the daemon");
    resumes(&s, "the daemon");

    let gateway = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"gateway\0"))
    };
    let victims: Vec<i32> = processes_with(&root).into_iter().filter(gateway).collect();
    assert_eq!(victims.len(), 1);
    kill(victims[0], "KILL");
    resumes(&s, "the gateway");

    let containers = s.root().join("containers").to_str().unwrap().to_owned();
    let shims = processes_with(&containers);
    assert!(!shims.is_empty());
    kill(shims[0], "KILL");
    resumes(&s, "a shim");

    let inside = |name: &str| -> Vec<i32> {
        processes_with(name).into_iter().filter(|pid| in_container(*pid)).collect()
    };
    kill(inside("slipway-runner")[0], "KILL");
    resumes(&s, "a replica");
    kill(inside("slipway_worker")[0], "KILL");
    resumes(&s, "a worker");
    let events = s.run(&["events"]).ok();
    assert!(events.contains("replica.crashed") && events.contains("gateway.restarted"), "{events}");
    s.finish();
}

fn in_container(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains("/slipway/"))
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
