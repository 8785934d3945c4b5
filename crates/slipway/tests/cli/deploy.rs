//! `deploy`: what it keeps, labels, and versions that do not work.

use std::time::{Duration, Instant};

use crate::support::{Slipway, kill, tiny_project, wait_for};

const ONE: &str = "{\"instances\": [[1, 2]]}";

fn spec(s: &Slipway) -> serde_json::Value {
    let text = s.run(&["services", "tiny", "--format", "json"]).ok();
    let services: serde_json::Value = serde_json::from_str(&text).unwrap();
    services[0]["spec"].clone()
}

#[test]
fn settings_stay_labels_follow_and_a_broken_version_replaces_nothing() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    let up = s.run(&["up", "p"]);
    assert_eq!(up.code, 0, "{}", up.stderr);
    // Waiting for the model to load is no reason to count failed requests.
    let metrics = s.http("GET", "/metrics", "").1;
    let refused = metrics
        .lines()
        .find(|l| l.starts_with("slipway_gateway_requests_total{service=\"tiny\",code=\"503\""));
    let refused = refused.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
    assert!(refused < 10, "{metrics}");

    // Other settings of serving are no reason to train again.
    let toml = std::fs::read_to_string(s.path("p/slipway.toml")).unwrap();
    s.write("p/slipway.toml", &toml.replace("replicas = 1", "replicas = 1\nenv = { X = \"1\" }"));
    s.run(&["up", "p"]).ok();
    assert_eq!(spec(&s)["version"], 1);
    assert_eq!(spec(&s)["env"], serde_json::json!(["X=1"]));

    let given = ["deploy", "tiny@1", "--memory", "300m", "--batch-size", "4", "-e", "A=1", "-e", "B=2"];
    s.run(&given).ok();
    s.run(&["deploy", "tiny@1", "-e", "A=3"]).ok();
    let kept = spec(&s);
    assert_eq!((&kept["limits"]["memory"], &kept["batch"]["max_size"]), (&(300 << 20).into(), &4.into()));
    assert_eq!(kept["env"], serde_json::json!(["X=1", "B=2", "A=3"]));
    s.run(&["scale", "tiny", "100000"]).fails(2);
    let ranged = s.run(&["deploy", "tiny@1", "--autoscale", "1:4", "--cpu-target", "60"]);
    assert_eq!(ranged.code, 0, "{}", ranged.stderr);
    assert!(ranged.stderr.contains("nothing scales by load on this host"), "{}", ranged.stderr);
    assert!(s.run(&["services"]).ok().contains("1/1-4"), "the range");
    assert_eq!(spec(&s)["autoscale"]["cpu_percent"], 60);
    let counted = s.run(&["scale", "tiny", "2"]).fails(4);
    assert!(counted.contains("1 to 4 replicas by load") && counted.contains("--replicas 2"), "{counted}");
    let exported = s.run(&["export", "kubernetes", "tiny", "--registry", "r.example", "--no-push"]).ok();
    assert!(
        exported.contains("maxReplicas: 4") && exported.contains("averageUtilization: 60"),
        "what is declared: {exported}"
    );
    s.run(&["deploy", "tiny@1", "--replicas", "1"]).ok();
    assert_eq!(spec(&s)["autoscale"], serde_json::Value::Null);
    s.run(&["deploy", "tiny@1", "--autoscale", "0:4"]).fails(2);

    let top: serde_json::Value =
        serde_json::from_str(&s.run(&["top", "tiny", "--format", "json"]).ok()).unwrap();
    assert_eq!((&top[0]["service"], &top[0]["memory_limit"]), (&"tiny".into(), &(300 << 20).into()), "{top}");
    assert!(top[0]["memory"].as_u64().unwrap() > 1 << 20, "{top}");
    assert!(s.run(&["top"]).ok().contains("tiny"));
    s.run(&["top", "nobody"]).fails(3);

    // An alias that was set after the replicas started.
    let champion = "/v1/models/tiny/labels/champion:predict";
    assert_eq!(s.http("POST", champion, ONE).0, 400);
    s.run(&["model", "alias", "tiny@1", "champion"]).ok();
    wait_for("the label", Duration::from_secs(10), || (s.http("POST", champion, ONE).0 == 200).then_some(()));

    s.write(
        "broken/scale.py",
        "class Scale:\n    def load(self, model_dir):\n        raise RuntimeError(\"no weights\")\n\n    \
         def predict(self, inputs):\n        return inputs\n",
    );
    let broken = s.path("broken");
    let import = ["model", "import", "--entry", "scale:Scale", broken.to_str().unwrap(), "tiny"];
    assert_eq!(s.run(&import).ok(), "tiny@2\n");
    s.run(&["deploy", "tiny@2"]).fails(2);
    let began = Instant::now();
    let failed = s.run(&["deploy", "tiny@2", "--image", "py"]).fails(1);
    assert!(began.elapsed() < Duration::from_secs(120), "long before a slow model would be given up");
    for part in ["tiny@2 do not get ready", "RuntimeError: no weights", "goes on serving (1 ready)"] {
        assert!(failed.contains(part), "{failed}");
    }
    assert!(s.run(&["services"]).ok().contains("0/1 (1 of revision"));
    assert!(s.run(&["services", "tiny"]).ok().contains("do not get ready: RuntimeError: no weights"));
    let events = s.run(&["events", "--subject", "service/tiny"]).ok();
    assert!(events.contains("replica.load_failed") && events.contains("rollout.stalled"), "{events}");
    let (status, body) = s.http("POST", "/v1/models/tiny:predict", ONE);
    assert_eq!((status, body.trim()), (200, "{\"predictions\":[[2.0,4.0]]}"));
    // No replica of another version answers for a label.
    s.run(&["model", "alias", "tiny@2", "candidate"]).ok();
    let candidate = "/v1/models/tiny/labels/candidate:predict";
    let known = || (s.http("POST", candidate, ONE).0 != 400).then_some(());
    wait_for("the label of the declared version", Duration::from_secs(10), known);
    assert_eq!((s.http("POST", candidate, ONE).0, s.http("POST", champion, ONE).0), (503, 200));

    s.run(&["deploy", "tiny@1"]).ok();
    let back = spec(&s);
    assert_eq!((&back["version"], &back["limits"]["memory"]), (&1.into(), &(300 << 20).into()));
    // A daemon that has not looked at the replicas yet does not call them gone.
    kill(s.daemon_pid(), "KILL");
    assert!(s.run(&["services"]).ok().contains("1/1"));
    // Without services nothing needs the gateway, however soon the daemon is told to end.
    let gateway = s.gateway_pid();
    s.run(&["delete", "tiny"]).ok();
    s.run(&["daemon", "stop"]).ok();
    wait_for("the gateway's end", Duration::from_secs(10), || {
        (!std::path::Path::new(&format!("/proc/{gateway}")).exists()).then_some(())
    });
    s.finish();
}

#[test]
fn this_host_serves_models_and_no_image_alone() {
    let s = Slipway::new();
    s.busybox();
    let refused = s.run(&["deploy", "my_model", "--image", "box"]).fails(2);
    for part in ["no model `my_model`", "by clusters", "slipway run -d", "--engine"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert!(s.run(&["deploy", "my_model", "--image", "box", "--no-model"]).fails(2).contains("by clusters"));
    // Without an image, with a version or with an alias it is a model that is meant.
    for reference in ["my_model", "my_model@1", "my_model@champion"] {
        s.run(&["deploy", reference]).fails(3);
    }
    s.run(&["deploy", "my_model@1", "--image", "box"]).fails(3);
    s.finish();
}
