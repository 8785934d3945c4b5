//! The builder: from a request to an image in the store.

use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use slipway_types::build::{BuildEvent, BuildRequest, Diagnostic, Severity, Span};
use slipway_types::image::Platform;
use slipway_types::{Digest, Reference};

use super::cache::InFlight;
use super::check::{BaseImage, CheckContext, OnDisk, check};
use super::context::{Context, read_text};
use super::dockerfile::{self, Dockerfile, LineIndex};
use super::error::BuildError;
use super::execute::{Build, CacheMounts, Parts, Trust};
use super::image_config::ImageConfig;
use super::plan::{Globals, declared_args, find_target, is_predefined, plan};
use super::runner::{BaseImages, CancelFlag, StepRunner};
use crate::store::{Store, StoreError};

/// Receives the events of a build, from several threads.
pub type Events<'a> = dyn Fn(BuildEvent) + Sync + 'a;

/// Builds images. Cheap to clone; any number of builds may run at once.
#[derive(Clone)]
pub struct Builder {
    machine: Arc<Machine>,
}

/// What builds share.
pub(crate) struct Machine {
    pub(crate) store: Store,
    pub(crate) runner: Arc<dyn StepRunner>,
    pub(crate) bases: Arc<dyn BaseImages>,
    pub(crate) flights: InFlight,
    pub(crate) cache_mounts: CacheMounts,
}

/// What a build gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildOutcome {
    /// Digest of the image's configuration; none when only the checks were asked for.
    pub image: Option<Digest>,
    /// References that now name it.
    pub tags: Vec<String>,
    /// Steps that were executed.
    pub executed: u32,
    /// Steps that came from the cache.
    pub cached: u32,
}

impl BuildOutcome {
    /// The event that ends the build's progress; none when only the checks were asked for.
    pub fn event(&self) -> Option<BuildEvent> {
        let image = self.image.clone()?;
        let (executed, cached) = (self.executed, self.cached);
        Some(BuildEvent::Finished { image, tags: self.tags.clone(), executed, cached })
    }
}

impl Builder {
    /// A builder on a store. RUN and file systems go through `runner`, base images through `bases`.
    pub fn new(store: Store, runner: Arc<dyn StepRunner>, bases: Arc<dyn BaseImages>) -> Self {
        let cache_mounts = CacheMounts::new(store.root());
        let flights = InFlight::default();
        Self { machine: Arc::new(Machine { store, runner, bases, flights, cache_mounts }) }
    }

    /// Builds an image and tags it. Blocks until it is done.
    ///
    /// Diagnostics of the parser and the checks are the first events; errors among them end the build before
    /// anything is run. The last event ([`BuildOutcome::event`], or `Failed` with
    /// [`BuildError::into_failure`]) is left to the caller.
    ///
    /// # Errors
    /// Why there is no image. The store is as before, except for steps that were finished and are in the cache.
    pub fn build(
        &self,
        request: &BuildRequest,
        events: &Events<'_>,
        cancel: &CancelFlag,
    ) -> Result<BuildOutcome, BuildError> {
        let store = &self.machine.store;
        let _lease = store.lease();
        let tags = request.tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<Reference>, _>>()?;
        let text = read_dockerfile(request)
            .map_err(|source| BuildError::Dockerfile { path: request.dockerfile.clone(), source })?;
        let parsed = dockerfile::parse(&text);
        let beside = request.dockerfile_text.is_none().then_some(request.dockerfile.as_path());
        let context = Context::open(&request.context, beside, within(request), store)?;
        let dockerfile = &parsed.dockerfile;
        let lines = LineIndex::new(&text);

        let mut diagnostics = parsed.diagnostics.clone();
        if !parsed.has_errors() {
            diagnostics.extend(self.checks(request, &text, dockerfile, &context));
            diagnostics.extend(unused_args(request, dockerfile, &lines));
        }
        report(request, diagnostics, events)?;
        if request.check_only {
            return Ok(BuildOutcome { image: None, tags: Vec::new(), executed: 0, cached: 0 });
        }

        let host = Platform::host();
        let located = |(fault, span): (super::error::Fault, Span)| fault.place(&lines, span);
        let globals = Globals::new(dockerfile, &request.build_args, &host).map_err(located)?;
        let target =
            find_target(dockerfile, request.target.as_deref()).ok_or_else(|| unknown(request, dockerfile))?;
        let plan = plan(dockerfile, &globals, &host, target).map_err(located)?;
        let build = Build::new(Parts {
            machine: &self.machine,
            request,
            dockerfile,
            plan: &plan,
            globals: &globals,
            context: &context,
            lines: LineIndex::new(&text),
            host: &host,
            trust: request.ca_certificates.as_deref().map(Trust::read).transpose()?,
            epoch: globals.source_date_epoch().map(epoch).transpose()?,
            events,
            cancel: cancel.child(),
        });
        let result = build.run();
        if !request.temporary_context {
            context.save();
        }
        let config = result?;
        if cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let image = store_image(store, config, request)?;
        for tag in &tags {
            store.tag(&image, tag)?;
        }
        let (executed, cached) = build.counts();
        Ok(BuildOutcome {
            image: Some(image),
            tags: tags.iter().map(Reference::to_string).collect(),
            executed,
            cached,
        })
    }

