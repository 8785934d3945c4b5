//! Brings what a service needs to a registry, so that a cluster can run it: its image, its model, and Slipway's own
//! programs, each named by digest.

use std::path::Path;
use std::sync::Arc;

use slipway_image::carrier::{Carrier, CarrierError, Program};
use slipway_image::registry::{self, Compression, Registry};
use slipway_image::store::StoredImage;
use slipway_kubernetes::names;
use slipway_orchestrator::{ModelPin, Revision};
use slipway_types::image::{Platform, TransferEvent};
use slipway_types::publish::{PublishEvent, PublishRequest, PublishedModel, PublishedService};
use slipway_types::run::RunSpec;
use slipway_types::{ApiError, Digest, ErrorCode, Reference};

use super::images::{self, OnEvent};
use super::workspace::Workspace;
use super::{App, services};

/// Grows when what is published for the same inputs changes.
pub const FORMAT: u32 = 1;
/// Repository of the image with the runner and the Python worker.
const TOOLS: &str = "slipway-tools";
/// Folder of the tools in their image, and of a model's, a project's and data's files in theirs.
const TOOLS_FOLDER: &str = "slipway";
const MODEL_FOLDER: &str = "model";
/// Repository of the image with the gateway, and the program in it.
const GATEWAY: &str = "slipway-gateway";
pub const GATEWAY_PROGRAM: &str = "slipway";
/// User and group of the gateway: nobody in particular.
pub const GATEWAY_USER: (u32, u32) = (65_532, 65_532);
const WORKSPACE_FOLDER: &str = "workspace";
const DATA_FOLDER: &str = "data";
/// Digits of a tag that is named by its content.
const TAG_DIGITS: usize = 16;
/// Largest `/etc/passwd` or `/etc/group` that is read.
const MAX_ACCOUNTS: u64 = 4 << 20;

/// Where the events of a publication go.
pub type OnPublish = Arc<dyn Fn(PublishEvent) + Send + Sync>;

/// Where a publication goes, and how.
pub struct Destination<'a> {
    /// Registry, with a path if need be.
    pub registry: &'a str,
    /// Compression of layers that were built here; `gzip` when absent.
    pub compression: Option<&'a str>,
    /// Finds out the digests and sends nothing when false.
    pub push: bool,
}

/// Publishes the declared revision of a service.
pub fn publish(
    app: &App,
    request: &PublishRequest,
    on_event: &OnPublish,
) -> Result<PublishedService, ApiError> {
    let _lease = app.store.lease();
    let record = services::find(app, &request.service)?;
    if record.deleting {
        let reason = format!("the service `{}` is being deleted", request.service);
        return Err(ApiError::new(ErrorCode::Conflict, reason));
    }
    let to = Destination {
        registry: &request.registry,
        compression: request.compression.as_deref(),
        push: !request.no_push,
    };
    // The gateway knows models alone.
    let wanted = request.gateway && record.target.model.is_some();
    let gateway = if wanted { Some(gateway(app, &to, on_event)?) } else { None };
    Ok(PublishedService { gateway, ..revision(app, &record.target, &to, on_event)? })
}

/// Publishes the gateway's image: the program that runs here, with what it needs to run alone.
pub fn gateway(app: &App, to: &Destination<'_>, on_event: &OnPublish) -> Result<Reference, ApiError> {
    let program = Program::running(GATEWAY_PROGRAM).map_err(|error| {
        ApiError::from_error(ErrorCode::Internal, &error)
            .with_hint("end the daemon with `slipway daemon stop`, so that the next command starts it anew")
    })?;
    let carrier = Carrier::of_program(&program, GATEWAY_USER, &Platform::host()).map_err(carrier_error)?;
    Target::new(app, to, on_event)?.carrier("gateway", GATEWAY, &carrier)
}

