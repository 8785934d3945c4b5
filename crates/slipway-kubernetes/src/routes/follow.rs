//! Routes as they change.

use std::time::Duration;

use tokio::sync::watch;

use super::{Routes, routes};
use crate::client::{Cluster, Resource, Selection};
use crate::render::SERVICE_LABEL;
use crate::watch::{Health, WatchOptions, Watched, Watcher};

/// Changes come in groups; the first one waits this long for those after it.
const SETTLE: Duration = Duration::from_millis(20);

/// Watches what [`routes`] needs of the cluster's namespace.
pub struct RouteWatch {
    watcher: Watcher,
    changes: watch::Receiver<u64>,
    /// Something changed that was not looked at yet.
    changed: bool,
    last: Option<Change>,
}

/// What is known after a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The routes. While the API server is away they stay as they were.
    pub routes: Routes,
    /// Why they may be old, where the API server cannot be asked.
    pub trouble: Option<String>,
}

impl RouteWatch {
    /// Begins to watch.
    pub fn start(cluster: &Cluster, options: WatchOptions) -> Self {
        let watcher = Watcher::start(cluster, kinds(), options);
        let changes = watcher.store().subscribe();
        Self { watcher, changes, changed: true, last: None }
    }

    /// Waits until something is other than what was told last. Tells nothing before all is known. May be dropped and
    /// called again.
    pub async fn next(&mut self) -> Change {
        loop {
            if !self.changed {
                // The store is ours, so it does not end.
                let _ = self.changes.changed().await;
                self.changed = true;
                tokio::time::sleep(SETTLE).await;
            }
            self.changed = false;
            self.changes.mark_unchanged();
            let trouble = match self.watcher.store().health() {
                Health::Filling { .. } => continue,
                Health::Good => None,
                Health::Old { trouble } => Some(trouble),
            };
            let change = Change { routes: routes(&self.watcher.store().snapshot()), trouble };
            if self.last.as_ref() != Some(&change) {
                self.last = Some(change.clone());
                return change;
            }
        }
    }
}

/// All Services and EndpointSlices, since anybody may write the annotation, and of our pods who they are.
fn kinds() -> Vec<Watched> {
    let all = |resource| Watched { resource, selection: Selection::default(), most: None, optional: false };
    let pods = Selection { metadata_only: true, ..Selection::labelled(SERVICE_LABEL) };
    vec![
        all(Resource::well_known("", "v1", "Service", "services")),
        all(Resource::well_known("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")),
        Watched { selection: pods, ..all(Resource::well_known("", "v1", "Pod", "pods")) },
    ]
}
