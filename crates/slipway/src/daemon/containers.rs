//! Containers that users make.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slipway_native::NativeError;
use slipway_runtime::attach::{AttachClient, Event};
use slipway_types::container::{
    ContainerId, ContainerState, ContainerStatus, CreateContainer, CreatedContainer, CreatedExec, ExecSpec,
    valid_name,
};
use slipway_types::{ApiError, ErrorCode};

use super::state::ContainerRecord;
use super::{App, images};

/// How long a container may take from its shim to its process.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Records and starts a container.
pub fn create(app: &Arc<App>, request: CreateContainer) -> Result<CreatedContainer, ApiError> {
    let CreateContainer { mut spec, wait_for_attach } = request;
    let image = images::find(app, &spec.image)?;
    let (stored, plan) = app.native.plan(&image, &spec).map_err(native_error)?;
    let declared = stored.config.config().as_ref().and_then(|config| config.volumes().clone());
    slipway_native::add_image_volumes(&mut spec, &declared.unwrap_or_default());
    let id = slipway_native::random_id();
    let name = match spec.name.take() {
        None => format!("c{}", id.short()),
        Some(name) if valid_name(&name) => name,
        Some(name) => {
            return Err(ApiError::new(
                ErrorCode::InvalidArgument,
                format!("`{name}` is not a container name: {}", slipway_types::container::NAME_RULE),
            ));
        }
    };
    let record = ContainerRecord {
        id: id.clone(),
        name: name.clone(),
        image_id: image,
        command: plan.process.args.clone(),
        created_at: jiff::Timestamp::now(),
        spec,
    };
    app.state.add_container(&record).map_err(|error| {
        let api = ApiError::from(error);
        if api.code == ErrorCode::Conflict {
            api.with_hint(format!("choose another, or remove the old container: `slipway rm {name}`"))
        } else {
            api
        }
    })?;
    let launched = app.native.launch(&id, &stored, &plan, &record.spec, |config| {
        config.wait_for_attach = wait_for_attach;
    });
    match launched {
        Ok(container) => {
            let socket = container.socket();
            if !wait_for_attach {
                // In the background it must be known to run before it is acknowledged; how one ends that ends at
                // once is told by `ps` and `logs`.
                if let Err(error) = container.wait_started(START_LIMIT) {
                    tracing::debug!(%error, %id, "a container ended before it was seen to run");
                }
                let failed = container.observe().ok().and_then(|seen| seen.exit);
                if let Some(failed) = failed.filter(|exit| exit.error.is_some()) {
                    remove(app, id.as_str(), true)?;
                    return Ok(CreatedContainer { id, name, attach_socket: socket, failed: Some(failed) });
                }
            }
            if record.spec.auto_remove {
                watch(app, &id);
            }
            Ok(CreatedContainer { id, name, attach_socket: socket, failed: None })
        }
        Err(error) => {
            app.state.remove_container(&id)?;
            Err(native_error(error))
        }
    }
}

/// Removes a container by itself once it ended, for `--rm`.
fn watch(app: &Arc<App>, id: &ContainerId) {
    let (watcher, id) = (Arc::clone(app), id.clone());
    let Ok(container) = app.native.container(&id) else { return };
    let socket = container.socket();
    let started =
        std::thread::Builder::new().name("auto-remove".into()).stack_size(256 << 10).spawn(move || {
            if let Ok(mut client) = AttachClient::connect(&socket) {
                while let Ok(Some(event)) = client.next_event() {
                    if matches!(event, Event::Exit(_)) {
                        break;
                    }
                }
            }
            // Whoever ran it in the foreground removes it as well: then there is nothing left to do.
            match remove(&watcher, id.as_str(), true) {
                Err(error) if error.code != ErrorCode::NotFound => {
                    tracing::warn!(error = error.chain(), %id, "a container was not removed");
                }
                _ => {}
            }
        });
    if let Err(error) = started {
        tracing::error!(%error, "cannot watch a container");
    }
}

/// The container that a name, an id or the beginning of one means.
pub fn find(app: &App, name: &str) -> Result<ContainerRecord, ApiError> {
    app.state.find_container(name)?.ok_or_else(|| {
        ApiError::new(ErrorCode::NotFound, format!("no container is called `{name}`"))
            .with_hint("`slipway ps --all` lists those that there are")
    })
}

/// What is seen of a container now.
pub fn status(app: &App, record: &ContainerRecord) -> Result<ContainerStatus, ApiError> {
    let container = app.native.container(&record.id).map_err(native_error)?;
    let mut seen = container.observe().map_err(|e| runtime_error(&e))?;
    if seen.needs_recovery {
        // A container that is being removed looks the same for a moment: then it is gone once it is our turn.
        let _turn = REMOVAL.lock().unwrap_or_else(PoisonError::into_inner);
        let container = app.native.container(&record.id).map_err(native_error)?;
        container.recover().map_err(|e| runtime_error(&e))?;
        seen = container.observe().map_err(|e| runtime_error(&e))?;
    }
    Ok(ContainerStatus {
        id: record.id.clone(),
        name: record.name.clone(),
        image: record.spec.image.clone(),
        image_id: record.image_id.clone(),
        command: record.command.clone(),
        state: seen.state,
        pid: seen.pid,
        created_at: record.created_at,
        started_at: seen.started_at,
        exit: seen.exit,
        spec: record.spec.clone(),
    })
}

