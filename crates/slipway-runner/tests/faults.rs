//! Workers that die, hang, refuse and do not load; and how a runner ends.

mod harness;

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{MODEL, Runner, children, instances, is_alive, prepare, read_reply};
use serde_json::json;

#[test]
fn a_worker_that_dies_fails_its_batch_at_once_and_is_replaced() {
    let runner = Runner::ready(MODEL, |_| {});
    let before = runner.workers();
    let started = Instant::now();
    let reply = runner.predict(&[666]);
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(reply.headers.contains("retry-after: 1"));
    let error = reply.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("was killed by signal 9"), "{error}");
    runner.wait_ready();
    assert_eq!(runner.predict(&[1]).json()["predictions"][0]["y"], 4.0);
    assert_ne!(runner.workers(), before);
    assert_eq!(runner.metric(r#"slipway_worker_restarts_total{model="adder",version="3"}"#), 1.0);
    assert_eq!(
        runner.metric(r#"slipway_requests_total{model="adder",version="3",protocol="tfs",code="503"}"#),
        1.0
    );
}

#[test]
fn a_worker_that_is_killed_while_idle_makes_the_runner_unready_until_the_next() {
    // The second load waits for a file, so that the time between is as long as the test needs.
    let model = MODEL.replace(
        "self.pid = os.getpid()",
        "self.pid = os.getpid()\n        gate = os.path.join(model_dir, 'gate')\n        \
         while os.path.exists(gate): time.sleep(0.02)",
    );
    let runner = Runner::ready(&model, |_| {});
    let gate = runner.folder.path().join("model/gate");
    std::fs::write(&gate, "").unwrap();
    assert!(Command::new("kill").args(["-9", &runner.workers()[0].to_string()]).status().unwrap().success());
    runner.wait("the end of readiness", |r| r.get("/v2/health/ready").status == 503);
    let health = runner.get("/v2/health/ready").json();
    assert_eq!(health["ready"], false);
    assert!(health["reason"].as_str().unwrap().contains("was killed by signal 9"), "{health}");
    assert_eq!(runner.get("/v2/health/live").status, 200);
    assert_eq!(runner.get("/v2/models/adder/ready").status, 503);
    assert_eq!(runner.get("/v1/models/adder").json()["model_version_status"][0]["state"], "LOADING");
    let reply = runner.predict(&[1]);
    assert_eq!(reply.status, 503);
    assert!(reply.json()["error"].as_str().unwrap().starts_with("the model is not ready: "));
    std::fs::remove_file(gate).unwrap();
    runner.wait_ready();
    assert_eq!(runner.predict(&[1]).status, 200);
}

#[test]
fn a_worker_that_hangs_is_killed_and_replaced() {
    let runner = Runner::ready(MODEL, |config| config["timeout_ms"] = 700.into());
    let before = runner.workers();
    let reply = runner.predict(&[777]);
    assert_eq!(reply.status, 504, "{}", reply.text());
    runner.wait("another worker", |r| !r.workers().is_empty() && r.workers() != before);
    runner.wait_ready();
    assert!(before.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(runner.predict(&[1]).status, 200);
}

#[test]
fn a_request_times_out_in_the_queue_without_reaching_the_worker() {
    let runner = Runner::ready(MODEL, |_| {});
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(runner.predict(&[444]).status, 200));
        std::thread::sleep(Duration::from_millis(100));
        let infer = r#"{"parameters":{"timeout":50000},"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[666,2,3]}]}"#;
        let reply = runner.post("/v2/models/adder/infer", infer);
        assert_eq!(reply.status, 504);
        assert!(
            reply.json()["error"].as_str().unwrap().starts_with("Request timeout expired"),
            "{}",
            reply.text()
        );
    });
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(runner.metric(r#"slipway_worker_restarts_total{model="adder",version="3"}"#), 0.0);
}

#[test]
fn a_client_that_goes_takes_its_request_out_of_the_queue() {
    let runner = Runner::ready(MODEL, |_| {});
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(runner.predict(&[444]).status, 200));
        std::thread::sleep(Duration::from_millis(100));
        let mut stream = runner.connect();
        let body = instances(&[666]);
        let head = format!(
            "POST /v1/models/adder:predict HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let rows = r#"slipway_queue_rows{model="adder",version="3"}"#;
        runner.wait("a row in the queue", |r| r.metric(rows) == 1.0);
        drop(stream);
        runner.wait("an empty queue", |r| r.metric(rows) == 0.0);
    });
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(runner.metric(r#"slipway_worker_restarts_total{model="adder",version="3"}"#), 0.0);
}

#[test]
fn a_full_queue_refuses() {
    let runner = Runner::ready(MODEL, |config| config["batch"] = json!({"max_queue": 2}));
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(runner.predict(&[444]).status, 200));
        std::thread::sleep(Duration::from_millis(100));
        scope.spawn(|| assert_eq!(runner.predict(&[1, 2]).status, 200));
        runner.wait("rows in the queue", |r| {
            r.metric(r#"slipway_queue_rows{model="adder",version="3"}"#) == 2.0
        });
        let reply = runner.predict(&[3]);
        assert_eq!(reply.status, 503);
        assert!(reply.headers.contains("retry-after: 1"));
        assert!(
            reply.json()["error"].as_str().unwrap().starts_with("Exceeds maximum queue size"),
            "{}",
            reply.text()
        );
    });
}

