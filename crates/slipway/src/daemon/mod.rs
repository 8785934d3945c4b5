//! The control plane: state, builder, containers, reconciler, and the API in front of them.
//! Nothing that serves depends on it being up.

mod api;
mod builds;
mod containers;
mod credentials;
mod data_plane;
mod declare;
mod engines;
mod failing;
mod fingerprint;
mod git;
mod images;
mod leftovers;
mod logs;
mod models;
mod preview;
pub mod publish;
pub mod published;
mod reconciler;
pub mod runs;
mod services;
mod state;
mod up;
mod workspace;

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use slipway_image::build::Builder;
use slipway_image::store::Store;
use slipway_native::{Native, ServingFiles};
use slipway_types::{ApiError, ErrorCode};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::env_vars;
use crate::failure::{self, Failure};
use crate::settings::Settings;
use crate::wire;

pub use builds::Bases;
pub use credentials::load as credentials;
pub use data_plane::hold_lock as hold_gateway_lock;
pub use engines::{Connected, Engines};
pub use images::store_error;
pub use preview::Previews;
pub use state::State;

/// How long a new daemon waits for the one before it to end.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Everything that requests share.
pub struct App {
    /// Where things are.
    pub settings: Settings,
    /// What is remembered.
    pub state: State,
    /// Images and models.
    pub store: Store,
    /// Containers on this host.
    pub native: Native,
    /// Builds images.
    pub builder: Builder,
    /// What is mounted into every replica on this host besides its image and its model.
    pub serving_files: ServingFiles,
    /// What runs services.
    pub engines: Engines,
    /// Runs the registry client's async code from blocking threads.
    pub handle: Handle,
    /// Wakes the reconcilers.
    changed: watch::Sender<()>,
    /// Names of projects, services and models that an operation holds.
    busy: Mutex<BTreeSet<String>>,
    /// Held where a run is cancelled and where it begins to make its version: it does one or the other.
    pub run_fate: Mutex<()>,
    /// Revisions of services that do not come up, and why.
    failing: Mutex<failing::Failing>,
    /// Threads that drive runs elsewhere.
    driving: AtomicUsize,
    stopping: AtomicBool,
    stop: Notify,
}

impl App {
    /// Whether the daemon ends.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Ends the daemon; containers go on.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stop.notify_waiters();
        self.stop.notify_one();
    }

    /// Claims a name for one operation, such as `project digits`; it is free again when the claim is dropped.
    pub fn claim(self: &Arc<Self>, what: &str) -> Result<Claim, ApiError> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(what.to_owned()) {
            return Err(ApiError::new(ErrorCode::Conflict, format!("another command works on {what}"))
                .with_hint("wait until it is done"));
        }
        Ok(Claim { app: Arc::clone(self), what: what.to_owned() })
    }

    /// Makes every reconciler look again at once.
    pub fn wake(&self) {
        self.changed.send_replace(());
    }

    /// Why a revision of a service does not come up, as its engine last found.
    pub fn failing(&self, service: &str, revision: u64) -> Option<String> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).of(service, revision)
    }

    /// Replaces what [`App::failing`] gives for a service.
    pub fn set_failing(&self, service: &str, failing: Option<(u64, &str)>) {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).set(service, failing);
    }

    /// A user asked for a service: what failed before counts no more, and it is tried at once. With `take_over`, what others
    /// own of it is taken over.
    pub fn try_again(&self, service: &str, take_over: bool) {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).try_again(service, take_over);
        self.wake();
    }

    /// Services for which [`App::try_again`] was called and which nobody took yet.
    pub fn tried_again(&self) -> BTreeSet<String> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).wished()
    }

    /// Whether [`App::try_again`] was called since this was asked last; if so, whether to take over.
    pub fn take_try_again(&self, service: &str) -> Option<bool> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).take(service)
    }

    /// Whether the engine of a service has not looked at it since a user asked for it.
    pub fn is_unseen(&self, service: &str) -> bool {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).is_open(service)
    }

    /// Records an event; a database that cannot is reported in the log and stops nothing.
    pub fn event(&self, subject: &str, kind: &str, message: &str) {
        tracing::info!(subject, kind, message);
        if let Err(error) = self.state.add_event(subject, kind, message) {
            tracing::error!(%error, subject, kind, "an event was not recorded");
        }
    }
}

