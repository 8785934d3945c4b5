//! Bare runc: no daemon, no image, no network set-up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::Error;
use super::image;
use super::packages::RUNC;
use super::process::{Finished, clean_up, find_program, run};

const QUICK: Duration = Duration::from_secs(30);

/// A bundle that runs `true`.
#[derive(Debug)]
pub struct Bundle {
    program: PathBuf,
    folder: PathBuf,
}

impl Bundle {
    /// Makes it, with the configuration that `runc spec` proposes, less the terminal.
    pub fn new(folder: PathBuf) -> Result<Self, Error> {
        let bundle = Self { program: find_program(RUNC.programs).unwrap_or_else(|| "runc".into()), folder };
        image::folder(&bundle.folder.join("rootfs"))?;
        run(bundle.command().arg("spec").arg("--bundle").arg(&bundle.folder), QUICK)?;
        let file = bundle.folder.join("config.json");
        let text = std::fs::read(&file).map_err(Error::io("read", &file))?;
        let mut config: Value = serde_json::from_slice(&text)
            .map_err(|e| Error::unexpected("the output of `runc spec`", e.to_string()))?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["true"]);
        std::fs::write(&file, config.to_string()).map_err(Error::io("write", &file))?;
        Ok(bundle)
    }

    /// Runs it once, and removes the container, as `runc run` does.
    pub fn run(&self, number: usize) -> Result<Finished, Error> {
        let name = format!("slipway-bench-{}-{number}", std::process::id());
        let mut command = self.command();
        command.arg("run").arg("--bundle").arg(&self.folder).arg(name);
        run(&mut command, QUICK)
    }

    /// Its version.
    pub fn version(&self) -> Result<String, Error> {
        let text = run(self.command().arg("--version"), QUICK)?.output;
        Ok(version_of(&text))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(state(&self.folder));
        command
    }
}

impl Drop for Bundle {
    /// A run that was interrupted leaves its container.
    fn drop(&mut self) {
        for entry in std::fs::read_dir(state(&self.folder)).into_iter().flatten().flatten() {
            let _ = clean_up(self.command().args(["delete", "--force"]).arg(entry.file_name()), QUICK);
        }
    }
}

fn state(folder: &Path) -> PathBuf {
    folder.join("state")
}

fn version_of(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_start_matches("runc version ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version() {
        assert_eq!(version_of("runc version 1.1.5+ds1\ncommit: x\nspec: 1.0.2-dev\n"), "1.1.5+ds1");
    }
}
