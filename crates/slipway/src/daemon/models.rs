//! Model versions, as the API and training runs record them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use slipway_image::model::{self, ModelMeta};
use slipway_image::store::StoreError;
use slipway_types::image::TransferEvent;
use slipway_types::model::{Lineage, ModelFormat, ModelRef, ModelSelector, ModelVersion, valid_alias};
use slipway_types::name;
use slipway_types::run::RunStatus;
use slipway_types::{ApiError, Digest, ErrorCode};

use super::images::OnEvent;
use super::state::AliasMove;
use super::{App, images, services};

/// Kind of the pins that keep model versions and the images that they were trained in.
const PIN: &str = "model";
/// What the name of an image's pin has after the version's.
const IMAGE: &str = "/image";

/// A folder that becomes a model version.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// Model name.
    pub model: &'a str,
    /// The folder.
    pub folder: &'a Path,
    /// Format, where it is not to be detected.
    pub format: Option<ModelFormat>,
    /// Class of the user's.
    pub entry: Option<&'a str>,
    /// Where it came from.
    pub lineage: Lineage,
    /// Last metrics.
    pub metrics: BTreeMap<String, f64>,
}

/// Packs a folder and records it as the next version.
pub fn record(app: &Arc<App>, candidate: Candidate<'_>) -> Result<ModelVersion, ApiError> {
    let format = model::detect_format(candidate.folder, candidate.format, candidate.entry)
        .map_err(|e| ApiError::from_error(e.code(), &e))?;
    let _lease = app.store.lease();
    let version = app.state.next_model_version(candidate.model)?;
    let created_at = jiff::Timestamp::now();
    let meta = ModelMeta {
        model: candidate.model.to_owned(),
        version,
        format,
        entry: candidate.entry.map(str::to_owned),
        lineage: candidate.lineage.clone(),
        metrics: candidate.metrics.clone(),
        created_at,
    };
    let packed =
        model::pack(&app.store, candidate.folder, &meta).map_err(|e| ApiError::from_error(e.code(), &e))?;
    let version = ModelVersion {
        model: meta.model,
        version,
        manifest: packed.manifest,
        format,
        size: packed.size,
        created_at,
        aliases: Vec::new(),
        lineage: candidate.lineage,
        metrics: candidate.metrics,
    };
    keep(app, &version)?;
    Ok(version)
}

/// Pins what a version needs first and records it then: a record without content must never be seen.
fn keep(app: &Arc<App>, version: &ModelVersion) -> Result<(), ApiError> {
    let name = name(version);
    let kept = app
        .store
        .pin(PIN, &name, &version.manifest)
        .map_err(images::store_error)
        .and_then(|()| pin_image(app, version))
        .and_then(|()| app.state.add_model_version(version).map_err(ApiError::from));
    if let Err(error) = kept {
        // What is not recorded must not be kept: it may be what fills the disk. The next start drops what is left.
        for pin in [&name, &image_pin(version)] {
            let _ = app.store.unpin(PIN, pin);
        }
        return Err(error);
    }
    app.event(
        &format!("model/{}", version.model),
        "model.recorded",
        &format!(
            "{name}, {}, from {}.",
            version.format,
            version.lineage.run.as_deref().unwrap_or("an import")
        ),
    );
    Ok(())
}

/// Keeps the image that a version was trained in: it serves in it. One that came from elsewhere need not have it here.
fn pin_image(app: &App, version: &ModelVersion) -> Result<(), ApiError> {
    let Some(image) = &version.lineage.image else { return Ok(()) };
    match app.store.pin(PIN, &image_pin(version), image) {
        Ok(()) | Err(StoreError::NothingToPin { .. }) => Ok(()),
        Err(error) => Err(images::store_error(error)),
    }
}

fn name(version: &ModelVersion) -> String {
    format!("{}@{}", version.model, version.version)
}

fn image_pin(version: &ModelVersion) -> String {
    format!("{}{IMAGE}", name(version))
}

/// The version that keeps an image, from `kind name` of the pin.
pub fn image_user(pin: &str) -> Option<&str> {
    pin.strip_prefix(PIN)?.strip_prefix(' ')?.strip_suffix(IMAGE)
}

/// The version that a run made.
pub fn made_by(app: &App, run: &RunStatus) -> Result<Option<ModelVersion>, ApiError> {
    let versions = list(app, Some(&run.project))?;
    Ok(versions.into_iter().find(|version| version.lineage.run.as_deref() == Some(&run.id)))
}

