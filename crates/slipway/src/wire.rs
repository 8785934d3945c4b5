//! The composition root: the only place that names concrete drivers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_image::build::Builder;
use slipway_image::registry::Registry;
use slipway_image::store::Store;
use slipway_native::{Native, NativeReplicas, ServingFiles};
use slipway_orchestrator::{Engine, Policy, Reconciling};
use slipway_types::image::RegistrySettings;
use slipway_types::{ApiError, ErrorCode};
use tokio::runtime::Handle;

use crate::cluster;
use crate::daemon::{self, App, Bases, Engines, State};
use crate::failure::{self, Failure};
use crate::settings::Settings;

/// Puts the daemon's parts together.
pub fn app(settings: Settings, handle: &Handle) -> Result<App, Failure> {
    let root = settings.root.clone();
    let containers = root.join("containers");
    daemon::private_folder(&containers)?;
    let state = State::open(&root.join("state.db")).map_err(|e| Failure::from(ApiError::from(e)))?;
    let store = Store::open(root.join("images")).map_err(|e| Failure::from(daemon::store_error(e)))?;
    let exe = std::env::current_exe().map_err(|e| failure::io("find", Path::new("/proc/self/exe"), &e))?;
    let runner = runner(&exe)?;
    let files = ServingFiles::install(&root.join("serving"), &runner)
        .map_err(|e| Failure::from(ApiError::from_error(e.code(), &e)))?;
    let native = Native::new(store.clone(), containers, exe);
    let for_bases = settings.clone();
    let bases = Bases {
        store: store.clone(),
        client: Box::new(move || {
            let registries = for_bases.current_registries().map_err(into_api)?;
            registry(registries, &for_bases.root)
        }),
        handle: handle.clone(),
    };
    let builder = Builder::new(store.clone(), Arc::new(native.clone()), Arc::new(bases));
    let replicas = NativeReplicas::new(native.clone(), root.join("models"), files.clone());
    let here: Arc<dyn Engine> = Arc::new(Reconciling::new(replicas, Policy::default()));
    let engines = Engines::new(here, &state, Box::new(cluster::engine)).map_err(Failure::from)?;
    Ok(App::new(settings, state, store, native, builder, files, engines, handle.clone()))
}

/// A registry client with the credentials that are kept now.
pub fn registry(settings: RegistrySettings, root: &Path) -> Result<Registry, ApiError> {
    let all = daemon::credentials(root)?;
    Ok(Registry::new(settings, Arc::new(move |name: &str| all.get(name).cloned())))
}

fn into_api(failure: Failure) -> ApiError {
    failure.error.unwrap_or_else(|| ApiError::new(ErrorCode::InvalidArgument, "the settings cannot be read"))
}

/// The static runner, installed beside this program.
fn runner(exe: &Path) -> Result<PathBuf, Failure> {
    let path = exe.with_file_name("slipway-runner");
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::from(ApiError::new(ErrorCode::NotFound, format!("{} is missing", path.display())))
        .hint("`cargo xtask build` puts `slipway` and `slipway-runner` side by side; install them together"))
}
