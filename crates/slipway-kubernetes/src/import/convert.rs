//! From a Deployment, and what belongs to it, to a project file.

use std::collections::BTreeMap;

use serde::Serialize;
use slipway_types::project::{Project, ServeSection};

use super::check::pod_path;
use super::selectors::matches;
use super::tree::{Document, Entry, Node};
use crate::names::NAME_ANNOTATION;
use crate::spec::Exposure;

/// What could be understood of one Deployment and the objects that belong to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The project; its file in [`Imported::toml`].
    pub project: Project,
    /// Image of the first container, as written.
    pub image: Option<String>,
    /// Port that its program listens on.
    pub port: Option<u16>,
    /// How it is reached from outside.
    pub exposure: Exposure,
    /// Keys of the manifests that are not in the project, and why.
    pub left_out: Vec<LeftOut>,
}

/// A key that is not in the project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// Line, from 1.
    pub line: usize,
    /// Path of the key, with the kind first.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Imported {
    /// The project file, with the keys that differ from the defaults.
    pub fn toml(&self) -> String {
        #[derive(Serialize)]
        struct File<'a> {
            name: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            serve: Option<Serve<'a>>,
        }
        #[derive(Serialize)]
        struct Serve<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            replicas: Option<u32>,
            #[serde(skip_serializing_if = "Option::is_none")]
            memory: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cpus: Option<f64>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            env: &'a BTreeMap<String, String>,
        }
        let serve = &self.project.serve;
        let default = ServeSection::default();
        let section = Serve {
            replicas: (serve.replicas != default.replicas).then_some(serve.replicas),
            memory: serve.memory.as_deref(),
            cpus: serve.cpus,
            env: &serve.env,
        };
        let file = File { name: &self.project.name, serve: (*serve != default).then_some(section) };
        // Texts, numbers and maps of texts are all that is in it, which TOML can always hold.
        toml::to_string(&file).unwrap_or_default()
    }
}

/// One project for each Deployment of a file. Documents that belong to none are told by the last member.
pub fn convert(documents: &[Document]) -> (Vec<Imported>, Vec<LeftOut>) {
    let mut taken = vec![false; documents.len()];
    let mut imported = Vec::new();
    for (at, document) in documents.iter().enumerate().filter(|(_, d)| d.kind() == "Deployment") {
        taken[at] = true;
        imported.push(deployment(document, documents, &mut taken));
    }
    let others = documents.iter().zip(taken).filter(|(_, taken)| !taken).map(|(document, _)| LeftOut {
        line: document.root.line,
        what: format!("{} {}", document.kind(), document.name()),
        why: "it belongs to no Deployment of this file".to_owned(),
    });
    (imported, others.collect())
}

fn deployment(document: &Document, documents: &[Document], taken: &mut [bool]) -> Imported {
    let root = &document.root;
    let original = root.at(&["metadata", "annotations"]).and_then(|a| a.text_at(&[NAME_ANNOTATION]));
    let name = original.unwrap_or_else(|| document.name()).to_owned();
    let mut left = Left(Vec::new());
    let mut serve = ServeSection::default();
    if let Some(count) = root.at(&["spec", "replicas"]).and_then(|n| n.json().as_u64()) {
        serve.replicas = count.try_into().unwrap_or(u32::MAX);
    }
    left.all_but("Deployment", root, &["apiVersion", "kind", "metadata", "spec"]);
    left.all_but("Deployment.spec", root.get("spec"), &["replicas", "selector", "template"]);
    let pod = pod_path("Deployment").and_then(|path| root.at(path));
    left.all_but("Deployment.pod", pod, &["containers"]);
    let containers = pod.and_then(|pod| pod.get("containers")).map_or(&[][..], Node::items);
    for extra in containers.iter().skip(1) {
        left.add(
            extra.line,
            "Deployment.containers",
            "a service has one container; deploy the others by themselves",
        );
    }
    let first = containers.first();
    left.all_but("container", first, &["name", "image", "env", "resources", "ports"]);
    resources(first, &mut serve, &mut left);
    environment(first, &mut serve, &mut left);
    let port = first.and_then(|c| c.get("ports")?.items().first()?.get("containerPort")?.json().as_u64());
    let exposure = around(document, documents, taken, &mut serve, &mut left);
    left.0.sort();
    Imported {
        project: Project {
            name,
            image: Default::default(),
            train: Default::default(),
            model: Default::default(),
            serve,
        },
        image: first.and_then(|c| c.text_at(&["image"])).map(str::to_owned),
        port: port.and_then(|port| port.try_into().ok()),
        exposure,
        left_out: left.0,
    }
}

