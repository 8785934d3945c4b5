//! Images that the registry lost.

use super::super::Cluster;
use super::super::engine::{load, service};
use super::*;

/// Removes every manifest of a service's images from the tests' registry.
fn lose(cluster: &Cluster) -> bool {
    let folder = cluster.kubeconfig.with_file_name("registry").join("docker/registry/v2/repositories");
    let mut lost = false;
    for entry in walk(&folder) {
        let text = entry.to_string_lossy();
        if text.contains(&format!("/{NAME}/")) && text.ends_with("/_manifests") {
            std::fs::remove_dir_all(&entry).unwrap();
            lost = true;
        }
    }
    lost
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.push(entry.path());
            all.extend(walk(&entry.path()));
        }
    }
    all
}

#[test]
fn an_image_that_the_registry_lost_is_told_and_pushed_again() {
    let Some(cluster) = Cluster::connect("lost") else { return };
    if Programs::of(&cluster).is_none() {
        return;
    }
    let s = Slipway::new();
    use_account(&s, &cluster);
    s.busybox();
    page_image(&s, "one", "first", 0);
    // Not one that the node has from another test.
    page_image(&s, "two", &format!("second-{}", cluster.namespace), 0);
    let at = serve(&s, &cluster, "one", "1");
    // Pushed, and kept from being pulled.
    let quota = ["create", "quota", "few", "--hard=pods=1"];
    cluster.kubectl(&quota);
    s.run(&["deploy", NAME, "--image", "web:two", "--detach"]).ok();
    wait_state(&s, &cluster, "held", |shown| {
        shown["failing"].as_str().is_some_and(|failing| failing.contains("quota"))
    });
    assert!(lose(&cluster), "the registry has images of the service");
    load(at, "/index.html", "").during(|| {
        cluster.kubectl(&["delete", "quota", "few"]);
        let shown = wait_state(&s, &cluster, "told", |shown| {
            shown["failing"].as_str().is_some_and(|failing| failing.contains("registry"))
        });
        let told = ["is not in the registry", "says node", "deploy"];
        assert_sentence(shown["failing"].as_str().unwrap(), &told);
        assert!(events(&s, "service/web").contains("is not in the registry"));
        assert_eq!(page(at), (200, "first".to_owned()), "the last revision goes on");
        // Who asks again gets it pushed again.
        done(s.run(&["deploy", NAME, "--image", "web:two"]), &cluster);
    });
    assert_eq!(page(at).1, format!("second-{}", cluster.namespace));
    assert_eq!(service(&s, NAME)["revision"], 2);
    end(s, &cluster);
}

#[test]
fn a_pull_secret_that_is_not_there_is_told() {
    let Some(cluster) = Cluster::connect("secret") else { return };
    let s = Slipway::new();
    use_account(&s, &cluster);
    s.busybox();
    page_image(&s, "one", "first", 0);
    // A registry of nobody: neither pushed to nor pulled from.
    let nobody = format!("127.0.0.1:{}", crate::support::free_port());
    s.run(&["engine", "use", "kubernetes", "--registry", &nobody]).ok();
    s.run(&["deploy", NAME, "--image", "web:one", "--detach"]).ok();
    let shown = wait_state(&s, &cluster, "told", |shown| !shown["failing"].is_null());
    assert_sentence(shown["failing"].as_str().unwrap(), &[&nobody]);
    s.run(&["engine", "use", "kubernetes", "--registry", &cluster.registry]).ok();
    wait_until_ready(&s, &cluster, 1);
    end(s, &cluster);
}
