//! `bench deploy`: from the command to the first answer of a service on a real node, beside `kubectl apply` of the same objects.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::error::Error;
use super::packages::{MMDEBSTRAP, require};
use super::process::{Running, clean_up, pause, run, wait_until};
use super::report::Goal;
use super::serve::http;
use super::slipway::{QUICK, Slipway};
use super::stats::Better;
use super::{Bench, say};

const METRIC: &str = "from the command to the first answer";
const SLIPWAY: &str = "slipway up";
const KUBECTL: &str = "kubectl apply --server-side";
const SERVICE: &str = "bench";
const BODY: &str = r#"{"instances": [[1, 2]]}"#;
/// Making the base, training, and pulling for the first time.
const SLOW: Duration = Duration::from_secs(600);
/// Between two questions.
const STEP: Duration = Duration::from_millis(10);

const PROJECT: [(&str, &str); 4] = [
    (
        "slipway.toml",
        "name = \"bench\"\n[train]\ncommand = [\"python3\", \"train.py\"]\n[model]\nformat = \"python\"\nentry = \"scale:Scale\"\n",
    ),
    ("Dockerfile", "FROM bench/python:1\nWORKDIR /workspace\n"),
    ("train.py", "import os, shutil\nshutil.copy(\"scale.py\", os.environ[\"SLIPWAY_MODEL_DIR\"])\n"),
    (
        "scale.py",
        "import numpy as np\nclass Scale:\n    signature = {\n        \"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [-1, 2]}],\n        \
         \"outputs\": [{\"name\": \"y\", \"datatype\": \"FP32\", \"shape\": [-1, 2]}],\n    }\n    def load(self, folder):\n        pass\n    \
         def predict(self, inputs):\n        return {\"y\": np.asarray(inputs[\"x\"], np.float32) * 2}\n",
    ),
];

/// Flags of `bench deploy`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rounds
    #[arg(long, default_value_t = 5, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Kubeconfig of an administrator of a cluster with a real node; `scripts/test-cluster` sets the variable
    #[arg(long, env = "TEST_KUBECONFIG", value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Registry that this machine and the cluster's nodes reach
    #[arg(long, env = "TEST_REGISTRY", value_name = "HOST:PORT")]
    registry: String,
}

/// A namespace of the cluster, deleted when dropped.
struct Namespace<'a> {
    kubeconfig: &'a Path,
    name: String,
}

impl Namespace<'_> {
    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.kubeconfig).args(["--namespace", &self.name]).args(arguments);
        command
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let _ = clean_up(&mut self.kubectl(&["delete", "namespace", &self.name, "--wait=false"]), QUICK);
    }
}

