//! `cargo xtask cluster`: a real Kubernetes cluster for tests, from Go modules and Debian packages alone.
//!
//! `tests/cluster` is the Go program that holds the components and knows their flags. Here it is built, started and
//! taken down. All processes of a cluster are in PID, mount and network namespaces of its own, and in a cgroup.

mod cgroups;
mod down;
mod error;
mod kubectl;
mod packages;
mod programs;
mod smoke;
mod state;
mod up;

use std::path::PathBuf;

use self::error::Error;
use self::state::State;
use crate::error::chain;

/// `cargo xtask cluster`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// Folder of the cluster; another folder is another cluster [default: target/cluster]
    #[arg(long, global = true, value_name = "FOLDER")]
    state: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Build what is not in the cache, start a cluster, wait until its node is ready, and print the path of its kubeconfig
    ///
    /// The programs are kept in $SLIPWAY_CLUSTER_CACHE, else in slipway/cluster in the user's cache folder.
    Up(up::Args),
    /// End a cluster and remove all it had: processes, mounts, cgroups, interfaces, images, volumes
    Down,
    /// Say what runs, which memory it uses, and how its nodes are
    Status,
    /// Build the programs only, and print their folder
    Build {
        /// Build kwok as well
        #[arg(long)]
        kwok: bool,
    },
    /// Start, stop, restart or kill one of the cluster's programs; a killed program starts again by itself
    Program {
        #[arg(value_parser = ["start", "stop", "restart", "kill"])]
        action: String,
        /// For example apiserver, kubelet, controller-manager, etcd; `status` names all
        name: String,
    },
    /// Run kubectl as the cluster's administrator
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Make an image of static programs and push it to the cluster's registry
    ///
    /// Takes the flags of `cluster image`: --name REPOSITORY:TAG, --file PATH=FILE, --link PATH=TARGET, --entrypoint, --command.
    Image {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a Deployment, Services, a gang of two ranks, probes, volumes, logs and exec on a cluster that is up
    Smoke,
}

/// Runs a task.
pub fn run(args: &Args) -> Result<(), String> {
    act(args).map_err(|error| chain(&error))
}

fn act(args: &Args) -> Result<(), Error> {
    let state = State::new(args.state.clone());
    match &args.action {
        Action::Up(args) => up::up(&state, args),
        Action::Down => down::down(&state),
        Action::Status => status(&state),
        Action::Build { kwok } => {
            let programs = programs::ensure()?;
            if *kwok {
                programs::ensure_kwok()?;
            }
            println!("{}", programs.folder.display());
            Ok(())
        }
        Action::Program { action, name } => state.ask(&format!("{action} {name}")).map(drop),
        Action::Kubectl { arguments } => {
            let words: Vec<_> = arguments.iter().map(String::as_str).collect();
            kubectl::Kubectl::new(&state)?.pass(&words)
        }
        Action::Image { arguments } => {
            let words: Vec<_> = arguments.iter().map(String::as_str).collect();
            kubectl::Kubectl::new(&state)?.image(&words)
        }
        Action::Smoke => smoke::smoke(&state),
    }
}

fn status(state: &State) -> Result<(), Error> {
    let cluster = state.running()?;
    print!("{}", state.ask("status")?);
    println!("kubeconfig {}", state.kubeconfig().display());
    println!("registry   127.0.0.1:{}", cluster.registry_port);
    if let Some(usage) = cgroups::memory(&cluster.cgroup()) {
        println!("memory     {} MiB now, {} MiB at most", usage.now >> 20, usage.most >> 20);
    }
    kubectl::Kubectl::new(state)?.pass(&["get", "nodes", "--output", "wide"])
}