#[test]
fn a_refused_row_does_not_fail_its_neighbours() {
    let runner = Runner::ready(MODEL, |_| {});
    let reply = runner.predict(&[555]);
    assert_eq!((reply.status, reply.json()["error"].as_str()), (422, Some("no such thing")));
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(runner.predict(&[444]).status, 200));
        std::thread::sleep(Duration::from_millis(100));
        let bad = scope.spawn(|| runner.predict(&[888]));
        let good: Vec<_> = (0..3).map(|_| scope.spawn(|| runner.predict(&[5]))).collect();
        for reply in good {
            assert_eq!(reply.join().unwrap().json()["predictions"][0]["y"], 8.0);
        }
        let bad = bad.join().unwrap();
        assert_eq!((bad.status, bad.json()["error"].as_str()), (500, Some("ValueError: the row is bad")));
    });
    assert!(runner.log().contains("[worker]     raise ValueError(\"the row is bad\")"), "{}", runner.log());
}

#[test]
fn a_worker_that_breaks_the_rules_is_replaced() {
    let folder = prepare(MODEL, |_| {});
    let frames = folder.path().join("python/slipway_worker/frames.py");
    let honest = std::fs::read_to_string(&frames).unwrap();
    let hostile = honest.clone()
        + r#"
def result(batch, nanos, count, descriptors, json_mode=False):
    outside = pack_descriptor(10, (1,), 1 << 62, 4, "y") + pack_descriptor(8, (1,), 0, 8, "rows")
    return _REPLY.pack(RESULT, 0, 2, 0, batch, nanos) + outside
"#;
    std::fs::write(&frames, hostile).unwrap();
    let runner = Runner::spawn(folder, Command::new(env!("CARGO_BIN_EXE_slipway-runner")));
    runner.wait_ready();
    std::fs::write(&frames, honest).unwrap();
    let reply = runner.predict(&[1]);
    assert_eq!(reply.status, 500, "{}", reply.text());
    let error = reply.json()["error"].as_str().unwrap().to_owned();
    assert!(
        error.starts_with("the worker sent 4 bytes at offset 4611686018427387904 are outside"),
        "{error}"
    );
    runner.wait_ready();
    assert_eq!(runner.predict(&[1]).status, 200);
}

