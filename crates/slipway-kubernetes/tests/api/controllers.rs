//! Plays a cluster's controllers and its nodes: Deployments get their pods, which start, crash and end as their image and
//! environment say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fake::Fake;

const TICK: Duration = Duration::from_millis(5);
/// From the start of a container until its program runs, and until it is ready.
const RUNS: Duration = Duration::from_millis(20);
const READY: Duration = Duration::from_millis(60);
/// From the end of a container until it is started again.
const PAUSE: Duration = Duration::from_millis(80);
/// How long a pod ends.
const GRACE: Duration = Duration::from_millis(200);

/// Controllers and nodes; they stop with the last of it.
#[derive(Clone)]
pub struct Controllers {
    pods: Arc<Mutex<HashMap<String, Life>>>,
}

/// One pod as its node sees it.
struct Life {
    /// When its container was started last, or is started again.
    started: Instant,
    restarts: u64,
    ends: Option<Instant>,
}

impl Controllers {
    /// Begins to play.
    pub fn start(fake: Fake) -> Self {
        let pods = Arc::new(Mutex::new(HashMap::new()));
        let weak = Arc::downgrade(&pods);
        std::thread::spawn(move || {
            while let Some(pods) = weak.upgrade() {
                tick(&fake, &mut pods.lock().unwrap());
                drop(pods);
                std::thread::sleep(TICK);
            }
        });
        Self { pods }
    }

    /// Ends the container of a pod, whose node starts it again.
    pub fn kill(&self, fake: &Fake, pod: &str) {
        let mut lives = self.pods.lock().unwrap();
        let life = lives.get_mut(pod).unwrap();
        life.started = Instant::now() + PAUSE;
        life.restarts += 1;
        show(fake, pod, life);
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn tick(fake: &Fake, lives: &mut HashMap<String, Life>) {
    let now = Instant::now();
    let deployments: Vec<Value> =
        fake.names("deployments").iter().filter_map(|name| fake.get("deployments", name)).collect();
    let pods: Vec<Value> = fake.names("pods").iter().filter_map(|name| fake.get("pods", name)).collect();
    // Somebody may have deleted them behind the node's back.
    lives.retain(|name, _| pods.iter().any(|pod| text(pod, "/metadata/name") == name));
    for pod in &pods {
        let owner = text(pod, "/metadata/ownerReferences/0/uid");
        if !deployments.iter().any(|one| text(one, "/metadata/uid") == owner) {
            end(fake, lives, pod);
        }
        let name = text(pod, "/metadata/name");
        let Some(life) = lives.get_mut(name) else { continue };
        if life.ends.is_some_and(|at| now >= at) {
            lives.remove(name);
            fake.delete("pods", name);
            continue;
        }
        // What fails ends as soon as it runs.
        if now >= life.started + RUNS && behaviour(pod) == "failing" {
            life.started = now + PAUSE;
            life.restarts += 1;
        }
        show(fake, name, life);
    }
    deployments.iter().for_each(|deployment| roll(fake, lives, deployment));
}

/// One step of a rolling update with one pod more than wanted, and never one less.
fn roll(fake: &Fake, lives: &mut HashMap<String, Life>, deployment: &Value) {
    let (name, uid) = (text(deployment, "/metadata/name"), text(deployment, "/metadata/uid"));
    let template = &deployment["spec"]["template"];
    let hash = hash(template);
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1) as usize;
    let own: Vec<Value> = fake
        .names("pods")
        .iter()
        .filter_map(|pod| fake.get("pods", pod))
        .filter(|pod| text(pod, "/metadata/ownerReferences/0/uid") == uid)
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .collect();
    let (new, old): (Vec<&Value>, Vec<&Value>) =
        own.iter().partition(|pod| pod["metadata"]["labels"]["pod-template-hash"] == hash.as_str());
    let ready = |pods: &[&Value]| pods.iter().filter(|pod| is_ready(pod)).count();
    if new.len() < wanted && own.len() < wanted + usize::from(!old.is_empty()) {
        let pod = format!("{name}-{hash}-{}", lives.len() + fake.requests().len());
        let mut metadata = template["metadata"].clone();
        metadata["name"] = pod.as_str().into();
        metadata["labels"]["pod-template-hash"] = hash.as_str().into();
        metadata["ownerReferences"] = json!([{"uid": uid}]);
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        fake.put(
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": {}}),
        );
        let life = Life { started: Instant::now(), restarts: 0, ends: None };
        show(fake, &pod, &life);
        lives.insert(pod, life);
    } else if let Some(broken) = old.iter().find(|pod| !is_ready(pod)) {
        end(fake, lives, broken);
    } else if let Some(surplus) = old.first().or_else(|| new.get(wanted))
        && ready(&new) + ready(&old) > wanted
    {
        end(fake, lives, surplus);
    } else if new.len() > wanted {
        end(fake, lives, new[new.len() - 1]);
    }
    let status = json!({
        "observedGeneration": deployment["metadata"]["generation"], "replicas": own.len(),
        "updatedReplicas": new.len(), "availableReplicas": ready(&new) + ready(&old),
    });
    if deployment["status"] != status && fake.get("deployments", name).as_ref() == Some(deployment) {
        fake.edit("deployments", name, |deployment| deployment["status"] = status);
    }
}

fn end(fake: &Fake, lives: &mut HashMap<String, Life>, pod: &Value) {
    let name = text(pod, "/metadata/name");
    let Some(life) = lives.get_mut(name) else { return };
    if life.ends.is_none() {
        life.ends = Some(Instant::now() + GRACE);
        show(fake, name, life);
    }
}

/// Writes what a node says of a pod, where that is news.
fn show(fake: &Fake, name: &str, life: &Life) {
    let Some(pod) = fake.get("pods", name) else { return };
    let mut next = pod.clone();
    if life.ends.is_some() {
        next["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    next["status"] = status(&pod, life);
    if next != pod {
        fake.put("pods", next);
    }
}

fn status(pod: &Value, life: &Life) -> Value {
    let now = Instant::now();
    let image = text(pod, "/spec/containers/0/image");
    if behaviour(pod) == "impossible" {
        return json!({"phase": "Pending", "containerStatuses": [{"name": "server", "image": image, "restartCount": 0,
            "ready": false, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}]});
    }
    let last = match life.restarts {
        0 => json!({}),
        _ => json!({"terminated": {"exitCode": 3, "reason": "Error"}}),
    };
    let waits = now < life.started && life.restarts > 0;
    let ready = now >= life.started + READY && behaviour(pod) == "good";
    let state = if waits {
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}})
    } else {
        json!({"running": {}})
    };
    json!({
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        "containerStatuses": [{"name": "server", "image": image, "ready": ready, "restartCount": life.restarts,
            "state": state, "lastState": last}],
    })
}

fn behaviour(pod: &Value) -> &str {
    let env = pod["spec"]["containers"][0]["env"].as_array().map_or(&[][..], Vec::as_slice);
    env.iter()
        .find(|one| one["name"] == "BEHAVIOUR")
        .and_then(|one| one["value"].as_str())
        .unwrap_or_default()
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["containerStatuses"][0]["ready"] == true
}

fn hash(template: &Value) -> String {
    slipway_kubernetes::names::short_hash(template.to_string().as_bytes())
}
