//! `bench run`: from starting the command line to the container being gone.

use std::collections::BTreeMap;
use std::time::Duration;

use super::docker::Docker;
use super::error::Error;
use super::packages::{BUSYBOX, DOCKER, RUNC, require};
use super::process::{Finished, pause, run};
use super::report::Goal;
use super::runc::Bundle;
use super::slipway::{QUICK, Slipway};
use super::stats::Better;
use super::{Bench, image, say};

const IMAGE: &str = "bench/tiny:1";
const METRIC: &str = "start, run `true`, remove";
const SLIPWAY: &str = "slipway run --rm";
const BRIDGE: &str = "docker run --rm";
const NO_NETWORK: &str = "docker run --rm --network none";
const BARE: &str = "runc run";
/// A daemon tidies up for a moment after its client has ended; that must not slow the next one down.
const SETTLE: Duration = Duration::from_millis(200);

/// Flags of `bench run`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Runs of each that count
    #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Runs of each before
    #[arg(long, default_value_t = 2, value_name = "COUNT")]
    warm_up: u32,
}

type Act<'a> = Box<dyn Fn(usize) -> Result<Finished, Error> + 'a>;

/// Measures.
pub fn measure(bench: &mut Bench, args: &Args) -> Result<(), Error> {
    require(&[BUSYBOX], bench.install)?;
    let tar = image::tar(bench.scratch.path())?;
    say("starting slipway, dockerd and runc");
    let slipway = Slipway::start(&bench.programs, bench.scratch.path(), &bench.scratch.folder("s")?)?;
    run(slipway.command().arg("import").arg(&tar).arg(IMAGE), QUICK)?;
    let docker = require(&[DOCKER], bench.install).and_then(|()| {
        let docker = Docker::start(bench.scratch.folder("d")?)?;
        docker.import(&tar, IMAGE)?;
        Ok(docker)
    });
    let bundle = require(&[RUNC], bench.install).and_then(|()| Bundle::new(bench.scratch.folder("r")?));

    let slipway_run = |_| run(slipway.command().args(["run", "--rm", IMAGE, "true"]), QUICK);
    let mut contenders: Vec<(&str, Act)> = vec![(SLIPWAY, Box::new(slipway_run))];
    match &docker {
        Ok(docker) => {
            bench.report.versions.push(("docker".into(), docker.version()?));
            let bridge = |_| run(docker.command().args(["run", "--rm", IMAGE, "true"]), QUICK);
            let none =
                |_| run(docker.command().args(["run", "--rm", "--network", "none", IMAGE, "true"]), QUICK);
            contenders.push((BRIDGE, Box::new(bridge)));
            contenders.push((NO_NETWORK, Box::new(none)));
        }
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => [BRIDGE, NO_NETWORK].iter().for_each(|name| bench.report.give_up(name, error)),
    }
    match &bundle {
        Ok(bundle) => {
            bench.report.versions.push(("runc".into(), bundle.version()?));
            contenders.push((BARE, Box::new(|number| bundle.run(number))));
        }
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => bench.report.give_up(BARE, error),
    }

    let (warm_up, rounds) = (args.warm_up as usize, args.rounds as usize);
    say(format!("{rounds} rounds after {warm_up} to warm up"));
    let mut said: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for round in 0..warm_up + rounds {
        for (name, act) in &contenders {
            if bench.report.gave_up(name) {
                continue;
            }
            match act(round) {
                Ok(done) => {
                    if !done.complaint.is_empty() {
                        said.entry(*name).or_default().push(done.complaint);
                    }
                    if round >= warm_up {
                        bench.report.add(METRIC, "ms", Better::Lower, name, done.wall.as_secs_f64() * 1000.0);
                    }
                }
                Err(error @ Error::Interrupted) => return Err(error),
                Err(error) if *name == SLIPWAY => return Err(error),
                Err(error) => bench.report.give_up(name, &error),
            }
            pause(SETTLE)?;
        }
    }
    bench
        .report
        .notes
        .extend(said.iter().filter_map(|(name, said)| complaints(name, warm_up + rounds, said)));
    for (than, times) in [(BRIDGE, 12.0), (BARE, 1.0)] {
        bench.report.goals.push(Goal { metric: METRIC.into(), than: than.into(), times });
    }
    bench.report.notes.extend(slipway.check());
    Ok(())
}

/// Success with a complaint is not what was to be measured, so a reader has to know.
fn complaints(name: &str, runs: usize, complaints: &[String]) -> Option<String> {
    let first = complaints.first()?.lines().map(str::trim).collect::<Vec<_>>().join("; ");
    Some(format!("`{name}` succeeded but complained in {} of {runs} runs, first: {first}", complaints.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_complaints() {
        assert_eq!(complaints("x", 3, &[]), None);
        let text = complaints("x", 3, &["error: a\n  because: b\n".into(), "c".into()]).unwrap();
        assert_eq!(text, "`x` succeeded but complained in 2 of 3 runs, first: error: a; because: b");
    }
}