/// Drops pins of versions that were never recorded, or are gone: what a crash left between two writes. Sets those of
/// images that versions lack.
pub fn settle_pins(app: &App) -> Result<(), ApiError> {
    let versions = app.state.model_versions(None)?;
    let wanted: BTreeSet<String> =
        versions.iter().flat_map(|version| [name(version), image_pin(version)]).collect();
    let mut pinned = BTreeSet::new();
    for (pin, _) in app.store.pins(PIN).map_err(images::store_error)? {
        if wanted.contains(&pin) {
            pinned.insert(pin);
        } else {
            app.store.unpin(PIN, &pin).map_err(images::store_error)?;
        }
    }
    for version in versions.iter().filter(|version| !pinned.contains(&image_pin(version))) {
        // A full disk must not keep the daemon from starting.
        if let Err(error) = pin_image(app, version) {
            let error = error.chain();
            tracing::warn!(error, version = name(version), "the image of a model version is not kept");
        }
    }
    Ok(())
}

/// The version that a reference means.
pub fn find(app: &App, reference: &ModelRef) -> Result<ModelVersion, ApiError> {
    app.state.find_model(reference)?.ok_or_else(|| {
        let text = match &reference.selector {
            ModelSelector::Latest => format!("there is no model `{}`", reference.model),
            ModelSelector::Version(version) => format!("`{}` has no version {version}", reference.model),
            ModelSelector::Alias(alias) => format!("`{}` has no alias `{alias}`", reference.model),
        };
        ApiError::new(ErrorCode::NotFound, text).with_hint("`slipway model ls` lists models and versions")
    })
}

/// Versions of a model, or of all.
pub fn list(app: &App, model: Option<&str>) -> Result<Vec<ModelVersion>, ApiError> {
    Ok(app.state.model_versions(model)?)
}

/// A version, its files and its aliases' moves.
#[derive(Debug, Serialize)]
pub struct Details {
    #[serde(flatten)]
    version: ModelVersion,
    entry: Option<String>,
    files: Vec<FileEntry>,
    alias_moves: Vec<AliasMove>,
}

#[derive(Debug, Serialize)]
struct FileEntry {
    path: String,
    size: u64,
    digest: Digest,
}

/// One version, whole.
pub fn details(app: &App, reference: &ModelRef) -> Result<Details, ApiError> {
    let version = find(app, reference)?;
    let manifest = model::read_manifest(&app.store, &version.manifest)
        .map_err(|e| ApiError::from_error(e.code(), &e))?;
    let files = manifest
        .files
        .into_iter()
        .map(|file| FileEntry { path: file.path, size: file.size, digest: file.digest })
        .collect();
    let alias_moves = app.state.alias_moves(&version.model)?;
    Ok(Details { version, entry: manifest.entry, files, alias_moves })
}

/// The class that a model's manifest names.
pub fn entry(app: &App, manifest: &Digest) -> Result<Option<String>, ApiError> {
    model::read_manifest(&app.store, manifest)
        .map(|manifest| manifest.entry)
        .map_err(|e| ApiError::from_error(e.code(), &e))
}

/// Lets an alias name a version, or takes it away.
pub fn alias(app: &Arc<App>, reference: &ModelRef, alias: &str, delete: bool) -> Result<(), ApiError> {
    if !valid_alias(alias) {
        let rule = slipway_types::container::NAME_RULE;
        return Err(invalid(format!(
            "`{alias}` cannot be an alias: {rule}, which is no number and not `latest`"
        )));
    }
    let _claim = app.claim(&format!("model {}", reference.model))?;
    if delete {
        let named =
            ModelRef { model: reference.model.clone(), selector: ModelSelector::Alias(alias.to_owned()) };
        find(app, &named)?;
        app.state.set_alias(&reference.model, alias, None)?;
    } else {
        let version = find(app, reference)?;
        app.state.set_alias(&version.model, alias, Some(version.version))?;
        app.event(
            &format!("model/{}", version.model),
            "model.aliased",
            &format!("`{alias}` names version {}.", version.version),
        );
    }
    app.wake();
    Ok(())
}