/// Publishes a revision of a service.
pub fn revision(
    app: &App,
    revision: &Revision,
    to: &Destination<'_>,
    on_event: &OnPublish,
) -> Result<PublishedService, ApiError> {
    let compression = images::compression(to.compression)?;
    let _lease = app.store.lease();
    let image = app.store.image(&revision.image_id).map_err(images::store_error)?;
    let architecture = match revision.model {
        Some(_) => architecture(&image)?,
        None => image.config.architecture().to_string(),
    };
    let (uid, gid) = user(app, &image)?;

    let target = Target::new(app, to, on_event)?;
    let service = mapped(&revision.spec.name)?;
    // The small ones first: a registry that refuses does so before anything large was compressed.
    let model = match &revision.model {
        Some(pin) => Some(target.model(&revision.spec.model, pin)?),
        None => None,
    };
    let reference = target.image(&service, &revision.image_id, compression)?;

    if to.push {
        app.event(
            &format!("service/{}", revision.spec.name),
            "service.published",
            &format!("Revision {} is in {}.", revision.number, to.registry),
        );
    }
    Ok(PublishedService {
        revision: revision.number,
        image: reference,
        uid,
        gid,
        architecture,
        port: services::container_port(app, revision)?,
        model,
        gateway: None,
        spec: revision.spec.clone(),
    })
}

/// What a training run needs, each named by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedRun {
    /// Its image.
    pub image: Reference,
    /// The image's user and group by number.
    pub user: (u32, u32),
    /// The image's architecture.
    pub architecture: String,
    /// Image with the runner.
    pub tools: Reference,
    /// Image with the project folder, and the folder in it.
    pub workspace: (Reference, String),
    /// Image with the data, and the folder in it.
    pub data: Option<(Reference, String)>,
}

/// Publishes what a training run needs. The project folder goes as it is now, without what its rules name.
pub fn publish_run(
    app: &App,
    registry: &str,
    spec: &RunSpec,
    image_id: &Digest,
    on_event: &OnPublish,
) -> Result<PublishedRun, ApiError> {
    let _lease = app.store.lease();
    let image = app.store.image(image_id).map_err(images::store_error)?;
    let architecture = architecture(&image)?;
    let user = user(app, &image)?;
    let to = Destination { registry, compression: None, push: true };
    let target = Target::new(app, &to, on_event)?;
    let platform = Platform::host();
    let project = mapped(&spec.project)?;
    let tools = Carrier::of_folder(app.serving_files.folder(), TOOLS_FOLDER, &platform);
    let tools = target.carrier("tools", TOOLS, &tools.map_err(carrier_error)?)?;
    let rules = Workspace::of(&spec.workspace)?;
    let files = |folder, at, wanted: &dyn Fn(&str) -> bool| {
        Carrier::of_tree(folder, at, wanted, &platform).map_err(carrier_error)
    };
    let workspace = files(&spec.workspace, WORKSPACE_FOLDER, &|path| rules.has(path))?;
    let workspace = target.carrier("project folder", &format!("{project}-workspace"), &workspace)?;
    let data = spec.data.as_deref().map(|folder| {
        let data = files(folder, DATA_FOLDER, &|_| true)?;
        target.carrier("data", &format!("{project}-data"), &data)
    });
    let data = data.transpose()?;
    let image = target.image(&project, image_id, images::compression(None)?)?;
    let inside = |folder: &str| format!("/{folder}");
    Ok(PublishedRun {
        image,
        user,
        architecture,
        tools,
        workspace: (workspace, inside(WORKSPACE_FOLDER)),
        data: data.map(|data| (data, inside(DATA_FOLDER))),
    })
}

/// Where images go.
struct Target<'a> {
    app: &'a App,
    registry: &'a str,
    /// Absent where nothing is sent.
    client: Option<Registry>,
    on_event: &'a OnPublish,
}

impl<'a> Target<'a> {
    fn new(app: &'a App, to: &Destination<'a>, on_event: &'a OnPublish) -> Result<Self, ApiError> {
        let client = if to.push { Some(images::client(app)?) } else { None };
        Ok(Self { app, registry: to.registry, client, on_event })
    }

