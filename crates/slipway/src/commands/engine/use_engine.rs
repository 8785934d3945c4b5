//! `slipway engine use`

use std::path::{Path, PathBuf};

use slipway_types::engine::{ClusterSpec, EngineStatus, NATIVE, UseEngine};

use super::super::Context;
use super::super::exposure::ExposureArgs;
use crate::cluster::GATEWAY_REPLICAS;
use crate::env_vars;
use crate::failure::{self, Failure};

/// Name of a cluster that is not given another.
const KUBERNETES: &str = "kubernetes";

/// Run services and training where this says from now on: `native` is this host, `kubernetes` a namespace of a cluster
///
/// A cluster is asked before anything is recorded. Of one that is known, what no flag says stays as it was. What Slipway must be allowed to do there, `slipway engine rbac` prints.
/// The daemon reads the kubeconfig when it connects, as root: programs that it names for credentials run as root, too.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of this cluster, where there are several [default: kubernetes]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Kubeconfig [default: the files in KUBECONFIG, else ~/.kube/config, else the account of the pod that the daemon runs in]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,
    /// Namespace [default: the context's, else `default`]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Registry that images are pushed to and that the cluster pulls from
    #[arg(long, value_name = "HOST[:PORT][/PATH]")]
    registry: Option<String>,
    /// Pods of Slipway's gateway before the services; with 0, clients reach the services' pods themselves
    /// [default: 2]
    #[arg(long, value_name = "COUNT")]
    gateway_replicas: Option<u32>,
    #[command(flatten)]
    exposure: ExposureArgs,
    /// Secret of the namespace with the registry's credentials (repeatable)
    #[arg(long = "pull-secret", value_name = "SECRET")]
    pull_secrets: Vec<String>,
    /// Storage class for the output of training runs [default: the cluster's]
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,
    /// Only add or change it; services and runs that name no engine go where they went before
    #[arg(long)]
    no_default: bool,
    /// `native`, `kubernetes`, or an engine of `slipway engine ls`
    #[arg(value_name = "ENGINE")]
    engine: String,
}

/// Uses.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let name = args.name.clone().unwrap_or_else(|| args.engine.clone());
    let known: Vec<EngineStatus> = context.client()?.get("/v1/engines")?;
    let before = known.iter().find(|engine| engine.name == name).and_then(|engine| engine.cluster.as_ref());
    let cluster = if args.engine == NATIVE {
        if args.name.is_some() || args.describes_a_cluster() {
            return Err(Failure::usage("`native` is this host: it has no context, namespace or registry"));
        }
        None
    } else if before.is_some() && !args.describes_a_cluster() {
        None
    } else if args.engine == KUBERNETES || before.is_some() {
        Some(args.cluster(before)?)
    } else {
        return Err(Failure::usage(format!("`{}` is no engine", args.engine)).hint(
            "`slipway engine use kubernetes --name NAME --registry REGISTRY` adds a cluster under a name of yours",
        ));
    };
    let request = UseEngine { name, cluster, default: !args.no_default };
    let status: EngineStatus = context.client()?.put("/v1/engines", &request)?;
    context.printer.line(format!("{}  {}", status.name, status.place));
    Ok(0)
}

impl Args {
    fn describes_a_cluster(&self) -> bool {
        self.kubeconfig.is_some()
            || self.context.is_some()
            || self.namespace.is_some()
            || self.registry.is_some()
            || self.storage_class.is_some()
            || self.gateway_replicas.is_some()
            || self.exposure.is_given()
            || !self.pull_secrets.is_empty()
    }

    fn cluster(&self, before: Option<&ClusterSpec>) -> Result<ClusterSpec, Failure> {
        let registry = self.registry.clone().or_else(|| before.map(|before| before.registry.clone()));
        let registry = registry.ok_or_else(|| {
            Failure::usage("--registry is missing: images have to be where the cluster can pull them").hint(
                "for example `--registry registry.example.com/team`; `slipway login` first if it asks for it",
            )
        })?;
        let mut before = before.cloned();
        // Another kubeconfig has contexts of its own, and another way to the server.
        if let Some(before) = before.as_mut().filter(|_| self.kubeconfig.is_some()) {
            (before.context, before.namespace, before.proxy) = (None, None, None);
        }
        let or_before = |given: &Option<String>, kept: fn(&ClusterSpec) -> &Option<String>| {
            given.clone().or_else(|| before.as_ref().and_then(|before| kept(before).clone()))
        };
        let proxy = [env_vars::HTTPS_PROXY, env_vars::HTTPS_PROXY_LOWER]
            .iter()
            .find_map(|name| std::env::var(name).ok())
            .filter(|proxy| !proxy.is_empty());
        Ok(ClusterSpec {
            kubeconfig: match (&self.kubeconfig, &before) {
                (Some(file), _) => vec![file.canonicalize().map_err(|e| failure::io("open", file, &e))?],
                (None, Some(before)) => before.kubeconfig.clone(),
                (None, None) => usual_kubeconfig()?,
            },
            context: or_before(&self.context, |before| &before.context),
            namespace: or_before(&self.namespace, |before| &before.namespace),
            proxy: or_before(&proxy, |before| &before.proxy),
            registry,
            gateway_replicas: self
                .gateway_replicas
                .or_else(|| before.as_ref().map(|before| before.gateway_replicas))
                .unwrap_or(GATEWAY_REPLICAS),
            exposure: match &before {
                Some(before) if !self.exposure.is_given() => before.exposure.clone(),
                _ => self.exposure.exposure()?,
            },
            pull_secrets: match &before {
                Some(before) if self.pull_secrets.is_empty() => before.pull_secrets.clone(),
                _ => self.pull_secrets.clone(),
            },
            storage_class: or_before(&self.storage_class, |before| &before.storage_class),
        })
    }
}

/// The files that `kubectl` would read; none where there are none, which means the account of the daemon's pod.
fn usual_kubeconfig() -> Result<Vec<PathBuf>, Failure> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| failure::io("resolve", path, &e));
    if let Some(files) = std::env::var_os(env_vars::KUBECONFIG).filter(|files| !files.is_empty()) {
        let files = std::env::split_paths(&files).filter(|file| !file.as_os_str().is_empty());
        return files.map(|file| absolute(&file)).collect();
    }
    let home = std::env::var_os(env_vars::HOME).map(|home| Path::new(&home).join(".kube/config"));
    Ok(home.into_iter().filter(|file| file.is_file()).collect())
}
