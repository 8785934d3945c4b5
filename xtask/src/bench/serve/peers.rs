//! The peers: each in a Python environment of its own, set up as its documentation says for throughput.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::super::error::Error;
use super::super::process::{Running, free_port};
use super::model::Model;
use super::venv::Venv;
use super::{Server, Target};

/// Version of the engine that runs the model everywhere, also in Slipway's image.
pub const ONNXRUNTIME: &str = "onnxruntime==1.32.0";

/// Which peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Mosec,
    LitServe,
    MlServer,
}

impl Kind {
    /// Every peer.
    pub const ALL: [Self; 3] = [Self::Mosec, Self::LitServe, Self::MlServer];

    /// How reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mosec => "mosec, batch <= 32, wait 1 ms",
            Self::LitServe => "LitServe, batch <= 32, wait 1 ms",
            Self::MlServer => "MLServer, parallel_workers 0",
        }
    }

    /// Its package.
    pub fn package(self) -> &'static str {
        match self {
            Self::Mosec => "mosec",
            Self::LitServe => "litserve",
            Self::MlServer => "mlserver",
        }
    }

    fn requirements(self) -> Vec<&'static str> {
        let own: &[&str] = match self {
            Self::Mosec => &["mosec==0.9.8", "orjson"],
            Self::LitServe => &["litserve==0.2.19"],
            Self::MlServer => &["mlserver==1.7.1"],
        };
        [own, &[ONNXRUNTIME, "numpy"]].concat()
    }

    /// File name and text of the program that serves the model.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Mosec => ("mosec_server.py", include_str!("peers/mosec_server.py")),
            Self::LitServe => ("litserve_server.py", include_str!("peers/litserve_server.py")),
            Self::MlServer => ("mlserver_runtime.py", include_str!("peers/mlserver_runtime.py")),
        }
    }
}

/// A peer that is installed.
#[derive(Debug)]
pub struct Peer<'a> {
    kind: Kind,
    venv: Venv,
    folder: PathBuf,
    model: &'a Model,
}

impl<'a> Peer<'a> {
    /// Installs it; `folder` takes its files.
    pub fn install(
        kind: Kind,
        venvs: &Path,
        python: &str,
        folder: PathBuf,
        model: &'a Model,
    ) -> Result<Self, Error> {
        let venv = Venv::prepare(venvs, python, kind.package(), &kind.requirements())?;
        let (name, text) = kind.program();
        let file = folder.join(name);
        std::fs::write(&file, text).map_err(Error::io("write", &file))?;
        Ok(Self { kind, venv, folder, model })
    }

    /// Its version.
    pub fn version(&self) -> Result<String, Error> {
        self.venv.version(self.kind.package())
    }

    fn command(&self, port: u16) -> Result<Command, Error> {
        let program = self.folder.join(self.kind.program().0);
        let mut command = match self.kind {
            Kind::Mosec => {
                let mut command = self.venv.command("python");
                command.arg(program).args(["--address", "127.0.0.1", "--log-level", "error"]);
                command.args(["--port", &port.to_string()]);
                command
            }
            Kind::LitServe => {
                let mut command = self.venv.command("python");
                command.arg(program);
                command
            }
            Kind::MlServer => {
                let settings = json!({
                    "host": "127.0.0.1", "http_port": port, "grpc_port": free_port()?,
                    "metrics_port": free_port()?, "parallel_workers": 0, "debug": false,
                });
                let model = json!({ "name": "mlp", "implementation": "mlserver_runtime.Mlp" });
                for (name, value) in [("settings.json", settings), ("model-settings.json", model)] {
                    let file = self.folder.join(name);
                    std::fs::write(&file, value.to_string()).map_err(Error::io("write", &file))?;
                }
                let mut command = self.venv.command("mlserver");
                command.arg("start").arg(".");
                command
            }
        };
        command.current_dir(&self.folder);
        command.env("BENCH_MODEL", self.model.file()).env("BENCH_PORT", port.to_string());
        Ok(command)
    }
}

impl Server for Peer<'_> {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn start(&self) -> Result<Target<'_>, Error> {
        let port = free_port()?;
        let log = self.folder.join("server.log");
        let running = Running::start(&mut self.command(port)?, &log)?;
        let (path, body) = match self.kind {
            Kind::Mosec => ("/inference", self.model.instances()),
            Kind::LitServe => ("/predict", self.model.instances()),
            Kind::MlServer => ("/v2/models/mlp/infer", self.model.inputs()),
        };
        Ok(Target {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            path: path.to_owned(),
            body,
            running: Some(running),
            stop: None,
        })
    }
}
