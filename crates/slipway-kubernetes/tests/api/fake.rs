//! An API server in memory: objects, server-side apply of whole objects, deletions by UID, lists and watches with a log
//! that can be forgotten. Faults are put before it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use slipway_kubernetes::apply::Applier;
use slipway_kubernetes::client::{Limiter, Retry};
use slipway_kubernetes::{Cluster, Discovery};
use tokio::sync::watch;

pub type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;
type Fault = Box<dyn FnMut(&Method, &str) -> Option<Answer> + Send>;

pub const NAMESPACE: &str = "team-a";
/// The daemon of most tests.
pub const OWNER: &str = "0a1b2c3d";

/// Kinds that it serves: group, version, kind, plural.
const KINDS: &[Kind] = &[
    ("", "v1", "Pod", "pods"),
    ("", "v1", "Service", "services"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "Secret", "secrets"),
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("", "v1", "Event", "events"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    ("apps", "v1", "Deployment", "deployments"),
    ("batch", "v1", "Job", "jobs"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    ("networking.k8s.io", "v1", "Ingress", "ingresses"),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
];

/// Kinds that only some clusters serve.
pub const JOB_SET: Kind = ("jobset.x-k8s.io", "v1alpha2", "JobSet", "jobsets");
pub const LOCAL_QUEUE: Kind = ("kueue.x-k8s.io", "v1beta1", "LocalQueue", "localqueues");
pub const WORKLOAD: Kind = ("kueue.x-k8s.io", "v1beta1", "Workload", "workloads");
pub const VOLCANO_GROUP: Kind = ("scheduling.volcano.sh", "v1beta1", "PodGroup", "podgroups");

pub type Kind = (&'static str, &'static str, &'static str, &'static str);

#[derive(Clone)]
pub struct Fake {
    inner: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    forget: Arc<AtomicBool>,
}

impl State {
    fn compact(&mut self) {
        self.forgotten = self.version;
        self.log.clear();
    }
}

/// A change: the object before and after it.
#[derive(Clone)]
struct Entry {
    version: u64,
    plural: String,
    before: Option<Value>,
    after: Option<Value>,
}

impl Entry {
    /// What a watch with a selector shows of it: what does not match any more is deleted to it.
    fn event(&self, selector: &str) -> Option<Value> {
        let matches =
            |object: &Option<Value>| object.as_ref().filter(|object| selected(object, selector)).cloned();
        let (what, object) = match (matches(&self.before), matches(&self.after)) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(mut before), None) => {
                before["metadata"]["resourceVersion"] = self.version.to_string().into();
                ("DELETED", before)
            }
        };
        Some(json!({"type": what, "object": object}))
    }
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    log: Vec<Entry>,
    /// Versions up to this one are forgotten.
    forgotten: u64,
    faults: Vec<Fault>,
    requests: Vec<(Method, String)>,
    /// Watches end after this time.
    watch_life: Option<Duration>,
    /// Kinds that are served beside the usual ones.
    more: Vec<Kind>,
    /// What an access review denies: verb, a space, and the plural.
    denied: Vec<String>,
    /// Deployments whose pods somebody else counts, and who.
    scaled: BTreeMap<String, String>,
}

impl Fake {
    pub fn new() -> Self {
        let state = State { version: 100, ..State::default() };
        Self {
            inner: Arc::new(Mutex::new(state)),
            changed: Arc::new(watch::Sender::new(0)),
            forget: Arc::default(),
        }
    }

