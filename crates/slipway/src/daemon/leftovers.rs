//! What processes that died left behind, and what nothing uses any more.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use slipway_image::store::PruneOptions;
use slipway_types::container::{ContainerId, ContainerState};
use slipway_types::{ApiError, ErrorCode};

use super::{App, containers, images};

/// One thing that was found or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: String,
    /// Which, and what is wrong with it.
    pub message: String,
}

/// What `prune` may remove.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Scope {
    /// Also images that nothing uses.
    pub all: bool,
    /// Also the build cache.
    pub build_cache: bool,
}

/// What `prune` removed.
#[derive(Debug, Serialize)]
pub struct Pruned {
    /// Things.
    pub removed: Vec<Finding>,
    /// Bytes that are free now.
    pub bytes: u64,
}

/// A row of `df`.
#[derive(Debug, Serialize)]
pub struct Usage {
    kind: &'static str,
    count: u64,
    bytes: u64,
    reclaimable: u64,
}

fn finding(kind: &str, message: &(impl std::fmt::Display + ?Sized)) -> Finding {
    Finding { kind: kind.to_owned(), message: message.to_string() }
}

/// Looks for leaks and damage.
pub fn check(app: &App, deep: bool) -> Result<Vec<Finding>, ApiError> {
    let mut findings = Vec::new();
    for leak in slipway_runtime::check(app.native.root()).map_err(|e| internal(&e))? {
        findings.push(finding("runtime", &leak));
    }
    for problem in app.store.check(deep).map_err(images::store_error)? {
        findings.push(finding("store", &problem));
    }
    for id in unknown_containers(app)? {
        findings.push(finding("container", &format!("{id}: no container, run or service has it")));
    }
    Ok(findings)
}

/// Containers with a folder that nothing has recorded. One that is just being made or removed is seen again.
fn unknown_containers(app: &App) -> Result<Vec<ContainerId>, ApiError> {
    let unknown = |id: &ContainerId| -> Result<bool, ApiError> {
        Ok(app.native.dir(id).exists()
            && app.state.find_container(id.as_str())?.is_none()
            && !app.native.is_replica(id)
            && !super::runs::owns(app, id)?
            && !app.native.container(id).is_ok_and(|c| c.observe().is_ok_and(|seen| seen.shim_alive)))
    };
    let mut suspects = Vec::new();
    for id in app.native.ids().map_err(containers::native_error)? {
        if unknown(&id)? {
            suspects.push(id);
        }
    }
    if !suspects.is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let mut sure = Vec::new();
    for id in suspects {
        if unknown(&id)? {
            sure.push(id);
        }
    }
    Ok(sure)
}

/// Removes what was left behind and what nothing uses.
pub fn prune(app: &Arc<App>, scope: Scope) -> Result<Pruned, ApiError> {
    let mut removed = Vec::new();
    let mut note = |kind: &str, message: &dyn std::fmt::Display| removed.push(finding(kind, message));
    for record in app.state.containers()? {
        // One that goes meanwhile, as with `run --rm`, is gone.
        let removed = containers::status(app, &record)
            .is_ok_and(|status| status.state == ContainerState::Exited)
            && containers::remove(app, record.id.as_str(), false).is_ok();
        if removed {
            note("container", &record.name);
        }
    }
    for id in unknown_containers(app)? {
        app.native.discard(&id).map_err(containers::native_error)?;
        note("container", &id);
    }
    let leaks = slipway_runtime::check(app.native.root()).map_err(|e| internal(&e))?;
    if let Some(error) = slipway_runtime::prune(&leaks).into_iter().next() {
        return Err(internal(&error));
    }
    leaks.iter().for_each(|leak| note("leftover", leak));
    app.native.drop_stale_pins().map_err(containers::native_error)?;
    let options = PruneOptions { all: scope.all, build_cache: scope.build_cache };
    let report = app.store.prune(&options).map_err(images::store_error)?;
    for (kind, digests) in [("image", report.images), ("layer", report.layers), ("blob", report.blobs)] {
        digests.iter().for_each(|digest| note(kind, &digest.short()));
    }
    if report.cache_entries > 0 {
        note("build cache", &format!("{} steps", report.cache_entries));
    }
    let mut bytes = report.bytes;
    if scope.build_cache {
        bytes += app.builder.clear_cache_mounts().map_err(|e| internal(&e))?;
    }
    prune_models(app, &mut note)?;
    Ok(Pruned { removed, bytes })
}

/// Laid-out folders of models that the store no longer has.
fn prune_models(app: &App, note: &mut impl FnMut(&str, &dyn std::fmt::Display)) -> Result<(), ApiError> {
    let folder = app.settings.root.join("models");
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kept = format!("sha256:{name}").parse().is_ok_and(|digest| app.store.has(&digest));
        // One that is being laid out has a name of its own until it is complete.
        if !kept && !name.starts_with('.') {
            std::fs::remove_dir_all(entry.path()).map_err(|error| {
                crate::failure::io("remove", &entry.path(), &error)
                    .error
                    .unwrap_or_else(|| ApiError::new(ErrorCode::Internal, error.to_string()))
            })?;
            note("laid-out model", &name);
        }
    }
    Ok(())
}

/// How much disk is used.
pub fn usage(app: &App) -> Result<Vec<Usage>, ApiError> {
    let store = app.store.usage().map_err(images::store_error)?;
    let containers = app.native.ids().map_err(containers::native_error)?;
    let mut upper = 0;
    for id in &containers {
        upper += folder_size(&app.native.dir(id).join("upper"));
    }
    let models = app.state.model_versions(None)?;
    Ok(vec![
        Usage {
            kind: "images",
            count: store.images,
            bytes: store.layer_bytes,
            reclaimable: store.reclaimable_bytes,
        },
        Usage { kind: "containers", count: containers.len() as u64, bytes: upper, reclaimable: 0 },
        Usage {
            kind: "models",
            count: models.len() as u64,
            bytes: models.iter().map(|model| model.size).sum(),
            reclaimable: 0,
        },
        Usage { kind: "blobs", count: store.blobs, bytes: store.blob_bytes, reclaimable: 0 },
        Usage { kind: "build cache steps", count: store.cache_entries, bytes: 0, reclaimable: 0 },
    ])
}

fn folder_size(path: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_size(&entry.path()),
            Ok(metadata) => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
            Err(_) => 0,
        })
        .sum()
}

fn internal(error: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::from_error(ErrorCode::Internal, error)
}
