//! Slipway itself: a service behind the gateway, and the same runner asked directly.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::super::error::Error;
use super::super::packages::{MMDEBSTRAP, require};
use super::super::process::{clean_up, free_port, run};
use super::super::say;
use super::super::slipway::{Programs, QUICK, Slipway};
use super::model::Model;
use super::peers::ONNXRUNTIME;
use super::{Server, Target};
use crate::workspace::root;

/// Reports name Slipway's figures so.
pub const GATEWAY: &str = "slipway, gateway and runner";
/// And those of the runner alone.
pub const DIRECT: &str = "slipway-runner, asked directly";

const BASE: &str = "slipway/python:bookworm";
const IMAGE: &str = "bench/onnx:1";
const NAME: &str = "bench";
const CONTAINER: &str = "bench-runner";
const SLOW: Duration = Duration::from_secs(1200);
/// Where distributions keep the trust bundle, which pip in the build needs where a proxy signs with its own key.
const BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Makes the image and records the model, unless they are there.
pub fn prepare(slipway: &Slipway, scratch: &Path, model: &Model, install: bool) -> Result<(), Error> {
    if slipway.call(&["inspect", BASE], QUICK).is_err() {
        require(&[MMDEBSTRAP], install)?;
        say(format!("making the image {BASE} (a minute or two)"));
        let packages = ["python3", "python3-pip", "python-is-python3"];
        let mut command = slipway.command();
        command.args(["base", "debian", "--suite", "bookworm", "-t", BASE]);
        command.args(packages.iter().flat_map(|package| ["-p", package]));
        run(&mut command, SLOW)?;
    }
    if slipway.call(&["inspect", IMAGE], QUICK).is_err() {
        say(format!("building {IMAGE}"));
        let folder = scratch.join("image");
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let file = folder.join("Dockerfile");
        let text = format!(
            "FROM {BASE}\nRUN pip install --break-system-packages --no-cache-dir {ONNXRUNTIME} numpy\n"
        );
        std::fs::write(&file, text).map_err(Error::io("write", &file))?;
        let mut command = slipway.command();
        if let Some(bundle) = BUNDLES.iter().find(|path| Path::new(path).is_file()) {
            command.env("SLIPWAY_CA_CERTIFICATES", bundle);
        }
        command.args(["build", "--progress", "plain", "-t", IMAGE]);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL"] {
            if std::env::var_os(name).is_some() {
                command.args(["--build-arg", name]);
            }
        }
        run(command.arg(&folder), SLOW)?;
    }
    let folder = model.folder();
    run(slipway.command().args(["model", "import"]).arg(&folder).arg(NAME), QUICK).map(drop)
}

/// The service, deployed for every round and deleted after it.
#[derive(Debug)]
pub struct Service<'a> {
    pub slipway: &'a Slipway,
    pub model: &'a Model,
}

impl Server for Service<'_> {
    fn name(&self) -> &'static str {
        GATEWAY
    }

    fn start(&self) -> Result<Target<'_>, Error> {
        let slipway = self.slipway;
        let target = Target {
            address: slipway.gateway(),
            path: format!("/v1/models/{NAME}:predict"),
            body: self.model.instances(),
            running: None,
            stop: Some(Box::new(move || drop(clean_up(slipway.command().args(["delete", NAME]), QUICK)))),
        };
        slipway.call(&["deploy", "--image", IMAGE, "--replicas", "1", NAME], Duration::from_secs(320))?;
        Ok(target)
    }
}

/// The runner in a container of the same image, on a TCP port of the host's: what the gateway costs is the difference.
#[derive(Debug)]
pub struct Direct<'a> {
    slipway: &'a Slipway,
    model: &'a Model,
    folder: PathBuf,
}

impl<'a> Direct<'a> {
    /// Copies what the container is given, so that no mount of it reaches the repository.
    pub fn new(
        slipway: &'a Slipway,
        programs: &Programs,
        model: &'a Model,
        folder: PathBuf,
    ) -> Result<Self, Error> {
        let copy = |from: &Path, to: PathBuf| {
            to.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(Error::io("create", &to))?;
            std::fs::copy(from, &to).map(drop).map_err(Error::io("copy", from))
        };
        copy(&programs.runner(), folder.join("slipway/runner"))?;
        let worker = root().join("crates/slipway-serving/python/slipway_worker");
        for entry in walkdir::WalkDir::new(&worker) {
            let entry = entry.map_err(|e| Error::io("walk", &worker)(e.into()))?;
            if let (Ok(rest), true) = (entry.path().strip_prefix(&worker), entry.file_type().is_file()) {
                copy(entry.path(), folder.join("slipway/python/slipway_worker").join(rest))?;
            }
        }
        let run = folder.join("run");
        std::fs::create_dir_all(&run).map_err(Error::io("create", &run))?;
        Ok(Self { slipway, model, folder })
    }
}

impl Server for Direct<'_> {
    fn name(&self) -> &'static str {
        DIRECT
    }

    fn start(&self) -> Result<Target<'_>, Error> {
        let slipway = self.slipway;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let config = json!({
            "service": NAME, "model": NAME, "version": 1, "format": "onnx", "model_dir": "/model",
            "socket": "/run/slipway/http.sock", "listen": address.to_string(), "python_dir": "/slipway/python",
            "batch": { "max_size": 32, "max_delay_us": 0 }, "max_body": 1 << 20, "timeout_ms": 30_000,
        });
        let file = self.folder.join("slipway/runner.json");
        std::fs::write(&file, config.to_string()).map_err(Error::io("write", &file))?;
        let target = Target {
            address,
            path: format!("/v1/models/{NAME}:predict"),
            body: self.model.instances(),
            running: None,
            stop: Some(Box::new(move || {
                drop(clean_up(slipway.command().args(["rm", "-f", CONTAINER]), QUICK))
            })),
        };
        let mut command = slipway.command();
        command.args(["run", "-d", "--read-only", "--network", "host", "--name", CONTAINER]);
        command.args(["--tmpfs", "/tmp", "--entrypoint", "/slipway/runner"]);
        for (source, inside) in [
            (self.folder.join("slipway"), "/slipway:ro"),
            (self.folder.join("run"), "/run/slipway"),
            (self.model.folder(), "/model:ro"),
        ] {
            command.arg("-v").arg(format!("{}:{inside}", source.display()));
        }
        run(command.arg(IMAGE), QUICK)?;
        Ok(target)
    }
}
