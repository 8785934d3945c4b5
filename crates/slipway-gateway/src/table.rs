//! The routing table in force: services, their replicas, and what is known of each.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use slipway_types::name;
use slipway_types::service::{Address, ReplicaId, RoutingTable};

use crate::config::Limits;
use crate::stats::ServiceStats;
use crate::upstream::Backend;

/// Most services and most replicas that a table may have.
const MAX_SERVICES: usize = 4096;
const MAX_BACKENDS: usize = 65_536;

/// Why a table is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// More services than a table may have.
    #[error("{} services are more than {MAX_SERVICES}", .0)]
    TooManyServices(usize),
    /// More replicas than a table may have.
    #[error("{} replicas are more than {MAX_BACKENDS}", .0)]
    TooManyBackends(usize),
    /// A name that no path can hold.
    #[error("`{0}` cannot name a service or a model")]
    BadName(String),
    /// Two services of one name.
    #[error("service `{0}` is listed twice")]
    Twice(String),
    /// A socket whose place depends on where the gateway was started.
    #[error("socket {} of service `{service}` is not an absolute path", path.display())]
    RelativeSocket {
        /// The service.
        service: String,
        /// The socket.
        path: PathBuf,
    },
}

/// One immutable table. What outlives a table (counters, connections) is shared between successive ones.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub generation: u64,
    services: BTreeMap<String, Arc<Service>>,
    by_model: HashMap<String, Arc<Service>>,
    /// By the name in lower case; nothing where several services share it.
    by_host: HashMap<String, Option<Arc<Service>>>,
    /// By whole host names, in lower case.
    by_full_host: HashMap<String, Arc<Service>>,
}

/// One service.
#[derive(Debug)]
pub(crate) struct Service {
    pub name: String,
    pub model: String,
    pub labels: Vec<String>,
    pub max_body: u64,
    pub timeout: Duration,
    pub max_concurrency: u32,
    pub backends: Vec<Arc<Backend>>,
    /// Labels of each replica's version, in the order of `backends`.
    replica_labels: Vec<Vec<String>>,
    pub stats: Arc<ServiceStats>,
    /// Where the search for a replica starts next.
    turn: AtomicUsize,
}

impl Table {
    /// Makes the table that follows `self`. Replicas with the same id and address keep their connections.
    pub(crate) fn next(
        &self,
        new: &RoutingTable,
        limits: &Limits,
        workers: usize,
    ) -> Result<Self, TableError> {
        if new.services.len() > MAX_SERVICES {
            return Err(TableError::TooManyServices(new.services.len()));
        }
        let count = new.services.iter().map(|route| route.backends.len()).sum();
        if count > MAX_BACKENDS {
            return Err(TableError::TooManyBackends(count));
        }
        let known: HashMap<(&ReplicaId, &Address), &Arc<Backend>> =
            self.backends().map(|backend| ((&backend.id, &backend.address), backend)).collect();
        let mut table = Self { generation: new.generation, ..Self::default() };
        for route in &new.services {
            if let Some(bad) = [&route.service, &route.model].into_iter().find(|text| !name::is_valid(text)) {
                return Err(TableError::BadName(bad.clone()));
            }
            let mut backends = Vec::with_capacity(route.backends.len());
            for backend in &route.backends {
                if let Address::Socket(path) = &backend.address
                    && !path.is_absolute()
                {
                    let (service, path) = (route.service.clone(), path.clone());
                    return Err(TableError::RelativeSocket { service, path });
                }
                backends.push(match known.get(&(&backend.id, &backend.address)) {
                    Some(known) => Arc::clone(known),
                    None => Arc::new(Backend::new(backend, workers)),
                });
            }
            let before = self.services.get(&route.service);
            let or = |value: u64, default: u64| if value == 0 { default } else { value };
            let timeout =
                or(route.timeout_ms, u64::try_from(limits.request_timeout.as_millis()).unwrap_or(u64::MAX));
            let service = Arc::new(Service {
                name: route.service.clone(),
                model: route.model.clone(),
                labels: route.labels.clone(),
                max_body: or(route.max_body, limits.max_body),
                timeout: Duration::from_millis(timeout.min(24 * 3600 * 1000)),
                max_concurrency: match route.max_concurrency {
                    0 => limits.max_concurrency,
                    limit => limit,
                },
                backends,
                replica_labels: route.backends.iter().map(|backend| backend.labels.clone()).collect(),
                stats: before.map(|service| Arc::clone(&service.stats)).unwrap_or_default(),
                turn: AtomicUsize::new(before.map_or(0, |service| service.turn.load(Relaxed))),
            });
            if table.services.insert(route.service.clone(), service).is_some() {
                return Err(TableError::Twice(route.service.clone()));
            }
        }
        for route in &new.services {
            let Some(service) = table.services.get(&route.service) else { continue };
            for host in &route.hosts {
                // The first one has it: a later one cannot take a host over.
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                table.by_full_host.entry(host).or_insert_with(|| Arc::clone(service));
            }
        }
        for (name, service) in &table.services {
            table.by_model.entry(service.model.clone()).or_insert_with(|| Arc::clone(service));
            table
                .by_host
                .entry(name.to_ascii_lowercase())
                .and_modify(|shared| *shared = None)
                .or_insert_with(|| Some(Arc::clone(service)));
        }
        Ok(table)
    }

