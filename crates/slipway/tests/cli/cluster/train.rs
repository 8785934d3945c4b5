//! Training on a cluster under the printed Role: a gang, its restarts, its end, and what a killed daemon goes on with.

use std::time::Duration;

use serde_json::Value;

use super::Cluster;
use super::engine::use_cluster;
use crate::support::{Slipway, kill, wait_for};

/// What every rank says, and the first one saves once it heard of the others.
const GANG: &str = r#"
import json, os, socket, time
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
checkpoint = os.path.join(os.environ["SLIPWAY_CHECKPOINT_DIR"], f"{rank}.json")
attempt = int(os.environ["SLIPWAY_RESTART_COUNT"])
begun = json.load(open(checkpoint)) if os.path.exists(checkpoint) else 0
print(f"rank {rank} of {world}, attempt {attempt}, from {begun}", flush=True)
if attempt < int(os.environ.get("FAIL", "0")) and rank == 1:
    json.dump(begun + 5, open(checkpoint, "w"))
    raise SystemExit(7)
if attempt < int(os.environ.get("FAIL", "0")):
    json.dump(begun + 5, open(checkpoint, "w"))
    open(os.path.join(os.environ["SLIPWAY_MODEL_DIR"], "half.json"), "w").write("x")
    time.sleep(60)
if rank == 0:
    server = socket.create_server(("", address[1]))
    heard = sorted(int(server.accept()[0].makefile().readline()) for _ in range(world - 1))
    print(f"heard of {heard}", flush=True)
else:
    for _ in range(300):
        try:
            peer = socket.create_connection(address, 2)
            break
        except OSError:
            time.sleep(0.2)
    peer.sendall(f"{rank}\n".encode())
for second in range(int(os.environ.get("SECONDS", "0"))):
    print(f"second {second}", flush=True)
    time.sleep(1)
print(json.dumps({"loss": 0.5 - rank, "begun": begun}), flush=True)
data = open("/data/rows.csv").read() if os.path.exists("/data/rows.csv") else ""
with open(os.environ["SLIPWAY_METRICS_FILE"], "a") as metrics:
    metrics.write(json.dumps({"accuracy": 0.75 + rank}) + "\n")
weights = {"rank": rank, "begun": begun, "data": data, "note": open("link").read()}
json.dump(weights, open(os.path.join(os.environ["SLIPWAY_MODEL_DIR"], "weights.json"), "w"))
open(os.path.join(os.environ["SLIPWAY_MODEL_DIR"], "model.py"), "w").write(open("model.py").read())
"#;
const MODEL: &str = "import json\nclass Model:\n    def __init__(self, folder):\n        self.weights = json.load(open(f'{folder}/weights.json'))\n    def predict(self, inputs):\n        return inputs\n";

pub(super) fn project(s: &Slipway) {
    s.python();
    // Root's: the test cluster's claims are folders of the host, which no other user may write to.
    s.write("p/Dockerfile", "FROM py\n");
    s.write("p/.dockerignore", "*\n");
    s.write("p/.gitignore", "secret.txt\n");
    s.write("p/secret.txt", "not for a registry");
    s.write("p/train.py", GANG);
    s.write("p/model.py", MODEL);
    s.write("p/note.txt", "hello");
    s.write("p/rows/rows.csv", "1,2\n");
    std::os::unix::fs::symlink("note.txt", s.path("p/link")).unwrap();
    s.write(
        "p/slipway.toml",
        "name = \"My_Gang\"\n[train]\ncommand = [\"python3\", \"train.py\"]\ndata = \"rows\"\nranks = 2\n\
         launcher = \"torchrun\"\nstorage = \"64m\"\n[model]\nformat = \"python\"\nentry = \"model:Model\"\n",
    );
    s.run(&["build", "-t", &image(), "p"]).ok();
}

/// The image that the project's name gives.
pub(super) fn image() -> String {
    "slipway/gang:1".to_owned()
}

pub(super) fn train(s: &Slipway, more: &[&str]) -> crate::support::Outcome {
    s.run(&[&["train", "--project", "p", "--image", &image()][..], more].concat())
}

pub(super) fn run(s: &Slipway, id: &str) -> Value {
    serde_json::from_str(&s.run(&["runs", id]).ok()).unwrap()
}

pub(super) fn wait_for_line(s: &Slipway, id: &str, text: &str) {
    wait_for(text, Duration::from_secs(120), || s.run(&["logs", id]).stdout.contains(text).then_some(()));
}

pub(super) fn end(s: Slipway, cluster: &Cluster) {
    s.run(&["engine", "rm", "kubernetes"]).ok();
    cluster.assert_empty();
    s.finish();
}