    /// Removes the folders of `RUN --mount=type=cache` that no step uses; bytes of the files in them.
    ///
    /// # Errors
    /// A folder cannot be read or removed.
    pub fn clear_cache_mounts(&self) -> io::Result<u64> {
        self.machine.cache_mounts.clear()
    }

    fn checks(
        &self,
        request: &BuildRequest,
        text: &str,
        dockerfile: &Dockerfile,
        context: &Context,
    ) -> Vec<Diagnostic> {
        let bases = |text: &str| -> Option<BaseImage> {
            let reference: Reference = text.parse().ok()?;
            let id = self.machine.store.resolve(&reference.to_string()).ok()??;
            let image = self.machine.store.image(&id).ok()?;
            let config: ImageConfig = serde_json::from_slice(&image.raw_config).ok()?;
            Some(BaseImage {
                workdir: config.config.working_dir.unwrap_or_default(),
                env: config.config.env.unwrap_or_default(),
            })
        };
        let files = OnDisk { root: &request.context, ignore: &context.ignore };
        check(
            dockerfile,
            &CheckContext {
                text,
                files: &files,
                build_args: &request.build_args,
                target: request.target.as_deref(),
                bases: &bases,
            },
        )
    }
}

/// Reports diagnostics as events, and the errors among them as a failure.
fn report(
    request: &BuildRequest,
    diagnostics: Vec<Diagnostic>,
    events: &Events<'_>,
) -> Result<(), BuildError> {
    let mut errors = diagnostics.iter().filter(|d| d.severity == Severity::Error);
    let first = errors.next().cloned();
    let count = 1 + errors.count();
    for diagnostic in diagnostics {
        events(BuildEvent::Diagnostic(diagnostic));
    }
    match first {
        None => Ok(()),
        Some(first) => {
            Err(BuildError::Invalid { path: request.dockerfile.clone(), count, first: Box::new(first) })
        }
    }
}

/// The Dockerfile of a request. In a context that was given as an archive nothing outside of it is read.
///
/// # Errors
/// It is missing, no regular file, too long, or no text.
pub fn read_dockerfile(request: &BuildRequest) -> io::Result<String> {
    if let Some(text) = &request.dockerfile_text {
        return Ok(text.clone());
    }
    let bytes = read_text(&request.dockerfile, within(request), dockerfile::MAX_TEXT as u64)?
        .ok_or(io::ErrorKind::NotFound)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// The folder that files named by the request must be in.
fn within(request: &BuildRequest) -> Option<&Path> {
    request.temporary_context.then_some(request.context.as_path())
}

/// Warnings for `--build-arg` values that no ARG takes.
fn unused_args(request: &BuildRequest, dockerfile: &Dockerfile, lines: &LineIndex<'_>) -> Vec<Diagnostic> {
    let declared = declared_args(dockerfile);
    let unused = request
        .build_args
        .keys()
        .filter(|name| !declared.contains(name.as_str()) && !is_predefined(name))
        .map(|name| {
            let message = format!("the build argument `{name}` is given, and no ARG takes it");
            let hint = Some(format!("add `ARG {name}` to the stage that uses it"));
            let span = Span::default();
            lines.diagnostic(Severity::Warning, "unused-build-arg", span, message, hint)
        });
    unused.collect()
}

fn unknown(request: &BuildRequest, dockerfile: &Dockerfile) -> BuildError {
    let names = dockerfile.stages.iter().filter_map(|stage| stage.name.as_ref());
    BuildError::UnknownTarget {
        target: request.target.clone().unwrap_or_default(),
        known: names.map(|name| name.text.clone()).collect(),
    }
}

fn epoch(text: &str) -> Result<Timestamp, BuildError> {
    let seconds = text.trim().parse().ok();
    seconds
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or_else(|| BuildError::Epoch(text.to_owned()))
}

/// Adds the request's labels and stores the image.
fn store_image(store: &Store, mut config: ImageConfig, request: &BuildRequest) -> Result<Digest, StoreError> {
    if !request.labels.is_empty() {
        let labels = config.config.labels.get_or_insert_default();
        labels.extend(request.labels.clone());
        let pairs: Vec<String> = request.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let created = config.created;
        config.record(created, &format!("LABEL {}", pairs.join(" ")), true);
    }
    let layers = config.rootfs.diff_ids.clone();
    let bytes = serde_json::to_vec(&config).expect("plain data with text keys is always written as JSON");
    store.put_image(&bytes, &layers, None)
}
