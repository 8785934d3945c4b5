//! `up`, `deploy`, `services`, `scale`, `delete`, `predict`, `events`.

use std::time::{Duration, Instant};

use crate::support::{Slipway, hold, kill, let_go, read_until, tiny_project, wait_for};

const ONE: &str = "{\"instances\": [[1, 2]]}";

fn predict(s: &Slipway) -> Option<serde_json::Value> {
    let (status, body) = s.http("POST", "/v1/models/tiny:predict", ONE);
    (status == 200).then(|| serde_json::from_str(&body).unwrap())
}

#[test]
fn up_twice_then_change_scale_and_delete() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    let first = s.run(&["up", "p"]);
    assert_eq!(first.code, 0, "{}\n{}", first.stdout, first.stderr);
    assert!(first.stdout.contains(&format!("http://127.0.0.1:{}", s.port)), "{}", first.stdout);
    assert_eq!(predict(&s).unwrap()["predictions"], serde_json::json!([[2.0, 4.0]]));

    let began = Instant::now();
    let second = s.run(&["up", "p"]).ok();
    assert!(second.contains("nothing to do"), "{second}");
    // Generous: what must not happen is a build, a run or a rollout.
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(s.run(&["runs", "--format", "json"]).ok().matches("\"id\"").count(), 1);

    // Both protocols, by service and by version, and what is wrong is told.
    let infer = r#"{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [3, 4]}]}"#;
    let (status, body) = s.http("POST", "/v2/models/tiny/infer", infer);
    assert!(status == 200 && body.contains("[6"), "{status} {body}");
    assert_eq!(s.http("GET", "/v1/models/tiny/versions/1", "").0, 200);
    assert_eq!(s.http("GET", "/v2/models/tiny/ready", "").0, 200);
    let (status, body) = s.http("POST", "/v1/models/tiny:predict", "{\"instances\": [[1, 2, 3]]}");
    assert!(status == 400 && body.contains("FP32"), "{status} {body}");
    assert_eq!(s.http("POST", "/v1/models/tiny:predict", "{\"instances\": [[").0, 400);
    assert_eq!(s.http("POST", "/v1/models/other:predict", ONE).0, 404);
    assert!(s.run(&["predict", "tiny", "--json", ONE]).ok().contains("predictions"));
    s.run(&["predict", "tiny", "--json", "{}"]).fails(2);
    s.run(&["predict", "absent", "--json", ONE]).fails(3);
    for name in [
        "slipway_gateway_requests_total",
        "slipway_gateway_request_duration_seconds_bucket",
        "slipway_batch_size",
        "container_memory_usage_bytes",
        "container_cpu_usage_seconds_total",
        "slipway_service_restarts_total",
    ] {
        wait_for(name, Duration::from_secs(10), || {
            s.http("GET", "/metrics", "").1.contains(name).then_some(())
        });
    }

    // Other training code, other version, without a failed request meanwhile.
    tiny_project(&s, "p", 3.0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut failed = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let (status, body) = s.http("POST", "/v1/models/tiny:predict", ONE);
                if status != 200 {
                    failed.push((status, body));
                }
            }
            failed
        });
        let third = s.run(&["up", "p"]);
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(third.code, 0, "{}", third.stderr);
        assert!(asking.join().unwrap().is_empty());
    });
    assert_eq!(predict(&s).unwrap()["predictions"], serde_json::json!([[3.0, 6.0]]));

    s.run(&["scale", "tiny", "3"]).ok();
    assert!(s.run(&["services"]).ok().contains("3/3"));
    s.run(&["scale", "tiny", "1"]).ok();
    wait_for("two replicas to go", Duration::from_secs(20), || {
        s.run(&["services", "tiny"]).ok().matches(" ready").count().eq(&1).then_some(())
    });
    s.run(&["model", "rm", "tiny@2"]).fails(4);
    let back = s.run(&["deploy", "tiny@1"]);
    assert_eq!(back.code, 0, "{}", back.stderr);
    assert_eq!(predict(&s).unwrap()["predictions"], serde_json::json!([[2.0, 4.0]]));
    assert!(s.run(&["logs", "tiny"]).code == 0);
    let events = s.run(&["events", "--subject", "service/tiny"]).ok();
    assert!(events.contains("service.declared") && events.contains("replica.ready"), "{events}");
    s.run(&["delete", "tiny"]).ok();
    assert_eq!(s.run(&["services", "--format", "json"]).ok().trim(), "[]");
    s.run(&["services", "tiny"]).fails(3);
    s.finish();
}

#[test]
fn two_ups_of_one_project_do_not_mix() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    let (a, b) = (s.spawn(&["up", "p"]), s.spawn(&["up", "p"]));
    let codes: Vec<_> =
        [a, b].map(|child| child.wait_with_output().unwrap().status.code().unwrap()).into_iter().collect();
    assert!(codes.contains(&0) && codes.iter().all(|code| matches!(code, 0 | 4)), "{codes:?}");
    assert_eq!(s.run(&["runs", "--format", "json"]).ok().matches("\"id\"").count(), 1);
    s.finish();
}

fn runs(s: &Slipway) -> Vec<serde_json::Value> {
    serde_json::from_str(&s.run(&["runs", "--format", "json"]).ok()).unwrap()
}

/// Starts `up`, and kills the daemon once the run trains.
fn up_with_a_daemon_that_dies(s: &Slipway, run: &str) {
    let first = s.spawn(&["up", "p"]);
    wait_for("the run to begin", Duration::from_secs(60), || {
        s.run(&["logs", run]).stdout.contains("begin").then_some(())
    });
    kill(s.daemon_pid(), "KILL");
    assert_ne!(first.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn a_run_that_outlived_its_daemon_is_not_trained_twice() {
    let s = Slipway::new();
    s.python();
    let project = tiny_project(&s, "p", 2.0);
    hold(&project);
    up_with_a_daemon_that_dies(&s, "tiny-1");
    let mut second = s.spawn(&["up", "p"]);
    read_until(second.stderr.as_mut().unwrap(), "run tiny-1 trains");
    let_go(&project);
    let second = second.wait_with_output().unwrap();
    let stdout = String::from_utf8_lossy(&second.stdout);
    assert!(second.status.success() && stdout.contains("accuracy"), "{second:?}");
    assert_eq!((runs(&s).len(), &runs(&s)[0]["version"]), (1, &1.into()));
    assert_eq!(predict(&s).unwrap()["predictions"], serde_json::json!([[2.0, 4.0]]));
    assert!(s.run(&["up", "p"]).ok().contains("nothing to do"));

    // One that ended before anyone asked for it.
    tiny_project(&s, "p", 3.0);
    hold(&project);
    up_with_a_daemon_that_dies(&s, "tiny-2");
    let_go(&project);
    wait_for("the run to succeed", Duration::from_secs(20), || {
        (runs(&s)[1]["state"] == "succeeded").then_some(())
    });
    assert!(s.run(&["up", "p"]).ok().contains("model version 2"));
    assert_eq!(runs(&s).len(), 2);
    assert_eq!(predict(&s).unwrap()["predictions"], serde_json::json!([[3.0, 6.0]]));

    // One of other files is left to itself.
    tiny_project(&s, "p", 4.0);
    hold(&project);
    up_with_a_daemon_that_dies(&s, "tiny-3");
    tiny_project(&s, "p", 5.0);
    assert!(s.run(&["up", "p"]).ok().contains("model version 3"));
    assert_eq!(runs(&s).len(), 4);
    s.run(&["runs", "--cancel", "tiny-3"]).ok();
    s.finish();
}
