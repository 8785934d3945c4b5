//! Images and registries, as the API offers them.

use std::io::Read;
use std::sync::Arc;

use oci_spec::image::{
    Arch, ConfigBuilder, ImageConfiguration, ImageConfigurationBuilder, Os, RootFsBuilder,
};
use serde_json::{Value, json};
use slipway_image::build::CancelFlag;
use slipway_image::registry::{Compression, PullError, PushError, Registry};
use slipway_image::store::{RemoveReport, Store, StoreError, UnpackLimits};
use slipway_types::build::BuildRequest;
use slipway_types::image::{Credentials, ImageSummary, InvalidPlatform, Platform, TransferEvent};
use slipway_types::name::argument;
use slipway_types::{ApiError, Digest, ErrorCode, Reference};

use super::{App, credentials, models};

/// Most that is read of what a client still sends after it was refused.
const MAX_DRAINED: u64 = 16 << 30;

/// Instructions that `import` accepts: those that only change the configuration.
const CHANGES: [&str; 9] =
    ["CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"];

/// Where the events of a transfer go.
pub type OnEvent = Arc<dyn Fn(TransferEvent) + Send + Sync>;

/// Every image.
pub fn list(app: &App) -> Result<Vec<ImageSummary>, ApiError> {
    app.store.list().map_err(store_error)
}

/// One image, whole.
pub fn details(app: &App, name: &str) -> Result<Value, ApiError> {
    let id = find(app, name)?;
    app.store.details(&id).map(|details| json!(details)).map_err(store_error)
}

/// The id of the image that a name, an id or a prefix of one means.
pub fn find(app: &App, name: &str) -> Result<Digest, ApiError> {
    app.store.resolve(name).map_err(store_error)?.ok_or_else(|| {
        ApiError::new(ErrorCode::NotFound, format!("no image is called `{name}`")).with_hint(format!(
            "`slipway images` lists those that there are; `slipway pull {name}` fetches it"
        ))
    })
}

/// Removes a name, and the image with its last name.
pub fn remove(app: &App, name: &str, force: bool) -> Result<RemoveReport, ApiError> {
    app.store.remove_image(name, force).map_err(|error| match &error {
        StoreError::ImageInUse { id, users } => {
            in_use(app, name, id, users).unwrap_or_else(|| store_error(error))
        }
        _ => store_error(error),
    })
}

/// Who keeps an image and what to do about it, where the user knows that one by a name.
fn in_use(app: &App, name: &str, id: &Digest, users: &[String]) -> Option<ApiError> {
    let conflict = |user: &str| ApiError::new(ErrorCode::Conflict, format!("`{name}` is used by {user}"));
    let containers = app.state.containers().ok()?;
    if let Some(container) = containers.into_iter().find(|container| container.image_id == *id) {
        return Some(
            conflict(&format!("the container {}", container.name))
                .with_hint(format!("remove it first: `slipway rm {}`", container.name)),
        );
    }
    let versions: Vec<&str> = users.iter().filter_map(|user| models::image_user(user)).collect();
    let (first, others) = versions.split_first()?;
    let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    Some(conflict(&format!("the model version {first}{more}, which serves in it")).with_hint(format!(
        "`slipway model rm {}` lets go of it; with `--force` only the name goes and the image stays",
        argument(first)
    )))
}

/// Gives an image one more name.
pub fn tag(app: &App, source: &str, target: &str) -> Result<(), ApiError> {
    let id = find(app, source)?;
    let name = reference(target)?;
    if name.digest().is_some() {
        return Err(ApiError::new(
            ErrorCode::InvalidArgument,
            format!("`{target}` has a digest; a tag has none"),
        ));
    }
    app.store.tag(&id, &name).map_err(store_error)?;
    Ok(())
}

/// Fetches an image.
pub fn pull(
    app: &App,
    name: &str,
    platform: Option<&str>,
    on_event: OnEvent,
) -> Result<TransferEvent, ApiError> {
    let reference = reference(name)?;
    let platform = match platform {
        Some(text) => text.parse().map_err(|e: InvalidPlatform| invalid(&e.to_string()))?,
        None => Platform::host(),
    };
    let registry = client(app)?;
    let pulled = app
        .handle
        .block_on(registry.pull(&app.store, &reference, &platform, on_event))
        .map_err(|e| pull_error(&app.store, &e))?;
    app.event(
        &format!("image/{}", reference.familiar()),
        "image.pulled",
        &format!("{} was pulled.", pulled.manifest),
    );
    Ok(TransferEvent::Finished {
        reference: reference.to_string(),
        manifest: pulled.manifest,
        image: pulled.image,
    })
}

