//! Fields that somebody else took.

use super::super::Cluster;
use super::super::engine::{address, load, use_cluster};
use super::*;
use crate::support::tiny_project;

/// Has `other` own fields of a Deployment.
fn take(s: &Slipway, cluster: &Cluster, name: &str, spec: Value) {
    let object = serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec});
    let file = s.write("theirs.json", &object.to_string());
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager", "other", "-f"];
    cluster.kubectl(&[&apply[..], &[file.to_str().unwrap()]].concat());
}

fn deployment(cluster: &Cluster, name: &str, field: &str) -> String {
    cluster.kubectl(&["get", "deployment", name, "--output", &format!("jsonpath={{{field}}}")])
}

const IMAGE: &str = ".spec.template.spec.containers[0].image";

#[test]
fn what_another_manager_owns_is_taken_over_only_when_asked() {
    let Some(cluster) = Cluster::connect("owners") else { return };
    let s = Slipway::new();
    use_account(&s, &cluster);
    s.busybox();
    page_image(&s, "one", "first", 0);
    page_image(&s, "two", "second", 0);
    let at = serve(&s, &cluster, "one", "2");
    load(at, "/index.html", "").during(|| {
        // How many replicas run.
        take(&s, &cluster, NAME, serde_json::json!({"replicas": 3}));
        let reason = wait_state(&s, &cluster, "told", |shown| !shown["failing"].is_null());
        assert_sentence(
            reason["failing"].as_str().unwrap(),
            &["Deployment `web`", ".spec.replicas is owned by `other`", "`--take-over`"],
        );
        assert!(reason["url"].as_str().unwrap().ends_with(&at.to_string()), "it answers still: {reason}");
        let shown = s.run(&["services", NAME]).ok();
        assert!(shown.contains("is not as declared: ") && shown.contains("owned by `other`"), "{shown}");
        assert!(events(&s, "service/web").contains("owned by `other`"));
        let refused = s.run(&["scale", NAME, "2"]).fails(1);
        assert!(refused.contains(".spec.replicas is owned by `other`"), "{refused}");
        assert_eq!(deployment(&cluster, NAME, ".spec.replicas"), "3", "nothing was forced");
        done(s.run(&["scale", NAME, "2", "--take-over"]), &cluster);
        assert_eq!(deployment(&cluster, NAME, ".spec.replicas"), "2");
        done(s.run(&["diff", NAME]), &cluster);

        // Which image. It is asked for once: what is taken after that stays theirs again.
        let image = deployment(&cluster, NAME, IMAGE);
        let theirs =
            serde_json::json!({"template": {"spec": {"containers": [{"name": "server", "image": image}]}}});
        take(&s, &cluster, NAME, theirs);
        let refused = s.run(&["deploy", NAME, "--image", "web:two"]).fails(1);
        let field = ".spec.template.spec.containers[name=\"server\"].image is owned by `other`";
        assert!(refused.contains(field) && refused.contains("--take-over"), "{refused}");
        assert_eq!(deployment(&cluster, NAME, IMAGE), image);
        assert_eq!(page(at), (200, "first".to_owned()));
        done(s.run(&["deploy", NAME, "--take-over"]), &cluster);
        assert_eq!(page(at), (200, "second".to_owned()));
        assert_ne!(deployment(&cluster, NAME, IMAGE), image);
    });

    // What they give up needs no force.
    take(&s, &cluster, NAME, serde_json::json!({"replicas": 1}));
    s.run(&["scale", NAME, "2"]).fails(1);
    take(&s, &cluster, NAME, serde_json::json!({}));
    done(s.run(&["scale", NAME, "2"]), &cluster);
    assert_eq!(deployment(&cluster, NAME, ".spec.replicas"), "2");
    done(s.run(&["expose", NAME, "--type", "ClusterIP", "--take-over"]), &cluster);
    end(s, &cluster);
}

#[test]
fn up_takes_over_when_asked() {
    let Some(cluster) = Cluster::connect("upown") else { return };
    let s = Slipway::new();
    use_cluster(&s, &cluster);
    s.python();
    tiny_project(&s, "p", 2.0);
    done(s.run(&["up", "p"]), &cluster);
    take(&s, &cluster, "tiny", serde_json::json!({"replicas": 2}));
    let refused = s.run(&["up", "p"]).fails(1);
    assert!(refused.contains(".spec.replicas is owned by `other`"), "{refused}");
    done(s.run(&["up", "p", "--take-over"]), &cluster);
    assert_eq!(deployment(&cluster, "tiny", ".spec.replicas"), "1");
    let at = address(&s, "tiny");
    let (status, _) = http_at(at, "POST", "/v1/models/tiny:predict", "{\"instances\": [[1, 2]]}");
    assert_eq!(status, 200);
    s.run(&["delete", "tiny"]).ok();
    forgotten(&s, &cluster);
    s.run(&["engine", "rm", "kubernetes"]).ok();
    cluster.assert_empty();
    s.finish();
}
