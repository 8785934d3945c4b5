//! `train`, `runs`

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::support::{Slipway, hold, kill, let_go, read_until, tiny_project, wait_for};

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
fn secrets_come_from_the_environment_and_are_not_shown() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    let text = std::fs::read_to_string(s.path("p/slipway.toml")).unwrap();
    let text = match text.contains("[train]") {
        true => text.replace("[train]", "[train]\nsecrets = [\"TOKEN_OF_MINE\"]"),
        false => format!("{text}\n[train]\nsecrets = [\"TOKEN_OF_MINE\"]\n"),
    };
    s.write("p/slipway.toml", &text);
    s.run(&["build", "-t", "slipway/tiny:latest", "p"]).ok();
    let script = "import os; print('has', len(os.environ['TOKEN_OF_MINE']), len(os.environ['OTHER']))";
    let arguments = ["train", "--project", "p", "--secret", "OTHER", "--", "python3", "-c", script];
    let stderr = s.run(&arguments).fails(2);
    assert!(stderr.contains("train.secrets") && stderr.contains("`TOKEN_OF_MINE` is not set"), "{stderr}");
    let output =
        s.command(&arguments).env("TOKEN_OF_MINE", "hf_s3cret").env("OTHER", "four").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("has 9 4"), "{output:?}");
    let told = s.run(&["runs", "tiny-1"]).ok() + &s.run(&["events"]).ok() + &s.run(&["logs", "tiny-1"]).ok();
    assert!(!told.contains("s3cret"), "{told}");
    s.finish();
}

#[test]
fn what_a_run_left_can_be_removed() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    s.run(&["build", "-t", "slipway/tiny:latest", "p"]).ok();
    let script =
        "import os; open(os.environ['SLIPWAY_CHECKPOINT_DIR'] + '/half', 'w').write('x'); print('said')";
    s.run(&["train", "--project", "p", "--", "python3", "-c", script]).fails(1);
    let checkpoint = s.root().join("runs/tiny-1/output/checkpoints/half");
    assert!(checkpoint.exists());
    s.run(&["runs", "--discard", "tiny-1"]).ok();
    assert!(!checkpoint.exists() && s.run(&["logs", "tiny-1"]).ok().contains("said"));
    assert_eq!(runs(&s)[0]["state"], "failed", "its record stays");
    s.run(&["runs", "--discard", "tiny-2"]).fails(3);
    s.run(&["runs", "--discard"]).fails(2);
    let id =
        s.run(&["train", "--project", "p", "-d", "--", "python3", "-c", "import time; time.sleep(600)"]).ok();
    let stderr = s.run(&["runs", "--discard", id.trim()]).fails(4);
    assert!(stderr.contains("--cancel"), "{stderr}");
    s.run(&["runs", "--cancel", id.trim()]).ok();
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

#[test]
fn signals_cancel_a_run_and_the_second_one_leaves_it() {
    let s = Slipway::new();
    s.python();
    let project = tiny_project(&s, "p", 2.0);
    s.run(&["build", "-t", "slipway/tiny:latest", "p"]).ok();
    let train = |program: &str| {
        let mut child = s.spawn(&["train", "--project", "p", "--", "python3", "-c", program]);
        read_until(child.stdout.as_mut().unwrap(), "begin");
        child
    };
    let saves = "import os, signal, sys, time\n\
        def stop(*_):\n    \
            open(os.environ['SLIPWAY_CHECKPOINT_DIR'] + '/last', 'w').write('7')\n    \
            sys.exit(0)\n\
        signal.signal(signal.SIGTERM, stop)\nprint('begin', flush=True)\ntime.sleep(600)";
    for (number, (signal, code)) in [("INT", 130), ("TERM", 143)].into_iter().enumerate() {
        let child = train(saves);
        kill(child.id().cast_signed(), signal);
        let ended = child.wait_with_output().unwrap();
        let id = format!("tiny-{}", number + 1);
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(
            ended.status.code() == Some(code) && stderr.contains(&format!("cancelling run {id}")),
            "{ended:?}"
        );
        assert_eq!(runs(&s)[number]["state"], "cancelled");
        let saved = s.root().join("runs").join(&id).join("output/checkpoints/last");
        assert_eq!(std::fs::read_to_string(saved).unwrap(), "7");
    }

    let stubborn = "import signal, time\n\
        signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('begin', flush=True)\ntime.sleep(600)";
    let mut child = train(stubborn);
    kill(child.id().cast_signed(), "INT");
    read_until(child.stderr.as_mut().unwrap(), "cancelling run tiny-3");
    let began = Instant::now();
    kill(child.id().cast_signed(), "INT");
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    assert!(began.elapsed() < Duration::from_secs(5), "it waited for the run");
    assert_eq!(runs(&s)[2]["state"], "running");
    wait_for("the run to be ended", Duration::from_secs(20), || {
        (runs(&s)[2]["state"] == "cancelled").then_some(())
    });
    assert_eq!(s.run(&["model", "ls", "--format", "json"]).ok().trim(), "[]");

    // A run outlives its terminal.
    hold(&project);
    let mut child = s.spawn(&["train", "--project", "p"]);
    read_until(child.stdout.as_mut().unwrap(), "begin");
    kill(child.id().cast_signed(), "KILL");
    child.wait().unwrap();
    assert_eq!(runs(&s)[3]["state"], "running");
    let_go(&project);
    wait_for("the run to succeed", Duration::from_secs(20), || {
        (runs(&s)[3]["state"] == "succeeded").then_some(())
    });
    s.finish();
}

#[test]
fn a_cancelled_run_ends_though_the_daemon_dies() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    s.run(&["build", "-t", "slipway/tiny:latest", "p"]).ok();
    let stubborn = "import signal, time\n\
        signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('begin', flush=True)\ntime.sleep(600)";
    let mut train = s.spawn(&["train", "--project", "p", "--", "python3", "-c", stubborn]);
    read_until(train.stdout.as_mut().unwrap(), "begin");
    let mut cancel = s.spawn(&["runs", "--cancel", "tiny-1"]);
    wait_for("the request", Duration::from_secs(10), || {
        s.root().join("runs/tiny-1/cancelled").exists().then_some(())
    });
    kill(s.daemon_pid(), "KILL");
    assert!(!cancel.wait().unwrap().success() && !train.wait().unwrap().success());
    wait_for("the run to be ended", Duration::from_secs(20), || {
        (runs(&s)[0]["state"] == "cancelled").then_some(())
    });
    s.finish();
}
