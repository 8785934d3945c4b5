//! A training run.

use serde::{Deserialize, Serialize};
use slipway_types::Reference;

use crate::names::{self, NameError};

use super::pod::{Environment, ImagePin, Placement, PodResources, VolumeSource};

/// One attempt of a training run: a gang of ranks that starts, and ends, together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRun {
    /// Id of the run, the same in every attempt.
    pub run: String,
    /// Id of the daemon whose run it is: others in the namespace may have one of the same id. Nobody's when absent.
    #[serde(default)]
    pub owner: Option<String>,
    /// Project.
    pub project: String,
    /// Number of the attempt, from 0.
    pub attempt: u32,
    /// Namespace.
    pub namespace: String,
    /// Its image.
    pub image: ImagePin,
    /// Image with `/slipway/slipway-runner`, by digest: it fills folders before the ranks start, and reads the output back.
    pub tools: Reference,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Pods.
    pub ranks: u32,
    /// Fewest pods with which an elastic run goes on.
    #[serde(default)]
    pub min_ranks: Option<u32>,
    /// Processes in each pod.
    pub processes: u32,
    /// What starts the processes and tells them about each other.
    #[serde(default)]
    pub launcher: Launcher,
    /// Extra `KEY=value` pairs.
    #[serde(default)]
    pub env: Vec<String>,
    /// Environment that is secret.
    #[serde(default)]
    pub environment: Environment,
    /// Resources of each pod.
    #[serde(default)]
    pub resources: PodResources,
    /// Where its pods run.
    #[serde(default)]
    pub placement: Placement,
    /// The project folder, at `/workspace`.
    pub workspace: VolumeSource,
    /// Data, at `/data`.
    #[serde(default)]
    pub data: Option<VolumeSource>,
    /// Checkpoints and the model, at `/output`: the same in every attempt. Ranks have folders of their own for the model,
    /// and the first one's counts.
    pub output: Storage,
    /// Longest time that an attempt may take, in seconds.
    #[serde(default)]
    pub deadline: Option<u64>,
    /// Time between SIGTERM and SIGKILL, in which a checkpoint is written, in seconds.
    pub grace: u64,
    /// What starts all ranks together.
    #[serde(default)]
    pub gang: Gang,
    /// Whether ranks may open connections beyond each other.
    #[serde(default)]
    pub egress: bool,
}

impl TrainingRun {
    /// Name of its objects, and its label.
    pub fn name(&self) -> Result<String, NameError> {
        match &self.owner {
            Some(owner) => names::owned(owner, &self.run),
            None => names::map(&self.run),
        }
    }

    /// Name of the Job, or what stands for it, of the current attempt.
    pub fn attempt_name(&self) -> Result<String, NameError> {
        names::with_suffix(&self.name()?, &format!("-a{}", self.attempt))
    }
}

/// What starts the processes of a rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    /// The command itself, once in each pod, told only its rank.
    #[default]
    None,
    /// torchrun, where a pod has several processes; its environment in any case.
    Torchrun,
    /// The command itself, with `TF_CONFIG`.
    TensorFlow,
    /// `mpirun` in the first pod, which starts processes in the others through our own programs. The image has Open MPI.
    Mpi,
}

/// Where a run's output is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Storage {
    /// A claim of the run's own, made with it.
    New {
        /// Bytes.
        size: u64,
        /// Storage class; the cluster's default when absent.
        #[serde(default)]
        class: Option<String>,
        /// Mountable by pods on several nodes.
        #[serde(default)]
        shared: bool,
    },
    /// A claim that exists; the run has a folder in it.
    Existing {
        /// Its name.
        claim: String,
    },
}

/// What starts all ranks of a gang together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Gang {
    /// Nothing: the reconciler ends an attempt whose ranks do not all come up.
    #[default]
    Emulated,
    /// A JobSet of one Job. It starts nothing together: what does, such as Kueue, knows JobSets.
    JobSet,
    /// Kueue admits the job from this queue.
    Kueue {
        /// LocalQueue.
        queue: String,
    },
    /// Volcano.
    Volcano {
        /// Queue; Volcano's default when absent.
        #[serde(default)]
        queue: Option<String>,
    },
    /// The scheduler's own PodGroup.
    PodGroup,
}