struct Left(Vec<LeftOut>);

impl Left {
    fn add(&mut self, line: usize, what: impl Into<String>, why: impl Into<String>) {
        self.0.push(LeftOut { line, what: what.into(), why: why.into() });
    }

    /// Every key of a map but these.
    fn all_but<'a>(&mut self, path: &str, map: impl Into<Option<&'a Node>>, known: &[&str]) {
        for Entry { key, line, .. } in map.into().map_or(&[][..], Node::entries) {
            if !known.contains(&key.as_str()) {
                self.add(*line, format!("{path}.{key}"), reason(key));
            }
        }
    }
}

/// Why a key has no place in a project file.
fn reason(key: &str) -> &'static str {
    match key {
        "livenessProbe" | "readinessProbe" | "startupProbe" => {
            "Slipway asks the model itself whether it is ready"
        }
        "strategy" | "minReadySeconds" | "progressDeadlineSeconds" | "revisionHistoryLimit" => {
            "Slipway rolls out by itself, one replica at a time"
        }
        "volumes" | "volumeMounts" => "the model and scratch space are mounted by Slipway",
        "securityContext" => "Slipway sets a stricter one",
        "serviceAccountName" | "automountServiceAccountToken" => "replicas have an account that may nothing",
        "command" | "args" | "workingDir" => {
            "Slipway's runner serves the model, so the image's program does not run"
        }
        "imagePullPolicy" => "images are named by digest",
        "lifecycle" | "terminationGracePeriodSeconds" => "Slipway drains replicas before they end",
        "nodeSelector" | "tolerations" | "affinity" | "topologySpreadConstraints" | "priorityClassName" => {
            "it is said to the engine, not in the project"
        }
        "status" => "it is what the cluster says, not what is wanted",
        _ => "a project file has nothing like it",
    }
}

fn resources(container: Option<&Node>, serve: &mut ServeSection, left: &mut Left) {
    let Some(resources) = container.and_then(|c| c.get("resources")) else { return };
    for Entry { key, line, value, .. } in resources.get("limits").map_or(&[][..], Node::entries) {
        let text = value.text().unwrap_or_default();
        match key.as_str() {
            "memory" => match bytes(text) {
                Some(bytes) => serve.memory = Some(size(bytes)),
                None => left.add(*line, "limits.memory", format!("`{text}` is no quantity")),
            },
            "cpu" => match cores(text) {
                Some(cores) => serve.cpus = Some(cores),
                None => left.add(*line, "limits.cpu", format!("`{text}` is no quantity")),
            },
            other => {
                left.add(*line, format!("limits.{other}"), "it is asked for when the service is deployed")
            }
        }
    }
    if let Some(entry) = resources.entry("requests") {
        left.add(entry.line, "container.resources.requests", "Slipway requests what it limits");
    }
}

fn environment(container: Option<&Node>, serve: &mut ServeSection, left: &mut Left) {
    for variable in container.and_then(|c| c.get("env")).map_or(&[][..], Node::items) {
        let name = variable.text_at(&["name"]).unwrap_or_default();
        match variable.get("value") {
            Some(value) => {
                serve.env.insert(name.to_owned(), value.text().unwrap_or_default().to_owned());
            }
            None => left.add(variable.line, format!("env.{name}"), "its value is not in the manifest"),
        }
    }
}

