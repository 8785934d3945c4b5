//! `bench serve`: requests per second for a small ONNX model, where the server is the cost and not the model.

pub mod http;
mod load;
mod model;
mod ours;
mod peers;
mod venv;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use self::load::wrk;
use self::model::Model;
use self::ours::{DIRECT, Direct, GATEWAY, Service};
use self::peers::{Kind, ONNXRUNTIME, Peer};
use self::venv::Venv;
use super::error::Error;
use super::packages::{WRK, require};
use super::process::{Running, pause, wait_until};
use super::report::Goal;
use super::slipway::Slipway;
use super::stats::Better;
use super::{Bench, say};
use crate::workspace::target;

const RATE: &str = "throughput, 32 connections";
/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(120);
const WARM_UP: u32 = 2;

/// Flags of `bench serve`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Times that each server is started and measured
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load at 32 connections; half as long at one
    #[arg(long, default_value_t = 8, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Python of the peers' environments
    #[arg(long, default_value = "python3", value_name = "PROGRAM")]
    python: String,
    /// State folder of Slipway to use and keep, so that the image is made only once [default: a temporary one]
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
}

/// A server that can be started again and again.
trait Server {
    fn name(&self) -> &'static str;
    fn start(&self) -> Result<Target<'_>, Error>;
}

/// A server that runs, until this is dropped.
struct Target<'a> {
    address: SocketAddr,
    path: String,
    body: String,
    running: Option<Running>,
    stop: Option<Box<dyn FnOnce() + 'a>>,
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }
}

/// Measures.
pub fn measure(bench: &mut Bench, args: &Args) -> Result<(), Error> {
    require(&[WRK], bench.install)?;
    let venvs = target().join("slipway-bench");
    let tools = Venv::prepare(&venvs, &args.python, "model", &["onnx", ONNXRUNTIME, "numpy"])?;
    let model = Model::create(&tools, bench.scratch.folder("model")?)?;
    bench.report.versions.push(("onnxruntime".into(), tools.version("onnxruntime")?));

    let mut peers = Vec::new();
    for kind in Kind::ALL {
        let folder = bench.scratch.folder(kind.package())?;
        let installed = Peer::install(kind, &venvs, &args.python, folder, &model)
            .and_then(|peer| Ok((peer.version()?, peer)));
        match installed {
            Ok((version, peer)) => {
                bench.report.versions.push((kind.package().into(), version));
                peers.push(peer);
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => bench.report.give_up(kind.name(), &error),
        }
    }
    let root = match &args.state {
        Some(folder) => std::path::absolute(folder).map_err(Error::io("resolve", folder))?,
        None => bench.scratch.folder("s")?,
    };
    let slipway = Slipway::start(&bench.programs, bench.scratch.path(), &root)?;
    ours::prepare(&slipway, bench.scratch.path(), &model, bench.install)?;
    let service = Service { slipway: &slipway, model: &model };
    let direct = Direct::new(&slipway, &bench.programs, &model, bench.scratch.folder("direct")?)?;

    let mut servers: Vec<&dyn Server> = vec![&service, &direct];
    servers.extend(peers.iter().map(|peer| peer as &dyn Server));
    for round in 1..=args.rounds {
        say(format!("round {round} of {}", args.rounds));
        for server in &servers {
            if bench.report.gave_up(server.name()) {
                continue;
            }
            match one(bench, &model, *server, args.seconds) {
                Ok(()) => {}
                Err(error @ Error::Interrupted) => return Err(error),
                Err(error) if server.name() == GATEWAY => return Err(error),
                Err(error) => bench.report.give_up(server.name(), &error),
            }
            pause(Duration::from_millis(500))?;
        }
    }
    for (kind, times) in [(Kind::LitServe, 10.0), (Kind::MlServer, 10.0), (Kind::Mosec, 1.0)] {
        bench.report.goals.push(Goal { metric: RATE.into(), than: kind.name().into(), times });
    }
    bench.report.notes.push(format!(
        "wrk shares the processors with the server. `{DIRECT}` is the same program in a container of the same image, \
         over TCP and without the gateway."
    ));
    bench.report.notes.extend(slipway.check());
    Ok(())
}

/// Starts a server, loads it and stops it.
fn one(bench: &mut Bench, model: &Model, server: &dyn Server, seconds: u32) -> Result<(), Error> {
    let began = Instant::now();
    let target = server.start()?;
    wait_until(target.running.as_ref(), server.name(), START_LIMIT, || {
        let answer = http::post(target.address, &target.path, &target.body, Duration::from_secs(5));
        answer.is_ok_and(|(status, answer)| status == 200 && model.agrees(&answer))
    })?;
    let started = began.elapsed();
    let load = |connections, seconds| {
        wrk(bench.scratch.path(), target.address, &target.path, &target.body, connections, seconds)
    };
    load(32, WARM_UP)?;
    let (many, single) = (load(32, seconds)?, load(1, seconds.div_ceil(2))?);
    drop(target);
    let mut add =
        |metric: &str, unit, better, figure| bench.report.add(metric, unit, better, server.name(), figure);
    add(RATE, "requests/s", Better::Higher, many.rate);
    add("half of the requests, 32 connections (p50)", "ms", Better::Lower, many.p50 / 1000.0);
    add("99 of 100 requests, 32 connections (p99)", "ms", Better::Lower, many.p99 / 1000.0);
    add("half of the requests, 1 connection (p50)", "us", Better::Lower, single.p50);
    add("99 of 100 requests, 1 connection (p99)", "us", Better::Lower, single.p99);
    add("from its start to its first right answer", "s", Better::Lower, started.as_secs_f64());
    Ok(())
}
