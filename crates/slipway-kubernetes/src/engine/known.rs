//! The copy of a pass, sorted for look-ups.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::names::NAME_ANNOTATION;
use crate::object::ObjectKey;
use crate::render::{GATEWAY_LABEL, SERVICE_LABEL};
use crate::watch::Snapshot;

/// A pod with the events about it, oldest first.
pub(super) type Pod<'a> = (&'a Value, Vec<&'a Value>);

/// The copy, sorted for look-ups.
pub(super) struct Known<'a> {
    objects: HashMap<ObjectKey, &'a Value>,
    by_service: HashMap<&'a str, Vec<&'a Value>>,
    by_gateway: Vec<&'a Value>,
    pods: BTreeMap<&'a str, Vec<&'a Value>>,
    gateway_pods: Vec<&'a Value>,
    events: BTreeMap<&'a str, Vec<&'a Value>>,
}

impl<'a> Known<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let mut known = Self {
            objects: HashMap::new(),
            by_service: HashMap::new(),
            by_gateway: Vec::new(),
            pods: snapshot.by_label("Pod", SERVICE_LABEL),
            gateway_pods: snapshot.by_label("Pod", GATEWAY_LABEL).into_values().flatten().collect(),
            events: snapshot.events(),
        };
        for object in snapshot.all().filter(|object| object["kind"] != "Pod") {
            known.objects.insert(key(object), object);
            let labels = &object["metadata"]["labels"];
            if let Some(service) = labels[SERVICE_LABEL].as_str() {
                known.by_service.entry(service).or_default().push(object);
            } else if labels[GATEWAY_LABEL].is_string() {
                known.by_gateway.push(object);
            }
        }
        known
    }

    /// An object.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<&'a Value> {
        self.objects.get(key).copied()
    }

    /// Names of services that have objects or pods.
    pub(super) fn services(&self) -> BTreeSet<&'a str> {
        let objects = self.by_service.values().flatten();
        let pods = self.pods.values().flatten();
        objects
            .chain(pods)
            .filter_map(|one| one["metadata"]["annotations"][NAME_ANNOTATION].as_str())
            .collect()
    }

    /// Objects of a service.
    pub(super) fn of_service(&self, mapped: &str, name: &str) -> impl Iterator<Item = &'a Value> {
        let all = self.by_service.get(mapped).map_or(&[][..], Vec::as_slice);
        all.iter().copied().filter(move |object| object["metadata"]["annotations"][NAME_ANNOTATION] == name)
    }

    /// Objects of the gateway.
    pub(super) fn of_gateway(&self) -> impl Iterator<Item = &'a Value> {
        self.by_gateway.iter().copied()
    }

    /// Pods of the gateway.
    pub(super) fn gateway_pods(&self) -> &[&'a Value] {
        &self.gateway_pods
    }

    /// Events about an object, oldest first.
    pub(super) fn events(&self, object: &Value) -> &[&'a Value] {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        self.events.get(uid).map_or(&[][..], Vec::as_slice)
    }

    /// Pods of a service.
    pub(super) fn pods(&self, mapped: &str) -> Vec<Pod<'a>> {
        let pods = self.pods.get(mapped).map_or(&[][..], Vec::as_slice);
        pods.iter().map(|pod| (*pod, self.events(pod).to_vec())).collect()
    }
}

fn key(object: &Value) -> ObjectKey {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    ObjectKey {
        group: text("/apiVersion").split_once('/').map_or("", |(group, _)| group).to_owned(),
        kind: text("/kind").to_owned(),
        namespace: text("/metadata/namespace").to_owned(),
        name: text("/metadata/name").to_owned(),
    }
}