/// Services, autoscalers and routes of a Deployment.
fn around(
    document: &Document,
    documents: &[Document],
    taken: &mut [bool],
    serve: &mut ServeSection,
    left: &mut Left,
) -> Exposure {
    let mut exposure = Exposure::ClusterIp;
    let mut services = Vec::new();
    let labels = document.root.at(&["spec", "template", "metadata", "labels"]);
    for (at, other) in documents.iter().enumerate() {
        let root = &other.root;
        match other.kind() {
            "Service" if selects(root, labels) => {
                taken[at] = true;
                services.push(other.name());
                exposure = service(root, left);
            }
            "HorizontalPodAutoscaler"
                if root.text_at(&["spec", "scaleTargetRef", "name"]) == Some(document.name()) =>
            {
                taken[at] = true;
                let bound = |key: &str| root.at(&["spec", key]).and_then(|n| n.json().as_u64());
                serve.replicas = bound("minReplicas").unwrap_or(1).try_into().unwrap_or(u32::MAX);
                let most = bound("maxReplicas").unwrap_or(1);
                let why = format!(
                    "its fewest replicas are kept; scaling to {most} is asked for when it is deployed"
                );
                left.add(root.line, format!("HorizontalPodAutoscaler {}", other.name()), why);
            }
            _ => {}
        }
    }
    for (at, other) in documents.iter().enumerate().filter(|(_, d)| d.kind() == "Ingress") {
        if let Some(host) = host(&other.root, &services) {
            taken[at] = true;
            exposure = Exposure::Host {
                host: host.to_owned(),
                parent: None,
                ingress_class: other.root.text_at(&["spec", "ingressClassName"]).map(str::to_owned),
                tls_secret: None,
            };
            if let Some(tls) = other.root.get("spec").and_then(|spec| spec.entry("tls")) {
                left.add(tls.line, "Ingress.spec.tls", "certificates are named when the service is exposed");
            }
        }
    }
    exposure
}

fn selects(service: &Node, labels: Option<&Node>) -> bool {
    let selector = service.at(&["spec", "selector"]);
    selector.is_some_and(|selector| !selector.entries().is_empty() && matches(selector, labels))
}

fn service(root: &Node, left: &mut Left) -> Exposure {
    let ports = root.at(&["spec", "ports"]).map_or(&[][..], Node::items);
    for extra in ports.iter().skip(1) {
        left.add(extra.line, "Service.spec.ports", "a service answers on one port");
    }
    left.all_but("Service.spec", root.get("spec"), &["selector", "ports", "type"]);
    let number = |key: &str| ports.first()?.get(key)?.json().as_u64()?.try_into().ok();
    let port = number("port").unwrap_or(80);
    match root.text_at(&["spec", "type"]) {
        Some("NodePort") => Exposure::NodePort { port, node_port: number("nodePort") },
        Some("LoadBalancer") => Exposure::LoadBalancer { port },
        _ => Exposure::ClusterIp,
    }
}

fn host<'a>(ingress: &'a Node, services: &[&str]) -> Option<&'a str> {
    let rules = ingress.at(&["spec", "rules"])?.items();
    rules.iter().find_map(|rule| {
        let paths = rule.at(&["http", "paths"])?.items();
        let ours = paths.iter().any(|path| {
            path.text_at(&["backend", "service", "name"]).is_some_and(|name| services.contains(&name))
        });
        if ours { rule.text_at(&["host"]) } else { None }
    })
}

/// A quantity of bytes.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => f64::from(1 << 20),
        "Gi" => f64::from(1 << 30),
        "Ti" => (1u64 << 40) as f64,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor;
    (bytes.is_finite() && bytes >= 1.0 && bytes < i64::MAX as f64).then_some(bytes as u64)
}

/// A quantity of cores.
fn cores(text: &str) -> Option<f64> {
    let cores = match text.strip_suffix('m') {
        Some(millis) => millis.parse::<f64>().ok()? / 1000.0,
        None => text.parse().ok()?,
    };
    (0.01..=4096.0).contains(&cores).then_some(cores)
}

/// A size as project files write it.
fn size(bytes: u64) -> String {
    [(30, "g"), (20, "m"), (10, "k")]
        .into_iter()
        .find(|(shift, _)| bytes.is_multiple_of(1 << shift))
        .map_or_else(|| format!("{bytes}b"), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}
