//! The environment of a rank.

use serde_json::{Value, json};

use super::super::RenderError;
use super::super::pod::environment;
use super::super::volumes::RUNNER;
use super::output::{CHECKPOINTS, METRICS_FILE, MODEL_FOLDER, rank_output};
use super::pod::MPI_FOLDER;
use crate::spec::{Launcher, RunAs, TrainingRun};
use crate::topology::{MAX_TF_CONFIG, Topology};

const INDEX: &str = "metadata.annotations['batch.kubernetes.io/job-completion-index']";
/// What containers' environments refer to once `SLIPWAY_RANK` is set.
pub(super) const RANK: &str = "$(SLIPWAY_RANK)";

pub(super) fn rank_variable() -> Value {
    json!({"name": "SLIPWAY_RANK", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}})
}

/// What `mpirun` of Open MPI reads: where processes are started, and by what.
fn mpi(run: &TrainingRun) -> Vec<(String, String)> {
    let shell = format!("{RUNNER} mpi-shell");
    let mut pairs = vec![
        ("OMPI_MCA_orte_default_hostfile", format!("{MPI_FOLDER}/hostfile")),
        ("OMPI_MCA_orte_keep_fqdn_hostnames", "true".to_owned()),
        ("OMPI_MCA_orte_set_default_slots", run.processes.to_string()),
        ("OMPI_MCA_plm_rsh_agent", shell.clone()),
        // Open MPI 5 has it from PRRTE.
        ("PRTE_MCA_plm_ssh_agent", shell),
    ];
    if run.image.run_as == RunAs::Root {
        // It refuses to run as root unless told twice; in a container without capabilities it may.
        pairs.extend([
            ("OMPI_ALLOW_RUN_AS_ROOT", "1".to_owned()),
            ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1".to_owned()),
            ("PRTE_ALLOW_RUN_AS_ROOT", "1".to_owned()),
            ("PRTE_ALLOW_RUN_AS_ROOT_CONFIRM", "1".to_owned()),
        ]);
    }
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What every rank is told, by whatever name its framework knows it. The user's own variables come last and win.
pub(super) fn variables(
    run: &TrainingRun,
    topology: &Topology,
    secret: Option<&str>,
) -> Result<Vec<Value>, RenderError> {
    let mut own: Vec<(String, String)> = [
        ("SLIPWAY_RUN_ID", run.run.clone()),
        ("SLIPWAY_RESTART_COUNT", run.attempt.to_string()),
        ("SLIPWAY_MODEL_DIR", format!("{}/{MODEL_FOLDER}", rank_output(run, RANK))),
        ("SLIPWAY_CHECKPOINT_DIR", CHECKPOINTS.to_owned()),
        ("SLIPWAY_METRICS_FILE", format!("{}/{METRICS_FILE}", rank_output(run, RANK))),
        ("SLIPWAY_WORLD_SIZE", topology.world_size().to_string()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    match run.launcher {
        Launcher::None => {}
        Launcher::Torchrun => own.extend(topology.torch(RANK)),
        Launcher::TensorFlow => {
            let text = topology.tf_config(RANK);
            if text.len() > MAX_TF_CONFIG {
                let reason =
                    format!("TF_CONFIG of {} ranks is larger than a program can be given", run.ranks);
                return Err(RenderError::Contradiction { what: "workers", reason });
            }
            own.push(("TF_CONFIG".to_owned(), text));
        }
        Launcher::Mpi => own.extend(mpi(run)),
    }
    let mut all = vec![rank_variable()];
    let users = environment(&run.env, secret, &run.environment)?;
    let is_users = |name: &str| users.iter().any(|variable| variable["name"] == name);
    if is_users("SLIPWAY_RANK") {
        let reason = "SLIPWAY_RANK cannot be set: the ranks are told theirs by it".to_owned();
        return Err(RenderError::Contradiction { what: "environment", reason });
    }
    // Ours are written as they are: they refer to the rank.
    let ours = own.into_iter().filter(|(name, _)| !is_users(name));
    all.extend(ours.map(|(name, value)| json!({ "name": name, "value": value })));
    all.extend(users);
    Ok(all)
}