/// Sends an image.
pub fn push(
    app: &App,
    name: &str,
    compression: Option<&str>,
    on_event: OnEvent,
) -> Result<TransferEvent, ApiError> {
    let reference = reference(name)?;
    let image = find(app, name)?;
    let compression = self::compression(compression)?;
    let registry = client(app)?;
    let manifest = app
        .handle
        .block_on(registry.push(&app.store, &image, &reference, compression, on_event))
        .map_err(|e| push_error(&app.store, &e))?;
    app.event(&format!("image/{}", reference.familiar()), "image.pushed", &format!("{manifest} was pushed."));
    Ok(TransferEvent::Finished { reference: reference.to_string(), manifest, image })
}

/// Reads the name of a compression; gzip when there is none.
pub fn compression(name: Option<&str>) -> Result<Compression, ApiError> {
    match name {
        None | Some("gzip") => Ok(Compression::Gzip),
        Some("zstd") => Ok(Compression::Zstd),
        Some(other) => Err(invalid(&format!("`{other}` is no compression: expected gzip or zstd"))),
    }
}

/// Makes an image of a root file system's tar. `pairs` has one `name` and any number of `change`s.
pub fn import(app: &App, pairs: &[(String, String)], mut reader: impl Read) -> Result<Digest, ApiError> {
    let outcome = import_from(app, pairs, &mut reader);
    if outcome.is_err() {
        // A client that still sends would see a broken connection instead of the reason.
        let _ = std::io::copy(&mut reader.take(MAX_DRAINED), &mut std::io::sink());
    }
    outcome
}

fn import_from(app: &App, pairs: &[(String, String)], reader: &mut impl Read) -> Result<Digest, ApiError> {
    let name = pairs.iter().find(|(key, _)| key == "name").map(|(_, value)| value.as_str());
    let name = reference(name.ok_or_else(|| invalid("the image has no name"))?)?;
    let changes: Vec<&str> =
        pairs.iter().filter(|(key, _)| key == "change").map(|(_, value)| value.as_str()).collect();
    for change in &changes {
        allowed_change(change)?;
    }
    let lease = app.store.lease();
    let imported = app
        .store
        .import_rootfs(reader, &plain_config()?, &UnpackLimits::default())
        .map_err(|e| naming_disk(&app.store, e.is_out_of_space(), store_error(e)))?;
    let id = if changes.is_empty() { Ok(imported.clone()) } else { changed(app, &imported, &changes) };
    let id = id.and_then(|id| app.store.tag(&id, &name).map(|_| id).map_err(store_error));
    drop(lease);
    if !matches!(&id, Ok(id) if *id == imported) {
        // Nobody asked for the image without the changes; what may still need it leaves it to `prune`.
        let _ = app.store.remove_image(imported.as_str(), true);
    }
    let id = id?;
    app.event(&format!("image/{}", name.familiar()), "image.imported", &format!("{id} was imported."));
    Ok(id)
}

fn plain_config() -> Result<ImageConfiguration, ApiError> {
    let broken = |error: oci_spec::OciSpecError| ApiError::new(ErrorCode::Internal, error.to_string());
    let config = ConfigBuilder::default().build().map_err(broken)?;
    let rootfs =
        RootFsBuilder::default().typ("layers").diff_ids(Vec::<String>::new()).build().map_err(broken)?;
    ImageConfigurationBuilder::default()
        .os(Os::Linux)
        .architecture(Arch::default())
        .created(jiff::Timestamp::now().to_string())
        .config(config)
        .rootfs(rootfs)
        .build()
        .map_err(broken)
}

fn allowed_change(change: &str) -> Result<(), ApiError> {
    let word = change.split_ascii_whitespace().next().unwrap_or("").to_ascii_uppercase();
    if CHANGES.contains(&word.as_str()) && !change.contains(['\n', '\r']) {
        return Ok(());
    }
    Err(invalid(&format!("--change `{change}`: expected one of {} and its value", CHANGES.join(", "))))
}