/// Containers, newest first; those that ended only when asked for.
pub fn list(app: &App, all: bool) -> Result<Vec<ContainerStatus>, ApiError> {
    let mut list = Vec::new();
    for record in app.state.containers()?.iter().rev() {
        // It may be in the making at the first look and made at the second, never the other way round.
        let seen = status(app, record).or_else(|error| match app.native.is_complete(&record.id) {
            true => status(app, record),
            false => Err(error),
        });
        match seen {
            Ok(status) if all || status.state != ContainerState::Exited => list.push(status),
            Ok(_) => {}
            // It is just being made or removed.
            Err(_) if !app.native.is_complete(&record.id) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(list)
}

/// Asks a container to end, and ends it after `grace`. One that ended already is left as it is.
pub fn stop(app: &App, name: &str, signal: Option<&str>, grace: Duration) -> Result<(), ApiError> {
    let record = find(app, name)?;
    let signal = signal.map(signal_number).transpose()?;
    let container = app.native.container(&record.id).map_err(native_error)?;
    if status(app, &record)?.state == ContainerState::Exited {
        return Ok(());
    }
    container.stop(signal, grace).map_err(|e| runtime_error(&e)).map(drop)
}

/// Sends a signal to a container's first process.
pub fn kill(app: &App, name: &str, signal: &str) -> Result<(), ApiError> {
    let record = find(app, name)?;
    let number = signal_number(signal)?;
    if status(app, &record)?.state != ContainerState::Running {
        return Err(not_running(&record));
    }
    let container = app.native.container(&record.id).map_err(native_error)?;
    container.signal(number).map_err(|e| runtime_error(&e))
}

/// Starts one more process in a container.
pub fn exec(app: &App, name: &str, spec: &ExecSpec) -> Result<CreatedExec, ApiError> {
    let record = find(app, name)?;
    if spec.command.is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidArgument, "no command was given"));
    }
    if status(app, &record)?.state != ContainerState::Running {
        return Err(not_running(&record));
    }
    let id = slipway_native::random_id();
    let attach_socket = app
        .native
        .container(&record.id)
        .map_err(native_error)?
        .exec(app.native.exe(), id.as_str(), spec)
        .map_err(|e| runtime_error(&e))?;
    Ok(CreatedExec { attach_socket })
}

/// The foreground `run --rm` and the daemon's own watcher remove the same container: one does it, the other finds it gone.
static REMOVAL: Mutex<()> = Mutex::new(());

/// Removes a container; one that runs only when forced.
pub fn remove(app: &App, name: &str, force: bool) -> Result<(), ApiError> {
    let record = find(app, name)?;
    if !force && status(app, &record)?.state != ContainerState::Exited {
        return Err(native_error(NativeError::Running(record.id)));
    }
    let _turn = REMOVAL.lock().unwrap_or_else(PoisonError::into_inner);
    let record = find(app, record.id.as_str())?;
    if force {
        app.native.discard(&record.id).map_err(native_error)?;
    } else {
        app.native.remove(&record.id).map_err(native_error)?;
    }
    app.state.remove_container(&record.id)?;
    Ok(())
}

/// After a restart of the daemon: containers that run are adopted, those whose shim died are ended, and what was
/// begun and never recorded is removed.
pub fn recover(app: &Arc<App>) -> Result<(), ApiError> {
    let known = app.state.containers()?;
    for id in app.native.ids().map_err(native_error)? {
        let record = known.iter().find(|record| record.id == id);
        let kept = app.native.is_replica(&id) || super::runs::owns(app, &id)?;
        if record.is_none() && !kept {
            tracing::info!(%id, "removing a container that nobody knows");
            if let Err(error) = app.native.discard(&id) {
                let error = native_error(error).chain();
                tracing::error!(error, %id, "a container that nobody knows was not removed");
            }
        }
    }
    for record in known {
        // One damaged container must not keep the others, and this daemon, from coming back.
        if let Err(error) = recover_one(app, &record) {
            let error = error.chain();
            tracing::error!(error, id = %record.id, name = record.name, "a container was not recovered");
        }
    }
    app.native.drop_stale_pins().map_err(native_error)
}

fn recover_one(app: &Arc<App>, record: &ContainerRecord) -> Result<(), ApiError> {
    if !app.native.is_complete(&record.id) {
        // Its making or its removal was cut short: there is nothing in it that could run.
        app.native.discard(&record.id).map_err(native_error)?;
        return Ok(app.state.remove_container(&record.id)?);
    }
    // Looking at it ends one whose shim died.
    status(app, record)?;
    if record.spec.auto_remove {
        watch(app, &record.id);
    }
    Ok(())
}

fn signal_number(text: &str) -> Result<i32, ApiError> {
    slipway_runtime::parse_signal(text).ok_or_else(|| {
        ApiError::new(
            ErrorCode::InvalidArgument,
            format!("`{text}` is not a signal: expected a name such as SIGTERM or a number"),
        )
    })
}

fn not_running(record: &ContainerRecord) -> ApiError {
    ApiError::new(ErrorCode::Conflict, format!("the container {} does not run", record.name))
}

/// The native engine's error, with its public kind and hint.
pub fn native_error(error: NativeError) -> ApiError {
    let mut api = ApiError::from_error(error.code(), &error);
    api.hint = error.hint().map(str::to_owned);
    api
}

fn runtime_error(error: &slipway_runtime::ContainerError) -> ApiError {
    ApiError::from_error(ErrorCode::Internal, error)
}
