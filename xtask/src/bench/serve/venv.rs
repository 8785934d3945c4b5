//! Python environments with packages from PyPI, kept between runs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::super::error::Error;
use super::super::process::{find_program, run};
use super::super::say;
use crate::error::Common;

const LIMIT: Duration = Duration::from_secs(600);
/// Written last, so that an environment without it is not complete.
const MARK: &str = ".complete";

/// A folder with a Python and its packages.
#[derive(Clone, Debug)]
pub struct Venv(PathBuf);

impl Venv {
    /// The environment of that name under `parent`; made when it is not there with just these requirements.
    pub fn prepare(parent: &Path, python: &str, name: &str, requirements: &[&str]) -> Result<Self, Error> {
        let program =
            find_program(&[python]).ok_or_else(|| Common::missing(python, "python3 python3-venv"))?;
        let version = run(Command::new(&program).arg("--version"), LIMIT)?.output;
        let mut hasher = DefaultHasher::new();
        (&program, version, requirements).hash(&mut hasher);
        let folder = parent.join(format!("{name}-{:016x}", hasher.finish()));
        let venv = Self(folder.clone());
        if folder.join(MARK).exists() {
            return Ok(venv);
        }
        say(format!("installing {} from PyPI into {}", requirements.join(" "), folder.display()));
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
        }
        std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        run(Command::new(&program).args(["-m", "venv"]).arg(&folder), LIMIT).map_err(
            |error| match error {
                // Debian has the module in a package of its own.
                Error::Failed { output, .. } if output.contains("ensurepip") => {
                    Common::missing("the venv module of python3", "python3-venv").into()
                }
                other => other,
            },
        )?;
        let mut pip = venv.command("pip");
        pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(requirements);
        run(&mut pip, LIMIT)?;
        let mark = folder.join(MARK);
        std::fs::write(&mark, requirements.join("\n")).map_err(Error::io("write", &mark))?;
        Ok(venv)
    }

    /// One of its programs. Nothing in the user's environment says where modules are or forbids compiled ones.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.0.join("bin").join(program));
        for name in ["PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME"] {
            command.env_remove(name);
        }
        command
    }

    /// The installed version of a package.
    pub fn version(&self, package: &str) -> Result<String, Error> {
        let code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))";
        let done = run(self.command("python").args(["-c", code, package]), LIMIT)?;
        Ok(done.output.trim().to_owned())
    }
}
