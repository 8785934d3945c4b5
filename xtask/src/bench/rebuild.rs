//! `bench rebuild`: building a project of 20,000 files for the first time, and again.

mod project;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use self::project::Project;
use super::docker::Docker;
use super::error::Error;
use super::packages::{BUSYBOX, DOCKER, require};
use super::process::{pause, run};
use super::report::Goal;
use super::slipway::{Programs, QUICK, Slipway};
use super::stats::Better;
use super::{Bench, image, say};

const BASE: &str = "bench/tiny:1";
const RESULT: &str = "bench/project:1";
const SLIPWAY: &str = "slipway build";
const BUILDKIT: &str = "docker build (BuildKit)";
const WALK: &str = "stat walk alone (limit)";
const COLD: &str = "cold build";
const NO_OP: &str = "nothing changed";
const APP: &str = "1 file of the app changed";
const BIG: &str = "1 of 20,000 files changed";
const LIMIT: Duration = Duration::from_secs(900);
/// Files that were written a moment ago cannot be told from ones being written by their times; nobody builds so soon.
const SETTLE: Duration = Duration::from_secs(3);

/// Flags of `bench rebuild`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// 1 GB of files, as in the published figures, instead of 200 MB
    #[arg(long)]
    full: bool,
    /// Builds that count with nothing changed, and with a file of the app changed
    #[arg(long, default_value_t = 7, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Builds that count with one of the 20,000 files changed, and cold ones
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    heavy_rounds: u32,
}

/// A builder with a state of its own.
trait Builder {
    fn name(&self) -> &'static str;
    /// Builds, and gives the time and the image's id.
    fn build(&self, project: &Project) -> Result<(Duration, String), Error>;
    /// One that knows nothing but the base image. To make this one forget would not do: on some file systems files are
    /// slow to create for a minute after many were removed.
    fn fresh(&self, setup: &Setup, folder: PathBuf) -> Result<Box<dyn Builder>, Error>;
    /// What a file of the image holds.
    fn read(&self, path: &str) -> Result<String, Error>;
}

impl Builder for Slipway {
    fn name(&self) -> &'static str {
        SLIPWAY
    }

    fn build(&self, project: &Project) -> Result<(Duration, String), Error> {
        timed_build(self.command(), project)
    }

    fn fresh(&self, setup: &Setup, folder: PathBuf) -> Result<Box<dyn Builder>, Error> {
        Ok(Box::new(setup.slipway(&folder)?))
    }

    fn read(&self, path: &str) -> Result<String, Error> {
        self.call(&["run", "--rm", RESULT, "cat", path], QUICK)
    }
}

impl Builder for Docker {
    fn name(&self) -> &'static str {
        BUILDKIT
    }

    fn build(&self, project: &Project) -> Result<(Duration, String), Error> {
        timed_build(self.command(), project)
    }

    fn fresh(&self, setup: &Setup, folder: PathBuf) -> Result<Box<dyn Builder>, Error> {
        Ok(Box::new(setup.docker(folder)?))
    }

    fn read(&self, path: &str) -> Result<String, Error> {
        self.call(&["run", "--rm", "--network", "none", RESULT, "cat", path], QUICK)
    }
}

/// What a builder is started with.
struct Setup {
    programs: Programs,
    tar: PathBuf,
}

impl Setup {
    fn slipway(&self, folder: &Path) -> Result<Slipway, Error> {
        let slipway = Slipway::start(&self.programs, folder, &folder.join("s"))?;
        run(slipway.command().arg("import").arg(&self.tar).arg(BASE), QUICK)?;
        Ok(slipway)
    }

    fn docker(&self, folder: PathBuf) -> Result<Docker, Error> {
        let docker = Docker::start(folder)?;
        docker.import(&self.tar, BASE)?;
        Ok(docker)
    }
}

fn timed_build(mut command: Command, project: &Project) -> Result<(Duration, String), Error> {
    // A builder that makes its result durable would otherwise write out what the one before left in memory.
    rustix::fs::sync();
    let done = run(command.args(["build", "-q", "-t", RESULT]).arg(project.folder()), LIMIT)?;
    Ok((done.wall, done.output.trim().to_owned()))
}

