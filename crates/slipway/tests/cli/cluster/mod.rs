//! Everything that needs a real cluster: `TEST_KUBECONFIG` names its kubeconfig, `TEST_REGISTRY` a registry that this machine
//! and its nodes reach under one name. A cluster of `cargo xtask cluster up` has its registry's port beside its kubeconfig.
//! Where kwok plays all its nodes, nothing runs in pods: what needs that is skipped, and says so.

mod engine;
mod export;
mod faults;
mod gangs;
mod gateway;
mod image;
mod kept;
mod mpi;
mod names;
mod played;
mod top;
mod train;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Slipway, http_at, wait_for};

/// For each node `[]`, or `[fake]` where kwok plays it.
const PLAYED: &str = r"jsonpath={range .items[*]}[{.metadata.annotations.kwok\.x-k8s\.io/node}] {end}";

/// Says aloud, past the test harness, which would hide it.
fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Builds an image that offers port 9000. `steps` are lines of its Dockerfile; its shell runs `script`.
fn build_image(s: &Slipway, folder: &str, image: &str, steps: &str, script: &str) {
    s.write(
        &format!("{folder}/Dockerfile"),
        &format!(
            "FROM box\n{steps}ENV HOME=/tmp\nUSER user\nEXPOSE 9000\n\
             CMD [\"sh\", \"-c\", \"trap 'exit 0' TERM; {script}\"]\n"
        ),
    );
    s.run(&["build", "-t", image, folder]).ok();
}

/// Deletes a service, and waits until nobody knows of it.
fn delete(s: &Slipway, service: &str) {
    s.run(&["delete", service]).ok();
    wait_for("it to be forgotten", Duration::from_secs(120), || {
        s.run(&["services", "--format", "json"]).ok().trim().eq("[]").then_some(())
    });
}

/// A namespace of a real cluster; deleted at the end.
struct Cluster {
    kubeconfig: PathBuf,
    registry: String,
    namespace: String,
}

impl Cluster {
    /// A cluster that runs containers. `None`, said aloud, where there is none.
    fn connect(name: &str) -> Option<Self> {
        let this = Self::connect_any(name)?;
        if this.kubectl(&["get", "nodes", "--output", PLAYED]).split_whitespace().any(|node| node == "[]") {
            return Some(this);
        }
        skipped(&format!("kwok plays the nodes of this cluster: nothing ran in pods for `{name}`"));
        None
    }

    /// A cluster whose nodes may be played. `None`, said aloud, where there is none.
    fn connect_any(name: &str) -> Option<Self> {
        let Some(kubeconfig) = std::env::var_os("TEST_KUBECONFIG").filter(|value| !value.is_empty()) else {
            skipped("TEST_KUBECONFIG names no cluster (cargo xtask cluster up prints one)");
            return None;
        };
        let kubeconfig = PathBuf::from(kubeconfig);
        let registry = std::env::var("TEST_REGISTRY").unwrap_or_else(|_| {
            let path = kubeconfig.with_file_name("cluster.json");
            let text =
                std::fs::read(&path).expect("TEST_REGISTRY is set, or cluster.json is beside the kubeconfig");
            let value: Value = serde_json::from_slice(&text).unwrap();
            format!("127.0.0.1:{}", value["registryPort"].as_u64().expect("cluster.json has the port"))
        });
        let namespace = format!("slipway-{name}-{}", std::process::id());
        let this = Self { kubeconfig, registry, namespace };
        this.kubectl(&["create", "namespace", &this.namespace]);
        Some(this)
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["--namespace", &self.namespace]);
        command.args(arguments).output().expect("kubectl is installed")
    }

    #[track_caller]
    fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "kubectl {arguments:?}\n{stdout}\n{stderr}\n{}", self.state());
        assert!(!stderr.contains("Warning:"), "kubectl {arguments:?}: {stderr}");
        stdout
    }

    /// What people would look at when something is wrong.
    fn state(&self) -> String {
        let mut text = String::new();
        for arguments in [
            &["get", "all", "--output", "wide"][..],
            &["get", "events", "--sort-by", "lastTimestamp"],
            &[
                "logs",
                "--selector",
                "app.kubernetes.io/managed-by=slipway",
                "--all-containers",
                "--tail",
                "30",
            ],
        ] {
            let output = self.command(arguments);
            text.push_str(&String::from_utf8_lossy(&output.stdout));
            text.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        text
    }

    /// Generations of everything in a folder: they grow when a specification changes.
    fn generations(&self, folder: &str) -> Vec<(String, Value, Value)> {
        let list: Value =
            serde_json::from_str(&self.kubectl(&["get", "-f", folder, "--output", "json"])).unwrap();
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| {
                let name = format!("{} {}", item["kind"], item["metadata"]["name"]);
                (name, item["metadata"]["generation"].clone(), item["metadata"]["uid"].clone())
            })
            .collect()
    }

    /// Asks a Service for a prediction: under its address where this machine reaches it, else through the API server.
    fn predict(&self, service: &str, model: &str, request: &Path) -> Value {
        let path = format!("/v1/models/{model}:predict");
        let address = self.kubectl(&[
            "get",
            "service",
            service,
            "--output",
            "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}",
        ]);
        let address: SocketAddr = address.parse().unwrap();
        let body = std::fs::read_to_string(request).unwrap();
        if std::net::TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok() {
            let (status, answer) = http_at(address, "POST", &path, &body);
            assert_eq!(status, 200, "{answer}");
            return serde_json::from_str(&answer).unwrap();
        }
        let raw = format!("/api/v1/namespaces/{}/services/{service}:http/proxy{path}", self.namespace);
        serde_json::from_str(&self.kubectl(&["create", "--raw", &raw, "-f", request.to_str().unwrap()]))
            .unwrap()
    }

    /// Applies a folder and waits until its Deployment is through.
    fn apply(&self, folder: &str, deployment: &str) {
        self.kubectl(&["apply", "--server-side", "-f", folder]);
        self.kubectl(&["rollout", "status", &format!("deployment/{deployment}"), "--timeout", "300s"]);
    }

    /// Deletes a folder's objects and checks that nothing stays.
    fn delete(&self, folder: &str) {
        self.kubectl(&["delete", "-f", folder, "--timeout", "120s"]);
        self.assert_empty();
    }

    /// Waits until nothing of ours is left.
    fn assert_empty(&self) {
        let kinds = "pods,replicasets,deployments,jobs,services,configmaps,secrets,serviceaccounts,roles,rolebindings,\
                     networkpolicies,poddisruptionbudgets,horizontalpodautoscalers,ingresses,persistentvolumeclaims";
        // The Role of `engine rbac` is the user's own.
        let ours = "app.kubernetes.io/managed-by=slipway,app.kubernetes.io/name!=slipway";
        wait_for("everything to go", Duration::from_secs(120), || {
            self.kubectl(&["get", kinds, "--selector", ours, "--output", "name"])
                .trim()
                .is_empty()
                .then_some(())
        });
    }

    /// A kubeconfig of a service account, and of nobody else.
    fn account(&self, name: &str, file: &Path) -> PathBuf {
        let token = self.kubectl(&["create", "token", name, "--duration", "2h"]);
        let view: Value =
            serde_json::from_str(&self.kubectl(&["config", "view", "--raw", "--minify", "--output", "json"]))
                .unwrap();
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": view["clusters"][0]["cluster"]}],
            "users": [{"name": "test", "user": {"token": token.trim()}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(file, config.to_string()).unwrap();
        file.to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.state());
        }
        self.command(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}
