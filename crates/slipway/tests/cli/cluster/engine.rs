//! Services on a cluster under the printed Role: `engine`, `deploy`, `services`, `logs`, `scale`, `delete`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::train::end;
use super::{Cluster, delete};
use crate::support::{Slipway, http_at, kill, tiny_project, wait_for, workspace};

const ONE: &str = "{\"instances\": [[1, 2]]}";

/// The service as the API shows it.
pub fn service(s: &Slipway, name: &str) -> Value {
    let text = s.run(&["services", name, "--format", "json"]).ok();
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

/// Where it answers.
pub fn address(s: &Slipway, name: &str) -> SocketAddr {
    let url = service(s, name)["url"].as_str().unwrap().to_owned();
    url.strip_prefix("http://").unwrap().parse().expect(&url)
}

/// Asks for predictions until told to end; counts what was not answered with 200.
pub struct Load<'a> {
    address: SocketAddr,
    path: &'a str,
    body: &'a str,
    asked: AtomicU32,
    failed: AtomicU32,
    ended: AtomicBool,
}

impl Load<'_> {
    pub fn during<T>(self, work: impl FnOnce() -> T) -> T {
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !self.ended.load(Ordering::Relaxed) {
                    let method = if self.body.is_empty() { "GET" } else { "POST" };
                    let (status, answer) = http_at(self.address, method, self.path, self.body);
                    self.asked.fetch_add(1, Ordering::Relaxed);
                    if status != 200 {
                        eprintln!("{status}: {answer}");
                        self.failed.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            // However this ends.
            struct End<'a>(&'a AtomicBool);
            impl Drop for End<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let _end = End(&self.ended);
            work()
        });
        let (asked, failed) = (self.asked.into_inner(), self.failed.into_inner());
        assert!(asked > 20 && failed == 0, "{failed} of {asked} requests failed");
        outcome
    }
}

pub fn load<'a>(address: SocketAddr, path: &'a str, body: &'a str) -> Load<'a> {
    Load {
        address,
        path,
        body,
        asked: AtomicU32::new(0),
        failed: AtomicU32::new(0),
        ended: AtomicBool::new(false),
    }
}

/// Makes the namespace the engine of services and runs.
pub(super) fn use_cluster(s: &Slipway, cluster: &Cluster) {
    let role = s.run(&["engine", "rbac", "--namespace", &cluster.namespace]).ok();
    let role = s.write("role.yaml", &role);
    cluster.kubectl(&["apply", "--server-side", "-f", role.to_str().unwrap()]);
    let kubeconfig: PathBuf = cluster.account("slipway", &s.path("kubeconfig"));
    let used = s.run(&[
        "engine",
        "use",
        "kubernetes",
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "--namespace",
        &cluster.namespace,
        "--registry",
        &cluster.registry,
        "--type",
        "NodePort",
    ]);
    assert_eq!(used.code, 0, "{}", used.stderr);
    assert!(used.stdout.contains(&format!("namespace {}", cluster.namespace)), "{}", used.stdout);
}

#[test]
fn a_service_lives_on_a_cluster() {
    let Some(cluster) = Cluster::connect("engine") else { return };
    let s = Slipway::new();
    use_cluster(&s, &cluster);
    s.python();
    tiny_project(&s, "p", 2.0);
    let up = s.run(&["up", "p"]);
    assert_eq!(up.code, 0, "{}\n{}", up.stderr, cluster.state());
    assert!(s.run(&["up", "p"]).ok().contains("nothing to do"));
    let listed = s.run(&["engine", "ls"]).ok();
    assert!(listed.lines().any(|line| line.starts_with('*') && line.contains("kubernetes")), "{listed}");
    let at = address(&s, "tiny");
    let predict = "/v1/models/tiny:predict";
    let (status, answer) = http_at(at, "POST", predict, ONE);
    assert_eq!((status, answer.trim()), (200, "{\"predictions\":[[2.0,4.0]]}"));

    // `predict` asks where the service is.
    assert_eq!(s.run(&["predict", "tiny", "--json", ONE]).ok().trim(), "{\"predictions\":[[2.0,4.0]]}");

    // More replicas, another version and the way back: nobody who asks meanwhile is refused.
    load(at, predict, ONE).during(|| {
        s.run(&["scale", "tiny", "2"]).ok();
        tiny_project(&s, "p", 3.0);
        let up = s.run(&["up", "p"]);
        assert_eq!(up.code, 0, "{}\n{}", up.stderr, cluster.state());
        assert_eq!(http_at(at, "POST", predict, ONE).1.trim(), "{\"predictions\":[[3.0,6.0]]}");
        s.run(&["deploy", "tiny@1", "--replicas", "2"]).ok();
    });
    assert_eq!(http_at(at, "POST", predict, ONE).1.trim(), "{\"predictions\":[[2.0,4.0]]}");
    assert_eq!(service(&s, "tiny")["replicas"].as_array().unwrap().len(), 2);
    assert!(!s.run(&["logs", "tiny"]).ok().is_empty());

    // The daemon's death is nothing to those who ask, and the next one goes on.
    kill(s.daemon_pid(), "KILL");
    assert_eq!(http_at(at, "POST", predict, ONE).0, 200);
    s.run(&["scale", "tiny", "1"]).ok();

    // Somebody else's hand is undone.
    cluster.kubectl(&["delete", "deployment", "tiny", "--wait=true"]);
    wait_for("the deployment to be back", Duration::from_secs(60), || {
        // Pods of the deleted one may still answer.
        let is_back = cluster.command(&["get", "deployment", "tiny"]).status.success();
        (is_back && http_at(at, "POST", predict, ONE).0 == 200).then_some(())
    });
    cluster.kubectl(&["rollout", "status", "deployment/tiny", "--timeout", "120s"]);

    // What is exported of it is what is there: plain kubectl has nothing to change, and nobody to fight.
    let exported = s.path("exported");
    let folder = exported.to_str().unwrap();
    s.run(&["export", "kubernetes", "tiny", "--quiet", "--output", folder]).ok();
    let before = cluster.generations(folder);
    cluster.kubectl(&["apply", "--server-side", "--filename", folder]);
    assert_eq!(cluster.generations(folder), before);

    delete(&s, "tiny");
    end(s, &cluster);
}

#[test]
fn an_example_comes_up_on_a_cluster_and_is_right() {
    let Some(cluster) = Cluster::connect("road") else { return };
    let s = Slipway::new();
    use_cluster(&s, &cluster);
    let packages = ["-p", "python3", "-p", "python3-pip", "-p", "python-is-python3"];
    s.run(&[&["base", "debian"][..], &packages, &["-t", "slipway/python:bookworm"]].concat()).ok();
    let name = "digits-sklearn";
    let folder = workspace().join("examples").join(name);
    let up = s.run(&["up", folder.to_str().unwrap()]);
    assert_eq!(up.code, 0, "{}\n{}", up.stderr, cluster.state());
    s.run(&["scale", name, "2"]).ok();
    let verified = std::process::Command::new("/usr/bin/python3")
        .arg(workspace().join("examples/verify.py"))
        .args(["--url", &format!("http://{}", address(&s, name)), "--service", name, "--example", name])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success(), "{text}");
    delete(&s, name);
    end(s, &cluster);
}
