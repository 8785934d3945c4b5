//! One attempt of a training run: an Indexed Job (or a JobSet of one), whose pods find each other by name.

use serde_json::{Value, json};

use super::labels::{ATTEMPT_LABEL, Identity, RUN_LABEL};
use super::pod::{check_user, container_security, environment, literal, pod_security};
use super::volumes::{RUNNER, Volumes, claim_name};
use super::{RenderError, Rendered, config, network_policy, rbac, resources};
use crate::Capabilities;
use crate::names;
use crate::spec::{Gang, Launcher, Storage, TrainingRun};
use crate::topology::{MAX_TF_CONFIG, Topology};
use crate::validate::MAX_LABEL;

const OUTPUT: &str = "/output";
/// Folder of the checkpoints, which all ranks and attempts share.
const CHECKPOINTS: &str = "/output/checkpoints";
/// Folder of a rank's model, in what is its own of the output.
pub const MODEL_FOLDER: &str = "model";
/// File with a rank's metrics, beside it.
pub const METRICS_FILE: &str = "metrics.jsonl";
const INDEX: &str = "metadata.annotations['batch.kubernetes.io/job-completion-index']";
/// What containers' environments refer to once `SLIPWAY_RANK` is set.
const RANK: &str = "$(SLIPWAY_RANK)";
/// Name of the only replicated job of a JobSet.
const NODE: &str = "node";
const MPI_FOLDER: &str = "/etc/mpi";
/// The command of an MPI rank: the first starts the processes everywhere, the others let it in.
const MPI_SCRIPT: &str =
    r#"if [ "$SLIPWAY_RANK" = 0 ]; then exec mpirun "$@"; else exec /usr/sbin/sshd -De; fi"#;

pub(super) fn render(run: &TrainingRun, caps: &Capabilities) -> Result<Rendered, RenderError> {
    check(run, caps)?;
    let id = Identity::run(run)?;
    let name = names::with_suffix(&id.name, &format!("-a{}", run.attempt))
        .map_err(|source| RenderError::Name { original: run.run.clone(), source })?;
    let topology = topology(run, &id, &name)?;
    let mut out = Rendered::default();
    check_user(run.image.run_as, &mut out)?;
    if run.gang == Gang::Emulated && run.ranks > 1 {
        out.warn("nothing in the cluster starts all ranks together: if some find no node, the attempt ends and is tried again");
    }
    let secret = config::secret(&run.environment, &id, &mut out)?;
    rbac::no_token_account(&id, &mut out);
    let claim = output_claim(run, &id, &mut out)?;
    if run.ranks > 1 {
        headless(&id, &mut out);
    }
    network_policy::for_run(run, &id, &mut out);
    let mut template = pod(run, caps, &id, &topology, &claim, secret.as_deref(), &mut out)?;
    group(run, caps, &id, &name, &mut template, &mut out);
    let spec = job_spec(run, &template);
    if run.gang == Gang::JobSet {
        job_set(run, caps, &id, &name, spec, &mut out);
    } else {
        let mut metadata = labelled(&id, &name, run);
        if let Gang::Kueue { queue } = &run.gang {
            metadata["labels"]["kueue.x-k8s.io/queue-name"] = queue.as_str().into();
        }
        out.add(
            "One attempt of the run: all ranks, which start and end together. The next attempt is another Job.",
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}),
        );
    }
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
    let job = if run.gang == Gang::JobSet { format!("{name}-{NODE}-0") } else { name.to_owned() };
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

/// Metadata of objects of this attempt only.
fn labelled(id: &Identity, name: &str, run: &TrainingRun) -> Value {
    let mut metadata = id.metadata_as(name);
    metadata["labels"][ATTEMPT_LABEL] = run.attempt.to_string().into();
    metadata
}