/// Measures.
pub fn measure(bench: &mut Bench, args: &Args) -> Result<(), Error> {
    require(&[BUSYBOX], bench.install)?;
    let setup = Setup { programs: bench.programs.clone(), tar: image::tar(bench.scratch.path())? };
    let bytes = if args.full { 1_000_000_000 } else { 200_000_000 };
    say(format!("writing {} files, {} MB", project::FILES, bytes / 1_000_000));
    let project = Project::create(&bench.scratch.folder("project")?, BASE, bytes)?;
    say("starting slipway and dockerd");
    let slipway = setup.slipway(&bench.scratch.folder("w")?)?;
    let docker = require(&[DOCKER], bench.install).and_then(|()| {
        let docker = setup.docker(bench.scratch.folder("d")?)?;
        bench.report.versions.push(("docker".into(), docker.version()?));
        Ok(docker)
    });
    let mut builders: Vec<&dyn Builder> = vec![&slipway];
    match &docker {
        Ok(docker) => builders.push(docker),
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => bench.report.give_up(BUILDKIT, error),
    }
    let mut session = Session { bench, setup, builders, project };
    session.no_op(args.rounds)?;
    session.changed(APP, args.rounds)?;
    session.changed(BIG, args.heavy_rounds)?;
    session.cold(args.heavy_rounds)?;
    bench.report.goals.push(Goal { metric: NO_OP.into(), than: BUILDKIT.into(), times: 3.0 });
    bench.report.notes.extend(slipway.check());
    Ok(())
}

struct Session<'a> {
    bench: &'a mut Bench,
    setup: Setup,
    builders: Vec<&'a dyn Builder>,
    project: Project,
}

impl Session<'_> {
    fn no_op(&mut self, rounds: u32) -> Result<(), Error> {
        say(NO_OP);
        pause(SETTLE)?;
        let before = self.each(|builder, project| builder.build(project).map(|built| built.1))?;
        for round in 0..=rounds {
            let built = self.each(|builder, project| builder.build(project))?;
            let walk = self.project.walk()?;
            for (name, (time, id)) in built {
                if before.iter().any(|(other, former)| *other == name && *former != id) {
                    self.give_up(name, Error::unexpected("an unchanged project gave another image", id))?;
                } else if round > 0 {
                    self.add(NO_OP, name, time);
                }
            }
            if round > 0 {
                self.add(NO_OP, WALK, walk);
            }
        }
        Ok(())
    }

    /// One file is changed before every build; what the image then holds is checked.
    fn changed(&mut self, metric: &'static str, rounds: u32) -> Result<(), Error> {
        say(metric);
        for round in 0..=rounds {
            let change = if metric == APP { Project::change_app } else { Project::change_big };
            let (path, content) = change(&mut self.project)?;
            for (name, (time, held)) in self.each(|builder, project| {
                let built = builder.build(project)?;
                Ok((built.0, builder.read(&path)?))
            })? {
                if !held.starts_with(&content) {
                    let what = format!("{path} of the image does not start with `{content}`");
                    self.give_up(name, Error::unexpected(what, held.chars().take(40).collect::<String>()))?;
                } else if round > 0 {
                    self.add(metric, name, time);
                }
            }
        }
        Ok(())
    }

    fn cold(&mut self, rounds: u32) -> Result<(), Error> {
        say(COLD);
        for round in 0..rounds {
            let mut results = Vec::new();
            for builder in self.builders.clone() {
                let folder = self.bench.scratch.folder(&format!("c{round}{}", results.len()))?;
                let built = builder.fresh(&self.setup, folder).and_then(|fresh| fresh.build(&self.project));
                results.push((builder.name(), built));
            }
            for (name, built) in results {
                match built {
                    Ok((time, _)) => self.add(COLD, name, time),
                    Err(error) => self.give_up(name, error)?,
                }
            }
        }
        Ok(())
    }

    /// Lets every builder do the same; one that fails is out, unless it is Slipway.
    fn each<T>(
        &mut self,
        act: impl Fn(&dyn Builder, &Project) -> Result<T, Error>,
    ) -> Result<Vec<(&'static str, T)>, Error> {
        let mut results = Vec::new();
        for builder in self.builders.clone() {
            match act(builder, &self.project) {
                Ok(result) => results.push((builder.name(), result)),
                Err(error) => self.give_up(builder.name(), error)?,
            }
            pause(Duration::from_millis(200))?;
        }
        Ok(results)
    }

    fn give_up(&mut self, name: &'static str, error: Error) -> Result<(), Error> {
        if name == SLIPWAY || matches!(error, Error::Interrupted) {
            return Err(error);
        }
        self.builders.retain(|builder| builder.name() != name);
        self.bench.report.give_up(name, &error);
        Ok(())
    }

    fn add(&mut self, metric: &str, name: &str, time: Duration) {
        self.bench.report.add(metric, "s", Better::Lower, name, time.as_secs_f64());
    }
}

/// Times a piece of work.
fn timed<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<(Duration, T), Error> {
    let began = Instant::now();
    let result = work()?;
    Ok((began.elapsed(), result))
}
