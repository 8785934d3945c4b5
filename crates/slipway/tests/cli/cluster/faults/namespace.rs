//! A namespace that is deleted under the daemon.

use super::super::engine::{load, service};
use super::super::{Cluster, train};
use super::*;

/// Deletes the namespace and waits until it is gone.
fn delete(cluster: &Cluster) {
    // Not `kubectl`, which allows no warning: this deserves one.
    let output = cluster.command(&["delete", "namespace", &cluster.namespace, "--timeout", "120s"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn services_come_back_with_their_namespace() {
    let Some(cluster) = Cluster::connect("gone") else { return };
    let Some(home) = Cluster::connect("home") else { return };
    let s = Slipway::new();
    grant(&s, &home);
    use_with(&s, &home, &home.account("slipway", &s.path("kubeconfig")), "other");
    use_with(&s, &cluster, &cluster.kubeconfig, "kubernetes");
    s.busybox();
    page_image(&s, "one", "first", 0);
    serve(&s, &cluster, "one", "1");
    done(s.run(&["--engine", "other", "deploy", "two", "--image", "web:one", "--replicas", "1"]), &home);
    done(s.run(&["expose", "two", "--type", "NodePort"]), &home);
    let beside = address(&s, "two");

    load(beside, "/index.html", "").during(|| {
        // A finalizer keeps the namespace ending until that was seen.
        let held = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "held", "finalizers": ["slipway.dev/test"]}});
        let held = s.write("held.json", &held.to_string());
        cluster.kubectl(&["apply", "-f", held.to_str().unwrap()]);
        cluster.command(&["delete", "namespace", &cluster.namespace, "--wait=false"]);
        let shown = wait_state(&s, &cluster, "told", |shown| {
            shown["failing"].as_str().is_some_and(|reason| reason.contains("is being deleted"))
        });
        let told = [cluster.namespace.as_str(), "wait until it is gone and create it again"];
        assert_sentence(shown["failing"].as_str().unwrap(), &told);
        assert!(events(&s, "service/web").contains("is being deleted"));
        let refused = s.run(&["scale", NAME, "2"]).fails(1);
        assert!(refused.contains("is being deleted"), "{refused}");
        // The other engine knows nothing of this.
        done(s.run(&["scale", "two", "2"]), &home);
        assert!(service(&s, "two")["trouble"].is_null());
        cluster.kubectl(&[
            "patch",
            "configmap",
            "held",
            "--type",
            "merge",
            "-p",
            "{\"metadata\":{\"finalizers\":null}}",
        ]);
        wait_for("the namespace to go", PATIENCE, || {
            (!cluster.command(&["get", "namespace", &cluster.namespace]).status.success()).then_some(())
        });
        let shown = wait_state(&s, &cluster, "told", |shown| {
            shown["failing"].as_str().is_some_and(|reason| reason.contains("there is no namespace"))
        });
        assert_sentence(shown["failing"].as_str().unwrap(), &["kubectl create namespace"]);
    });
    cluster.kubectl(&["create", "namespace", &cluster.namespace]);
    wait_until_ready(&s, &cluster, 2);
    let at = address(&s, NAME);
    wait_for("the port to answer", Duration::from_secs(30), || (page(at).0 == 200).then_some(()));

    s.run(&["delete", "two"]).ok();
    s.run(&["delete", NAME]).ok();
    forgotten(&s, &cluster);
    s.run(&["engine", "rm", "other"]).ok();
    // What it keeps in the new namespace it knows as well as in the old one.
    s.run(&["engine", "rm", "kubernetes"]).ok();
    cluster.assert_empty();
    let left = cluster.kubectl(&["get", "configmaps", "--output", "name"]);
    assert!(!left.contains("slipway-inventory"), "{left}");
    s.finish();
}

#[test]
fn an_account_of_the_printed_role_comes_back_with_its_namespace() {
    let Some(cluster) = Cluster::connect("role") else { return };
    let Some(home) = Cluster::connect("rolehome") else { return };
    let s = Slipway::new();
    home.kubectl(&["create", "serviceaccount", "slipway"]);
    let account = home.account("slipway", &s.path("kubeconfig"));
    let user = format!("system:serviceaccount:{}:slipway", home.namespace);
    let role = s.run(&["engine", "rbac", "--namespace", &cluster.namespace, "--user", &user]).ok();
    let role = s.write("role.yaml", &role);
    let grant = || cluster.kubectl(&["apply", "--server-side", "-f", role.to_str().unwrap()]);
    grant();
    use_with(&s, &cluster, &account, "kubernetes");
    s.busybox();
    page_image(&s, "one", "first", 0);
    serve(&s, &cluster, "one", "1");
    delete(&cluster);
    // Without its Role it is told nothing about the namespace.
    let told = |shown: &Value| {
        let said = [&shown["failing"], &shown["trouble"]].map(|text| text.as_str().unwrap_or_default());
        said.concat()
    };
    let shown = wait_state(&s, &cluster, "told", |shown| told(shown).contains("may not"));
    assert_sentence(
        &told(&shown),
        &["have the Role granted that `slipway engine rbac` prints", &cluster.namespace],
    );
    cluster.kubectl(&["create", "namespace", &cluster.namespace]);
    grant();
    wait_until_ready(&s, &cluster, 1);
    end(s, &cluster);
    drop(home);
}

#[test]
fn a_run_ends_with_its_namespace() {
    let Some(cluster) = Cluster::connect("rungone") else { return };
    let s = Slipway::new();
    train::project(&s);
    use_with(&s, &cluster, &cluster.kubeconfig, "kubernetes");
    let id = train::train(&s, &["--detach", "-e", "SECONDS=600"]).ok();
    let id = id.trim();
    train::wait_for_line(&s, id, "[rank 1] second 2");
    delete(&cluster);
    let shown = wait_for("the run to end", PATIENCE, || {
        Some(train::run(&s, id)).filter(|shown| shown["state"] != "running")
    });
    assert_eq!(shown["state"], "failed", "{shown}");
    assert_sentence(shown["error"].as_str().unwrap(), &["namespace", &cluster.namespace]);
    assert!(s.run(&["logs", id]).ok().contains("[rank 1] second 1"), "what was written is kept");

    // The engine is as good as before, once there is a namespace again.
    cluster.kubectl(&["create", "namespace", &cluster.namespace]);
    let trained = train::train(&s, &[]);
    done(trained, &cluster);
    train::end(s, &cluster);
}
