//! `slipway model`

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;
use slipway_types::model::ModelVersion;
use slipway_types::size::human_bytes;

use super::Context;
use super::pull::{transfer, transferred};
use crate::failure::{self, Failure};
use crate::printer::{Format, age};
use crate::query;

/// List, show, name, import, move and remove model versions
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List versions of a model, or of all
    Ls {
        /// How to write them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Model
        #[arg(value_name = "MODEL")]
        model: Option<String>,
    },
    /// Show a version: format, files, metrics, and what it was made from
    Show {
        /// Version: `digits`, `digits@3` or `digits@champion`
        #[arg(value_name = "MODEL[@VERSION|@ALIAS]")]
        model: String,
    },
    /// Let an alias name a version
    Alias {
        /// Take the alias away instead
        #[arg(short, long)]
        delete: bool,
        /// Version that it shall name (with `--delete`: just the model)
        #[arg(value_name = "MODEL[@VERSION|@ALIAS]")]
        model: String,
        /// Alias, such as `champion`
        #[arg(value_name = "ALIAS")]
        alias: String,
    },
    /// Record a folder with a trained model as a new version
    Import {
        /// Format [default: detected]
        #[arg(long, value_name = "FORMAT")]
        format: Option<String>,
        /// Class of yours for the formats `python` and `torch`, as `module:Class`
        #[arg(long, value_name = "MODULE:CLASS")]
        entry: Option<String>,
        /// Folder with the model's files
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// Model name
        #[arg(value_name = "MODEL")]
        model: String,
    },
    /// Send a version to a registry
    Push {
        /// Version
        #[arg(value_name = "MODEL[@VERSION|@ALIAS]")]
        model: String,
        /// Reference to push to
        #[arg(value_name = "NAME[:TAG]")]
        reference: String,
    },
    /// Fetch a version from a registry and record it
    Pull {
        /// Reference to pull
        #[arg(value_name = "NAME[:TAG|@DIGEST]")]
        reference: String,
        /// Model name to record it under [default: the artifact's]
        #[arg(value_name = "MODEL")]
        model: Option<String>,
    },
    /// Remove versions that no service uses
    Rm {
        /// Versions
        #[arg(required = true, value_name = "MODEL@VERSION")]
        models: Vec<String>,
    },
}

/// Acts on models.
pub fn run(context: &Context, args: Args) -> Result<u8, Failure> {
    let printer = context.printer;
    match args.action {
        Action::Ls { format, model } => {
            let pairs: Vec<_> = model.as_deref().map(|m| ("model", m)).into_iter().collect();
            let versions: Vec<ModelVersion> = context.client()?.get(&query::path("/v1/models", &pairs))?;
            if format == Format::Json {
                printer.json(&versions);
            } else {
                let rows: Vec<_> = versions.iter().map(row).collect();
                printer.table(&["MODEL", "FORMAT", "SIZE", "CREATED", "RUN", "ALIASES", "METRICS"], &rows);
            }
            Ok(0)
        }
        Action::Show { model } => {
            let path = query::path("/v1/model", &[("model", &model)]);
            printer.json(&context.client()?.get::<serde_json::Value>(&path)?);
            Ok(0)
        }
        Action::Alias { delete, model, alias } => {
            let body = json!({ "model": model, "alias": alias, "delete": delete });
            context.client()?.post::<_, ()>("/v1/models/alias", &body)?;
            Ok(0)
        }
        Action::Import { format, entry, folder, model } => {
            let folder = folder.canonicalize().map_err(|e| failure::io("open", &folder, &e))?;
            let body = json!({ "folder": folder, "model": model, "format": format, "entry": entry });
            let version: ModelVersion = context.client()?.post("/v1/models/import", &body)?;
            printer.line(format!("{}@{}", version.model, version.version));
            Ok(0)
        }
        Action::Push { model, reference } => {
            let body = json!({ "model": model, "reference": reference });
            transfer(context, "/v1/models/push", &body, "pushed", false)
        }
        Action::Pull { reference, model } => {
            let body = json!({ "model": &model, "reference": reference });
            let manifest = transferred(context, "/v1/models/pull", &body, "pulled", false)?;
            let versions: Vec<ModelVersion> = context.client()?.get("/v1/models")?;
            // Numbers are never reused: the one that was just recorded is the newest with this manifest.
            let pulled = versions.iter().filter(|version| version.manifest == manifest);
            let pulled = pulled.filter(|version| model.as_ref().is_none_or(|name| version.model == *name));
            match pulled.max_by_key(|version| version.created_at) {
                Some(version) => printer.line(format!("{}@{}", version.model, version.version)),
                None => printer.line(manifest.as_str()),
            }
            Ok(0)
        }
        Action::Rm { models } => {
            let client = context.client()?;
            super::for_each(context, &models, |model| {
                client.delete(&query::path("/v1/model", &[("model", model)]))
            })
        }
    }
}

fn row(version: &ModelVersion) -> Vec<String> {
    vec![
        format!("{}@{}", version.model, version.version),
        version.format.to_string(),
        human_bytes(version.size),
        format!("{} ago", age(version.created_at, jiff::Timestamp::now())),
        version.lineage.run.clone().unwrap_or_default(),
        version.aliases.join(","),
        metrics_text(&version.metrics),
    ]
}

/// Metrics in one line, with at most four decimals.
pub fn metrics_text(metrics: &BTreeMap<String, f64>) -> String {
    let all: Vec<String> = metrics.iter().map(|(key, value)| format!("{key}={}", number(*value))).collect();
    all.join(" ")
}

fn number(value: f64) -> String {
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e9) {
        return format!("{value:.3e}");
    }
    format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn metrics_are_short_and_small_ones_are_not_zero() {
        let texts = [0.0, 5.0, 10.0, 0.97224, -0.5, 1e-5, 2.5e12].map(number);
        assert_eq!(texts, ["0", "5", "10", "0.9722", "-0.5", "1.000e-5", "2.500e12"]);
    }
}
