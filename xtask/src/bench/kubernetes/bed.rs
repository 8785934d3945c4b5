//! The control plane, its namespace, and a daemon that runs there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::error::Error;
use super::super::process::{clean_up, run};
use super::super::slipway::{QUICK, Slipway};
use super::super::{Bench, image};
use super::audit::{self, ACCOUNT, Audit};
use crate::error::chain;

/// Namespace of the daemon.
pub const NAMESPACE: &str = "bench";
/// Image of all services.
pub const IMAGE: &str = "bench/web:1";
/// Starting a control plane, also where its programs are built first.
const START: Duration = Duration::from_secs(1800);

/// Ending one that has a thousand pods.
const END: Duration = Duration::from_secs(300);

/// A control plane that ends when dropped.
#[derive(Debug)]
struct ControlPlane {
    state: PathBuf,
}

impl ControlPlane {
    fn task(&self, arguments: &[&str]) -> Result<Command, Error> {
        let own = std::env::current_exe().map_err(Error::io("find", Path::new("this program")))?;
        let mut command = Command::new(own);
        command.arg("cluster").arg("--state").arg(&self.state).args(arguments);
        Ok(command)
    }

    fn start(state: PathBuf, nodes: u32) -> Result<Self, Error> {
        let this = Self { state };
        let policy = this.state.join("audit.yaml");
        std::fs::create_dir_all(&this.state).map_err(Error::io("create", &this.state))?;
        std::fs::write(&policy, audit::policy(NAMESPACE)).map_err(Error::io("write", &policy))?;
        let mut command = this.task(&["up", "--no-kubelet", "--nodes", &format!("kwok:{nodes}")])?;
        for flag in [
            "apiserver=--audit-policy-file=/run/cluster/audit.yaml",
            "apiserver=--audit-log-path=/run/cluster/logs/audit.log",
            "apiserver=--audit-log-maxsize=4096",
            "controller-manager=--kube-api-qps=1000",
            "controller-manager=--kube-api-burst=2000",
            "controller-manager=--concurrent-deployment-syncs=20",
            "controller-manager=--concurrent-replicaset-syncs=20",
            "scheduler=--kube-api-qps=1000",
            "scheduler=--kube-api-burst=2000",
        ] {
            command.args(["--arg", flag]);
        }
        run(&mut command, START)?;
        Ok(this)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let ended = self.task(&["down"]).and_then(|mut command| clean_up(&mut command, END));
        if let Err(error) = ended {
            eprintln!("warning: the control plane is not down: {}", chain(&error));
        }
    }
}

/// Everything that is measured on.
#[derive(Debug)]
pub struct Bed {
    // Ended before the control plane: it removes what it declared.
    pub slipway: Slipway,
    control_plane: ControlPlane,
    pub audit: Audit,
    pub socket: PathBuf,
    pub log: PathBuf,
    pub pid: u32,
}

impl Bed {
    /// Starts both.
    pub fn start(bench: &mut Bench, nodes: u32) -> Result<Self, Error> {
        let control_plane = ControlPlane::start(bench.scratch.path().join("c"), nodes)?;
        let kubectl = |arguments: &[&str]| kubectl(&control_plane, arguments);
        kubectl(&["create", "namespace", NAMESPACE])?;
        kubectl(&["--namespace", NAMESPACE, "create", "serviceaccount", ACCOUNT])?;
        let subject = format!("--serviceaccount={NAMESPACE}:{ACCOUNT}");
        kubectl(&["create", "clusterrolebinding", ACCOUNT, "--clusterrole=cluster-admin", &subject])?;
        let kubeconfig = bench.scratch.path().join("kubeconfig");
        let config = account(
            &kubectl(&["config", "view", "--raw", "--minify", "--output", "json"])?,
            kubectl(&["--namespace", NAMESPACE, "create", "token", ACCOUNT, "--duration", "24h"])?.trim(),
        )?;
        std::fs::write(&kubeconfig, config).map_err(Error::io("write", &kubeconfig))?;
        let version = kubectl(&["version", "--output", "json"])?;
        let version: Value = serde_json::from_str(&version).unwrap_or_default();
        let version = version["serverVersion"]["gitVersion"].as_str().unwrap_or("unknown").to_owned();
        bench.report.versions.push(("kubernetes".into(), version));

        let root = bench.scratch.folder("s")?;
        let slipway = Slipway::start_logging(
            &bench.programs,
            bench.scratch.path(),
            &root,
            Some("info,slipway::daemon::reconciler=debug"),
        )?;
        let log = bench.scratch.path().join("slipway-daemon.log");
        run(
            slipway.command().arg("import").arg(image::tar(bench.scratch.path())?).arg("bench/tiny:1"),
            QUICK,
        )?;
        let project = bench.scratch.folder("web")?;
        let dockerfile = project.join("Dockerfile");
        std::fs::write(&dockerfile, "FROM bench/tiny:1\nUSER 1000\nEXPOSE 9000\nCMD [\"sh\"]\n")
            .map_err(Error::io("write", &dockerfile))?;
        run(slipway.command().args(["build", "-q", "-t", IMAGE]).arg(&project), QUICK)?;
        let status = slipway.call(&["daemon", "status"], QUICK)?;
        let pid = serde_json::from_str::<Value>(&status).ok().and_then(|status| status["pid"].as_u64());
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| Error::unexpected("the daemon tells no process id", status))?;
        let about = control_plane.state.join("cluster.json");
        let text = std::fs::read_to_string(&about).map_err(Error::io("read", &about))?;
        let about: Value = serde_json::from_str(&text).unwrap_or_default();
        let registry = format!("127.0.0.1:{}", about["registryPort"]);
        let mut engine = slipway.command();
        engine.args(["engine", "use", "kubernetes", "--namespace", NAMESPACE, "--registry", &registry]);
        run(engine.args(["--gateway-replicas", "0", "--kubeconfig"]).arg(&kubeconfig), QUICK)?;
        let audit = Audit::new(&control_plane.state.join("logs/audit.log"));
        Ok(Self { slipway, audit, socket: root.join("daemon.sock"), log, pid, control_plane })
    }

    /// Runs kubectl as the administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, Error> {
        kubectl(&self.control_plane, arguments)
    }
}

fn kubectl(control_plane: &ControlPlane, arguments: &[&str]) -> Result<String, Error> {
    let mut command = control_plane.task(&["kubectl", "--"])?;
    Ok(run(command.args(arguments), START)?.output)
}

/// A kubeconfig with another user.
fn account(admin: &str, token: &str) -> Result<String, Error> {
    let mut config: Value = serde_json::from_str(admin)
        .map_err(|error| Error::unexpected("kubectl shows no kubeconfig", error.to_string()))?;
    let name = config["contexts"][0]["context"]["user"].clone();
    config["users"] = json!([{ "name": name, "user": { "token": token } }]);
    Ok(config.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_user_has_the_same_cluster_and_no_certificate() {
        let admin = r#"{"clusters": [{"name": "c", "cluster": {"server": "https://a"}}], "users": [{"name": "u", "user":
            {"client-key-data": "x"}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}"#;
        let config: Value = serde_json::from_str(&account(admin, "t").unwrap()).unwrap();
        assert_eq!(config["users"], json!([{"name": "u", "user": {"token": "t"}}]));
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://a");
        assert!(account("no", "t").is_err());
    }
}