    /// Marks the replicas that `next` has no more: their connections are closed once they are idle.
    pub(crate) fn retire_missing(&self, next: &Self) {
        let kept: std::collections::HashSet<*const Backend> = next.backends().map(Arc::as_ptr).collect();
        for backend in self.backends().filter(|backend| !kept.contains(&Arc::as_ptr(backend))) {
            backend.retire();
        }
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub(crate) fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.services.values().flat_map(|service| &service.backends)
    }

    /// The service of this name.
    pub(crate) fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// The service of this name or, failing that, the first one with a model of this name.
    pub(crate) fn service_or_model(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name).or_else(|| self.by_model.get(name))
    }

    /// The service of this name or, host names having no case, the only one whose name differs from it in case alone.
    pub(crate) fn host(&self, label: &str) -> Option<&Arc<Service>> {
        self.services.get(label).or_else(|| self.by_host.get(&label.to_ascii_lowercase())?.as_ref())
    }

    /// The service whose host this is, as a whole and without a port.
    pub(crate) fn full_host(&self, host: &str) -> Option<&Arc<Service>> {
        if self.by_full_host.is_empty() {
            return None;
        }
        match self.by_full_host.get(host) {
            None if host.bytes().any(|b| b.is_ascii_uppercase()) => {
                self.by_full_host.get(&host.to_ascii_lowercase())
            }
            found => found,
        }
    }

    /// The known services for an error message.
    pub(crate) fn known(&self) -> String {
        const SHOWN: usize = 20;
        let names: Vec<&str> = self.services.keys().take(SHOWN).map(String::as_str).collect();
        match (names.is_empty(), self.services.len().saturating_sub(SHOWN)) {
            (true, _) => "no service is deployed".to_owned(),
            (false, 0) => format!("services: {}", names.join(", ")),
            (false, more) => format!("services: {} and {more} more", names.join(", ")),
        }
    }
}

impl Service {
    /// The replicas whose version does not have a label.
    pub(crate) fn without_label(&self, label: &str) -> Vec<usize> {
        let lacks = |labels: &Vec<String>| !labels.iter().any(|known| known == label);
        self.replica_labels.iter().enumerate().filter(|(_, labels)| lacks(labels)).map(|(i, _)| i).collect()
    }

    /// The replica with the fewest requests under way among those that are not in `tried`; ties go round. Replicas
    /// that are set aside come in only when no other is left: an answer of theirs is better than none.
    pub(crate) fn pick(&self, tried: &[usize], now: u64) -> Option<usize> {
        let count = self.backends.len();
        if count == 1 {
            return tried.is_empty().then_some(0);
        }
        let start = if count == 0 { 0 } else { self.turn.fetch_add(1, Relaxed) % count };
        let order = || (start..count).chain(0..start).filter(|index| !tried.contains(index));
        let least = |index: &usize| self.backends[*index].outstanding();
        order()
            .filter(|index| self.backends[*index].usable(now))
            .min_by_key(least)
            .or_else(|| order().min_by_key(least))
    }
}

#[cfg(test)]
mod tests {
    use slipway_types::container::ContainerId;
    use slipway_types::service::{Backend as BackendRow, Route};

    use super::*;

    fn row(n: u8) -> BackendRow {
        BackendRow {
            id: ContainerId::from_random([n; 12]).into(),
            name: None,
            address: Address::Socket(format!("/run/{n}.sock").into()),
            labels: Vec::new(),
        }
    }

    fn route(service: &str, model: &str, backends: &[u8]) -> Route {
        let backends = backends.iter().map(|n| row(*n)).collect();
        Route { service: service.into(), model: model.into(), backends, ..Route::default() }
    }

    fn table(before: &Table, services: Vec<Route>) -> Result<Table, TableError> {
        before.next(&RoutingTable { generation: before.generation + 1, services }, &Limits::default(), 1)
    }

    #[test]
    fn a_host_name_never_means_one_of_several_services() {
        let services = ["Beta", "Digits", "DIGITS"].map(|name| route(name, "m", &[]));
        let table = table(&Table::default(), services.into()).unwrap();
        let host = |label: &str| table.host(label).map(|service| service.name.as_str());
        assert_eq!((host("beta"), host("BETA")), (Some("Beta"), Some("Beta")));
        assert_eq!((host("Digits"), host("DIGITS"), host("digits")), (Some("Digits"), Some("DIGITS"), None));
    }