/// Measures.
pub fn measure(bench: &mut Bench, args: &Args) -> Result<(), Error> {
    require(&[MMDEBSTRAP], bench.install)?;
    let namespace = Namespace { kubeconfig: &args.kubeconfig, name: format!("bench-{}", std::process::id()) };
    run(&mut namespace.kubectl(&["create", "namespace", &namespace.name]), QUICK)?;
    say("making the base image and training, on the cluster");
    let slipway = Slipway::start(&bench.programs, bench.scratch.path(), &bench.scratch.folder("s")?)?;
    let base = ["base", "debian", "-p", "python3", "-p", "python3-numpy", "-t", "bench/python:1"];
    slipway.call(&base, SLOW)?;
    let mut engine = slipway.command();
    engine.args(["engine", "use", "kubernetes", "--type", "NodePort", "--namespace", &namespace.name]);
    run(engine.args(["--registry", &args.registry, "--kubeconfig"]).arg(&args.kubeconfig), QUICK)?;
    let project = bench.scratch.folder("p")?;
    for (name, text) in PROJECT {
        let path = project.join(name);
        std::fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    run(slipway.command().arg("up").arg(&project), SLOW)?;
    let address = address(&slipway)?;
    let folder = bench.scratch.folder("y")?;
    run(slipway.command().args(["export", "kubernetes", SERVICE, "-q", "-o"]).arg(&folder), QUICK)?;
    let own = own_files(&folder)?;
    remove(&slipway, &namespace)?;

    say(format!("{} rounds", args.rounds));
    for _ in 0..args.rounds {
        let mut up = slipway.command();
        up.arg("up").arg(&project);
        let time = until_answer(&mut up, &bench.scratch.path().join("up.log"), address)?;
        bench.report.add(METRIC, "s", Better::Lower, SLIPWAY, time);
        remove(&slipway, &namespace)?;
        let mut apply = namespace.kubectl(&["apply", "--server-side"]);
        own.iter().for_each(|file| {
            apply.arg("--filename").arg(file);
        });
        let time = until_answer(&mut apply, &bench.scratch.path().join("apply.log"), address)?;
        bench.report.add(METRIC, "s", Better::Lower, KUBECTL, time);
        let mut delete = namespace.kubectl(&["delete", "--wait=true"]);
        own.iter().for_each(|file| {
            delete.arg("--filename").arg(file);
        });
        run(&mut delete, SLOW)?;
        gone(&namespace)?;
    }
    // No more than 10 % slower.
    bench.report.goals.push(Goal { metric: METRIC.into(), than: KUBECTL.into(), times: 1.0 / 1.1 });
    bench.report.notes.push(
        "The project is built, trained and pushed, the node has the images, and the gateway runs; both are asked through it. `slipway up` \
         also looks whether anything has to be built or trained."
            .into(),
    );
    slipway.call(&["engine", "rm", "kubernetes"], QUICK)?;
    bench.report.notes.extend(slipway.check());
    Ok(())
}

/// Where the gateway answers.
fn address(slipway: &Slipway) -> Result<SocketAddr, Error> {
    let text = slipway.call(&["services", SERVICE, "--format", "json"], QUICK)?;
    let listed: Value = serde_json::from_str(&text).unwrap_or_default();
    let url = listed[0]["url"].as_str().unwrap_or_default();
    let address = url.strip_prefix("http://").and_then(|address| address.parse().ok());
    address.ok_or_else(|| Error::unexpected("the service has no address with a number", text))
}

/// Files of the service itself; the gateway runs all the time.
fn own_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.ends_with(".yaml") && !name.contains("slipway-gateway")
    });
    files.sort();
    Ok(files)
}

/// Seconds from the start of a command to the first right answer. The command runs to its end.
fn until_answer(command: &mut Command, log: &Path, address: SocketAddr) -> Result<f64, Error> {
    let path = format!("/v1/models/{SERVICE}:predict");
    let began = Instant::now();
    let running = Running::start(command, log)?;
    let mut answered = None;
    while answered.is_none() {
        pause(STEP)?;
        if matches!(http::post(address, &path, BODY, Duration::from_secs(2)), Ok((200, _))) {
            answered = Some(began.elapsed().as_secs_f64());
        } else if began.elapsed() > SLOW {
            let output = std::fs::read_to_string(log).unwrap_or_default();
            return Err(Error::Slow { command: "the first answer".into(), limit: SLOW, output });
        }
    }
    wait_until(None, "the end of the command", SLOW, || running.check().is_err())?;
    Ok(answered.unwrap_or_default())
}

fn remove(slipway: &Slipway, namespace: &Namespace) -> Result<(), Error> {
    slipway.call(&["delete", SERVICE], QUICK)?;
    wait_until(None, "the service is forgotten", SLOW, || {
        slipway.call(&["services", "--format", "json"], QUICK).is_ok_and(|text| text == "[]")
    })?;
    gone(namespace)
}

/// Waits until no pod of the service is left.
fn gone(namespace: &Namespace) -> Result<(), Error> {
    let selector = format!("slipway.dev/service={SERVICE}");
    wait_until(None, "its pods are gone", SLOW, || {
        let mut command = namespace.kubectl(&["get", "pods", "--output", "name", "--selector", &selector]);
        run(&mut command, QUICK).is_ok_and(|done| done.output.trim().is_empty())
    })
}