fn output_claim(run: &TrainingRun, id: &Identity, out: &mut Rendered) -> Result<String, RenderError> {
    match &run.output {
        Storage::Existing { claim } => {
            claim_name(claim)?;
            Ok(claim.clone())
        }
        Storage::New { size, class, shared } => {
            let name = id.derived("output", &[])?;
            out.add(
                "Checkpoints and the model of the run; every attempt goes on from them.",
                json!({
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": id.metadata_as(&name),
                    "spec": {
                        "accessModes": [if *shared { "ReadWriteMany" } else { "ReadWriteOnce" }],
                        "storageClassName": class,
                        "resources": {"requests": {"storage": resources::bytes(*size)}},
                    },
                }),
            );
            Ok(name)
        }
    }
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

fn job_spec(run: &TrainingRun, template: &Value) -> Value {
    json!({
        "completionMode": "Indexed",
        "completions": run.ranks,
        "parallelism": run.ranks,
        // The reconciler starts the next attempt, once the logs of this one are kept.
        "backoffLimit": 0,
        "activeDeadlineSeconds": run.deadline,
        "suspend": matches!(run.gang, Gang::Kueue { .. }).then_some(true),
        // A pod that was evicted or preempted ends the attempt too, and is told apart from one that failed by itself.
        "podFailurePolicy": {"rules": [{
            "action": "FailJob",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        }]},
        "podReplacementPolicy": "Failed",
        "template": template,
    })
}

fn pod(
    run: &TrainingRun,
    caps: &Capabilities,
    id: &Identity,
    topology: &Topology,
    claim: &str,
    secret: Option<&str>,
    out: &mut Rendered,
) -> Result<Value, RenderError> {
    let mut volumes = Volumes::default();
    volumes.source("workspace", "/workspace", &run.workspace, caps, &run.tools)?;
    if let Some(data) = &run.data {
        volumes.source("data", "/data", data, caps, &run.tools)?;
    }
    volumes.volumes.push(json!({"name": "output", "persistentVolumeClaim": {"claimName": claim}}));
    let output = json!({"name": "output", "mountPath": OUTPUT, "subPath": output_folder(run, id)});
    let mut folders = output_folders(run);
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

/// The claim with the output, and the folder in it.
pub(super) fn output_mount(
    run: &TrainingRun,
    id: &Identity,
) -> Result<(String, Option<String>), RenderError> {
    let claim = match &run.output {
        Storage::Existing { claim } => claim.clone(),
        Storage::New { .. } => id.derived("output", &[])?,
    };
    Ok((claim, output_folder(run, id).map(str::to_owned)))
}

/// What of the output is one rank's own: where several write, only the first one's counts.
pub fn rank_output(run: &TrainingRun, rank: &str) -> String {
    if run.ranks == 1 { OUTPUT.to_owned() } else { format!("{OUTPUT}/ranks/{rank}") }
}

/// Makes the folders that the ranks are told of, the model's anew in each attempt.
fn output_folders(run: &TrainingRun) -> Value {
    json!({
        "name": "output",
        "image": run.tools.to_string(),
        "imagePullPolicy": "IfNotPresent",
        "command": [RUNNER, "output", CHECKPOINTS, format!("{}/{MODEL_FOLDER}", rank_output(run, RANK))],
        "env": [rank_variable()],
        "securityContext": container_security(true),
        "resources": {
            "requests": {"cpu": "50m", "memory": "32Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
    })
}

fn rank_variable() -> Value {
    json!({"name": "SLIPWAY_RANK", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}})
}

/// The same folder in every attempt; in a claim that others use too, one of the run's own.
fn output_folder<'a>(run: &TrainingRun, id: &'a Identity) -> Option<&'a str> {
    matches!(run.output, Storage::Existing { .. }).then_some(id.name.as_str())
}

fn command(run: &TrainingRun) -> Vec<String> {
    let own = run.command.iter().map(|part| literal(part));
    match run.launcher {
        Launcher::Torchrun if run.processes > 1 || run.min_ranks.is_some() => {
            ["torchrun", "--no-python"].into_iter().map(str::to_owned).chain(own).collect()
        }
        Launcher::Mpi => {
            ["/bin/sh", "-c", &literal(MPI_SCRIPT), "mpi"].into_iter().map(str::to_owned).chain(own).collect()
        }
        _ => own.collect(),
    }
}

/// What every rank is told, by whatever name its framework knows it. The user's own variables come last and win.
fn variables(
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
        Launcher::Mpi => own.extend(
            [
                ("OMPI_MCA_orte_default_hostfile", format!("{MPI_FOLDER}/hostfile")),
                ("OMPI_MCA_orte_keep_fqdn_hostnames", "true".to_owned()),
                ("OMPI_MCA_orte_set_default_slots", run.processes.to_string()),
                ("OMPI_MCA_plm_rsh_args", "-o ConnectionAttempts=10 -o StrictHostKeyChecking=no".to_owned()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        ),
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

/// What makes the cluster's schedulers start all ranks or none.
fn group(
    run: &TrainingRun,
    caps: &Capabilities,
    id: &Identity,
    name: &str,
    template: &mut Value,
    out: &mut Rendered,
) {
    let fewest = run.min_ranks.unwrap_or(run.ranks);
    match &run.gang {
        Gang::Volcano { queue } => {
            out.add(
                "Starts all ranks or none.",
                json!({
                    "apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "PodGroup",
                    "metadata": labelled(id, name, run),
                    "spec": {"minMember": fewest, "queue": queue},
                }),
            );
            template["metadata"]["annotations"]["scheduling.k8s.io/group-name"] = name.into();
            template["spec"]["schedulerName"] = "volcano".into();
        }
        Gang::PodGroup => {
            let version = caps.pod_group.as_deref().unwrap_or("v1beta1");
            out.add(
                "Starts all ranks or none.",
                json!({
                    "apiVersion": format!("scheduling.k8s.io/{version}"), "kind": "PodGroup",
                    "metadata": labelled(id, name, run),
                    "spec": {"schedulingPolicy": {"gang": {"minCount": fewest}}},
                }),
            );
            template["spec"]["schedulingGroup"] = json!({ "podGroupName": name });
        }
        Gang::Emulated | Gang::JobSet | Gang::Kueue { .. } => {}
    }
}

fn job_set(
    run: &TrainingRun,
    caps: &Capabilities,
    id: &Identity,
    name: &str,
    spec: Value,
    out: &mut Rendered,
) {
    let version = caps.jobset.as_deref().unwrap_or("v1alpha2");
    out.add(
        "One attempt of the run: all ranks, which start and end together. The next attempt is another JobSet.",
        json!({
            "apiVersion": format!("jobset.x-k8s.io/{version}"),
            "kind": "JobSet",
            "metadata": labelled(id, name, run),
            "spec": {
                "failurePolicy": {"maxRestarts": 0},
                "network": {"enableDNSHostnames": true, "publishNotReadyAddresses": true, "subdomain": id.pods},
                "replicatedJobs": [{"name": NODE, "replicas": 1, "template": {"spec": spec}}],
            },
        }),
    );
}
