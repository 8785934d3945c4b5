//! Plays a cluster's controllers and its nodes: Deployments get their pods, which start, crash and end as their image and
//! environment say.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

/// Controllers and nodes; they stop with the last of it. Time passes as whoever watches says: on a busy machine nothing
/// ends before it was seen to end.
#[derive(Clone)]
pub struct Controllers {
    world: Arc<Mutex<World>>,
    clock: Arc<AtomicU64>,
}

#[derive(Default)]
struct World {
    lives: HashMap<String, Life>,
    now: Duration,
    /// How many pods were made.
    made: u64,
}

/// One pod as its node sees it.
struct Life {
    /// When its container was started last, or is started again.
    started: Duration,
    restarts: u64,
    ends: Option<Duration>,
}

impl Controllers {
    /// Begins to play.
    pub fn start(fake: Fake) -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let clock = Arc::new(AtomicU64::new(0));
        let (weak, time) = (Arc::downgrade(&world), Arc::clone(&clock));
        std::thread::spawn(move || {
            while let Some(world) = weak.upgrade() {
                let mut locked = world.lock().unwrap();
                locked.now = Duration::from_millis(time.load(Ordering::Relaxed));
                tick(&fake, &mut locked);
                drop(locked);
                drop(world);
                std::thread::sleep(TICK);
            }
        });
        Self { world, clock }
    }

    /// Lets time pass.
    pub fn pass_time(&self, time: Duration) {
        self.clock.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
        std::thread::sleep(time);
    }

    /// Ends the container of a pod, whose node starts it again.
    pub fn kill(&self, fake: &Fake, pod: &str) {
        let mut world = self.world.lock().unwrap();
        let now = world.now;
        let life = world.lives.get_mut(pod).unwrap();
        life.started = now + PAUSE;
        life.restarts += 1;
        show(fake, pod, life, now);
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn tick(fake: &Fake, world: &mut World) {
    let now = world.now;
    let deployments: Vec<Value> =
        fake.names("deployments").iter().filter_map(|name| fake.get("deployments", name)).collect();
    let pods: Vec<Value> = fake.names("pods").iter().filter_map(|name| fake.get("pods", name)).collect();
    // Somebody may have deleted them behind the node's back.
    world.lives.retain(|name, _| pods.iter().any(|pod| text(pod, "/metadata/name") == name));
    for pod in &pods {
        let owner = text(pod, "/metadata/ownerReferences/0/uid");
        if !deployments.iter().any(|one| text(one, "/metadata/uid") == owner) {
            end(fake, world, pod);
        }
        let name = text(pod, "/metadata/name");
        let Some(life) = world.lives.get_mut(name) else { continue };
        if life.ends.is_some_and(|at| now >= at) {
            world.lives.remove(name);
            fake.delete("pods", name);
            continue;
        }
        // What fails ends as soon as it runs.
        if now >= life.started + RUNS && behaviour(pod) == "failing" {
            life.started = now + PAUSE;
            life.restarts += 1;
        }
        show(fake, name, life, now);
    }
    deployments.iter().for_each(|deployment| roll(fake, world, deployment));
}

/// One step of a rolling update with one pod more than wanted, and never one less.
fn roll(fake: &Fake, world: &mut World, deployment: &Value) {
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
        world.made += 1;
        let pod = format!("{name}-{hash}-{}", world.made);
        let mut metadata = template["metadata"].clone();
        metadata["name"] = pod.as_str().into();
        metadata["labels"]["pod-template-hash"] = hash.as_str().into();
        metadata["ownerReferences"] = json!([{"uid": uid}]);
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        fake.put(
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": {}}),
        );
        let life = Life { started: world.now, restarts: 0, ends: None };
        show(fake, &pod, &life, world.now);
        world.lives.insert(pod, life);
    } else if let Some(broken) = old.iter().find(|pod| !is_ready(pod)) {
        end(fake, world, broken);
    } else if let Some(surplus) = old.first().or_else(|| new.get(wanted))
        && ready(&new) + ready(&old) > wanted
    {
        end(fake, world, surplus);
    } else if new.len() > wanted {
        end(fake, world, new[new.len() - 1]);
    }
    let status = json!({
        "observedGeneration": deployment["metadata"]["generation"], "replicas": own.len(),
        "updatedReplicas": new.len(), "availableReplicas": ready(&new) + ready(&old),
    });
    if deployment["status"] != status && fake.get("deployments", name).as_ref() == Some(deployment) {
        fake.edit("deployments", name, |deployment| deployment["status"] = status);
    }
}

fn end(fake: &Fake, world: &mut World, pod: &Value) {
    let (name, now) = (text(pod, "/metadata/name"), world.now);
    let Some(life) = world.lives.get_mut(name) else { return };
    if life.ends.is_none() {
        life.ends = Some(now + GRACE);
        show(fake, name, life, now);
    }
}

/// Writes what a node says of a pod, where that is news.
fn show(fake: &Fake, name: &str, life: &Life, now: Duration) {
    let Some(pod) = fake.get("pods", name) else { return };
    let mut next = pod.clone();
    if life.ends.is_some() {
        next["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    next["status"] = status(&pod, life, now);
    if next != pod {
        fake.put("pods", next);
    }
}

fn status(pod: &Value, life: &Life, now: Duration) -> Value {
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
