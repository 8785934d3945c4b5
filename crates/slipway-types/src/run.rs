//! Training runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::Limits;
use crate::digest::Digest;
use crate::model::{Lineage, ModelFormat};

/// What a training run executes. Body of `POST /v1/runs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSpec {
    /// Project, and the model that a success adds a version to.
    pub project: String,
    /// Image reference or id.
    pub image: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Extra `KEY=value` pairs.
    pub env: Vec<String>,
    /// Absolute path of the project folder, mounted read-only at `/workspace`.
    pub workspace: std::path::PathBuf,
    /// Absolute path of the data folder, mounted read-only at `/data`.
    pub data: Option<std::path::PathBuf>,
    /// Resource limits.
    pub limits: Limits,
    /// Whether it may use this host's network.
    pub network: crate::container::NetworkMode,
    /// Format of the model; detected when absent.
    pub format: Option<ModelFormat>,
    /// Class of the user's for the `python` and `torch` formats, as `module:Class`.
    pub entry: Option<String>,
    /// Engine that it runs on; the default one when absent.
    pub engine: Option<String>,
    /// How many take part, and how often they may begin again.
    pub gang: Gang,
}

/// Who takes part in a training run, and how they go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gang {
    /// Containers, which start and end together; each has a rank.
    pub ranks: u32,
    /// Processes in each.
    pub processes: u32,
    /// What starts the processes and tells them about each other.
    pub launcher: Launcher,
    /// How often all may begin again, from their checkpoints, after one failed.
    pub retries: u32,
    /// Bytes for checkpoints and the model, where an engine must be told.
    pub storage: u64,
}

impl Default for Gang {
    fn default() -> Self {
        Self { ranks: 1, processes: 1, launcher: Launcher::None, retries: 0, storage: 10 << 30 }
    }
}

impl Gang {
    /// Most ranks.
    pub const MAX_RANKS: u32 = 10_000;
    /// Most processes of a rank.
    pub const MAX_PROCESSES: u32 = 1024;
    /// Most attempts after the first.
    pub const MAX_RETRIES: u32 = 1000;
    /// Least bytes of storage.
    pub const MIN_STORAGE: u64 = 1 << 20;

    /// What of it cannot be, as the key in `[train]` and the reason.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        let within = |value: u32, least: u32, most: u32| {
            (value < least || value > most).then(|| format!("`{value}` is not between {least} and {most}"))
        };
        let storage = (self.storage < Self::MIN_STORAGE).then(|| "it is at least 1m".to_owned());
        [
            ("train.ranks", within(self.ranks, 1, Self::MAX_RANKS)),
            ("train.processes", within(self.processes, 1, Self::MAX_PROCESSES)),
            ("train.retries", within(self.retries, 0, Self::MAX_RETRIES)),
            ("train.storage", storage),
        ]
        .into_iter()
        .find_map(|(key, reason)| Some((key, reason?)))
    }
}

/// What starts the processes of a gang and tells them about each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Launcher {
    /// Nothing: the command runs once in each rank, and is told its rank.
    #[default]
    None,
    /// torchrun, where a rank has several processes; its environment in any case.
    Torchrun,
    /// TensorFlow: the command with `TF_CONFIG`.
    TensorFlow,
    /// `mpirun` in the first rank, `sshd` in the others.
    Mpi,
}

impl Launcher {
    /// Every launcher by name.
    pub const ALL: [(&'static str, Self); 4] = [
        ("none", Self::None),
        ("torchrun", Self::Torchrun),
        ("tensorflow", Self::TensorFlow),
        ("mpi", Self::Mpi),
    ];
}

impl std::fmt::Display for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Self::ALL.iter().find(|(_, one)| one == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl std::str::FromStr for Launcher {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, one)| one).ok_or_else(|| {
            let names: Vec<String> = Self::ALL.iter().map(|(name, _)| format!("`{name}`")).collect();
            format!("`{text}` is no launcher: expected one of {}", names.join(", "))
        })
    }
}

/// The life of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Its containers start or run.
    Running,
    /// Its process succeeded; the model folder is being packed.
    Packing,
    /// Done, with a model version.
    Succeeded,
    /// Ended without a model version.
    Failed,
    /// Stopped by a user.
    Cancelled,
}