    /// A repository below the registry's path, and a tag that is named by content: it never moves, and keeps what it names
    /// from being collected.
    fn reference(&self, name: &str, content: &Digest) -> Result<Reference, ApiError> {
        let registry = self.registry.trim_end_matches('/');
        let text = format!("{registry}/{name}:{}", &content.hex()[..TAG_DIGITS]);
        let parsed = text.parse::<Reference>().ok().filter(|_| !registry.is_empty());
        parsed.ok_or_else(|| {
            ApiError::new(ErrorCode::InvalidArgument, format!("`{}` is no registry", self.registry))
                .with_hint("write `host[:port][/path]`, such as `registry.example.com/team`")
        })
    }

    fn begins(&self, what: &str, reference: &Reference) -> OnEvent {
        (self.on_event)(PublishEvent::Image { what: what.to_owned(), reference: reference.to_string() });
        let on_event = Arc::clone(self.on_event);
        Arc::new(move |event: TransferEvent| on_event(PublishEvent::Transfer(event)))
    }

    /// A model, and what serves it.
    fn model(&self, name: &str, pin: &ModelPin) -> Result<PublishedModel, ApiError> {
        let platform = Platform::host();
        let tools = Carrier::of_folder(self.app.serving_files.folder(), TOOLS_FOLDER, &platform);
        let tools = self.carrier("tools", TOOLS, &tools.map_err(carrier_error)?)?;
        let files = Carrier::of_model(&self.app.store, &pin.manifest, MODEL_FOLDER, &platform);
        let repository = format!("{}-model", mapped(name)?);
        let reference = self.carrier("model", &repository, &files.map_err(carrier_error)?)?;
        Ok(PublishedModel { reference, format: pin.format, labels: pin.labels.clone(), tools })
    }

    fn carrier(&self, what: &str, name: &str, carrier: &Carrier) -> Result<Reference, ApiError> {
        let reference = self.reference(name, carrier.digest())?;
        let progress = self.begins(what, &reference);
        if let Some(client) = &self.client {
            let pushed = client.push_carrier(carrier, &reference, progress);
            self.app.handle.block_on(pushed).map_err(|e| images::push_error(&self.app.store, &e))?;
        }
        Ok(reference.with_digest(carrier.digest().clone()))
    }

    fn image(&self, name: &str, image: &Digest, compression: Compression) -> Result<Reference, ApiError> {
        let reference = self.reference(name, image)?;
        let progress = self.begins("image", &reference);
        let digest = match &self.client {
            Some(client) => {
                let pushed = client.push(&self.app.store, image, &reference, compression, progress);
                self.app.handle.block_on(pushed)
            }
            None => registry::manifest_of(&self.app.store, image, &reference, compression),
        };
        Ok(reference.with_digest(digest.map_err(|e| images::push_error(&self.app.store, &e))?))
    }
}

/// The architecture of an image, which must be the one of the programs that are put into its containers.
fn architecture(image: &StoredImage) -> Result<String, ApiError> {
    let (own, host) = (image.config.architecture().to_string(), Platform::host().architecture);
    if own == host {
        return Ok(own);
    }
    let reason = format!("the image is for {own}, and the runner that serves in it for {host}");
    Err(ApiError::new(ErrorCode::InvalidArgument, reason)
        .with_hint(format!("export it on a machine with {own}, or deploy an image for {host}")))
}

/// The image's user by number: a node sees no names.
fn user(app: &App, image: &StoredImage) -> Result<(u32, u32), ApiError> {
    let configured = image.config.config().as_ref().and_then(|config| config.user().as_deref());
    let read = |path: &str| -> Result<String, ApiError> {
        let bytes = app.store.read_image_file(&image.id, Path::new(path), MAX_ACCOUNTS);
        Ok(String::from_utf8_lossy(&bytes.map_err(images::store_error)?.unwrap_or_default()).into_owned())
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    slipway_runtime::user_ids(&passwd, &group, configured.unwrap_or_default())
        .map_err(|error| ApiError::from_error(ErrorCode::InvalidArgument, &error))
}

fn mapped(name: &str) -> Result<String, ApiError> {
    names::map(name).map_err(|error| ApiError::from_error(ErrorCode::InvalidArgument, &error))
}

fn carrier_error(error: CarrierError) -> ApiError {
    ApiError::from_error(error.code(), &error)
}
