//! Builds, as the API and `up` run them.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use slipway_image::build::{BaseImages, BaseProgress, BuildOutcome, CancelFlag, ResolvedBase};
use slipway_image::store::Store;
use slipway_types::build::{BuildEvent, BuildFailure, BuildRequest};
use slipway_types::image::{Platform, TransferEvent};
use slipway_types::{ApiError, ErrorCode, Reference};

use super::{App, images};

/// How often a build looks whether anyone still listens.
const LISTENER_POLL: Duration = Duration::from_millis(100);

/// Builds; `on_event` and `is_gone` say whether anyone still listens. The last event is `Finished` or `Failed`.
pub fn build(
    app: &App,
    request: &BuildRequest,
    on_event: &(dyn Fn(BuildEvent) -> bool + Sync),
    is_gone: &(dyn Fn() -> bool + Sync),
) -> Result<BuildOutcome, Box<BuildFailure>> {
    let cancel = CancelFlag::new();
    let (running, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        // A step that says nothing would not notice that nobody listens any more. The build's end, a panic too, drops
        // the sender, which ends this thread at once.
        let cancel_when_alone = cancel.clone();
        scope.spawn(move || {
            while ended.recv_timeout(LISTENER_POLL) == Err(RecvTimeoutError::Timeout) {
                if is_gone() || app.is_stopping() {
                    cancel_when_alone.cancel();
                }
            }
        });
        let outcome = build_until(app, request, on_event, &cancel);
        drop(running);
        outcome
    })
}

fn build_until(
    app: &App,
    request: &BuildRequest,
    on_event: &(dyn Fn(BuildEvent) -> bool + Sync),
    cancel: &CancelFlag,
) -> Result<BuildOutcome, Box<BuildFailure>> {
    let events = |event: BuildEvent| {
        if !on_event(event) {
            cancel.cancel();
        }
    };
    let outcome = app.builder.build(request, &events, cancel);
    match outcome {
        Ok(outcome) => {
            if let Some(event) = outcome.event() {
                events(event);
            }
            if let Some(image) = outcome.image.as_ref().filter(|_| outcome.executed > 0) {
                app.event(
                    &format!("image/{}", outcome.tags.first().map_or("<none>", String::as_str)),
                    "image.built",
                    &format!(
                        "{image} was built: {} steps executed, {} cached.",
                        outcome.executed, outcome.cached
                    ),
                );
            }
            Ok(outcome)
        }
        Err(error) => {
            let failure = Box::new(error.into_failure());
            events(BuildEvent::Failed(*failure.clone()));
            Err(failure)
        }
    }
}

/// Base images: the store's own, else pulled.
pub struct Bases {
    /// Where they are kept.
    pub store: Store,
    /// Makes a registry client with the settings of the moment.
    pub client: Box<dyn Fn() -> Result<slipway_image::registry::Registry, ApiError> + Send + Sync>,
    /// Runs its async code.
    pub handle: tokio::runtime::Handle,
}

impl BaseImages for Bases {
    fn resolve(
        &self,
        reference: &Reference,
        platform: &str,
        pull: bool,
        progress: &BaseProgress<'_>,
        cancel: &CancelFlag,
    ) -> Result<ResolvedBase, ApiError> {
        let name = reference.to_string();
        if !pull && let Some(id) = self.store.resolve(&name).map_err(images::store_error)? {
            return Ok(ResolvedBase { id, pulled: false });
        }
        let platform: Platform = platform.parse().map_err(|e: slipway_types::image::InvalidPlatform| {
            ApiError::new(ErrorCode::InvalidArgument, e.to_string())
        })?;
        let client = (self.client)()?;
        // The pull reports from other threads; its reports are passed on from this one.
        let (sender, receiver) = mpsc::channel();
        let on_event: images::OnEvent = Arc::new(move |event| {
            let _ = sender.send(event);
        });
        let (store, wanted) = (self.store.clone(), reference.clone());
        let task = self.handle.spawn(async move { client.pull(&store, &wanted, &platform, on_event).await });
        for event in receiver {
            if cancel.is_cancelled() {
                task.abort();
            }
            if let TransferEvent::Blob { digest, done, total, .. } = event {
                progress(&format!("{} {}", reference.familiar(), digest.short()), done, total);
            }
        }
        let pulled = self
            .handle
            .block_on(task)
            .map_err(|e| ApiError::new(ErrorCode::Internal, format!("the pull failed: {e}")))?;
        match pulled {
            Ok(pulled) => Ok(ResolvedBase { id: pulled.image, pulled: true }),
            Err(error) => Err(images::pull_error(&self.store, &error)),
        }
    }
}
