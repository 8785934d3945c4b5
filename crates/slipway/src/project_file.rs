//! Reads `slipway.toml` and says where a mistake in it is.

use std::path::{Path, PathBuf};

use slipway_types::container::Limits;
use slipway_types::name;
use slipway_types::project::Project;
use slipway_types::run::Gang;
use slipway_types::service::Batch;
use slipway_types::size::parse_bytes;

use crate::failure::{self, Failure};
use crate::mapped;
use crate::settings::toml_failure;

/// Name of the project file.
pub const FILE_NAME: &str = "slipway.toml";

/// A project file and the folder that it describes.
#[derive(Clone, Debug)]
pub struct LoadedProject {
    /// What the file says.
    pub project: Project,
    /// Absolute path of its folder.
    pub folder: PathBuf,
}

impl LoadedProject {
    /// Reads the project of a folder.
    pub fn load(folder: &Path) -> Result<Self, Failure> {
        let folder = folder.canonicalize().map_err(|e| failure::io("open", folder, &e))?;
        let path = folder.join(FILE_NAME);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let failure = failure::io("read", &path, &error);
            if error.kind() == std::io::ErrorKind::NotFound {
                failure.hint(format!("a project has a {FILE_NAME}; the smallest one is `name = \"digits\"`"))
            } else {
                failure
            }
        })?;
        let project: Project = toml::from_str(&text).map_err(|e| toml_failure(&path, &text, &e))?;
        let wrong =
            |key: &str, reason: String| Failure::usage(format!("{}: `{key}`: {reason}", path.display()));
        if !name::is_valid(&project.name) {
            return Err(wrong("name", format!("`{}` cannot be used: {}", project.name, name::RULE)));
        }
        if project.train.command.is_empty() {
            return Err(wrong("train.command", "it is empty; name a program".to_owned()));
        }
        if project.model.format != "auto" {
            project
                .model
                .format
                .parse::<slipway_types::model::ModelFormat>()
                .map_err(|reason| wrong("model.format", reason))?;
        }
        if project.serve.batch.max_size == 0 {
            return Err(wrong("serve.batch.max_size", "a batch has at least one row".to_owned()));
        }
        let loaded = Self { project, folder };
        loaded.train_limits().map_err(|(key, reason)| wrong(key, reason))?;
        loaded.gang().map_err(|(key, reason)| wrong(key, reason))?;
        loaded.serve_limits().map_err(|(key, reason)| wrong(key, reason))?;
        loaded.batch().map_err(|(key, reason)| wrong(key, reason))?;
        loaded.max_body().map_err(|(key, reason)| wrong(key, reason))?;
        if let Some((key, reason)) = loaded.project.serve.autoscale.and_then(|range| range.fault()) {
            return Err(wrong("serve.autoscale", format!("{key}: {reason}")));
        }
        Ok(loaded)
    }

    /// The image name of the project: `slipway/<name>`, see [`mapped::repository`].
    pub fn image_name(&self) -> String {
        format!("slipway/{}:latest", mapped::repository(&self.project.name))
    }

    /// Limits of training containers.
    pub fn train_limits(&self) -> Result<Limits, (&'static str, String)> {
        let train = &self.project.train;
        limits(train.memory.as_deref(), train.cpus, "train.memory", "train.cpus")
    }

    /// Who trains.
    pub fn gang(&self) -> Result<Gang, (&'static str, String)> {
        let train = &self.project.train;
        let storage = train.storage.as_deref().map(parse_bytes).transpose();
        let storage = storage.map_err(|e| ("train.storage", e.to_string()))?;
        let gang = Gang {
            ranks: train.ranks,
            processes: train.processes,
            launcher: train.launcher,
            retries: train.retries,
            storage: storage.unwrap_or(Gang::default().storage),
            by: train.gang,
            queue: train.queue.clone(),
        };
        gang.fault().map_or(Ok(gang), Err)
    }

    /// Limits of replicas.
    pub fn serve_limits(&self) -> Result<Limits, (&'static str, String)> {
        let serve = &self.project.serve;
        limits(serve.memory.as_deref(), serve.cpus, "serve.memory", "serve.cpus")
    }

    /// Batching of the service.
    pub fn batch(&self) -> Result<Batch, (&'static str, String)> {
        let section = &self.project.serve.batch;
        let max_delay_us = match &section.max_delay {
            Some(text) => parse_microseconds(text).map_err(|e| ("serve.batch.max_delay", e))?,
            None => 0,
        };
        Ok(Batch { max_size: section.max_size, max_delay_us, ..Batch::default() })
    }

    /// Largest request body.
    pub fn max_body(&self) -> Result<Option<u64>, (&'static str, String)> {
        let text = self.project.serve.max_body.as_deref();
        text.map(parse_bytes).transpose().map_err(|e| ("serve.max_body", e.to_string()))
    }
}

