//! The pod of a rank.

use serde_json::{Value, json};

use super::super::labels::Identity;
use super::super::pod::{container_security, literal, pod_security};
use super::super::volumes::{RUNNER, Volumes};
use super::super::{RenderError, Rendered, config, resources};
use super::output::{self, OUTPUT};
use super::variables::variables;
use crate::Capabilities;
use crate::spec::{Launcher, TrainingRun};
use crate::topology::Topology;

pub(super) const MPI_FOLDER: &str = "/etc/mpi";
pub(super) fn pod(
    run: &TrainingRun,
    caps: &Capabilities,
    id: &Identity,
    topology: &Topology,
    claim: &str,
    secret: Option<&str>,
    out: &mut Rendered,
) -> Result<Value, RenderError> {
    let mut volumes = Volumes::default();
    if run.launcher == Launcher::Mpi {
        volumes.tools(&run.tools);
    }
    volumes.source("workspace", "/workspace", &run.workspace, caps, &run.tools)?;
    if let Some(data) = &run.data {
        volumes.source("data", "/data", data, caps, &run.tools)?;
    }
    volumes.volumes.push(json!({"name": "output", "persistentVolumeClaim": {"claimName": claim}}));
    let output = json!({"name": "output", "mountPath": OUTPUT, "subPath": output::folder(run, id)});
    let mut folders = output::folders(run);
    folders["volumeMounts"] = json!([output]);
    volumes.init.push(folders);
    volumes.mounts.push(output);
    volumes.scratch(&run.resources);
    if run.launcher == Launcher::Mpi {
        let why = "Where mpirun starts processes.";
        let map = config::config_map("mpi", "hostfile", &topology.hostfile(), why, id, out)?;
        volumes.mount("mpi", MPI_FOLDER, true, json!({"configMap": {"name": map}}));
    }
    let container = json!({
        "name": "rank",
        "image": run.image.reference.to_string(),
        "imagePullPolicy": "IfNotPresent",
        "command": command(run),
        "workingDir": "/workspace",
        "env": variables(run, topology, secret)?,
        "resources": resources::container(&run.resources, id, caps, out)?,
        // Frameworks write caches wherever they please; the same run on one host may too.
        "securityContext": container_security(false),
        "volumeMounts": volumes.mounts,
    });
    let mut pod = json!({
        "restartPolicy": "Never",
        "serviceAccountName": id.own,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "subdomain": (run.ranks > 1).then_some(&id.pods),
        "securityContext": pod_security(run.image.run_as),
        "terminationGracePeriodSeconds": run.grace,
        "initContainers": volumes.init,
        "containers": [container],
        "volumes": volumes.volumes,
    });
    resources::place(&mut pod, &run.placement, &run.image, run.resources.gpus.as_ref(), id)?;
    Ok(json!({ "metadata": id.pod_metadata(), "spec": pod }))
}

fn command(run: &TrainingRun) -> Vec<String> {
    let own = run.command.iter().map(|part| literal(part));
    match run.launcher {
        Launcher::Torchrun if run.processes > 1 || run.min_ranks.is_some() => {
            ["torchrun", "--no-python"].into_iter().map(str::to_owned).chain(own).collect()
        }
        // `mpirun` in the first rank; the others start processes for it until it is done.
        Launcher::Mpi => [RUNNER, "mpi"].into_iter().map(str::to_owned).chain(own).collect(),
        _ => own.collect(),
    }
}
