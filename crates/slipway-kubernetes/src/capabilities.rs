//! What a cluster can, found out from its own documents.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a cluster offers beyond the objects that every one has. The default offers nothing more, and renders objects
/// that every supported version takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    /// Version of the API server.
    pub version: Version,
    /// Served version of `gateway.networking.k8s.io` that has HTTPRoute.
    pub gateway_api: Option<String>,
    /// The API server and every node mount images as volumes.
    pub image_volumes: bool,
    /// CPU and memory of pods are measured (`metrics.k8s.io`).
    pub metrics_api: bool,
    /// Metrics of applications are served (`custom.metrics.k8s.io`).
    pub custom_metrics: bool,
    /// Served version of `jobset.x-k8s.io`.
    pub jobset: Option<String>,
    /// Kueue admits jobs.
    pub kueue: bool,
    /// Volcano schedules groups.
    pub volcano: bool,
    /// Served version of the scheduler's own PodGroup.
    pub pod_group: Option<String>,
    /// Served version of `resource.k8s.io` for device claims.
    pub dra: Option<String>,
    /// What may refuse or change objects besides the API server.
    pub policies: Vec<PolicyEngine>,
    /// Address family of pods.
    pub ip_family: IpFamily,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            version: Version::OLDEST,
            gateway_api: None,
            image_volumes: false,
            metrics_api: false,
            custom_metrics: false,
            jobset: None,
            kueue: false,
            volcano: false,
            pod_group: None,
            dra: None,
            policies: Vec::new(),
            ip_family: IpFamily::V4,
        }
    }
}

/// Minor version of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Major, 1.
    pub major: u32,
    /// Minor.
    pub minor: u32,
}

impl Version {
    /// The oldest that is supported.
    pub const OLDEST: Self = Self { major: 1, minor: 29 };

    /// Version 1.`minor`.
    pub const fn v1(minor: u32) -> Self {
        Self { major: 1, minor }
    }
}

/// A text that is no version that is supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no supported version of Kubernetes: expected {oldest} or newer, such as `1.33`", oldest = Version::OLDEST)]
pub struct InvalidVersion(pub String);

impl std::str::FromStr for Version {
    type Err = InvalidVersion;

    /// Reads `1.33`, and what clusters say of themselves: `v1.33.4+k3s1`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        numbers(text)
            .map(|(major, minor)| Self { major, minor })
            .filter(|version| version.major == 1 && *version >= Self::OLDEST)
            .ok_or_else(|| InvalidVersion(text.to_owned()))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Address family that pods listen on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpFamily {
    /// IPv4, alone or beside IPv6.
    #[default]
    V4,
    /// IPv6 only.
    V6,
}

/// Admission policies by which a cluster may refuse what is valid otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyEngine {
    /// `ValidatingAdmissionPolicy` of the API server itself.
    AdmissionPolicy,
    /// Gatekeeper.
    Gatekeeper,
    /// Kyverno.
    Kyverno,
}

/// The documents that [`Capabilities::discover`] reads.
#[derive(Clone, Copy, Debug)]
pub struct Discovery<'a> {
    /// Answer to `GET /version`.
    pub version: &'a Value,
    /// Answer to `GET /apis`, an `APIGroupList`.
    pub apis: &'a Value,
    /// Answer to `GET /api/v1/nodes`, where it may be read: only then are image volumes used.
    pub nodes: Option<&'a Value>,
    /// The Service `kubernetes` of the namespace `default`, where it may be read.
    pub kubernetes_service: Option<&'a Value>,
}

/// Why a cluster's documents cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// It says no version.
    #[error("the API server's answer to /version has no `major` and `minor`")]
    NoVersion,
    /// It lists no API groups.
    #[error("the API server's answer to /apis has no `groups`")]
    NoGroups,
    /// It is too old.
    #[error("the cluster runs Kubernetes {0}; {oldest} is the oldest supported", oldest = Version::OLDEST)]
    TooOld(Version),
}

impl Capabilities {
    /// What the documents of a cluster say.
    pub fn discover(documents: Discovery<'_>) -> Result<Self, DiscoveryError> {
        let version = version(documents.version).ok_or(DiscoveryError::NoVersion)?;
        if version < Version::OLDEST {
            return Err(DiscoveryError::TooOld(version));
        }
        let groups = Groups(documents.apis["groups"].as_array().ok_or(DiscoveryError::NoGroups)?);
        // Version v1 of the group has priority classes only; before 1.37 so had v1beta1.
        let pod_group = groups.best("scheduling.k8s.io", &["v1beta1"]).filter(|_| version >= Version::v1(37));
        let policies = [
            (PolicyEngine::AdmissionPolicy, version >= Version::v1(30)),
            (PolicyEngine::Gatekeeper, groups.has("templates.gatekeeper.sh")),
            (PolicyEngine::Kyverno, groups.has("kyverno.io")),
        ];
        Ok(Self {
            version,
            gateway_api: groups.best("gateway.networking.k8s.io", &["v1", "v1beta1"]),
            image_volumes: version >= Version::v1(35) && documents.nodes.is_some_and(nodes_mount_images),
            metrics_api: groups.has("metrics.k8s.io"),
            custom_metrics: groups.has("custom.metrics.k8s.io"),
            jobset: groups.best("jobset.x-k8s.io", &["v1alpha2"]),
            kueue: groups.has("kueue.x-k8s.io"),
            volcano: groups.has("scheduling.volcano.sh"),
            pod_group,
            dra: groups.best("resource.k8s.io", &["v1", "v1beta2", "v1beta1"]),
            policies: policies.into_iter().filter(|(_, there)| *there).map(|(policy, _)| policy).collect(),
            ip_family: documents.kubernetes_service.map_or(IpFamily::V4, family),
        })
    }

