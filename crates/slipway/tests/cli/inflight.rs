//! SIGKILL while a request is in its prediction: it fails at once, the next succeeds, nothing is left behind.

use std::time::{Duration, Instant};

use crate::support::{Slipway, http, kill, tiny_project, wait_for};

/// Sleeps for as many seconds as the first number says, and shows that it does.
const SLEEPER: &str = "import os, time, numpy as np\n\
class Scale:\n    signature = {\n        \"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [-1, 2]}],\n        \
\"outputs\": [{\"name\": \"y\", \"datatype\": \"FP32\", \"shape\": [-1, 2]}],\n    }\n\n    \
def predict(self, inputs):\n        x = np.asarray(inputs[\"x\"], np.float32)\n        \
open(\"/tmp/predicting\", \"w\").close()\n        time.sleep(float(x[:, 0].max()))\n        \
os.remove(\"/tmp/predicting\")\n        return {\"y\": x * 2}\n";
/// How long the killed request would have taken, and how soon its end must be seen: far apart, for slow machines.
const SLOW: &str = "{\"instances\": [[50, 2]]}";
const SOON: Duration = Duration::from_secs(25);
const QUICK: &str = "{\"instances\": [[0, 2]]}";
const PREDICT: &str = "/v1/models/tiny:predict";

fn serving() -> Slipway {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    s.write("p/scale.py", SLEEPER);
    s.run(&["up", "p"]).ok();
    s.run(&["scale", "tiny", "2"]).ok();
    wait_for("both replicas", Duration::from_secs(60), || {
        s.run(&["services"]).ok().contains("2/2").then_some(())
    });
    s
}

/// Sends the slow request and kills the process that `victim` names, given the worker that has it. Gives its answer.
fn killed(s: &Slipway, victim: impl Fn(i32) -> i32) -> (u16, String) {
    let port = s.port;
    let request = std::thread::spawn(move || http(port, "POST", PREDICT, SLOW));
    let worker = wait_for("the prediction", Duration::from_secs(20), || {
        let predicting =
            |pid: &i32| std::path::Path::new(&format!("/proc/{pid}/root/tmp/predicting")).exists();
        s.processes_inside("slipway_worker").into_iter().find(predicting)
    });
    let began = Instant::now();
    kill(victim(worker), "KILL");
    let answer = request.join().unwrap();
    assert!(began.elapsed() < SOON, "it hung for {:?}: {answer:?}", began.elapsed());
    answer
}

/// The next request succeeds: of a client that comes back when told to.
fn next_succeeds(s: &Slipway) {
    let body = wait_for("an answer", Duration::from_secs(30), || {
        let (status, body) = s.http("POST", PREDICT, QUICK);
        assert!(matches!(status, 0 | 200 | 503), "{status} {body}");
        (status == 200).then_some(body)
    });
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["predictions"], serde_json::json!([[0.0, 4.0]]));
}

#[test]
fn a_worker_killed_in_its_prediction() {
    let s = serving();
    let (status, body) = killed(&s, |worker| worker);
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("signal 9"), "{body}");
    next_succeeds(&s);
    assert!(!s.run(&["events"]).ok().contains("replica.crashed"), "a worker is the runner's business");
    s.finish();
}

#[test]
fn a_replica_killed_in_its_prediction() {
    let s = serving();
    let (status, body) = killed(&s, |worker| {
        // The first process of the worker's container; its namespaces end with it.
        let same = |pid: &i32| namespace(*pid) == namespace(worker);
        s.processes_inside("slipway-runner").into_iter().find(same).expect("a runner has the worker")
    });
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("broke off"), "{body}");
    next_succeeds(&s);
    wait_for("both replicas again", Duration::from_secs(60), || {
        s.run(&["services"]).ok().contains("2/2").then_some(())
    });
    s.finish();
}

#[test]
fn the_gateway_killed_in_a_prediction() {
    let s = serving();
    let (status, body) = killed(&s, |_| s.gateway_pid());
    assert_eq!(status, 0, "nobody is left to answer: {body}");
    next_succeeds(&s);
    assert!(!s.run(&["events"]).ok().contains("replica.crashed"));
    s.finish();
}

fn namespace(pid: i32) -> Option<std::path::PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}
