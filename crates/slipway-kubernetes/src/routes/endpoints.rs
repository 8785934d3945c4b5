//! The pods of a Service, from its EndpointSlices.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use slipway_types::service::ReplicaId;

use super::ById;

/// Name of the port on which pods answer.
const PORT: &str = "http";

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub id: ReplicaId,
    pub name: String,
    pub address: SocketAddr,
    /// It takes new requests; otherwise it serves while it ends.
    pub ready: bool,
}

/// The pods of one Service, each once.
#[derive(Debug, Default)]
pub(super) struct Endpoints(ById);

impl Endpoints {
    /// Reads the slices of a Service. A pod that moves from one slice to another is in both for a moment, and one with
    /// addresses of two families always is.
    pub(super) fn read(slices: &[&Value]) -> Self {
        let mut all = ById::new();
        for slice in slices {
            let Some(port) = port(slice) else { continue };
            for endpoint in slice["endpoints"].as_array().map_or(&[][..], Vec::as_slice) {
                let Some(endpoint) = read(endpoint, port) else { continue };
                match all.get(&endpoint.id) {
                    Some(known) if rank(known) <= rank(&endpoint) => {}
                    _ => drop(all.insert(endpoint.id.clone(), endpoint)),
                }
            }
        }
        Self(all)
    }

    /// Those that are ready or, where none is, those that serve while they end.
    pub(super) fn serving(&self) -> impl Iterator<Item = &Endpoint> {
        let any = self.0.values().any(|endpoint| endpoint.ready);
        self.0.values().filter(move |endpoint| endpoint.ready == any)
    }
}

/// Of two sights of one pod the smaller is taken: the better state, then IPv4.
fn rank(endpoint: &Endpoint) -> (bool, SocketAddr) {
    (!endpoint.ready, endpoint.address)
}

fn port(slice: &Value) -> Option<u16> {
    let ports = slice["ports"].as_array()?;
    let tcp = |port: &&Value| port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP");
    let named = ports.iter().filter(tcp).find(|port| port["name"] == PORT)?;
    named["port"].as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

fn read(endpoint: &Value, port: u16) -> Option<Endpoint> {
    let conditions = &endpoint["conditions"];
    // What is not said of an endpoint is said in its favour.
    let ready = conditions["ready"].as_bool().unwrap_or(true);
    let serving = conditions["serving"].as_bool().unwrap_or(ready);
    let terminating = conditions["terminating"].as_bool().unwrap_or(false);
    if !(serving && (ready || terminating)) {
        return None;
    }
    // Further addresses mean nothing, and those of the type FQDN are no addresses.
    let ip: IpAddr = endpoint["addresses"][0].as_str()?.parse().ok()?;
    let address = SocketAddr::new(ip, port);
    let target = &endpoint["targetRef"];
    let pod = target["kind"].as_str() == Some("Pod");
    let of_pod = |field: &str| target[field].as_str().filter(|_| pod).map(str::to_owned);
    // Slices that are written by hand name no pod.
    let id = of_pod("uid").unwrap_or_else(|| ip.to_string().replace(['.', ':'], "-"));
    let name = of_pod("name").unwrap_or_else(|| address.to_string());
    Some(Endpoint { id: id.try_into().ok()?, name, address, ready: ready && !terminating })
}
