//! `train`, `runs`

use std::time::Duration;

use crate::support::{Slipway, kill, tiny_project, wait_for};

fn runs(s: &Slipway) -> Vec<serde_json::Value> {
    serde_json::from_str(&s.run(&["runs", "--format", "json"]).ok()).unwrap()
}

#[test]
fn a_run_records_everything_and_makes_a_version() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    let stderr = s.run(&["train", "--project", "p"]).fails(3);
    assert!(stderr.contains("slipway up"), "{stderr}");
    s.run(&["build", "-t", "slipway/tiny:latest", "p"]).ok();
    let trained = s.run(&["train", "--project", "p"]);
    assert_eq!(trained.code, 0, "{}", trained.stderr);
    assert!(
        trained.stdout.contains("\"accuracy\": 0.97") && trained.stderr.contains("tiny@1"),
        "{trained:?}"
    );
    let run = &runs(&s)[0];
    assert_eq!(run["state"], "succeeded");
    assert_eq!(
        (&run["exit_code"], &run["version"], &run["metrics"]["loss"]),
        (&0.into(), &1.into(), &0.25.into())
    );
    assert!(run["peak_memory"].as_u64().unwrap() > 1 << 20, "{run}");
    assert!(s.run(&["logs", "tiny-1"]).ok().contains("accuracy"), "logs are kept");
    let shown: serde_json::Value = serde_json::from_str(&s.run(&["model", "show", "tiny@1"]).ok()).unwrap();
    assert_eq!(shown["lineage"]["run"], "tiny-1");
    assert_eq!(shown["files"].as_array().unwrap().len(), 2, "{shown}");
    s.finish();
}

#[test]
fn a_failed_run_leaves_no_version() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    s.run(&["build", "-t", "slipway/tiny:latest", "p"]).ok();
    let train = |command: &[&str]| s.run(&[&["train", "--project", "p", "--"][..], command].concat());
    train(&["python3", "-c", "import sys; print('trying'); sys.exit(3)"]).fails(1);
    let stderr = train(&["python3", "-c", "pass"]).fails(1);
    assert!(stderr.contains("no model"), "{stderr}");
    train(&["python3", "-c", "open('/workspace/x', 'w')"]).fails(1);
    train(&["absent-program"]).fails(1);
    let list = runs(&s);
    assert_eq!(list.iter().filter(|run| run["state"] == "failed").count(), 4);
    assert_eq!(list[0]["exit_code"], 3);
    assert!(s.run(&["logs", "tiny-1"]).ok().contains("trying"));
    assert_eq!(s.run(&["model", "ls", "--format", "json"]).ok().trim(), "[]");
    s.finish();
}

#[test]
fn runs_survive_the_daemon_and_can_be_cancelled() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    s.run(&["build", "-t", "slipway/tiny:latest", "p"]).ok();
    let slow = "import time, runpy; print('begin', flush=True); time.sleep(2); runpy.run_path('train.py')";
    let id = s.run(&["train", "-d", "--project", "p", "--", "python3", "-c", slow]).ok();
    wait_for("it to begin", Duration::from_secs(10), || {
        s.run(&["logs", id.trim()]).stdout.contains("begin").then_some(())
    });
    kill(s.daemon_pid(), "KILL");
    wait_for("the run to succeed", Duration::from_secs(20), || {
        (runs(&s)[0]["state"] == "succeeded").then_some(())
    });
    assert_eq!(runs(&s)[0]["version"], 1);

    let endless = "import time; print('begin', flush=True); time.sleep(600)";
    let id = s.run(&["train", "-d", "--project", "p", "--", "python3", "-c", endless]).ok();
    s.run(&["runs", "--cancel", id.trim()]).ok();
    wait_for("its end", Duration::from_secs(15), || (runs(&s)[1]["state"] == "cancelled").then_some(()));
    s.run(&["runs", "--cancel", id.trim()]).fails(4);
    s.run(&["runs", "absent-1"]).fails(3);
    s.finish();
}
