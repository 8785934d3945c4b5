//! The copy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use super::slim::slim;
use crate::client::Resource;

/// Objects of the watched kinds.
pub struct Store {
    kinds: Mutex<Vec<Kind>>,
    /// Counts changes.
    changed: watch::Sender<u64>,
    /// How long a kind may not be kept.
    tolerated: Duration,
}

struct Kind {
    resource: Resource,
    objects: BTreeMap<String, Arc<Value>>,
    listed: bool,
    trouble: Option<Trouble>,
}

/// Why a kind is not kept.
struct Trouble {
    since: Instant,
    text: String,
    /// It was told that it lasts.
    lasts: bool,
}

/// Whether the copy can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Every kind is listed and watched.
    Good,
    /// Some kinds are not listed yet: what is not in the copy may well exist.
    Filling {
        /// Why it takes long, where something is wrong.
        trouble: Option<String>,
    },
    /// It was complete, and is not kept at the moment: it is old.
    Old {
        /// Why.
        trouble: String,
    },
}

/// Objects of one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    kinds: BTreeMap<String, Vec<Arc<Value>>>,
}

impl Snapshot {
    /// Objects of a kind, by name.
    pub fn of(&self, kind: &str) -> &[Arc<Value>] {
        self.kinds.get(kind).map_or(&[], Vec::as_slice)
    }

    /// An object.
    pub fn get(&self, kind: &str, name: &str) -> Option<&Arc<Value>> {
        let all = self.of(kind);
        all.binary_search_by(|object| object["metadata"]["name"].as_str().unwrap_or_default().cmp(name))
            .ok()
            .map(|index| &all[index])
    }

    /// Every object but events.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.kinds.iter().filter(|(kind, _)| *kind != "Event").flat_map(|(_, objects)| objects)
    }

    /// Objects of a kind by the value of a label.
    pub fn by_label(&self, kind: &str, label: &str) -> BTreeMap<&str, Vec<&Value>> {
        let mut groups: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for object in self.of(kind) {
            if let Some(value) = object["metadata"]["labels"][label].as_str() {
                groups.entry(value).or_default().push(object);
            }
        }
        groups
    }

    /// Events by the UID of what they are about, oldest first.
    pub fn events(&self) -> BTreeMap<&str, Vec<&Value>> {
        let mut groups: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for event in self.of("Event") {
            if let Some(uid) = event["involvedObject"]["uid"].as_str() {
                groups.entry(uid).or_default().push(event);
            }
        }
        for events in groups.values_mut() {
            events.sort_by_key(|event| time(event).to_owned());
        }
        groups
    }

    /// Puts an object in; for tests and for engines that look at one.
    pub fn insert(&mut self, object: Value) {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let all = self.kinds.entry(kind).or_default();
        all.push(Arc::new(object));
        all.sort_by(|a, b| a["metadata"]["name"].as_str().cmp(&b["metadata"]["name"].as_str()));
    }
}

/// When an event was last seen.
fn time(event: &Value) -> &str {
    ["lastTimestamp", "eventTime", "firstTimestamp"]
        .into_iter()
        .find_map(|key| event[key].as_str())
        .or_else(|| event["metadata"]["creationTimestamp"].as_str())
        .unwrap_or_default()
}

impl Store {
    pub(super) fn new(kinds: impl Iterator<Item = Resource>, tolerated: Duration) -> Self {
        let kinds = kinds
            .map(|resource| Kind { resource, objects: BTreeMap::new(), listed: false, trouble: None })
            .collect();
        Self { kinds: Mutex::new(kinds), changed: watch::Sender::new(0), tolerated }
    }