/// The limits that a memory size and a CPU count mean.
pub fn limits(
    memory: Option<&str>,
    cpus: Option<f64>,
    memory_key: &'static str,
    cpus_key: &'static str,
) -> Result<Limits, (&'static str, String)> {
    let memory = memory.map(parse_bytes).transpose().map_err(|e| (memory_key, e.to_string()))?;
    if memory.is_some_and(|m| m < 6 << 20) {
        return Err((memory_key, "a container needs at least 6m of memory".to_owned()));
    }
    let cpu_millis = match cpus {
        None => None,
        Some(cpus) if (0.01..=4096.0).contains(&cpus) => Some((cpus * 1000.0).round() as u32),
        Some(cpus) => return Err((cpus_key, format!("`{cpus}` is not between 0.01 and 4096"))),
    };
    Ok(Limits { memory, cpu_millis, pids: None })
}

fn parse_microseconds(text: &str) -> Result<u64, String> {
    let fail =
        || format!("`{text}` is not a duration: expected a number and `us`, `ms` or `s`, such as `2ms`");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "us" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return Err(fail()),
    };
    let number: f64 = number.parse().map_err(|_| fail())?;
    let micros = number * factor;
    if micros > 60e6 { Err(format!("`{text}` is more than 60s")) } else { Ok(micros as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<LoadedProject, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), text).unwrap();
        LoadedProject::load(dir.path()).map_err(|f| f.error.unwrap().message)
    }

    #[test]
    fn the_smallest_project_has_defaults() {
        let loaded = load("name = \"My_Model\"").unwrap();
        assert_eq!(loaded.image_name(), "slipway/my-model-d427b69212f041d5:latest");
        assert_eq!(loaded.project.train.command, ["python", "train.py"]);
        assert_eq!(loaded.batch().unwrap().max_delay_us, 0);
        assert_eq!(loaded.gang().unwrap(), Gang::default());
    }

    #[test]
    fn a_project_has_any_name() {
        let longest = "模".repeat(200);
        for name in ["My Model", "模型", "a, b?", "it's", &longest] {
            let loaded = load(&format!("name = \"{name}\"")).unwrap();
            assert!(loaded.image_name().parse::<slipway_types::Reference>().is_ok(), "{name}");
        }
        for name in ["a/b", "a:b", "a@b", " a", "", "..", "-a", &format!("{longest}x")] {
            let message = load(&format!("name = \"{name}\"")).unwrap_err();
            assert!(message.contains("`name`") && message.contains("1 to 200 characters"), "{message}");
        }
    }

    #[test]
    fn mistakes_name_their_key_or_line() {
        for (text, expected) in [
            ("name = \"a/b\"", "`name`"),
            ("name = \"a\"\n[train]\ncommand = []", "`train.command`"),
            ("name = \"a\"\n[train]\nmemory = \"lots\"", "`train.memory`"),
            ("name = \"a\"\n[train]\nranks = 0", "`train.ranks`"),
            ("name = \"a\"\n[train]\nstorage = \"1k\"", "`train.storage`"),
            ("name = \"a\"\n[train]\ngang = \"slurm\"", "slipway.toml:3"),
            ("name = \"a\"\n[train]\ngang = \"jobset\"\nqueue = \"q\"", "`train.queue`"),
            ("name = \"a\"\n[train]\nlauncher = \"slurm\"", "slipway.toml:3"),
            ("name = \"a\"\n[serve]\ncpus = -1.0", "`serve.cpus`"),
            ("name = \"a\"\n[serve.batch]\nmax_delay = \"soon\"", "`serve.batch.max_delay`"),
            ("name = \"a\"\n[serve]\nautoscale = { min = 3, max = 2 }", "`serve.autoscale`"),
            ("name = \"a\"\n[serve]\nautoscale = { min = 3 }", "slipway.toml:3"),
            ("name = \"a\"\n[model]\nformat = \"pickle\"", "`model.format`"),
            ("name = \"a\"\n[serv]\n", "slipway.toml:2:2"),
            ("", "slipway.toml:1:1"),
        ] {
            let message = load(text).unwrap_err();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_microseconds("2ms"), Ok(2000));
        assert_eq!(parse_microseconds("1.5s"), Ok(1_500_000));
        for bad in ["", "2", "ms", "2m", "99s"] {
            assert!(parse_microseconds(bad).is_err(), "{bad}");
        }
    }
}