/// Forgets a version that no service uses.
pub fn remove(app: &Arc<App>, reference: &ModelRef) -> Result<(), ApiError> {
    let _claim = app.claim(&format!("model {}", reference.model))?;
    let version = find(app, reference)?;
    let name = name(&version);
    if let Some(service) = services::uses_model(app, &version.manifest)? {
        return Err(ApiError::new(ErrorCode::Conflict, format!("{name} is used by the service {service}"))
            .with_hint(format!(
                "delete the service first, or deploy another version: `slipway delete {}`",
                name::argument(&service)
            )));
    }
    app.state.remove_model_version(&version.model, version.version)?;
    for pin in [&name, &image_pin(&version)] {
        app.store.unpin(PIN, pin).map_err(images::store_error)?;
    }
    app.event(
        &format!("model/{}", version.model),
        "model.removed",
        &format!("Version {} is gone.", version.version),
    );
    Ok(())
}

/// Body of `POST /v1/models/import`.
#[derive(Debug, Deserialize)]
pub struct Import {
    folder: PathBuf,
    model: String,
    format: Option<String>,
    entry: Option<String>,
}

/// Records a folder as a new version.
pub fn import(app: &Arc<App>, import: &Import) -> Result<ModelVersion, ApiError> {
    if !name::is_valid(&import.model) {
        return Err(invalid(format!("`{}` is not a model name: {}", import.model, name::RULE)));
    }
    let format = match import.format.as_deref() {
        None | Some("auto") => None,
        Some(text) => Some(text.parse().map_err(invalid)?),
    };
    record(
        app,
        Candidate {
            model: &import.model,
            folder: &import.folder,
            format,
            entry: import.entry.as_deref(),
            lineage: Lineage::default(),
            metrics: BTreeMap::new(),
        },
    )
}

/// Sends a version to a registry.
pub fn push(
    app: &App,
    reference: &ModelRef,
    target: &str,
    on_event: OnEvent,
) -> Result<TransferEvent, ApiError> {
    let version = find(app, reference)?;
    let target = images::reference(target)?;
    let registry = images::client(app)?;
    app.handle
        .block_on(registry.push_artifact(&app.store, &version.manifest, &target, on_event))
        .map_err(|e| images::push_error(&app.store, &e))?;
    Ok(TransferEvent::Finished {
        reference: target.to_string(),
        manifest: version.manifest.clone(),
        image: version.manifest,
    })
}

/// Fetches a version from a registry and records it under the next number of its model here.
pub fn pull(
    app: &Arc<App>,
    source: &str,
    model: Option<&str>,
    on_event: OnEvent,
) -> Result<TransferEvent, ApiError> {
    let source = images::reference(source)?;
    let registry = images::client(app)?;
    let _lease = app.store.lease();
    let manifest_digest = app
        .handle
        .block_on(registry.pull_artifact(&app.store, &source, on_event))
        .map_err(|e| images::pull_error(&app.store, &e))?;
    let manifest =
        model::read_manifest(&app.store, &manifest_digest).map_err(|e| ApiError::from_error(e.code(), &e))?;
    let Some(model) = model.or(manifest.model.as_deref()) else {
        return Err(invalid("the artifact does not name its model: name it after the reference".to_owned()));
    };
    if !name::is_valid(model) {
        return Err(invalid(format!(
            "the artifact names its model `{model}`, which cannot be used; name another"
        )));
    }
    let _claim = app.claim(&format!("model {model}"))?;
    let known = app.state.model_versions(Some(model))?.into_iter().any(|v| v.manifest == manifest_digest);
    if !known {
        let version = ModelVersion {
            model: model.to_owned(),
            version: app.state.next_model_version(model)?,
            manifest: manifest_digest.clone(),
            format: format(app, &manifest)?,
            size: manifest.size,
            created_at: jiff::Timestamp::now(),
            aliases: Vec::new(),
            lineage: manifest.lineage,
            metrics: manifest.metrics,
        };
        keep(app, &version)?;
    }
    Ok(TransferEvent::Finished {
        reference: source.to_string(),
        manifest: manifest_digest.clone(),
        image: manifest_digest,
    })
}

/// The format that a manifest names; of another tool's artifact it is detected.
fn format(app: &App, manifest: &model::ModelManifest) -> Result<ModelFormat, ApiError> {
    if let Some(format) = manifest.format {
        return Ok(format);
    }
    let folder = app.store.staging("detect").map_err(images::store_error)?;
    let files = folder.path().join("model");
    model::materialize(&app.store, &manifest.digest, &files)
        .map_err(|e| ApiError::from_error(e.code(), &e))?;
    model::detect_format(&files, None, manifest.entry.as_deref())
        .map_err(|e| ApiError::from_error(e.code(), &e))
}

fn invalid(reason: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidArgument, reason)
}
