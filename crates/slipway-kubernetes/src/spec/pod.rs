//! What all pods have in common.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use slipway_types::Reference;
use slipway_types::container::Limits;

/// An image in the registry, with what must be known about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePin {
    /// Where it is, by digest.
    pub reference: Reference,
    /// The user that it runs as, resolved inside the image.
    #[serde(default)]
    pub run_as: RunAs,
    /// Architectures that it has, such as `amd64`; any node may run it when empty.
    #[serde(default)]
    pub architectures: Vec<String>,
}

/// The user of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RunAs {
    /// The image runs as root, and its files may be readable by root only.
    #[default]
    Root,
    /// Another user, by number: a node cannot look a name up to see that it is not root's.
    User {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

/// Resources of the main container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PodResources {
    /// What the scheduler sets aside; the limits when absent.
    pub requests: Option<Limits>,
    /// Limits. The number of processes cannot be limited by a pod.
    pub limits: Limits,
    /// Accelerators.
    pub gpus: Option<Gpus>,
    /// Size of `/dev/shm` in bytes; half of the memory limit, or 1 GiB, when absent.
    pub shm: Option<u64>,
}

/// Accelerators of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Gpus {
    /// Whole devices of a device plugin.
    Devices {
        /// Resource, such as `nvidia.com/gpu`.
        resource: String,
        /// How many.
        count: u32,
    },
    /// Slices of an NVIDIA GPU.
    Mig {
        /// Profile, such as `1g.10gb`.
        profile: String,
        /// How many.
        count: u32,
    },
    /// Devices claimed through `resource.k8s.io`.
    Claim {
        /// Device class, such as `gpu.nvidia.com`.
        device_class: String,
        /// How many.
        count: u32,
        /// CEL expressions that a device must meet.
        #[serde(default)]
        selectors: Vec<String>,
    },
}

impl Gpus {
    /// How many devices.
    pub fn count(&self) -> u32 {
        match self {
            Self::Devices { count, .. } | Self::Mig { count, .. } | Self::Claim { count, .. } => *count,
        }
    }
}

/// Where pods may run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Placement {
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    pub tolerations: Vec<Toleration>,
    /// `affinity` of the pods, passed through.
    pub affinity: Option<Value>,
    /// Priority class.
    pub priority_class: Option<String>,
    /// Runtime class, such as `nvidia`.
    pub runtime_class: Option<String>,
    /// Secrets with registry credentials, in the same namespace.
    pub image_pull_secrets: Vec<String>,
}

/// A taint that is tolerated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Toleration {
    /// Key; every taint when absent.
    pub key: Option<String>,
    /// Value; any when absent.
    pub value: Option<String>,
    /// Effect; every when absent.
    pub effect: Option<String>,
    /// How long a pod stays after a `NoExecute` taint, in seconds; for ever when absent.
    pub seconds: Option<i64>,
}

/// Environment besides what is in the open. Its `Debug` shows no values.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Environment {
    /// Values that are kept in a Secret of ours.
    pub secrets: BTreeMap<String, String>,
    /// Values of Secrets that exist in the namespace.
    pub secret_refs: Vec<SecretRef>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.secrets.keys().collect();
        f.debug_struct("Environment")
            .field("secrets", &names)
            .field("secret_refs", &self.secret_refs)
            .finish()
    }
}

/// One key of a Secret as an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// Variable.
    pub env: String,
    /// Name of the Secret.
    pub secret: String,
    /// Key in it.
    pub key: String,
}

/// Where a folder inside a pod comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VolumeSource {
    /// A claim that exists in the namespace.
    Claim {
        /// Its name.
        name: String,
        /// Folder in it.
        #[serde(default)]
        sub_path: Option<String>,
        /// Whether writes are refused.
        #[serde(default)]
        read_only: bool,
    },
    /// A folder of an image, read-only.
    Image {
        /// The image, by digest.
        reference: Reference,
        /// The folder in it, absolute.
        folder: String,
    },
    /// Already in the container's own image.
    Bundled,
    /// A folder that is gone with the pod.
    Scratch {
        /// Most bytes that it holds.
        #[serde(default)]
        size: Option<u64>,
    },
}
