//! An image alone on a cluster, as `kubectl create deployment` and `kubectl expose` would run it: `deploy`, `expose`, `diff`,
//! `--dry-run`, `export`.

use std::time::Duration;

use serde_json::Value;

use super::engine::{address, load, service, use_cluster};
use super::train::end;
use super::{Cluster, build_image, delete};
use crate::support::{Outcome, Slipway, http_at, wait_for};

/// The name that the real API refuses, and what Slipway makes of it.
const NAME: &str = "my_model";
const MAPPED: &str = "my-model-535d4cfe";

/// An image whose own server says `text` on port 9000, which it exposes.
fn server(s: &Slipway, tag: &str, text: &str) {
    let page = format!("RUN mkdir /www && echo {text} > /www/index.html\n");
    build_image(s, tag, &format!("{NAME}:{tag}"), &page, "httpd -f -p 9000 -h /www & wait");
}

#[track_caller]
fn done(outcome: &Outcome, cluster: &Cluster) {
    assert_eq!(outcome.code, 0, "{}\n{}\n{}", outcome.stdout, outcome.stderr, cluster.state());
}

fn deployment(cluster: &Cluster) -> Value {
    serde_json::from_str(&cluster.kubectl(&["get", "deployment", MAPPED, "--output", "json"])).unwrap()
}

