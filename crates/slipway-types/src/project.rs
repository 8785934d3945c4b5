//! The project file, `slipway.toml`. Every key has a default but the name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::service::Autoscale;

/// A whole `slipway.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Name of the project, its model and its service.
    pub name: String,
    /// How its image is made.
    #[serde(default)]
    pub image: ImageSection,
    /// How it is trained.
    #[serde(default)]
    pub train: TrainSection,
    /// What the trained model is.
    #[serde(default)]
    pub model: ModelSection,
    /// How it is served.
    #[serde(default)]
    pub serve: ServeSection,
}

/// `[image]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageSection {
    /// Path of the Dockerfile, relative to the project.
    pub dockerfile: PathBuf,
    /// Path of the build context, relative to the project.
    pub context: PathBuf,
    /// Stage to stop at.
    pub target: Option<String>,
    /// Build arguments.
    pub build_args: BTreeMap<String, String>,
}

impl Default for ImageSection {
    fn default() -> Self {
        Self {
            dockerfile: "Dockerfile".into(),
            context: ".".into(),
            target: None,
            build_args: BTreeMap::new(),
        }
    }
}

/// `[train]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSection {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Folder mounted at `/data`, relative to the project.
    pub data: Option<PathBuf>,
    /// Extra environment.
    pub env: BTreeMap<String, String>,
    /// Memory limit, such as `4g`.
    pub memory: Option<String>,
    /// CPU limit.
    pub cpus: Option<f64>,
    /// `none` or `host`.
    pub network: crate::container::NetworkMode,
    /// Containers that train together.
    pub ranks: u32,
    /// Processes in each.
    pub processes: u32,
    /// What starts the processes: `none`, `torchrun`, `tensorflow` or `mpi`.
    pub launcher: crate::run::Launcher,
    /// How often training may begin again after it failed.
    pub retries: u32,
    /// Room for checkpoints and the model where an engine must be told, such as `10g`.
    pub storage: Option<String>,
    /// What of a cluster starts all ranks together: `auto`, `none`, `jobset`, `kueue`, `volcano` or `podgroup`.
    pub gang: crate::run::GangBy,
    /// Queue of Kueue or Volcano.
    pub queue: Option<String>,
    /// Names of environment variables whose values are taken from whoever trains, and are secret.
    pub secrets: Vec<String>,
}

impl Default for TrainSection {
    fn default() -> Self {
        let gang = crate::run::Gang::default();
        Self {
            command: vec!["python".into(), "train.py".into()],
            data: None,
            env: BTreeMap::new(),
            memory: None,
            cpus: None,
            network: crate::container::NetworkMode::None,
            ranks: gang.ranks,
            processes: gang.processes,
            launcher: gang.launcher,
            retries: gang.retries,
            storage: None,
            gang: gang.by,
            queue: None,
            secrets: Vec::new(),
        }
    }
}

/// `[model]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSection {
    /// `auto`, or a format by name.
    pub format: String,
    /// Class of the user's for the `python` and `torch` formats, as `module:Class`.
    pub entry: Option<String>,
}

impl Default for ModelSection {
    fn default() -> Self {
        Self { format: "auto".into(), entry: None }
    }
}

/// `[serve]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeSection {
    /// How many replicas run.
    pub replicas: u32,
    /// Batching; the defaults wait for nothing.
    pub batch: BatchSection,
    /// Memory limit of each replica, such as `2g`.
    pub memory: Option<String>,
    /// CPU limit of each replica.
    pub cpus: Option<f64>,
    /// Extra environment.
    pub env: BTreeMap<String, String>,
    /// Largest request body, such as `32m`.
    pub max_body: Option<String>,
    /// Lets a cluster choose how many replicas run, by load.
    pub autoscale: Option<Autoscale>,
}

impl Default for ServeSection {
    fn default() -> Self {
        Self {
            replicas: 1,
            batch: BatchSection::default(),
            memory: None,
            cpus: None,
            env: BTreeMap::new(),
            max_body: None,
            autoscale: None,
        }
    }
}

/// `[serve] batch`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchSection {
    /// Most rows in one batch.
    pub max_size: u32,
    /// How long an idle worker waits for more rows, such as `2ms`; nothing by default.
    pub max_delay: Option<String>,
}

impl Default for BatchSection {
    fn default() -> Self {
        Self { max_size: 32, max_delay: None }
    }
}