    pub fn cluster(&self) -> Cluster {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move { Ok::<_, std::io::Error>(fake.answer(request).await) }
        });
        let client = kube::Client::new(service, NAMESPACE);
        let retry = Retry {
            first: Duration::from_millis(5),
            most: Duration::from_millis(50),
            total: Duration::from_secs(5),
        };
        Cluster::with_limits(client, "https://fake", NAMESPACE, retry, Limiter::new(10_000, 10_000))
    }

    pub fn applier(&self) -> Applier {
        self.applier_of(OWNER)
    }

    pub fn applier_of(&self, owner: &str) -> Applier {
        let cluster = self.cluster();
        let discovery = Arc::new(Discovery::new(cluster.clone()));
        Applier::new(cluster, discovery, owner)
    }

    /// Something that may answer before the server does.
    pub fn fault(&self, fault: impl FnMut(&Method, &str) -> Option<Answer> + Send + 'static) {
        self.inner.lock().unwrap().faults.push(Box::new(fault));
    }

    /// Serves kinds more.
    pub fn serve(&self, kinds: &[Kind]) {
        self.inner.lock().unwrap().more.extend(kinds);
    }

    /// Has access reviews deny something, such as `create jobsets`.
    pub fn deny(&self, what: &str) {
        self.inner.lock().unwrap().denied.push(what.to_owned());
    }

    fn kinds(&self) -> Vec<Kind> {
        KINDS.iter().chain(&self.inner.lock().unwrap().more).copied().collect()
    }

    fn review(&self, body: &[u8]) -> Answer {
        let review: Value = serde_json::from_slice(body).unwrap();
        let asked = &review["spec"]["resourceAttributes"];
        let what = format!("{} {}", asked["verb"].as_str().unwrap(), asked["resource"].as_str().unwrap());
        let allowed = !self.inner.lock().unwrap().denied.contains(&what);
        whole(201, &json!({"kind": "SelfSubjectAccessReview", "status": {"allowed": allowed}}))
    }

    pub fn clear_faults(&self) {
        self.inner.lock().unwrap().faults.clear();
    }

    pub fn watch_life(&self, life: Duration) {
        self.inner.lock().unwrap().watch_life = Some(life);
    }

    /// Forgets all versions so far: watches from them get 410.
    pub fn compact(&self) {
        self.inner.lock().unwrap().compact();
    }

    /// The same with the next request; for faults, which run while the state is held.
    pub fn forget_soon(&self) {
        self.forget.store(true, Ordering::Relaxed);
    }

    pub fn requests(&self) -> Vec<(Method, String)> {
        self.inner.lock().unwrap().requests.clone()
    }

    pub fn count(&self, of: impl Fn(&Method, &str) -> bool) -> usize {
        self.requests().iter().filter(|(method, path)| of(method, path)).count()
    }

    pub fn forget_requests(&self) {
        self.inner.lock().unwrap().requests.clear();
    }

    pub fn get(&self, plural: &str, name: &str) -> Option<Value> {
        self.inner.lock().unwrap().objects.get(&(plural.to_owned(), name.to_owned())).cloned()
    }

    pub fn names(&self, plural: &str) -> Vec<String> {
        let state = self.inner.lock().unwrap();
        state.objects.keys().filter(|(kind, _)| kind == plural).map(|(_, name)| name.clone()).collect()
    }

    /// Changes or makes an object as somebody else.
    pub fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.inner.lock().unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let old = state.objects.get(&(plural.to_owned(), name.clone())).cloned();
        state.version += 1;
        let version = state.version;
        let metadata = &mut object["metadata"];
        metadata["namespace"] = NAMESPACE.into();
        metadata["resourceVersion"] = version.to_string().into();
        if metadata["uid"].is_null() {
            metadata["uid"] = match &old {
                Some(old) => old["metadata"]["uid"].clone(),
                None => format!("{version:08x}-0000-4000-8000-{version:012x}").into(),
            };
        }
        state.objects.insert((plural.to_owned(), name), object.clone());
        state.log.push(Entry { version, plural: plural.to_owned(), before: old, after: Some(object) });
        drop(state);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Changes an object in place.
    pub fn edit(&self, plural: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.get(plural, name).unwrap_or_else(|| panic!("no {plural} {name}"));
        edit(&mut object);
        self.put(plural, object);
    }

    pub fn delete(&self, plural: &str, name: &str) -> Option<Value> {
        let mut state = self.inner.lock().unwrap();
        let object = state.objects.remove(&(plural.to_owned(), name.to_owned()))?;
        state.version += 1;
        let version = state.version;
        state.log.push(Entry {
            version,
            plural: plural.to_owned(),
            before: Some(object.clone()),
            after: None,
        });
        drop(state);
        self.changed.send_modify(|n| *n += 1);
        Some(object)
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let path = parts.uri.to_string();
        let body = body.collect().await.unwrap().to_bytes();
        let (fault, life) = {
            let mut state = self.inner.lock().unwrap();
            if self.forget.swap(false, Ordering::Relaxed) {
                state.compact();
            }
            state.requests.push((parts.method.clone(), path.clone()));
            let fault = state.faults.iter_mut().find_map(|fault| fault(&parts.method, &path));
            (fault, state.watch_life)
        };
        if let Some(answer) = fault {
            return answer;
        }
        let (route, query) = path.split_once('?').unwrap_or((&path, ""));
        if parts.method == Method::POST && route.ends_with("/selfsubjectaccessreviews") {
            return self.review(&body);
        }
        match self.discovery(route) {
            Some(document) => whole(200, &document),
            None => self.resource(&parts.method, route, query, &body, life),
        }
    }

    fn discovery(&self, route: &str) -> Option<Value> {
        let kinds = self.kinds();
        let list = |group: &str, version: &str| {
            let own = kinds.iter().filter(|kind| kind.0 == group && kind.1 == version);
            let resources: Vec<Value> =
                own.map(|kind| json!({"name": kind.3, "kind": kind.2, "namespaced": true})).collect();
            json!({"kind": "APIResourceList", "resources": resources})
        };
        match route {
            "/version" => Some(json!({"major": "1", "minor": "33"})),
            "/apis" => {
                let groups: BTreeMap<&str, &str> =
                    kinds.iter().filter(|kind| !kind.0.is_empty()).map(|kind| (kind.0, kind.1)).collect();
                let groups: Vec<Value> = groups
                    .into_iter()
                    .map(|(name, version)| {
                        json!({"name": name, "versions": [{"version": version}], "preferredVersion": {"version": version}})
                    })
                    .collect();
                Some(json!({"kind": "APIGroupList", "groups": groups}))
            }
            "/api/v1" => Some(list("", "v1")),
            _ => {
                let mut parts = route.strip_prefix("/apis/")?.split('/');
                let (group, version) = (parts.next()?, parts.next()?);
                parts.next().is_none().then(|| list(group, version))
            }
        }
    }

    fn resource(
        &self,
        method: &Method,
        route: &str,
        query: &str,
        body: &[u8],
        life: Option<Duration>,
    ) -> Answer {
        let Some((_, rest)) = route.split_once(&format!("/namespaces/{NAMESPACE}/")) else {
            return status(404, "NotFound", &format!("{route} not found"), Value::Null);
        };
        let (plural, name) = rest.split_once('/').unwrap_or((rest, ""));
        let parameter = |key: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(k, _)| *k == key)
                .map(|(_, v)| v.replace("%3D", "=").replace("%2F", "/").replace("%2C", ","))
                .next()
        };
        let selector = parameter("labelSelector").unwrap_or_default();
        if parameter("watch").is_some() {
            let from: u64 = parameter("resourceVersion").unwrap().parse().unwrap();
            return self.watch(plural.to_owned(), selector, from, life);
        }
        match (method.as_str(), name) {
            ("GET", "") => {
                let state = self.inner.lock().unwrap();
                let all = state
                    .objects
                    .iter()
                    .filter(|((kind, _), object)| kind == plural && selected(object, &selector));
                let items: Vec<Value> = all.map(|(_, object)| object.clone()).collect();
                whole(
                    200,
                    &json!({"metadata": {"resourceVersion": state.version.to_string()}, "items": items}),
                )
            }
            ("GET", name) => match self.get(plural, name) {
                Some(object) => whole(200, &object),
                None => missing(name),
            },
            ("PATCH", name) => {
                let dry_run = parameter("dryRun").is_some();
                let force = parameter("force").as_deref() == Some("true");
                if let Some(conflict) = self.counted(plural, name, body).filter(|_| !force) {
                    return conflict;
                }
                whole(200, &self.apply(plural, name, serde_json::from_slice(body).unwrap(), dry_run))
            }
            ("DELETE", name) => {
                let options: Value = serde_json::from_slice(body).unwrap();
                match self.get(plural, name) {
                    None => missing(name),
                    Some(live) if live["metadata"]["uid"] != options["preconditions"]["uid"] => {
                        status(409, "Conflict", "the UID in the precondition does not match", Value::Null)
                    }
                    Some(_) => whole(200, &self.delete(plural, name).unwrap()),
                }
            }
            _ => status(405, "MethodNotAllowed", "no", Value::Null),
        }
    }

    /// Has an autoscaler set how many pods a Deployment has, and own that.
    pub fn scale(&self, name: &str, replicas: u64) {
        self.scale_as("kube-controller-manager", name, replicas);
    }

    /// The same of somebody else's.
    pub fn scale_as(&self, manager: &str, name: &str, replicas: u64) {
        self.edit("deployments", name, |deployment| deployment["spec"]["replicas"] = replicas.into());
        self.inner.lock().unwrap().scaled.insert(name.to_owned(), manager.to_owned());
    }

    fn counted(&self, plural: &str, name: &str, body: &[u8]) -> Option<Answer> {
        let scaled = self.inner.lock().unwrap().scaled.get(name).cloned();
        let manager = scaled.filter(|_| plural == "deployments")?;
        let wanted = &serde_json::from_slice::<Value>(body).unwrap()["spec"]["replicas"];
        let live = self.get(plural, name)?;
        (!wanted.is_null() && *wanted != live["spec"]["replicas"]).then(|| {
            let cause = json!({"reason": "FieldManagerConflict", "field": ".spec.replicas",
                "message": format!("conflict with \"{manager}\" with subresource \"scale\" using apps/v1")});
            status(409, "Conflict", "Apply failed with 1 conflict", json!({"causes": [cause]}))
        })
    }

    /// Ours replaces all but the status, and what an autoscaler has set. A number of pods that nobody gives is 1.
    fn apply(&self, plural: &str, name: &str, mut object: Value, dry_run: bool) -> Value {
        let live = self.get(plural, name);
        let mut next = live.clone().unwrap_or_else(|| json!({"metadata": {}}));
        let before = next.clone();
        let generation = next["metadata"]["generation"].as_i64();
        if plural == "deployments" && object["spec"]["replicas"].is_null() {
            let scaled = self.inner.lock().unwrap().scaled.contains_key(name);
            object["spec"]["replicas"] = if scaled { next["spec"]["replicas"].clone() } else { 1.into() };
        }
        let spec_differs = next["spec"] != object["spec"];
        for (key, value) in object.as_object_mut().unwrap() {
            if key != "metadata" {
                next[key] = value.take();
            }
        }
        for key in ["name", "namespace", "labels", "annotations"] {
            next["metadata"][key] = object["metadata"][key].clone();
        }
        if next["spec"].is_object() && ["deployments", "jobs"].contains(&plural) && spec_differs {
            next["metadata"]["generation"] = (generation.unwrap_or(0) + 1).into();
        }
        if dry_run || next == before {
            return next;
        }
        self.put(plural, next);
        self.get(plural, name).unwrap()
    }

    fn watch(&self, plural: String, selector: String, from: u64, life: Option<Duration>) -> Answer {
        if from < self.inner.lock().unwrap().forgotten {
            return status(410, "Expired", "too old resource version", Value::Null);
        }
        let until = life.map(|life| tokio::time::Instant::now() + life);
        let start = (self.clone(), self.changed.subscribe(), from);
        let lines = stream::unfold(start, move |(fake, mut changed, mut at)| {
            let (plural, selector) = (plural.clone(), selector.clone());
            async move {
                loop {
                    let next = {
                        let state = fake.inner.lock().unwrap();
                        let log =
                            state.log.iter().filter(|entry| entry.version > at && entry.plural == plural);
                        log.filter_map(|entry| Some((entry.version, entry.event(&selector)?))).next()
                    };
                    if let Some((version, event)) = next {
                        at = version;
                        let line = format!("{event}\n");
                        return Some((Ok(Frame::data(Bytes::from(line))), (fake, changed, at)));
                    }
                    let change = async { changed.changed().await.unwrap() };
                    match until {
                        None => change.await,
                        Some(until) => tokio::time::timeout_at(until, change).await.ok()?,
                    }
                }
            }
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

fn selected(object: &Value, selector: &str) -> bool {
    selector.split(',').filter(|one| !one.is_empty()).all(|one| {
        let labels = &object["metadata"]["labels"];
        match one.split_once('=') {
            Some((key, value)) => labels[key] == value,
            None => labels[one].is_string(),
        }
    })
}

pub fn whole(code: u16, document: &Value) -> Answer {
    let body = Full::new(Bytes::from(document.to_string())).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(code).body(body).unwrap()
}

pub fn status(code: u16, reason: &str, message: &str, details: Value) -> Answer {
    whole(
        code,
        &json!({"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code, "details": details}),
    )
}

fn missing(name: &str) -> Answer {
    status(404, "NotFound", &format!("{name} not found"), Value::Null)
}

/// Waits until something is so.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in 10 s: {what}");
}
