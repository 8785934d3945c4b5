//! What is in the registry of a cluster already, as the state remembers it: a daemon that starts again sends nothing anew.

use std::os::unix::fs::MetadataExt as _;

use serde_json::json;
use slipway_image::carrier::Program;
use slipway_orchestrator::Revision;
use slipway_types::publish::PublishedService;
use slipway_types::{ApiError, Reference};

use super::state::Publication;
use super::{App, images, publish};

/// What was published for a revision, if it was so with the tools of now.
pub fn service(app: &App, registry: &str, revision: &Revision) -> Option<PublishedService> {
    let text = found(app, of(revision, registry), &inputs(app, revision))?;
    serde_json::from_str(&text).ok()
}

/// Remembers it.
pub fn remember_service(app: &App, registry: &str, revision: &Revision, published: &PublishedService) {
    if let Ok(record) = serde_json::to_string(published) {
        put(app, of(revision, registry), &inputs(app, revision), &record);
    }
}

/// What was published as the gateway, if it was the program that runs now.
pub fn gateway(app: &App, registry: &str) -> Option<Reference> {
    found(app, of_gateway(registry), &own_program()?)?.parse().ok()
}

/// Remembers it.
pub fn remember_gateway(app: &App, registry: &str, reference: &Reference) {
    if let Some(inputs) = own_program() {
        put(app, of_gateway(registry), &inputs, &reference.to_string());
    }
}

/// Forgets what was published of a service.
pub fn forget(app: &App, service: &str) {
    if let Err(error) = app.state.forget_published(service) {
        tracing::warn!(service, %error, "what was published of it is taken to be there");
    }
}

/// Whether the registry has all of these, as they are named by digest.
pub fn are_there(app: &App, references: &[Reference]) -> Result<bool, ApiError> {
    let client = images::client(app)?;
    for reference in references {
        let has = app.handle.block_on(client.has(reference));
        if !has.map_err(|error| images::push_error(&app.store, &error))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The images that a published service consists of.
pub fn images_of(published: &PublishedService) -> Vec<Reference> {
    let model = published.model.iter().flat_map(|model| [&model.reference, &model.tools]);
    std::iter::once(&published.image).chain(model).cloned().collect()
}

fn of<'a>(revision: &'a Revision, registry: &'a str) -> Publication<'a> {
    Publication { service: &revision.spec.name, revision: revision.number, registry }
}

fn of_gateway(registry: &str) -> Publication<'_> {
    Publication { service: "", revision: 0, registry }
}

/// All that a publication is made of: the number of a revision comes again once its service was deleted, and other tools come
/// with another Slipway.
fn inputs(app: &App, revision: &Revision) -> String {
    let mut revision = revision.clone();
    // They change without a new revision.
    revision.spec.replicas = 0;
    // The folder is named by what is in it.
    let tools = app.serving_files.folder().file_name().map(|name| name.to_string_lossy().into_owned());
    json!([publish::FORMAT, revision, tools]).to_string()
}

/// What tells the running program's files from others, without reading them.
fn own_program() -> Option<String> {
    let program = Program::running(publish::GATEWAY_PROGRAM).ok()?;
    let stamp = |(at, path): (&str, &std::path::Path)| {
        let file = std::fs::metadata(path).ok()?;
        Some(json!([at, file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()]))
    };
    let files: Vec<_> = program.files().map(stamp).collect::<Option<_>>()?;
    Some(json!([publish::FORMAT, files]).to_string())
}

/// The state is asked to spare work: where it cannot be, the work is done.
fn found(app: &App, of: Publication<'_>, inputs: &str) -> Option<String> {
    app.state.published(of, inputs).unwrap_or_else(|error| {
        tracing::warn!(service = of.service, %error, "it is published again");
        None
    })
}

fn put(app: &App, of: Publication<'_>, inputs: &str, record: &str) {
    if let Err(error) = app.state.put_published(of, inputs, record) {
        tracing::warn!(service = of.service, %error, "it will be published again");
    }
}
