//! Who is who in a gang: one structure, from which every framework's environment is made.

use serde_json::json;

/// Port on which the first rank answers torch's rendezvous.
const MASTER_PORT: u16 = 29500;
/// Port of TensorFlow's workers.
const TENSORFLOW_PORT: u16 = 2222;
/// Longest `TF_CONFIG`: the kernel passes no string above 128 KiB.
pub const MAX_TF_CONFIG: usize = 100 << 10;

/// The hosts of a gang, in the order of their ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Stable id of the run.
    pub run: String,
    /// Attempt, from 0.
    pub attempt: u32,
    /// Host names, one a rank.
    pub hosts: Vec<String>,
    /// Processes on each host.
    pub processes: u32,
    /// Fewest hosts with which an elastic run goes on.
    pub min_hosts: Option<u32>,
}

impl Topology {
    /// Environment that torchrun, and scripts that torchrun would start, read. `rank` is the rank of the host: a number,
    /// or a reference to a variable that the platform expands.
    pub fn torch(&self, rank: &str) -> Vec<(String, String)> {
        let hosts = self.hosts.len();
        let master = self.hosts.first().map_or("localhost", String::as_str);
        let nodes = match self.min_hosts {
            Some(min) => format!("{min}:{hosts}"),
            None => hosts.to_string(),
        };
        let mut pairs = vec![
            ("PET_NNODES", nodes),
            ("PET_NPROC_PER_NODE", self.processes.to_string()),
            ("PET_MAX_RESTARTS", "0".to_owned()),
        ];
        if self.min_hosts.is_some() {
            // The rendezvous gives the ranks: fixed ones would contradict it.
            pairs.extend([
                ("PET_RDZV_BACKEND", "c10d".to_owned()),
                ("PET_RDZV_ENDPOINT", format!("{master}:{MASTER_PORT}")),
                ("PET_RDZV_ID", format!("{}-a{}", self.run, self.attempt)),
            ]);
        } else {
            pairs.extend([
                ("PET_NODE_RANK", rank.to_owned()),
                ("PET_MASTER_ADDR", master.to_owned()),
                ("PET_MASTER_PORT", MASTER_PORT.to_string()),
                ("MASTER_ADDR", master.to_owned()),
                ("MASTER_PORT", MASTER_PORT.to_string()),
            ]);
        }
        if self.min_hosts.is_none() && self.processes == 1 {
            // A script that is started without torchrun finds what torchrun would tell it.
            pairs.extend([
                ("RANK", rank.to_owned()),
                ("LOCAL_RANK", "0".to_owned()),
                ("GROUP_RANK", rank.to_owned()),
                ("ROLE_RANK", rank.to_owned()),
                ("LOCAL_WORLD_SIZE", "1".to_owned()),
                ("WORLD_SIZE", hosts.to_string()),
                ("ROLE_WORLD_SIZE", hosts.to_string()),
                ("TORCHELASTIC_RESTART_COUNT", self.attempt.to_string()),
                ("TORCHELASTIC_MAX_RESTARTS", "0".to_owned()),
                ("TORCHELASTIC_RUN_ID", self.run.clone()),
            ]);
        }
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// `TF_CONFIG`: all hosts are workers, and the first is the chief among them.
    pub fn tf_config(&self, rank: &str) -> String {
        let workers: Vec<String> =
            self.hosts.iter().map(|host| format!("{host}:{TENSORFLOW_PORT}")).collect();
        let cluster = json!({ "worker": workers });
        // The rank may be a reference that is expanded to a number, which JSON could not hold.
        format!(r#"{{"cluster":{cluster},"task":{{"type":"worker","index":{rank}}}}}"#)
    }

    /// Open MPI's hostfile.
    pub fn hostfile(&self) -> String {
        self.hosts.iter().map(|host| format!("{host} slots={}\n", self.processes)).collect()
    }

    /// Processes of the whole gang.
    pub fn world_size(&self) -> u64 {
        self.hosts.len() as u64 * u64::from(self.processes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn topology(hosts: usize, processes: u32, min_hosts: Option<u32>) -> Topology {
        let hosts = (0..hosts).map(|i| format!("run-{i}.run")).collect();
        Topology { run: "digits-7".into(), attempt: 2, hosts, processes, min_hosts }
    }

    fn torch(topology: &Topology) -> BTreeMap<String, String> {
        topology.torch("1").into_iter().collect()
    }

    #[test]
    fn one_process_each_needs_no_torchrun() {
        let env = torch(&topology(2, 1, None));
        for (key, value) in [
            ("RANK", "1"),
            ("WORLD_SIZE", "2"),
            ("LOCAL_RANK", "0"),
            ("MASTER_ADDR", "run-0.run"),
            ("MASTER_PORT", "29500"),
            ("PET_NNODES", "2"),
            ("PET_NPROC_PER_NODE", "1"),
            ("PET_NODE_RANK", "1"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
        ] {
            assert_eq!(env.get(key).map(String::as_str), Some(value), "{key}");
        }
    }

    #[test]
    fn several_processes_get_their_ranks_from_torchrun() {
        let env = torch(&topology(2, 4, None));
        assert!(!env.contains_key("RANK") && env["PET_NPROC_PER_NODE"] == "4");
        let elastic = torch(&topology(4, 1, Some(1)));
        assert_eq!((elastic["PET_NNODES"].as_str(), elastic["PET_RDZV_ID"].as_str()), ("1:4", "digits-7-a2"));
        assert!(!elastic.contains_key("PET_NODE_RANK") && !elastic.contains_key("RANK"));
    }

    #[test]
    fn tensorflow_and_mpi() {
        let topology = topology(2, 3, None);
        let config: serde_json::Value = serde_json::from_str(&topology.tf_config("1")).unwrap();
        assert_eq!(config["cluster"]["worker"][1], "run-1.run:2222");
        assert_eq!(config["task"]["index"], 1);
        assert_eq!(topology.hostfile(), "run-0.run slots=3\nrun-1.run slots=3\n");
        assert_eq!(topology.world_size(), 6);
    }
}