/// The image with Dockerfile instructions applied: a build that only changes the configuration.
fn changed(app: &App, image: &Digest, changes: &[&str]) -> Result<Digest, ApiError> {
    let name = reference(&format!("localhost/slipway-import:{}", slipway_native::random_id()))?;
    app.store.tag(image, &name).map_err(store_error)?;
    let folder = app.store.staging("import").map_err(store_error)?;
    let request = BuildRequest {
        context: folder.path().to_owned(),
        dockerfile: folder.path().join("Dockerfile"),
        dockerfile_text: Some(format!("FROM {name}\n{}\n", changes.join("\n"))),
        ..BuildRequest::default()
    };
    let built = app.builder.build(&request, &|_| {}, &CancelFlag::new());
    // Takes the name off only: the caller's lease keeps the image.
    app.store.remove_image(&name.to_string(), true).map_err(store_error)?;
    let built = built.map_err(|error| {
        let failure = error.into_failure();
        let reason = failure.diagnostic.map_or(failure.error.message, |diagnostic| diagnostic.message);
        invalid(&format!("--change: {reason}"))
    })?;
    built.image.ok_or_else(|| ApiError::new(ErrorCode::Internal, "the changed image was not kept"))
}

/// Remembers credentials once the registry accepted them.
pub fn login(app: &App, registry: &str, credentials: Credentials) -> Result<(), ApiError> {
    let client = client(app)?;
    app.handle
        .block_on(client.login_check(registry, &credentials))
        .map_err(|e| registry_error(e.code(), e.hint(), &e))?;
    credentials::set(&app.settings.root, registry, Some(credentials)).map(drop)
}

/// Forgets credentials.
pub fn logout(app: &App, registry: &str) -> Result<(), ApiError> {
    if credentials::set(&app.settings.root, registry, None)? {
        Ok(())
    } else {
        Err(ApiError::new(ErrorCode::NotFound, format!("no credentials of `{registry}` are kept")))
    }
}

/// A registry client with the settings and credentials of this moment.
pub fn client(app: &App) -> Result<Registry, ApiError> {
    let settings = app.settings.current_registries().map_err(|failure| {
        failure
            .error
            .unwrap_or_else(|| ApiError::new(ErrorCode::InvalidArgument, "the settings cannot be read"))
    })?;
    crate::wire::registry(settings, &app.settings.root)
}

/// Reads an image reference.
pub fn reference(text: &str) -> Result<Reference, ApiError> {
    text.parse().map_err(|e: slipway_types::reference::InvalidReference| invalid(&e.to_string()))
}

/// The pairs of a query string, decoded.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    };
    query.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn invalid(reason: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidArgument, reason)
}

/// A store's error, with its public kind.
pub fn store_error(error: StoreError) -> ApiError {
    ApiError::from_error(store_code(&error), &error)
}

/// The public kind of a store's error.
pub fn store_code(error: &StoreError) -> ErrorCode {
    if error.is_out_of_space() {
        ErrorCode::ResourceExhausted
    } else if error.is_not_found() {
        ErrorCode::NotFound
    } else if error.is_conflict() {
        ErrorCode::Conflict
    } else {
        ErrorCode::Internal
    }
}

/// An error of a registry operation, with what to do about it.
pub fn registry_error(
    code: ErrorCode,
    hint: Option<String>,
    error: &(dyn std::error::Error + 'static),
) -> ApiError {
    ApiError { hint, ..ApiError::from_error(code, error) }
}

/// An error of a pull into the store.
pub fn pull_error(store: &Store, error: &PullError) -> ApiError {
    naming_disk(store, error.is_out_of_space(), registry_error(error.code(), error.hint(), error))
}

/// An error of a push out of the store, which keeps there what it compressed.
pub fn push_error(store: &Store, error: &PushError) -> ApiError {
    naming_disk(store, error.is_out_of_space(), registry_error(error.code(), error.hint(), error))
}

/// The error of an operation that writes to the store; where the disk is `full`, the hint names it.
fn naming_disk(store: &Store, full: bool, error: ApiError) -> ApiError {
    if !full {
        return error;
    }
    let folder = store.root().display();
    error.with_hint(format!(
        "the disk that holds {folder} is full: free space on it, with `slipway system prune` for example"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let pairs = query_pairs("name=a%2Fb%3Ac&change=ENV+A%3D%25&bad=%zz&flag");
        let expected = [("name", "a/b:c"), ("change", "ENV A=%"), ("bad", "%zz"), ("flag", "")];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
