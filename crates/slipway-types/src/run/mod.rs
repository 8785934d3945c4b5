//! Training runs.

mod gang;
mod secrets;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::Limits;
use crate::digest::Digest;
use crate::model::{Lineage, ModelFormat};

pub use gang::{Gang, GangBy, Launcher};
pub use secrets::Secrets;

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
    /// Environment that no listing shows; on a cluster it is in a Secret. Forgotten when the run is done.
    pub secrets: Secrets,
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
    fn every_event_is_a_line() {
        let event = RunEvent::Note { text: "pushing the image".into() };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<RunEvent>(&text).unwrap(), event);
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
