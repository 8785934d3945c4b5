//! A namespace with the engine's account in it, and kubeconfigs for both.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::Request;
use serde_json::{Value, json};
use slipway_kubernetes::render::rbac::{Subject, render_engine_role};
use slipway_kubernetes::{Cluster, ConnectOptions, connect};
use slipway_types::Reference;

use super::image;

/// The daemon of most tests.
pub const OWNER: &str = "0a1b2c3d";

pub struct Bed {
    pub namespace: String,
    pub admin: kube::Client,
    pub image: Reference,
    account: PathBuf,
    _folder: tempfile::TempDir,
}

/// The bed on a cluster that runs containers, or `None` where there is none: then the test says so.
pub async fn bed(name: &str) -> Option<Bed> {
    let bed = bed_any(name).await?;
    let nodes = bed.get("/api/v1/nodes").await;
    let is_real = |node: &Value| node.pointer("/metadata/annotations/kwok.x-k8s.io~1node").is_none();
    if nodes["items"].as_array().is_some_and(|nodes| nodes.iter().any(is_real)) {
        return Some(bed);
    }
    say(&format!("SKIPPED: kwok plays the nodes of this cluster: nothing ran in pods for `{name}`"));
    bed.end().await;
    None
}

/// The same on a cluster whose nodes may be played.
pub async fn bed_any(name: &str) -> Option<Bed> {
    let (Some(kubeconfig), Some(registry)) =
        (std::env::var_os("TEST_KUBECONFIG"), std::env::var("TEST_REGISTRY").ok())
    else {
        say(&format!("SKIPPED: {name} needs TEST_KUBECONFIG and TEST_REGISTRY; see scripts/test-cluster"));
        return None;
    };
    let kubeconfig = PathBuf::from(kubeconfig);
    let config = kube::config::Kubeconfig::read_from(&kubeconfig).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let admin_config = kube::Config::from_custom_kubeconfig(config.clone(), &options).await.unwrap();
    let admin = kube::Client::try_from(admin_config).unwrap();
    let namespace = format!("live-{name}-{:x}", std::process::id());
    let bed = Bed {
        namespace: namespace.clone(),
        image: image::push(&registry).await,
        account: PathBuf::new(),
        _folder: tempfile::tempdir().unwrap(),
        admin,
    };
    bed.send("POST", "/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await;
    // What is printed is what is granted.
    let caps = slipway_kubernetes::Capabilities::default();
    let subject = Subject::ServiceAccount { namespace: namespace.clone(), name: "engine".into() };
    for object in render_engine_role(&namespace, "slipway-engine", Some(&subject), &caps).unwrap().objects {
        let plural = format!("{}s", object.kind().to_lowercase());
        let root =
            if object.api_version() == "v1" { "/api/v1" } else { "/apis/rbac.authorization.k8s.io/v1" };
        bed.send("POST", &format!("{root}/namespaces/{namespace}/{plural}"), object.json().clone()).await;
    }
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/engine/token");
    let token = bed.send("POST", &path, json!({"spec": {"expirationSeconds": 3600}})).await;
    let mut cluster = serde_json::to_value(&config.clusters[0]).unwrap();
    cluster["name"] = "c".into();
    let account = json!({"apiVersion": "v1", "kind": "Config", "current-context": "engine", "clusters": [cluster],
        "users": [{"name": "u", "user": {"token": token["status"]["token"]}}],
        "contexts": [{"name": "engine", "context": {"cluster": "c", "user": "u", "namespace": namespace}}]});
    let file = bed._folder.path().join("kubeconfig");
    std::fs::write(&file, account.to_string()).unwrap();
    Some(Bed { account: file, ..bed })
}

impl Bed {
    /// The cluster as the engine sees it.
    pub async fn cluster(&self) -> Cluster {
        let options = ConnectOptions { kubeconfig: vec![self.account.clone()], ..ConnectOptions::default() };
        connect(&options).await.unwrap()
    }

    /// The same through something at another address, which speaks as the engine.
    pub async fn cluster_at(&self, server: &str) -> Cluster {
        let path = self._folder.path().join("proxied");
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "p",
            "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "p", "context": {"cluster": "c", "user": "u", "namespace": self.namespace}}]});
        std::fs::write(&path, config.to_string()).unwrap();
        let options = ConnectOptions { kubeconfig: vec![path], ..ConnectOptions::default() };
        connect(&options).await.unwrap()
    }

    /// A client of `kube`'s with the engine's account.
    pub async fn account_client(&self) -> kube::Client {
        let config = kube::config::Kubeconfig::read_from(&self.account).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        kube::Client::try_from(kube::Config::from_custom_kubeconfig(config, &options).await.unwrap()).unwrap()
    }

    /// As the administrator.
    pub async fn send(&self, method: &str, path: &str, body: Value) -> Value {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        self.admin.request(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Value {
        let request = Request::get(format!("{path}?")).body(Vec::new()).unwrap();
        self.admin.request(request).await.unwrap_or(Value::Null)
    }

    /// Deletes the namespace. A test that fails leaves it for a look.
    pub async fn end(self) {
        let request =
            Request::delete(format!("/api/v1/namespaces/{}", self.namespace)).body(Vec::new()).unwrap();
        let _: Value = self.admin.request(request).await.unwrap();
    }
}

/// Written past the test harness, which would hide it.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Waits until something is so, and returns what it then is.
pub async fn wait<T>(what: &str, seconds: u64, mut so: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match so().await {
            Ok(found) => {
                say(&format!("{what}: after {:.1} s", start.elapsed().as_secs_f64()));
                return found;
            }
            Err(last) => assert!(start.elapsed().as_secs() < seconds, "not in {seconds} s: {what}: {last}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