    #[test]
    fn zero_means_the_gateways_own_limit() {
        let mut tuned = route("b", "m", &[]);
        (tuned.max_body, tuned.timeout_ms, tuned.max_concurrency) = (1, 2, 3);
        let table = table(&Table::default(), vec![route("a", "m", &[]), tuned]).unwrap();
        let of = |name| {
            let service = table.service(name).unwrap();
            (service.max_body, service.timeout, service.max_concurrency)
        };
        let limits = Limits::default();
        assert_eq!(of("a"), (limits.max_body, limits.request_timeout, limits.max_concurrency));
        assert_eq!(of("b"), (1, Duration::from_millis(2), 3));
    }

    #[test]
    fn counters_and_connections_outlive_a_change() {
        let first =
            table(&Table::default(), vec![route("a", "m", &[1, 2]), route("gone", "m", &[3])]).unwrap();
        let second = table(&first, vec![route("a", "m", &[2, 4])]).unwrap();
        first.retire_missing(&second);
        let (old, new) = (first.service("a").unwrap(), second.service("a").unwrap());
        assert!(Arc::ptr_eq(&old.stats, &new.stats) && Arc::ptr_eq(&old.backends[1], &new.backends[0]));
        let retired: Vec<_> = first.backends().map(|backend| backend.retired()).collect();
        assert_eq!(retired, [true, false, true]);

        // The same replica at another address is reached over other connections.
        let mut moved = route("a", "m", &[2, 4]);
        moved.backends[0].address = Address::Tcp(([10, 0, 0, 2], 8080).into());
        let third = table(&second, vec![moved.clone()]).unwrap();
        second.retire_missing(&third);
        let retired: Vec<_> = second.backends().map(|backend| backend.retired()).collect();
        assert_eq!(retired, [true, false]);
        let fourth = table(&third, vec![moved]).unwrap();
        let backends = |table: &Table| table.backends().cloned().collect::<Vec<_>>();
        assert!(std::iter::zip(backends(&third), backends(&fourth)).all(|(a, b)| Arc::ptr_eq(&a, &b)));
    }

    #[test]
    fn refuses_what_it_cannot_route() {
        let base = Table::default();
        assert!(matches!(table(&base, vec![route("a/b", "m", &[])]), Err(TableError::BadName(_))));
        assert!(matches!(table(&base, vec![route("a", "", &[])]), Err(TableError::BadName(_))));
        let twice = vec![route("a", "m", &[]), route("a", "n", &[])];
        assert!(matches!(table(&base, twice), Err(TableError::Twice(_))));
        let mut relative = route("a", "m", &[1]);
        relative.backends[0].address = Address::Socket("x.sock".into());
        assert!(matches!(table(&base, vec![relative]), Err(TableError::RelativeSocket { .. })));
        let many = (0..=MAX_SERVICES).map(|n| route(&format!("s{n}"), "m", &[])).collect();
        assert!(matches!(table(&base, many), Err(TableError::TooManyServices(_))));
    }

    #[test]
    fn finds_services_by_name_then_model_then_host() {
        let table = table(
            &Table::default(),
            vec![route("b", "digits", &[]), route("a", "digits", &[]), route("Big", "a", &[])],
        )
        .unwrap();
        let name = |found: Option<&Arc<Service>>| found.map(|service| service.name.clone());
        assert_eq!(name(table.service_or_model("digits")).as_deref(), Some("a"), "the first by name");
        assert_eq!(name(table.service_or_model("a")).as_deref(), Some("a"), "a service goes before a model");
        assert_eq!(name(table.host("big")).as_deref(), Some("Big"));
        assert_eq!(name(table.service_or_model("none")), None);
        assert_eq!(table.known(), "services: Big, a, b");
    }

    #[test]
    fn a_whole_host_is_of_the_first_that_names_it() {
        let with = |service: &str, hosts: &[&str]| {
            let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            Route { hosts, ..route(service, "m", &[]) }
        };
        let services = vec![with("b", &["b.ns.svc", "API.example."]), with("a", &["api.example", "a"])];
        let table = table(&Table::default(), services).unwrap();
        let host = |host: &str| table.full_host(host).map(|service| service.name.as_str());
        assert_eq!(
            ["b.ns.svc", "api.example", "Api.Example", "a", "b"].map(host),
            [Some("b"), Some("b"), Some("b"), Some("a"), None]
        );
    }

    #[test]
    fn picks_the_least_loaded_in_turn_and_the_set_aside_last() {
        let table = table(&Table::default(), vec![route("a", "m", &[1, 2, 3])]).unwrap();
        let service = table.service("a").unwrap();
        let mut counts = [0; 3];
        for _ in 0..30 {
            counts[service.pick(&[], 0).unwrap()] += 1;
        }
        assert_eq!(counts, [10, 10, 10]);
        let lease = service.backends[0].lease();
        let _second = service.backends[2].lease();
        assert!((0..5).all(|_| service.pick(&[], 0) == Some(1)));
        service.backends[1].connect_failed(0);
        assert!((0..5).all(|_| service.pick(&[], 0) != Some(1)));
        assert_eq!(service.pick(&[0, 2], 0), Some(1), "set aside, but the only one left");
        assert_eq!(service.pick(&[0, 1, 2], 0), None);
        drop(lease);
        assert_eq!(service.pick(&[], 0), Some(0));
    }
}
