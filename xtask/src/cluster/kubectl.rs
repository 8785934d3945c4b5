//! The cluster's own kubectl, as its administrator.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::error::Error;
use super::programs::{output, run};
use super::state::State;
use crate::error::chain;

/// How long a wait sleeps between two looks.
const SLICE: Duration = Duration::from_millis(300);

/// Runs kubectl.
#[derive(Debug)]
pub struct Kubectl {
    cluster: PathBuf,
    kubeconfig: PathBuf,
    registry: String,
}

impl Kubectl {
    pub fn new(state: &State) -> Result<Self, Error> {
        let running = state.running()?;
        Ok(Self {
            // The program that runs, even where the cache no longer has it or the sources have changed since.
            cluster: format!("/proc/{}/exe", running.pid).into(),
            kubeconfig: state.kubeconfig(),
            registry: format!("127.0.0.1:{}", running.registry_port),
        })
    }

    pub fn registry(&self) -> &str {
        &self.registry
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cluster);
        command.arg("kubectl").args(arguments).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// With the terminal.
    pub fn pass(&self, arguments: &[&str]) -> Result<(), Error> {
        run(&mut self.command(arguments))
    }

    /// Its standard output.
    pub fn get(&self, arguments: &[&str]) -> Result<String, Error> {
        output(&mut self.command(arguments))
    }

    /// Repeats until the output is as wanted.
    pub fn until(
        &self,
        what: &str,
        limit: Duration,
        arguments: &[&str],
        good: impl Fn(&str) -> bool,
    ) -> Result<String, Error> {
        let deadline = Instant::now() + limit;
        loop {
            let outcome = self.get(arguments);
            match &outcome {
                Ok(text) if good(text) => return outcome,
                _ if Instant::now() < deadline => std::thread::sleep(SLICE),
                _ => {
                    let got = outcome.unwrap_or_else(|error| chain(&error));
                    return Err(Error::Unexpected {
                        what: format!("{what}, not after {} s", limit.as_secs()),
                        got,
                    });
                }
            }
        }
    }

    /// Makes an image of static programs in the cluster's registry. A name without a registry gets it.
    pub fn image(&self, arguments: &[&str]) -> Result<(), Error> {
        let mut command = Command::new(&self.cluster);
        command.args(["image", "--push"]);
        let mut name = false;
        for argument in arguments {
            if name && !argument.contains('/') {
                command.arg(format!("{}/{argument}", self.registry));
            } else {
                command.arg(argument);
            }
            name = matches!(*argument, "--name" | "-name");
        }
        run(&mut command)
    }
}
