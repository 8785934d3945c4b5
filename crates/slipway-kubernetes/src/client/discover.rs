//! What a cluster serves, asked once and again when something is missing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ApiError, Cluster, Resource};
use crate::Capabilities;
use crate::capabilities::{self, DiscoveryError, Version};

/// A miss asks again, but not more often than this: a kind that is not there would make us ask for ever.
const REFRESH_AFTER: Duration = Duration::from_secs(10);
/// Capabilities are asked for again after this time: operators are installed while we run.
const CAPABILITIES_AGE: Duration = Duration::from_secs(600);
/// First version that mounts images as volumes; before, nobody asks what the nodes can.
const IMAGE_VOLUMES: Version = Version::v1(35);

/// Why it is not known what a cluster serves.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// It does not say.
    #[error("cannot ask the cluster what it serves")]
    Api(#[from] ApiError),
    /// What it says cannot be used.
    #[error("the cluster cannot be used")]
    Unusable(#[from] DiscoveryError),
    /// It has no such kind.
    #[error("the cluster serves no {kind} of {api_version}: what defines it is not installed")]
    NoKind {
        /// `apiVersion`, or a group.
        api_version: String,
        /// The kind.
        kind: String,
    },
}

/// A cache of what the cluster serves.
pub struct Discovery {
    cluster: Cluster,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Kinds by `apiVersion`, with the time of the answer.
    kinds: HashMap<String, (Instant, HashMap<String, Resource>)>,
    /// Preferred version of each group.
    preferred: Option<(Instant, HashMap<String, String>)>,
    capabilities: Option<(Instant, Capabilities)>,
}

impl Discovery {
    /// Nothing is asked yet.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, state: Mutex::new(State::default()) }
    }

    fn with<T>(&self, run: impl FnOnce(&mut State) -> T) -> T {
        run(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How a kind of an `apiVersion` is served.
    pub async fn resource(&self, api_version: &str, kind: &str) -> Result<Resource, DiscoverError> {
        let (found, fresh) = self.with(|state| match state.kinds.get(api_version) {
            Some((at, kinds)) => (kinds.get(kind).cloned(), at.elapsed() < REFRESH_AFTER),
            None => (None, false),
        });
        if let Some(resource) = found {
            return Ok(resource);
        }
        let missing = || DiscoverError::NoKind { api_version: api_version.to_owned(), kind: kind.to_owned() };
        if fresh {
            return Err(missing());
        }
        let kinds = self.kinds(api_version).await?;
        let found = kinds.get(kind).cloned();
        self.with(|state| state.kinds.insert(api_version.to_owned(), (Instant::now(), kinds)));
        found.ok_or_else(missing)
    }

    /// How a kind of a group is served, in the version that the server prefers.
    pub async fn resource_of_group(&self, group: &str, kind: &str) -> Result<Resource, DiscoverError> {
        if group.is_empty() {
            return self.resource("v1", kind).await;
        }
        let known = self.with(|state| {
            let (at, groups) = state.preferred.as_ref()?;
            let found = groups.get(group).cloned();
            (found.is_some() || at.elapsed() < REFRESH_AFTER).then_some(found)
        });
        let version = match known {
            Some(found) => found,
            None => {
                let apis = self.cluster.get("/apis").await?;
                let groups = preferred(&apis);
                let found = groups.get(group).cloned();
                self.with(|state| state.preferred = Some((Instant::now(), groups)));
                found
            }
        };
        match version {
            Some(version) => self.resource(&format!("{group}/{version}"), kind).await,
            None => Err(DiscoverError::NoKind { api_version: group.to_owned(), kind: kind.to_owned() }),
        }
    }

    /// What the cluster can.
    pub async fn capabilities(&self) -> Result<Capabilities, DiscoverError> {
        let known = self.with(|state| {
            let (at, found) = state.capabilities.as_ref()?;
            (at.elapsed() < CAPABILITIES_AGE).then(|| found.clone())
        });
        if let Some(found) = known {
            return Ok(found);
        }
        let version = self.cluster.get("/version").await?;
        let apis = self.cluster.get("/apis").await?;
        let bare =
            capabilities::Discovery { version: &version, apis: &apis, nodes: None, kubernetes_service: None };
        let first = Capabilities::discover(bare)?;
        let nodes = if first.version >= IMAGE_VOLUMES { self.nodes().await? } else { None };
        let service = self.if_allowed("/api/v1/namespaces/default/services/kubernetes").await?;
        let found = Capabilities::discover(capabilities::Discovery {
            nodes: nodes.as_ref(),
            kubernetes_service: service.as_ref(),
            ..bare
        })?;
        self.with(|state| {
            state.preferred = Some((Instant::now(), preferred(&apis)));
            state.capabilities = Some((Instant::now(), found.clone()));
        });
        Ok(found)
    }

    /// Forgets everything, so that it is asked again.
    pub fn refresh(&self) {
        self.with(|state| *state = State::default());
    }

    async fn kinds(&self, api_version: &str) -> Result<HashMap<String, Resource>, DiscoverError> {
        let root = if api_version.contains('/') { "/apis" } else { "/api" };
        let list = match self.cluster.get(&format!("{root}/{api_version}")).await {
            Err(error) if error.code() == Some(404) => return Ok(HashMap::new()),
            other => other?,
        };
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let mut kinds = HashMap::new();
        for resource in list["resources"].as_array().into_iter().flatten() {
            let text = |key: &str| resource[key].as_str().unwrap_or_default().to_owned();
            // Subresources, such as `pods/log`, have a kind as well.
            if text("name").contains('/') || text("kind").is_empty() {
                continue;
            }
            let found = Resource {
                group: group.to_owned(),
                version: version.to_owned(),
                kind: text("kind"),
                plural: text("name"),
                namespaced: resource["namespaced"].as_bool().unwrap_or(true),
            };
            kinds.insert(found.kind.clone(), found);
        }
        Ok(kinds)
    }

    /// What the nodes say of themselves, without the rest: thousands of nodes are a large answer.
    async fn nodes(&self) -> Result<Option<Value>, DiscoverError> {
        let mut resource = Resource::well_known("", "v1", "Node", "nodes");
        resource.namespaced = false;
        match self.cluster.list(&resource, "", &super::Selection::default()).await {
            Ok(listed) => {
                let info = |node: &Value| json!({"status": {"nodeInfo": node["status"]["nodeInfo"].clone()}});
                Ok(Some(json!({ "items": listed.items.iter().map(info).collect::<Vec<_>>() })))
            }
            Err(error) if matches!(error.code(), Some(401 | 403)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn if_allowed(&self, path: &str) -> Result<Option<Value>, DiscoverError> {
        match self.cluster.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if matches!(error.code(), Some(401 | 403 | 404)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn preferred(apis: &Value) -> HashMap<String, String> {
    let groups = apis["groups"].as_array().map_or(&[][..], Vec::as_slice);
    groups
        .iter()
        .filter_map(|group| {
            let name = group["name"].as_str()?;
            let version = group["preferredVersion"]["version"].as_str()?;
            Some((name.to_owned(), version.to_owned()))
        })
        .collect()
}
