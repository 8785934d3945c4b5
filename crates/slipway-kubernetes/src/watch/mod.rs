//! A small copy of a namespace's objects, kept by lists and watches that go on through everything.

mod keep;
mod slim;
mod store;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::client::{Cluster, Resource, Selection};
use crate::render::OWNER_LABEL;

pub use store::{Health, Snapshot, Store};

/// Most events that are kept.
const MAX_EVENTS: usize = 4000;

/// One kind to watch.
#[derive(Clone, Debug)]
pub struct Watched {
    /// How it is served.
    pub resource: Resource,
    /// Which objects.
    pub selection: Selection,
    /// Most objects that are kept, the newest; all when absent.
    pub most: Option<usize>,
    /// Whether one may do without it: the Role may have been made for a cluster that had no such kind.
    pub optional: bool,
}

/// How watches behave; the defaults are for real clusters.
#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// How long a watch may say nothing. Servers send bookmarks about once a minute.
    pub silence: Duration,
    /// Shortest time between two attempts.
    pub pause: Duration,
    /// Longest time between two attempts.
    pub most: Duration,
    /// How long a kind may not be kept before the copy counts as old. Every copy is a little behind, and one request
    /// that is refused puts it no further behind than a slow one.
    pub tolerated: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(100),
            pause: Duration::from_millis(100),
            most: Duration::from_secs(10),
            tolerated: Duration::from_secs(3),
        }
    }
}

/// What is watched of an owner's objects in a namespace: pods, Deployments, Jobs, Services and events as they are, of all other kinds that
/// the engine applies only metadata, so that no secret is ever held. `more` are kinds that not every cluster has; of them
/// JobSets are whole.
pub fn usual(owner: &str, more: &[Resource]) -> Vec<Watched> {
    let whole = [
        Resource::well_known("", "v1", "Pod", "pods"),
        Resource::well_known("apps", "v1", "Deployment", "deployments"),
        Resource::well_known("batch", "v1", "Job", "jobs"),
        Resource::well_known("", "v1", "Service", "services"),
    ];
    let metadata = [
        Resource::well_known("", "v1", "ConfigMap", "configmaps"),
        Resource::well_known("", "v1", "Secret", "secrets"),
        Resource::well_known("", "v1", "ServiceAccount", "serviceaccounts"),
        Resource::well_known("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
        Resource::well_known("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
        Resource::well_known("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        Resource::well_known("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
        Resource::well_known("networking.k8s.io", "v1", "Ingress", "ingresses"),
        Resource::well_known("rbac.authorization.k8s.io", "v1", "Role", "roles"),
        Resource::well_known("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
    ];
    let ours = |resource, metadata_only| Watched {
        resource,
        selection: Selection { metadata_only, ..Selection::labelled(format!("{OWNER_LABEL}={owner}")) },
        most: None,
        optional: false,
    };
    let mut all: Vec<Watched> = whole.into_iter().map(|resource| ours(resource, false)).collect();
    all.extend(metadata.into_iter().map(|resource| ours(resource, true)));
    all.extend(more.iter().map(|resource| {
        let metadata_only = resource.kind != "JobSet";
        Watched { optional: true, ..ours(resource.clone(), metadata_only) }
    }));
    all.push(Watched {
        resource: Resource::well_known("", "v1", "Event", "events"),
        selection: Selection { fields: "type=Warning".to_owned(), ..Selection::default() },
        most: Some(MAX_EVENTS),
        optional: false,
    });
    all
}

/// Watches kinds of the cluster's namespace into a store, until it is dropped.
pub struct Watcher {
    store: Arc<Store>,
    // Dropped with it, which ends them.
    _tasks: JoinSet<()>,
}

impl Watcher {
    /// Begins. The store fills as the lists come in.
    pub fn start(cluster: &Cluster, kinds: Vec<Watched>, options: WatchOptions) -> Self {
        let store = Arc::new(Store::new(kinds.iter().map(|one| one.resource.clone()), options.tolerated));
        let mut tasks = JoinSet::new();
        for (index, kind) in kinds.into_iter().enumerate() {
            tasks.spawn(keep::keep(cluster.clone(), kind, index, Arc::clone(&store), options));
        }
        Self { store, _tasks: tasks }
    }

    /// What is known.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }
}
