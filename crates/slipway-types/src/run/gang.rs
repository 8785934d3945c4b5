//! Who takes part in a run, and what starts them.

use serde::{Deserialize, Serialize};

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
    /// What of a cluster starts all of them together.
    pub by: GangBy,
    /// Queue of Kueue or Volcano that they wait in; the namespace's, or the default one, when absent.
    pub queue: Option<String>,
}

impl Default for Gang {
    fn default() -> Self {
        Self {
            ranks: 1,
            processes: 1,
            launcher: Launcher::None,
            retries: 0,
            storage: 10 << 30,
            by: GangBy::Auto,
            queue: None,
        }
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
        let queueless = !matches!(self.by, GangBy::Auto | GangBy::Kueue | GangBy::Volcano);
        let queue = self.queue.as_ref().and_then(|queue| {
            if queue.is_empty() {
                Some("it is empty".to_owned())
            } else {
                queueless.then(|| format!("nothing has queues with `train.gang = \"{}\"`", self.by))
            }
        });
        let storage = (self.storage < Self::MIN_STORAGE).then(|| "it is at least 1m".to_owned());
        [
            ("train.ranks", within(self.ranks, 1, Self::MAX_RANKS)),
            ("train.processes", within(self.processes, 1, Self::MAX_PROCESSES)),
            ("train.retries", within(self.retries, 0, Self::MAX_RETRIES)),
            ("train.storage", storage),
            ("train.queue", queue),
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
    /// Open MPI's `mpirun` in the first rank, which starts the processes of all.
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

/// What of a cluster starts all ranks of a gang together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GangBy {
    /// Whatever the cluster has.
    #[default]
    Auto,
    /// Nothing: an attempt whose ranks do not all come up is given up and tried again.
    None,
    /// A JobSet.
    JobSet,
    /// Kueue: the run waits in a queue until there is room for all ranks.
    Kueue,
    /// Volcano's scheduler.
    Volcano,
    /// The PodGroup of Kubernetes' own scheduler.
    PodGroup,
}

impl GangBy {
    /// Every one by name.
    pub const ALL: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("none", Self::None),
        ("jobset", Self::JobSet),
        ("kueue", Self::Kueue),
        ("volcano", Self::Volcano),
        ("podgroup", Self::PodGroup),
    ];
}

impl std::fmt::Display for GangBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = Self::ALL.iter().find(|(_, one)| one == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl std::str::FromStr for GangBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, one)| one).ok_or_else(|| {
            let names: Vec<String> = Self::ALL.iter().map(|(name, _)| format!("`{name}`")).collect();
            format!("`{text}` starts no gang: expected one of {}", names.join(", "))
        })
    }
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
    fn what_starts_gangs_has_one_name_everywhere() {
        for (name, by) in GangBy::ALL {
            assert_eq!((by.to_string().as_str(), name.parse()), (name, Ok(by)));
            assert_eq!(serde_json::to_value(by).unwrap(), name);
        }
        assert!("slurm".parse::<GangBy>().unwrap_err().contains("`kueue`"));
    }

    #[test]
    fn gangs_have_limits() {
        assert_eq!(Gang::default().fault(), None);
        let key = |gang: Gang| gang.fault().map(|(key, _)| key);
        assert_eq!(key(Gang { ranks: 0, ..Gang::default() }), Some("train.ranks"));
        assert_eq!(key(Gang { processes: 1025, ..Gang::default() }), Some("train.processes"));
        assert_eq!(key(Gang { retries: 1001, ..Gang::default() }), Some("train.retries"));
        assert_eq!(key(Gang { storage: 1, ..Gang::default() }), Some("train.storage"));
        let queued = |by, queue: &str| Gang { by, queue: Some(queue.into()), ..Gang::default() };
        assert_eq!(key(queued(GangBy::Kueue, "gpus")), None);
        assert_eq!(key(queued(GangBy::Kueue, "")), Some("train.queue"));
        assert_eq!(key(queued(GangBy::JobSet, "gpus")), Some("train.queue"));
        // What an older daemon recorded.
        assert_eq!(
            serde_json::from_str::<crate::run::RunSpec>("{\"project\": \"p\"}").unwrap().gang,
            Gang::default()
        );
    }
}
