//! Starting a cluster.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::error::Error;
use super::kubectl::Kubectl;
use super::programs::{self, Programs, run};
use super::state::State;
use super::{down, packages};
use crate::error::chain;

/// The real node's name; the Go program gives it.
pub const NODE: &str = "slipway-node";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Further nodes that kwok plays: `kwok:N`. Beside the real node they have the taint kwok.x-k8s.io/node=fake:NoSchedule
    #[arg(long, value_name = "kwok:N", value_parser = fake_nodes)]
    nodes: Option<u32>,
    /// No real node: no kubelet, no containers
    #[arg(long)]
    no_kubelet: bool,
    /// Fail where the real node does not get ready, instead of standing in kwok for it
    #[arg(long, conflicts_with = "no_kubelet")]
    require_kubelet: bool,
    /// Measure what pods use: metrics-server, for `kubectl top` and HorizontalPodAutoscalers
    #[arg(long, conflicts_with = "no_kubelet")]
    metrics: bool,
    /// Seconds for the real node to get ready
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    timeout: u64,
    /// Port of the API on 127.0.0.1 [default: a free one]
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
    /// Port of the image registry on 127.0.0.1 [default: a free one]
    #[arg(long, value_name = "PORT")]
    registry_port: Option<u16>,
    /// A further flag of a program, for example apiserver=--v=4; may be repeated
    #[arg(long = "arg", value_name = "PROGRAM=FLAG")]
    extra: Vec<String>,
    /// Install missing Debian packages
    #[arg(long)]
    install: bool,
}

fn fake_nodes(text: &str) -> Result<u32, String> {
    let count = text.strip_prefix("kwok:").and_then(|count| count.parse().ok());
    count
        .filter(|count| (1..=5000).contains(count))
        .ok_or_else(|| "expected kwok:N, with N from 1 to 5000".to_owned())
}

/// Starts a cluster, or says that it is up.
pub fn up(state: &State, args: &Args) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Unprivileged);
    }
    match state.read()? {
        Some(cluster) if cluster.lives() => {
            eprintln!("==> the cluster is up already");
            println!("{}", state.kubeconfig().display());
            return Ok(());
        }
        Some(_) => {
            eprintln!("==> removing what a cluster left that ended by itself");
            down::down(state)?;
        }
        None => {}
    }
    packages::require(!args.no_kubelet, args.install)?;
    let programs = programs::ensure()?;
    let start = Instant::now();
    eprintln!("==> starting a cluster in {}", state.folder().display());
    boot(state, args, &programs).inspect_err(|_| {
        eprintln!(
            "    logs are in {}; `cargo xtask cluster down` removes them",
            state.folder().join("logs").display()
        );
    })?;
    eprintln!("    the API is served after {:.1} s", start.elapsed().as_secs_f64());
    let mut stand_in = args.no_kubelet && args.nodes.is_none();
    if !args.no_kubelet {
        match wait_for_node(state, args.timeout) {
            Ok(()) => eprintln!("    the real node is ready after {:.1} s", start.elapsed().as_secs_f64()),
            Err(error) if args.require_kubelet => return Err(error),
            Err(error) => {
                eprintln!("WARNING: {}", chain(&error));
                eprintln!(
                    "WARNING: NO REAL NODE: kwok stands in for it. Pods are only said to run; nothing of theirs is tested."
                );
                state.ask("stop kubelet")?;
                state.ask("stop proxy")?;
                // Who looks for a real node finds none.
                Kubectl::new(state)?.get(&["delete", "node", NODE, "--ignore-not-found"])?;
                stand_in = true;
            }
        }
    }
    if stand_in {
        fake(state, &programs, 1, false)?;
    }
    if let Some(count) = args.nodes {
        fake(state, &programs, count, !args.no_kubelet && !stand_in)?;
    }
    println!("{}", state.kubeconfig().display());
    Ok(())
}

fn boot(state: &State, args: &Args, programs: &Programs) -> Result<(), Error> {
    let mut command = Command::new(programs.cluster());
    command.arg("boot").arg("--state").arg(state.folder()).arg("--pause").arg(programs.pause());
    if args.no_kubelet {
        command.arg("--no-kubelet");
    }
    if args.metrics {
        command.arg("--metrics");
    }
    for (flag, port) in [("--api-port", args.api_port), ("--registry-port", args.registry_port)] {
        if let Some(port) = port {
            command.arg(flag).arg(port.to_string());
        }
    }
    for flag in &args.extra {
        command.arg("--arg").arg(flag);
    }
    run(command.stdin(Stdio::null()))
}

/// Waits until the kubelet says that its node is ready, or says why it does not.
fn wait_for_node(state: &State, limit: u64) -> Result<(), Error> {
    let kubectl = Kubectl::new(state)?;
    let ready = r#"jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.message}{end}"#;
    kubectl
        .until(
            "the node is ready",
            Duration::from_secs(limit),
            &["get", "node", NODE, "--output", ready],
            |text| text.starts_with("True"),
        )
        .map(drop)
        .map_err(|error| {
            let log = last_lines(&state.folder().join("logs/kubelet.log"), 5);
            Error::NodeNotReady(format!("{}\nlast lines of logs/kubelet.log:\n{log}", chain(&error)))
        })
}

/// Lets kwok play nodes.
fn fake(state: &State, programs: &Programs, count: u32, taint: bool) -> Result<(), Error> {
    let kwok = programs::ensure_kwok()?;
    for (from, to) in [(kwok.program(), "bin/kwok"), (kwok.stages(), "conf/kwok.yaml")] {
        let to = state.folder().join(to);
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        std::fs::copy(&from, &to).map_err(Error::io("write", &to))?;
    }
    let start = Instant::now();
    let mut command = Command::new(programs.cluster());
    command.arg("fake-nodes").arg("--state").arg(state.folder());
    run(command.args(["--count", &count.to_string(), &format!("--taint={taint}")]))?;
    let ready = |text: &str| text.split_whitespace().filter(|word| *word == "True").count() >= count as usize;
    Kubectl::new(state)?.until(
        "the nodes of kwok are ready",
        Duration::from_secs(120),
        &[
            "get",
            "nodes",
            "--selector",
            "type=kwok",
            "--output",
            r#"jsonpath={range .items[*].status.conditions[?(@.type=="Ready")]}{.status} {end}"#,
        ],
        ready,
    )?;
    eprintln!("    {count} nodes of kwok are ready after {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn last_lines(file: &Path, count: usize) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fake_nodes_have_a_number() {
        assert_eq!(fake_nodes("kwok:100"), Ok(100));
        for text in ["kwok", "kwok:", "kwok:0", "kwok:5001", "kind:3", "7"] {
            assert!(fake_nodes(text).is_err(), "{text}");
        }
    }
}
