//! What of a run nobody shall see, and what stays of one whose model does not come back.

use std::time::Duration;

use super::Cluster;
use super::engine::use_cluster;
use super::train::{end, project, run};
use crate::support::{Slipway, wait_for};

/// More than the engine is told to give it, and than a tar may have beside.
const LARGE: &str = r#"
import os
print("token", os.environ["TOKEN_OF_MINE"][:3], len(os.environ["TOKEN_OF_MINE"]), flush=True)
if os.environ["RANK"] == "0":
    with open(os.path.join(os.environ["SLIPWAY_MODEL_DIR"], "weights"), "wb") as model:
        for _ in range(140):
            model.write(bytes(1 << 20))
"#;
const TOKEN: &str = "hf_not-for-anybody";

#[test]
fn a_model_that_does_not_come_back_stays_in_its_claim_alone() {
    let Some(cluster) = Cluster::connect("kept") else { return };
    let s = Slipway::new();
    project(&s);
    s.write("p/train.py", LARGE);
    use_cluster(&s, &cluster);
    let arguments = ["train", "--project", "p", "--image", "slipway/gang:1", "--secret", "TOKEN_OF_MINE"];
    let refused = s.run(&arguments).fails(2);
    assert!(refused.contains("TOKEN_OF_MINE") && refused.contains("not set"), "{refused}");
    let child = s
        .command(&arguments)
        .env("TOKEN_OF_MINE", TOKEN)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // While it is there: its pods have the value from a Secret.
    let template = wait_for("the Job", Duration::from_secs(120), || {
        let jobs = cluster.kubectl(&["get", "jobs", "--output", "yaml"]);
        jobs.contains("TOKEN_OF_MINE").then_some(jobs)
    });
    assert!(template.contains("secretKeyRef") && !template.contains(TOKEN), "{template}");
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stdout}\n{stderr}\n{}", cluster.state());
    assert!(stdout.contains(&format!("[rank 1] token hf_ {}", TOKEN.len())), "{stdout}");
    let shown = run(&s, "My_Gang-1");
    let error = shown["error"].as_str().unwrap();
    for part in
        ["the folder `ranks/0/model` of the claim", "`slipway runs --discard My_Gang-1`", "train.storage"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(shown["state"], "failed");
    let ours = ["--selector", "slipway.dev/run", "--output", "name"];
    let left = |kinds: &str| cluster.kubectl(&[&["get", kinds][..], &ours].concat());
    wait_for("all but the claim to go", Duration::from_secs(60), || {
        left("jobs,pods,services,secrets,serviceaccounts,networkpolicies").trim().is_empty().then_some(())
    });
    let claim = left("persistentvolumeclaims");
    let claim = claim.trim().rsplit('/').next().unwrap().to_owned();
    assert!(error.contains(&claim), "{claim}: {error}");

    // Pointed elsewhere, the engine has no hand on it, and says so.
    let elsewhere = format!("{}-too", cluster.namespace);
    cluster.kubectl(&["create", "namespace", &elsewhere]);
    let admin = cluster.kubeconfig.to_str().unwrap();
    let point = |namespace: &str| {
        s.run(&["engine", "use", "kubernetes", "--kubeconfig", admin, "--namespace", namespace]).ok();
    };
    point(&elsewhere);
    let refused = s.run(&["runs", "--discard", "My_Gang-1"]).fails(4);
    cluster.command(&["delete", "namespace", &elsewhere, "--wait=false"]);
    for part in [&claim, &format!("namespace {}", cluster.namespace), &elsewhere, "slipway engine use"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    point(&cluster.namespace);
    assert!(left("persistentvolumeclaims").contains(&claim));
    s.run(&["runs", "--discard", "My_Gang-1"]).ok();
    wait_for("the claim to go", Duration::from_secs(60), || {
        left("persistentvolumeclaims").trim().is_empty().then_some(())
    });
    assert_eq!(run(&s, "My_Gang-1")["state"], "failed", "its record stays");
    end(s, &cluster);
}