/// A name that one operation holds.
pub struct Claim {
    app: Arc<App>,
    what: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.app.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.what);
    }
}

/// Runs the daemon until it is asked to end.
pub fn run(settings: Settings) -> Result<(), Failure> {
    start_log();
    private_folder(&settings.root)?;
    let _lock = lock(&settings.root.join("daemon.lock"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::from(ApiError::new(ErrorCode::Internal, format!("cannot start: {e}"))))?;
    let app = Arc::new(wire::app(settings, runtime.handle())?);
    containers::recover(&app)?;
    models::settle_pins(&app)?;
    services::drop_stale_pins(&app)?;
    runs::recover(&app)?;
    let reconciler = std::thread::Builder::new().name("reconcilers".into()).spawn({
        let (app, handle) = (Arc::clone(&app), runtime.handle().clone());
        move || reconciler::run(&app, &handle)
    });
    let reconciler = reconciler.map_err(|e| {
        Failure::from(ApiError::new(ErrorCode::Internal, format!("cannot start the reconciler: {e}")))
    })?;
    let outcome = runtime.block_on(serve(Arc::clone(&app)));
    app.stop();
    app.wake();
    if reconciler.join().is_err() {
        tracing::error!("a reconciler panicked");
    }
    runs::settle(&app);
    // Streams of clients that went silent must not keep the daemon up.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

impl App {
    /// Puts the parts together.
    #[expect(clippy::too_many_arguments, reason = "called once, by `wire`")]
    pub fn new(
        settings: Settings,
        state: State,
        store: Store,
        native: Native,
        builder: Builder,
        serving_files: ServingFiles,
        engines: Engines,
        handle: Handle,
    ) -> Self {
        Self {
            settings,
            state,
            store,
            native,
            builder,
            serving_files,
            engines,
            handle,
            changed: watch::Sender::new(()),
            busy: Mutex::new(BTreeSet::new()),
            run_fate: Mutex::new(()),
            failing: Mutex::default(),
            driving: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
        }
    }
}

async fn serve(app: Arc<App>) -> Result<(), Failure> {
    let path = app.settings.socket();
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failure::io("replace", &path, &e)),
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(&path).map_err(|e| failure::io("listen on", &path, &e))?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))
        .map_err(|e| failure::io("protect", &path, &e))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), root = %app.settings.root.display(), "ready");
    let router = api::router(Arc::clone(&app));
    let ending = Arc::clone(&app);
    let until = async move {
        let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(signal) => signal,
            Err(error) => {
                tracing::error!(%error, "cannot listen for SIGTERM");
                return ending.stop.notified().await;
            }
        };
        tokio::select! {
            () = ending.stop.notified() => {}
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        ending.stop();
    };
    let stopped = Arc::clone(&app);
    let server = axum::serve(listener, router).with_graceful_shutdown(until);
    tokio::select! {
        served = server.into_future() => {
            served.map_err(|e| failure::io("serve on", &path, &e))?;
        }
        () = linger(&stopped) => {}
    }
    let _ = std::fs::remove_file(&path);
    tracing::info!("ended");
    Ok(())
}

/// Returns a while after the daemon was asked to end, so that open streams cannot hold it.
async fn linger(app: &App) {
    while !app.is_stopping() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Writes what happens to standard error.
pub fn start_log() {
    let filter = std::env::var(env_vars::SLIPWAY_LOG).unwrap_or_else(|_| "info".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second subscriber in one process is refused; then the first stays.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// Makes a folder that only root may enter.
pub fn private_folder(path: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| failure::io("create the folder", path, &e))
}

fn lock(path: &PathBuf) -> Result<File, Failure> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|e| failure::io("open", path, &e))?;
    let began = Instant::now();
    let mut locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    // One that ends has closed its socket before it lets go of the lock.
    while locked.is_err() && began.elapsed() < LOCK_WAIT {
        std::thread::sleep(Duration::from_millis(20));
        locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    }
    locked.map_err(|_| {
        Failure::from(ApiError::new(
            ErrorCode::Conflict,
            format!("another daemon runs with the state folder {}", path.parent().unwrap_or(path).display()),
        ))
    })?;
    Ok(file)
}
