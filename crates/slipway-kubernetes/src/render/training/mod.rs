//! One attempt of a training run: an Indexed Job (or a JobSet of one), whose pods find each other by name.

mod gang;
mod output;
mod pod;
mod variables;

use serde_json::json;

use super::labels::{Identity, RUN_LABEL};
use super::pod::check_user;
use super::{RenderError, Rendered, config, network_policy, rbac};
use crate::Capabilities;
use crate::spec::{Gang, Launcher, Storage, TrainingRun};
use crate::topology::Topology;
use crate::validate::MAX_LABEL;

pub(crate) use gang::job_of;
pub(super) use output::output_mount;
pub use output::{METRICS_FILE, MODEL_FOLDER, rank_output};

/// Secret variable by which the ranks of a gang of MPI know each other; whoever knows it can run programs in them.
pub const MPI_TOKEN: &str = "SLIPWAY_MPI_TOKEN";

pub(super) fn render(run: &TrainingRun, caps: &Capabilities) -> Result<Rendered, RenderError> {
    check(run, caps)?;
    let id = Identity::run(run)?;
    let name =
        run.attempt_name().map_err(|source| RenderError::Name { original: run.run.clone(), source })?;
    let topology = topology(run, &id, &name)?;
    let mut out = Rendered::default();
    check_user(run.image.run_as, &mut out)?;
    if matches!(run.gang, Gang::Emulated | Gang::JobSet) && run.ranks > 1 {
        out.warn("nothing in the cluster starts all ranks together: if some find no node, the attempt ends and is tried again");
    }
    let secret = config::secret(&run.environment, &id, &mut out)?;
    rbac::no_token_account(&id, &mut out);
    let claim = output::claim(run, &id, &mut out)?;
    if run.ranks > 1 {
        headless(&id, &mut out);
    }
    network_policy::for_run(run, &id, &mut out);
    let mut template = pod::pod(run, caps, &id, &topology, &claim, secret.as_deref(), &mut out)?;
    gang::group(run, caps, &id, &name, &mut template, &mut out);
    gang::attempt(run, caps, &id, &name, &template, &mut out);
    Ok(out)
}

fn check(run: &TrainingRun, caps: &Capabilities) -> Result<(), RenderError> {
    let wrong = |what, reason: &str| Err(RenderError::Contradiction { what, reason: reason.to_owned() });
    if run.command.is_empty() {
        return wrong("command", "it is empty");
    }
    if run.ranks == 0 || run.processes == 0 {
        return wrong("workers", "a run has at least one rank with one process");
    }
    if run.min_ranks.is_some_and(|min| min == 0 || min > run.ranks) {
        return wrong("workers", "the fewest ranks must be between 1 and the most");
    }
    if run.min_ranks.is_some() && run.launcher != Launcher::Torchrun {
        return wrong("workers", "only torchrun goes on with fewer ranks");
    }
    if run.launcher == Launcher::Mpi && !run.environment.secrets.contains_key(MPI_TOKEN) {
        return wrong(MPI_TOKEN, "ranks of MPI know each other by it");
    }
    if run.ranks > 1 && matches!(run.output, Storage::New { shared: false, .. }) {
        return wrong("output", "several ranks need storage that several nodes can mount");
    }
    let served = match run.gang {
        Gang::Emulated => true,
        Gang::JobSet => caps.jobset.is_some(),
        Gang::Kueue { .. } => caps.kueue,
        Gang::Volcano { .. } => caps.volcano,
        Gang::PodGroup => caps.pod_group.is_some(),
    };
    if !served {
        let missing = match run.gang {
            Gang::JobSet => "JobSet",
            Gang::Kueue { .. } => "Kueue",
            Gang::Volcano { .. } => "Volcano",
            Gang::PodGroup | Gang::Emulated => "PodGroup",
        };
        return Err(RenderError::Unsupported { missing, what: format!("the run {}", run.run) });
    }
    if let Gang::Kueue { queue } | Gang::Volcano { queue: Some(queue) } = &run.gang {
        crate::validate::dns_1123_label(queue)
            .map_err(|source| RenderError::Invalid { what: "queue", source })?;
    }
    Ok(())
}

/// Names of the pods: `<job>-<index>.<service>.<namespace>.svc`.
fn topology(run: &TrainingRun, id: &Identity, name: &str) -> Result<Topology, RenderError> {
    let job = job_of(&run.gang, name);
    let last = format!("{job}-{}", run.ranks - 1);
    if last.len() > MAX_LABEL {
        return Err(RenderError::Contradiction {
            what: "run",
            reason: format!("`{last}`, the name of its last pod, exceeds {MAX_LABEL} characters"),
        });
    }
    let hosts = if run.ranks == 1 {
        vec!["localhost".to_owned()]
    } else {
        let domain = format!("{}.{}.svc", id.pods, id.namespace);
        (0..run.ranks).map(|index| format!("{job}-{index}.{domain}")).collect()
    };
    Ok(Topology {
        run: run.run.clone(),
        attempt: run.attempt,
        hosts,
        processes: run.processes,
        min_hosts: run.min_ranks,
    })
}

/// Ranks look each other up before they are ready.
fn headless(id: &Identity, out: &mut Rendered) {
    out.add(
        "Gives every rank a name by which the others find it, in every attempt.",
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": id.metadata_as(&id.pods),
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": true, "selector": {RUN_LABEL: id.name}},
        }),
    );
}