    fn with<T>(&self, run: impl FnOnce(&mut Vec<Kind>) -> T) -> T {
        run(&mut self.kinds.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Tells of changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until every kind is listed, and returns whether that happened in time.
    pub async fn filled(&self, limit: Duration) -> bool {
        let mut changes = self.subscribe();
        let wait = async {
            while matches!(self.health(), Health::Filling { .. }) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }

    /// Whether the copy can be believed.
    pub fn health(&self) -> Health {
        self.with(|kinds| {
            let mut troubles = kinds.iter().filter_map(|kind| kind.trouble.as_ref());
            if kinds.iter().any(|kind| !kind.listed) {
                return Health::Filling { trouble: troubles.next().map(|trouble| trouble.text.clone()) };
            }
            let lasting = troubles.find(|trouble| trouble.since.elapsed() >= self.tolerated);
            lasting.map_or(Health::Good, |trouble| Health::Old { trouble: trouble.text.clone() })
        })
    }

    /// Objects of this moment. They are shared, not copied.
    pub fn snapshot(&self) -> Snapshot {
        self.with(|kinds| {
            let mut snapshot = Snapshot::default();
            for kind in kinds {
                let all = snapshot.kinds.entry(kind.resource.kind.clone()).or_default();
                all.extend(kind.objects.values().cloned());
            }
            snapshot
        })
    }

    /// An object of this moment: cheaper than a snapshot of all.
    pub fn get(&self, kind: &str, name: &str) -> Option<Arc<Value>> {
        self.with(|kinds| {
            let of_kind = kinds.iter().find(|one| one.resource.kind == kind)?;
            of_kind.objects.get(name).cloned()
        })
    }

    /// How many objects it has.
    pub fn len(&self) -> usize {
        self.with(|kinds| kinds.iter().map(|kind| kind.objects.len()).sum())
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn replace(&self, index: usize, items: Vec<Value>, most: Option<usize>) {
        self.with(|kinds| {
            let kind = &mut kinds[index];
            kind.objects = items.into_iter().map(|item| kind_entry(&kind.resource, item)).collect();
            bound(&mut kind.objects, most);
            kind.listed = true;
            kind.trouble = None;
        });
        self.tell();
    }

    pub(super) fn put(&self, index: usize, object: Value, most: Option<usize>) {
        self.with(|kinds| {
            let kind = &mut kinds[index];
            let (name, object) = kind_entry(&kind.resource, object);
            kind.objects.insert(name, object);
            bound(&mut kind.objects, most);
        });
        self.tell();
    }

    pub(super) fn remove(&self, index: usize, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let gone = self.with(|kinds| kinds[index].objects.remove(name).is_some());
        if gone {
            self.tell();
        }
    }

    /// Records why a kind is not kept at the moment, or that it is.
    pub(super) fn trouble(&self, index: usize, trouble: Option<String>) {
        let other = self.with(|kinds| {
            let known = kinds[index].trouble.take();
            let since = known.as_ref().map_or_else(Instant::now, |known| known.since);
            let lasts = since.elapsed() >= self.tolerated;
            kinds[index].trouble = trouble.map(|text| Trouble { since, text, lasts });
            let now = kinds[index].trouble.as_ref();
            let told = |trouble: &Trouble| (trouble.text.clone(), trouble.lasts);
            known.as_ref().map(told) != now.map(told)
        });
        if other {
            self.tell();
        }
    }
}

fn kind_entry(resource: &Resource, mut object: Value) -> (String, Arc<Value>) {
    slim(&resource.kind, &mut object);
    // Metadata alone says of itself that it is metadata; items of lists say nothing.
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = resource.kind.as_str().into();
    (object["metadata"]["name"].as_str().unwrap_or_default().to_owned(), Arc::new(object))
}

/// Drops the oldest beyond a number, an eighth at a time: looking for the oldest costs a pass over all.
fn bound(objects: &mut BTreeMap<String, Arc<Value>>, most: Option<usize>) {
    let Some(most) = most.filter(|most| objects.len() > *most) else { return };
    let mut by_age: Vec<(String, String)> =
        objects.iter().map(|(name, object)| (time(object).to_owned(), name.clone())).collect();
    by_age.sort();
    let surplus = objects.len() - most + most / 8;
    for (_, name) in by_age.into_iter().take(surplus) {
        objects.remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn store(kinds: &[&str]) -> Store {
        Store::new(kinds.iter().map(|kind| Resource::well_known("", "v1", kind, "x")), Duration::ZERO)
    }

    #[test]
    fn events_are_bounded_and_the_newest_stay() {
        let store = store(&["Event"]);
        for n in 0..100 {
            let at = format!("2026-01-01T00:{:02}:{:02}Z", n / 60, n % 60);
            let event = json!({"metadata": {"name": format!("e{n}")}, "lastTimestamp": at, "involvedObject": {"uid": "u"}});
            store.put(0, event, Some(16));
        }
        let snapshot = store.snapshot();
        let events = &snapshot.events()["u"];
        assert!((14..=16).contains(&events.len()), "{}", events.len());
        assert_eq!(events.last().unwrap()["metadata"]["name"], "e99");
    }

    #[test]
    fn one_refusal_does_not_make_it_old() {
        let store = Store::new(
            [Resource::well_known("", "v1", "Pod", "pods")].into_iter(),
            Duration::from_millis(50),
        );
        store.replace(0, Vec::new(), None);
        store.trouble(0, Some("too many requests".into()));
        assert_eq!(store.health(), Health::Good);
        let mut changes = store.subscribe();
        changes.mark_unchanged();
        std::thread::sleep(Duration::from_millis(60));
        store.trouble(0, Some("too many requests".into()));
        assert!(changes.has_changed().unwrap(), "who follows the copy hears that it is old");
        store.trouble(0, Some("refused".into()));
        assert_eq!(
            store.health(),
            Health::Old { trouble: "refused".into() },
            "it lasts, whatever is said of it"
        );
    }

    #[test]
    fn health_tells_what_can_be_believed() {
        let store = store(&["Pod", "Job"]);
        store.replace(0, vec![json!({"metadata": {"name": "b"}}), json!({"metadata": {"name": "a"}})], None);
        assert_eq!(store.health(), Health::Filling { trouble: None });
        store.replace(1, Vec::new(), None);
        assert_eq!(store.health(), Health::Good);
        store.trouble(1, Some("no".into()));
        assert_eq!(store.health(), Health::Old { trouble: "no".into() });
        assert_eq!(store.snapshot().get("Pod", "a").unwrap()["kind"], "Pod");
        store.trouble(1, None);
        assert_eq!(store.health(), Health::Good);
        assert_eq!(
            (store.get("Pod", "a"), store.get("Job", "a")),
            (store.snapshot().get("Pod", "a").cloned(), None)
        );
        store.remove(0, &json!({"metadata": {"name": "a"}}));
        assert_eq!((store.snapshot().get("Pod", "a"), store.len()), (None, 1));
    }
}