#[test]
fn an_image_alone_does_what_kubectl_users_mean() {
    let Some(cluster) = Cluster::connect("image") else { return };
    let s = Slipway::new();
    use_cluster(&s, &cluster);
    s.busybox();
    server(&s, "one", "first");
    server(&s, "two", "second");

    // What would be sent, and what the cluster says to it; neither does anything.
    let deploy = ["deploy", NAME, "--image", "my_model:one", "--replicas", "2"];
    let client = s.run(&[&deploy[..], &["--dry-run=client"]].concat());
    done(&client, &cluster);
    assert!(
        client.stderr.contains("no model is called `my_model`: serving what the image"),
        "{}",
        client.stderr
    );
    let planned = s.write("planned.yaml", &client.stdout);
    cluster.kubectl(&["apply", "--server-side", "--dry-run=server", "-f", planned.to_str().unwrap()]);
    let tried = s.run(&[&deploy[..], &["--dry-run=server"]].concat());
    done(&tried, &cluster);
    assert!(tried.stdout.contains(&format!("deployment/{MAPPED} created\n")), "{}", tried.stdout);
    assert_eq!(s.run(&["services", "--format", "json"]).ok().trim(), "[]");
    let serving = ["get", "deployments", "--selector", "slipway.dev/service", "--output", "name"];
    assert_eq!(cluster.kubectl(&serving), "", "the gateway alone is there");

    let deployed = s.run(&deploy);
    done(&deployed, &cluster);
    assert!(deployed.stderr.contains("no model is called `my_model`"), "{}", deployed.stderr);
    assert!(client.stdout.contains(
        deployment(&cluster).pointer("/spec/template/spec/containers/0/image").unwrap().as_str().unwrap()
    ));
    let pod = deployment(&cluster)["spec"]["template"]["spec"].clone();
    assert_eq!(pod["securityContext"]["runAsUser"], 1000);
    assert_eq!(pod["containers"][0]["readinessProbe"]["tcpSocket"]["port"], 9000);
    let listed = s.run(&["services"]).ok();
    assert!(listed.contains(NAME) && listed.contains("my_model:one") && listed.contains("2/2"), "{listed}");
    assert!(
        service(&s, NAME)["url"]
            .as_str()
            .unwrap()
            .contains(&format!("{MAPPED}.{}.svc:9000", cluster.namespace))
    );
    // Now nothing differs, and a second declaration is none.
    done(&s.run(&["diff", NAME]), &cluster);
    s.run(&deploy).ok();
    assert_eq!(service(&s, NAME)["revision"], 1);

    // A load balancer that nobody provides is waited for as long as one that exists may take, and that is said; what was
    // asked for is done. A port of the nodes answers.
    let began = std::time::Instant::now();
    let exposed = s.run(&["expose", NAME, "--port=8080", "--type=LoadBalancer"]);
    done(&exposed, &cluster);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let lacks = "nothing in this cluster has given its Service of type LoadBalancer an address yet";
    let waited_for = "it runs, and is waited for no longer: `slipway services my_model` shows its address";
    assert!(exposed.stderr.contains(lacks) && exposed.stderr.contains(waited_for), "{}", exposed.stderr);
    assert_eq!(exposed.stdout, "");
    let listed = s.run(&["services", NAME]).ok();
    assert!(listed.contains("<pending>") && listed.contains(&format!("nowhere yet: {lacks}")), "{listed}");
    let ports = cluster.kubectl(&[
        "get",
        "service",
        MAPPED,
        "--output",
        "jsonpath={.spec.type} {.spec.ports[0]['port','targetPort']}",
    ]);
    assert_eq!(ports, "LoadBalancer 8080 9000");
    done(&s.run(&["expose", NAME, "--type", "NodePort"]), &cluster);
    let at = address(&s, NAME);
    let page = |expected: &str| {
        let (status, body) = http_at(at, "GET", "/index.html", "");
        assert_eq!((status, body.trim()), (200, expected));
    };
    wait_for("the port to answer", Duration::from_secs(20), || {
        (http_at(at, "GET", "/index.html", "").0 == 200).then_some(())
    });
    page("first");

    // Another image replaces it without a gap; what the cluster has and what is declared differ only meanwhile.
    load(at, "/index.html", "").during(|| {
        done(&s.run(&["deploy", NAME, "--image", "my_model:two"]), &cluster);
        page("second");
    });
    assert_eq!(service(&s, NAME)["spec"]["replicas"], 2);
    cluster.kubectl(&[
        "patch",
        "deployment",
        MAPPED,
        "--field-manager",
        "somebody",
        "--type",
        "merge",
        "--patch",
        "{\"metadata\":{\"labels\":{\"theirs\":\"yes\"}}}",
    ]);
    done(&s.run(&["diff", NAME]), &cluster);

    // An image that does not work replaces nothing, and why it does not is one sentence.
    s.write(
        "bad/Dockerfile",
        "FROM box\nUSER user\nEXPOSE 9000\nCMD [\"sh\", \"-c\", \"echo no good; exit 3\"]\n",
    );
    s.run(&["build", "-t", "my_model:bad", "bad"]).ok();
    let shown = s.run(&["deploy", NAME, "--image", "my_model:bad", "--dry-run=server"]);
    assert!(shown.stdout.contains(&format!("deployment/{MAPPED} configured\n")), "{}", shown.stdout);
    assert!(shown.stdout.contains(&format!("serviceaccount/{MAPPED} unchanged\n")), "{}", shown.stdout);
    let failed = s.run(&["deploy", NAME, "--image", "my_model:bad"]).fails(1);
    assert!(failed.contains("exit code 3") && failed.contains("look at its log"), "{failed}");
    page("second");
    let events = s.run(&["events", "--subject", &format!("service/{NAME}")]).ok();
    assert!(events.contains("exit code 3"), "{events}");
    done(&s.run(&["deploy", NAME, "--image", "my_model:two"]), &cluster);
    page("second");
    done(&s.run(&["diff", NAME]), &cluster);

    // What somebody else took over is shown with its owner, line by line, and not taken back.
    let theirs = format!(
        "{{\"apiVersion\": \"apps/v1\", \"kind\": \"Deployment\", \"metadata\": {{\"name\": \"{MAPPED}\"}}, \"spec\": {{\"replicas\": 3}}}}"
    );
    let theirs = s.write("theirs.json", &theirs);
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager", "somebody", "-f"];
    cluster.kubectl(&[&apply[..], &[theirs.to_str().unwrap()]].concat());
    let different = s.run(&["diff", NAME]);
    assert_eq!(different.code, 1, "{}", different.stderr);
    for part in [&format!("--- deployment/{MAPPED} (in the cluster)"), "-  replicas: 3\n+  replicas: 2\n"] {
        assert!(different.stdout.contains(part), "{}", different.stdout);
    }
    assert!(different.stderr.contains(".spec.replicas is owned by `somebody`"), "{}", different.stderr);
    let refused = s.run(&["deploy", NAME, "--image", "my_model:two", "--dry-run=server"]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    let line = refused.stdout.lines().find(|line| line.contains(" refused: ")).unwrap();
    assert!(line.starts_with("deployment/") && line.contains("owned by `somebody`"), "{line}");
    assert_eq!(deployment(&cluster)["spec"]["replicas"], 3);
    s.run(&["diff", "nothing"]).fails(3);

    // A model of the same name changes nothing by itself, and is not taken for the image.
    s.write("model/scale.py", "class Scale:\n    def predict(self, inputs):\n        return inputs\n");
    let folder = s.path("model");
    s.run(&["model", "import", "--entry", "scale:Scale", folder.to_str().unwrap(), NAME]).ok();
    let both = s.run(&["deploy", NAME, "--image", "my_model:two", "--dry-run=client"]).fails(4);
    assert!(both.contains("`--no-model` keeps it so; `my_model@1` serves the model"), "{both}");
    let kept = s.run(&["deploy", NAME, "--no-model", "--dry-run=client"]);
    done(&kept, &cluster);
    assert!(
        kept.stdout.contains("tcpSocket") && !kept.stderr.contains("no model is called"),
        "{}",
        kept.stderr
    );
    let other = s.run(&["deploy", "my_model@1", "--image", "my_model:two", "--dry-run=client"]);
    done(&other, &cluster);
    assert!(
        other.stdout.contains("slipway-runner") && !other.stdout.contains("tcpSocket"),
        "{}",
        other.stdout
    );
    s.run(&["deploy", NAME, "--no-model", "--batch-size", "3"]).fails(2);
    s.run(&["deploy", "my_model@1", "--image", "my_model:two", "--port", "1"]).fails(2);

    // Files for a cluster without Slipway, and the way back to nothing.
    let exported = s.run(&["export", "kubernetes", NAME, "--namespace", &cluster.namespace]).ok();
    let file = s.write("exported.yaml", &exported);
    assert!(!exported.contains("slipway-runner") && exported.contains("tcpSocket"), "{exported}");
    cluster.kubectl(&[
        "apply",
        "--server-side",
        "--dry-run=server",
        "--force-conflicts",
        "-f",
        file.to_str().unwrap(),
    ]);
    delete(&s, NAME);
    end(s, &cluster);
}