impl RunState {
    /// Every state, for exhaustive tests.
    pub const ALL: [Self; 5] = [Self::Running, Self::Packing, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Whether a run may go from this state to `next`.
    pub fn can_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Running, Self::Packing | Self::Failed | Self::Cancelled)
                | (Self::Packing, Self::Succeeded | Self::Failed | Self::Cancelled)
        )
    }

    /// Whether it changes no more.
    pub fn is_final(self) -> bool {
        !Self::ALL.into_iter().any(|next| self.can_become(next))
    }
}

/// One run as `slipway runs` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    /// Id, for example `digits-7`.
    pub id: String,
    /// Project.
    pub project: String,
    /// State.
    pub state: RunState,
    /// Engine that it runs on.
    #[serde(default = "native")]
    pub engine: String,
    /// Number of the attempt that runs, or was the last, from 1.
    #[serde(default = "first")]
    pub attempt: u32,
    /// Why it does not run yet, or what its engine has to say.
    #[serde(default)]
    pub note: Option<String>,
    /// Image it runs in.
    pub image_id: Digest,
    /// Program and arguments.
    pub command: Vec<String>,
    /// When it began.
    pub started_at: jiff::Timestamp,
    /// When it ended.
    pub finished_at: Option<jiff::Timestamp>,
    /// Exit code of its process.
    pub exit_code: Option<u8>,
    /// Why it failed.
    pub error: Option<String>,
    /// Most memory that it held, in bytes.
    pub peak_memory: Option<u64>,
    /// Last value of each metric that it reported.
    pub metrics: BTreeMap<String, f64>,
    /// Model version that it made.
    pub version: Option<u64>,
    /// What it was made from.
    pub lineage: Lineage,
}

fn native() -> String {
    crate::engine::NATIVE.to_owned()
}

fn first() -> u32 {
    1
}

/// One line of a run's progress, as newline-delimited JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// It is recorded and its container starts.
    Started(Box<RunStatus>),
    /// What its engine does for it, or what it waits for.
    Note {
        /// In a few words.
        text: String,
    },
    /// It wrote a line.
    Log(crate::container::LogLine),
    /// It changes no more.
    Finished(Box<RunStatus>),
    /// It could not be started or followed.
    Failed(crate::ApiError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_have_one_name_everywhere() {
        for (name, launcher) in Launcher::ALL {
            assert_eq!((launcher.to_string().as_str(), name.parse()), (name, Ok(launcher)));
            assert_eq!(serde_json::to_value(launcher).unwrap(), name);
        }
        assert!("slurm".parse::<Launcher>().unwrap_err().contains("`torchrun`"));
    }

    #[test]
    fn every_event_is_a_line() {
        let event = RunEvent::Note { text: "pushing the image".into() };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<RunEvent>(&text).unwrap(), event);
    }

    #[test]
    fn gangs_have_limits() {
        assert_eq!(Gang::default().fault(), None);
        let key = |gang: Gang| gang.fault().map(|(key, _)| key);
        assert_eq!(key(Gang { ranks: 0, ..Gang::default() }), Some("train.ranks"));
        assert_eq!(key(Gang { processes: 1025, ..Gang::default() }), Some("train.processes"));
        assert_eq!(key(Gang { retries: 1001, ..Gang::default() }), Some("train.retries"));
        assert_eq!(key(Gang { storage: 1, ..Gang::default() }), Some("train.storage"));
        // What an older daemon recorded.
        assert_eq!(serde_json::from_str::<RunSpec>("{\"project\": \"p\"}").unwrap().gang, Gang::default());
    }

    #[test]
    fn every_transition() {
        use RunState::{Cancelled, Failed, Packing, Running, Succeeded};
        let allowed = [
            (Running, Packing),
            (Running, Failed),
            (Running, Cancelled),
            (Packing, Succeeded),
            (Packing, Failed),
            (Packing, Cancelled),
        ];
        for from in RunState::ALL {
            for to in RunState::ALL {
                assert_eq!(from.can_become(to), allowed.contains(&(from, to)), "{from:?} -> {to:?}");
            }
        }
        assert!(Succeeded.is_final() && Failed.is_final() && Cancelled.is_final());
        assert!(!Running.is_final() && !Packing.is_final());
    }
}