#[test]
fn a_gang_makes_a_version_here() {
    let Some(cluster) = Cluster::connect("gang") else { return };
    let s = Slipway::new();
    project(&s);
    let stderr = train(&s, &[]).fails(2);
    assert!(stderr.contains("needs a cluster") && stderr.contains("--engine"), "{stderr}");
    train(&s, &["--ranks", "1", "--retries", "1"]).fails(2);
    use_cluster(&s, &cluster);
    let trained = train(&s, &[]);
    assert_eq!(trained.code, 0, "{}\n{}\n{}", trained.stdout, trained.stderr, cluster.state());
    for line in ["[rank 0] rank 0 of 2, attempt 0, from 0", "[rank 1] rank 1 of 2", "[rank 0] heard of [1]"] {
        assert!(trained.stdout.contains(line), "{line}: {}", trained.stdout);
    }
    assert!(trained.stderr.contains("My_Gang@1"), "{}", trained.stderr);
    let shown = run(&s, "My_Gang-1");
    assert_eq!(
        (&shown["state"], &shown["engine"], &shown["version"]),
        (&"succeeded".into(), &"kubernetes".into(), &1.into())
    );
    // The first rank's, printed and written.
    assert_eq!((&shown["metrics"]["loss"], &shown["metrics"]["accuracy"]), (&0.5.into(), &0.75.into()));
    let kept = s.run(&["logs", "My_Gang-1"]).ok();
    assert_eq!(kept.lines().count(), trained.stdout.lines().count(), "{kept}");
    let model: Value = serde_json::from_str(&s.run(&["model", "show", "My_Gang@1"]).ok()).unwrap();
    assert_eq!(model["lineage"]["run"], "My_Gang-1");
    let files: Vec<_> =
        model["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(files, ["model.py", "weights.json"]);
    let weights = s.path("weights.json");
    let digest = model["files"][1]["digest"].as_str().unwrap().replace(':', "/");
    std::fs::copy(s.root().join("images/blobs").join(digest), &weights).unwrap();
    let weights: Value = serde_json::from_slice(&std::fs::read(weights).unwrap()).unwrap();
    let expected = serde_json::json!({"rank": 0, "begun": 0, "data": "1,2\n", "note": "hello"});
    assert_eq!(weights, expected);
    let listed = s.run(&["runs"]).ok();
    assert!(listed.contains("kubernetes"), "{listed}");
    // What is ignored went nowhere.
    let looked =
        train(&s, &["--ranks", "1", "--", "python3", "-c", "import os; print(sorted(os.listdir('.')))"]);
    looked.fails(1);
    let seen = s.run(&["logs", "My_Gang-2"]).ok();
    assert!(seen.contains("train.py") && !seen.contains("secret.txt"), "{seen}");
    assert!(run(&s, "My_Gang-2")["error"].as_str().unwrap().contains("wrote no model"));
    end(s, &cluster);
}

#[test]
fn a_rank_that_fails_begins_again_with_all_the_others() {
    let Some(cluster) = Cluster::connect("retry") else { return };
    let s = Slipway::new();
    project(&s);
    use_cluster(&s, &cluster);
    let trained = train(&s, &["--retries", "1", "-e", "FAIL=1"]);
    assert_eq!(trained.code, 0, "{}\n{}\n{}", trained.stdout, trained.stderr, cluster.state());
    for line in ["[rank 1] rank 1 of 2, attempt 0, from 0", "[rank 0] rank 0 of 2, attempt 1, from 5"] {
        assert!(trained.stdout.contains(line), "{line}: {}", trained.stdout);
    }
    assert!(trained.stderr.contains("attempt 2 begins: rank 1"), "{}", trained.stderr);
    let shown = run(&s, "My_Gang-1");
    assert_eq!((&shown["attempt"], &shown["metrics"]["begun"]), (&2.into(), &5.0.into()));
    let events = s.run(&["events", "--subject", "run/My_Gang-1"]).ok();
    assert!(events.contains("run.restarted") && events.contains("exit code 7"), "{events}");
    // Half a model of the first attempt is no part of the version.
    let model: Value = serde_json::from_str(&s.run(&["model", "show", "My_Gang@1"]).ok()).unwrap();
    assert_eq!(model["files"].as_array().unwrap().len(), 2, "{model}");

    let stderr = train(&s, &["-e", "FAIL=1"]).fails(1);
    assert!(stderr.contains("rank 1") && stderr.contains("exit code 7"), "{stderr}");
    let shown = run(&s, "My_Gang-2");
    assert_eq!(
        (&shown["state"], &shown["exit_code"], &shown["version"]),
        (&"failed".into(), &7.into(), &Value::Null)
    );
    assert!(s.run(&["logs", "My_Gang-2"]).ok().contains("[rank 1] rank 1 of 2"), "logs are kept");
    end(s, &cluster);
}

#[test]
fn a_killed_daemon_goes_on_with_a_gang_and_a_user_ends_one() {
    let Some(cluster) = Cluster::connect("death") else { return };
    let s = Slipway::new();
    project(&s);
    use_cluster(&s, &cluster);
    let id = train(&s, &["-d", "-e", "SECONDS=12"]).ok();
    let id = id.trim();
    // Before there is anything to go on with, and in the middle.
    kill(s.daemon_pid(), "KILL");
    wait_for_line(&s, id, "[rank 0] second 3");
    kill(s.daemon_pid(), "KILL");
    wait_for("the run to end", Duration::from_secs(120), || {
        let shown = run(&s, id);
        assert_ne!(shown["state"], "failed", "{shown}\n{}", cluster.state());
        (shown["state"] == "succeeded").then_some(())
    });
    let log = s.run(&["logs", id]).ok();
    for rank in 0..2 {
        for second in 0..12 {
            let line = format!("[rank {rank}] second {second}");
            assert_eq!(log.lines().filter(|found| *found == line).count(), 1, "{line}: {log}");
        }
    }
    assert_eq!(run(&s, id)["version"], 1);

    let id = train(&s, &["-d", "-e", "SECONDS=600"]).ok();
    let id = id.trim();
    wait_for_line(&s, id, "[rank 1] second 1");
    let stderr = s.run(&["engine", "rm", "kubernetes"]).fails(4);
    assert!(stderr.contains("while it trains"), "{stderr}");
    s.run(&["runs", "--cancel", id]).ok();
    assert_eq!(run(&s, id)["state"], "cancelled");
    assert!(s.run(&["logs", id]).ok().contains("second 1"));
    end(s, &cluster);
}