#[test]
fn a_model_that_does_not_load_says_why() {
    let runner = Runner::start("import nothing_of_this_name\n", |_| {});
    runner.wait("a reason", |r| r.get("/v2/health/ready").text().contains("nothing_of_this_name"));
    let health = runner.get("/v2/health/ready");
    assert_eq!(health.status, 503);
    let reason = health.json()["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("ModuleNotFoundError: No module named 'nothing_of_this_name'"), "{reason}");
    assert!(reason.contains("line 1"), "{reason}");
    assert_eq!(runner.get("/v2/models/adder").status, 503, "no signature is known");
    let reply = runner.predict(&[1]);
    assert!(reply.status == 503 && reply.text().contains("nothing_of_this_name"), "{}", reply.text());
    // The files are repaired: the next attempt serves.
    std::fs::write(runner.folder.path().join("model/model.py"), MODEL).unwrap();
    runner.wait_ready();
}

#[test]
fn a_failed_warm_up_and_an_exit_while_loading_are_reasons() {
    let failing = MODEL.replace("n = x.shape[0]", "raise RuntimeError('not today')");
    let runner = Runner::start(&failing, |_| {});
    runner.wait("a reason", |r| r.get("/v2/health/ready").text().contains("RuntimeError: not today"));
    let leaving = MODEL.replace("self.pid = os.getpid()", "print('last words', flush=True); os._exit(7)");
    let runner = Runner::start(&leaving, |_| {});
    runner.wait("a reason", |r| r.get("/v2/health/ready").text().contains("exited with code 7"));
    assert!(runner.get("/v2/health/ready").text().contains("last words"));
}

#[test]
fn without_an_interpreter_it_says_so() {
    let folder = prepare(MODEL, |_| {});
    std::fs::remove_file(folder.path().join("bin/python3")).unwrap();
    let mut command = Command::new("/usr/bin/env");
    command
        .arg(format!("PATH={}", folder.path().join("bin").display()))
        .arg(env!("CARGO_BIN_EXE_slipway-runner"));
    let runner = Runner::spawn(folder, command);
    runner.wait("a reason", |r| {
        r.get("/v2/health/ready").text().contains("cannot execute the Python interpreter python3")
    });
}

#[test]
fn sigterm_finishes_what_is_under_way_and_exits_with_zero() {
    let mut runner = Runner::ready(MODEL, |_| {});
    let worker = runner.workers()[0];
    // A connection that has nothing to say must not hold it up.
    let _idle = runner.connect();
    let mut stream = runner.connect();
    let body = instances(&[444]);
    let head = format!(
        "POST /v1/models/adder:predict HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    runner.signal("-TERM");
    let reply = read_reply(stream);
    assert_eq!((reply.status, reply.json()["predictions"][0]["y"].as_f64()), (200, Some(447.0)));
    assert_eq!(runner.wait_exit().code(), Some(0), "{}", runner.log());
    assert!(!runner.socket().exists());
    assert!(!is_alive(worker));
}

#[test]
fn a_killed_runner_leaves_no_worker_not_even_a_hung_one() {
    let mut runner = Runner::ready(MODEL, |_| {});
    let worker = runner.workers()[0];
    let mut stream = runner.connect();
    let body = instances(&[777]);
    let head = format!(
        "POST /v1/models/adder:predict HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    runner.child.kill().unwrap();
    runner.child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_alive(worker) {
        assert!(Instant::now() < deadline, "the worker lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn as_the_first_process_it_reaps_orphans_and_ends_on_sigterm() {
    let model = MODEL.replace(
        "n = x.shape[0]",
        "n = x.shape[0]\n        if x[0, 0] == 99:\n            os.system('(sleep 0.05 &) ; true')",
    );
    let folder = prepare(&model, |_| {});
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_slipway-runner")]);
    let mut runner = Runner::spawn(folder, command);
    runner.wait_ready();
    let init = children(runner.child.id())[0];
    for _ in 0..5 {
        assert_eq!(runner.predict(&[99]).status, 200);
    }
    std::thread::sleep(Duration::from_millis(300));
    let dead: Vec<_> = children(init).into_iter().filter(|pid| !is_alive(*pid)).collect();
    assert!(dead.is_empty(), "zombies {dead:?}");
    assert_eq!(children(init).len(), 1, "only the worker is left");
    assert_eq!(runner.predict(&[666]).status, 503);
    runner.wait_ready();
    assert!(Command::new("kill").args(["-TERM", &init.to_string()]).status().unwrap().success());
    assert_eq!(runner.wait_exit().code(), Some(0), "{}", runner.log());
}

#[test]
fn wrong_usage_and_a_bad_configuration_have_their_exit_codes() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_slipway-runner")).args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&["a", "b"]).0, 2);
    let (code, text) = run(&["/does/not/exist"]);
    assert!(code == 1 && text.contains("cannot read the configuration /does/not/exist"), "{text}");
    let folder = prepare(MODEL, |config| config["listen"] = "localhost:80".into());
    let (code, text) = run(&[folder.path().join("runner.json").to_str().unwrap()]);
    assert!(code == 1 && text.contains("`localhost:80` is not an address to listen on"), "{text}");
}