    /// Address on which a program in a pod listens.
    pub fn any_address(&self) -> &'static str {
        match self.ip_family {
            IpFamily::V4 => "0.0.0.0",
            IpFamily::V6 => "[::]",
        }
    }
}

struct Groups<'a>(&'a [Value]);

impl Groups<'_> {
    fn versions<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b str> {
        self.0
            .iter()
            .filter(move |group| group["name"] == name)
            .flat_map(|group| group["versions"].as_array().into_iter().flatten())
            .filter_map(|version| version["version"].as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.versions(name).next().is_some()
    }

    /// The first of these versions that is served.
    fn best(&self, name: &str, wanted: &[&str]) -> Option<String> {
        wanted.iter().find(|w| self.versions(name).any(|v| v == **w)).map(|w| (*w).to_owned())
    }
}

/// Some providers write `29+` as the minor version.
fn version(document: &Value) -> Option<Version> {
    let number = |key: &str| {
        let text = document[key].as_str()?;
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    Some(Version { major: number("major")?, minor: number("minor")? })
}

fn family(service: &Value) -> IpFamily {
    let address = service.pointer("/spec/clusterIP").and_then(Value::as_str).unwrap_or_default();
    if address.contains(':') { IpFamily::V6 } else { IpFamily::V4 }
}

/// Whether every node's kubelet and container runtime know image volumes: kubelet 1.35, containerd 2.1, CRI-O 1.33.
fn nodes_mount_images(nodes: &Value) -> bool {
    let nodes = nodes["items"].as_array().map_or(&[][..], Vec::as_slice);
    let info =
        |node: &Value, key: &str| node["status"]["nodeInfo"][key].as_str().unwrap_or_default().to_owned();
    !nodes.is_empty()
        && nodes.iter().all(|node| {
            let runtime = info(node, "containerRuntimeVersion");
            let runtime_fine = match runtime.split_once("://") {
                Some(("containerd", version)) => numbers(version) >= Some((2, 1)),
                Some(("cri-o", version)) => numbers(version) >= Some((1, 33)),
                _ => false,
            };
            runtime_fine && numbers(&info(node, "kubeletVersion")) >= Some((1, 35))
        })
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn groups(list: &[(&str, &[&str])]) -> Value {
        let group = |(name, versions): &(&str, &[&str])| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
                .collect();
            json!({"name": name, "versions": versions})
        };
        json!({"kind": "APIGroupList", "groups": list.iter().map(group).collect::<Vec<_>>()})
    }

    fn discover(minor: &str, apis: &Value, nodes: Option<&Value>) -> Result<Capabilities, DiscoveryError> {
        let version = json!({"major": "1", "minor": minor});
        Capabilities::discover(Discovery { version: &version, apis, nodes, kubernetes_service: None })
    }

    #[test]
    fn a_bare_cluster_offers_nothing_more() {
        let bare = discover("29+", &groups(&[("apps", &["v1"])]), None).unwrap();
        assert_eq!(bare, Capabilities::default());
    }

    #[test]
    fn finds_what_is_served() {
        let apis = groups(&[
            ("gateway.networking.k8s.io", &["v1", "v1beta1"]),
            ("metrics.k8s.io", &["v1beta1"]),
            ("jobset.x-k8s.io", &["v1alpha2"]),
            ("kueue.x-k8s.io", &["v1beta1"]),
            ("resource.k8s.io", &["v1", "v1beta2"]),
            ("scheduling.k8s.io", &["v1", "v1beta1"]),
            ("kyverno.io", &["v1"]),
        ]);
        let nodes = |runtime: &str| {
            json!({"items": [{"status": {"nodeInfo": {
                "kubeletVersion": "v1.37.1", "containerRuntimeVersion": runtime}}}]})
        };
        let new = nodes("containerd://2.1.3");
        let found = discover("36", &apis, Some(&new)).unwrap();
        assert_eq!(found.gateway_api.as_deref(), Some("v1"));
        assert_eq!(found.dra.as_deref(), Some("v1"));
        assert!(found.image_volumes && found.metrics_api && found.kueue && !found.volcano);
        assert_eq!(found.policies, [PolicyEngine::AdmissionPolicy, PolicyEngine::Kyverno]);
        assert_eq!(found.pod_group, None, "before 1.37 the group has no PodGroup");
        for old in ["containerd://1.6.20", "docker://29.0.0", ""] {
            assert!(!discover("36", &apis, Some(&nodes(old))).unwrap().image_volumes, "{old}");
        }
        assert!(!discover("34", &apis, Some(&new)).unwrap().image_volumes);
    }

    #[test]
    fn versions_are_read_as_clusters_write_them() {
        for text in ["1.33", "v1.33.4+k3s1", "v1.33.0"] {
            assert_eq!(text.parse(), Ok(Version::v1(33)), "{text}");
        }
        for bad in ["", "1", "33", "1.28", "2.0", "1.x", "1.33 "] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pod_groups_need_their_own_api() {
        let with = groups(&[("scheduling.k8s.io", &["v1beta1", "v1alpha1"])]);
        assert_eq!(discover("37", &with, None).unwrap().pod_group.as_deref(), Some("v1beta1"));
        let both = groups(&[("scheduling.k8s.io", &["v1", "v1beta1"])]);
        assert_eq!(discover("37", &both, None).unwrap().pod_group.as_deref(), Some("v1beta1"));
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        let none = groups(&[]);
        assert_eq!(discover("28", &none, None), Err(DiscoveryError::TooOld(Version::v1(28))));
        assert_eq!(discover("x", &none, None), Err(DiscoveryError::NoVersion));
        assert_eq!(discover("30", &json!({}), None), Err(DiscoveryError::NoGroups));
    }
}
