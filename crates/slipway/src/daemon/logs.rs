//! Logs of containers, runs and services by one name.

use std::path::Path;
use std::sync::Arc;

use slipway_native::{NativeError, NativeLog};
use slipway_orchestrator::{EngineError, LogLines};
use slipway_runtime::{Container, LogReader};
use slipway_types::container::{LogLine, LogNext, LogOptions};
use slipway_types::{ApiError, ErrorCode};

use super::reconciler::engine_error;
use super::state::ServiceRecord;
use super::{App, containers, runs};

/// Files that hold a container's log, newest first.
const LOG_FILES: [&str; 2] = ["log", "log.1"];

/// Keeps the log of a container that ended in another folder.
pub fn keep(container: &Container, folder: &Path) -> std::io::Result<()> {
    for name in LOG_FILES {
        let (from, to) = (container.dir().join(name), folder.join(name));
        let _ = std::fs::remove_file(&to);
        match std::fs::hard_link(&from, &to) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => drop(std::fs::copy(&from, &to)?),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// A log that is being read.
pub type Log = Box<dyn LogLines>;

/// Readers of everything that is called `name`: a container, a run, or a service's replicas.
pub fn open(app: &Arc<App>, name: &str, options: &LogOptions) -> Result<Vec<Log>, ApiError> {
    if let Some(record) = app.state.find_container(name)? {
        return reader(app.native.container(&record.id), options).map(|reader| vec![reader]);
    }
    if app.state.run(name)?.is_some() {
        if let Some(container) = runs::container(app, name) {
            return reader(Ok(container), options).map(|reader| vec![reader]);
        }
        return runs::kept_log(app, name, options.clone())
            .map(|reader| vec![boxed(reader)])
            .map_err(|e| ApiError::from_error(ErrorCode::NotFound, &e));
    }
    if let Some(record) = app.state.service(name)? {
        return of_service(app, &record, options);
    }
    Err(containers::find(app, name).err().unwrap_or_else(|| {
        ApiError::new(ErrorCode::NotFound, format!("no container, run or service is called `{name}`"))
    }))
    .map_err(|error: ApiError| ApiError {
        message: format!("no container, run or service is called `{name}`"),
        hint: Some("`slipway ps --all`, `slipway runs` and `slipway services` list them".to_owned()),
        ..error
    })
}

fn reader(container: Result<Container, NativeError>, options: &LogOptions) -> Result<Log, ApiError> {
    container
        .map_err(containers::native_error)?
        .logs(options.clone())
        .map(boxed)
        .map_err(|e| ApiError::from_error(ErrorCode::Internal, &e))
}

fn boxed(reader: LogReader) -> Log {
    Box::new(NativeLog::from(reader))
}

/// Readers of every replica that its engine has of a service.
fn of_service(app: &App, record: &ServiceRecord, options: &LogOptions) -> Result<Vec<Log>, ApiError> {
    let engine = app.engines.get(&record.engine)?.engine;
    let mut logs = Vec::new();
    let (replicas, trouble) = app.engines.replicas_of(record);
    if let (true, Some(trouble)) = (replicas.is_empty(), trouble) {
        let message = format!("the replicas of `{}` are not known", record.target.spec.name);
        return Err(ApiError { causes: vec![trouble], ..ApiError::new(ErrorCode::Unavailable, message) });
    }
    for replica in replicas {
        match engine.log(&replica.container, options) {
            Ok(log) => logs.push(log),
            // It was removed since.
            Err(EngineError::NotFound(_)) => {}
            Err(error) => return Err(engine_error(&error)),
        }
    }
    Ok(logs)
}

/// Passes lines on until the readers end or nobody listens. Several are merged as their lines come.
pub fn pump(
    app: &Arc<App>,
    readers: Vec<Log>,
    is_gone: impl Fn() -> bool + Send + Sync,
    send: impl Fn(LogLine) -> bool + Send + Sync,
) {
    std::thread::scope(|scope| {
        let (send, is_gone) = (&send, &is_gone);
        for mut reader in readers {
            scope.spawn(move || {
                while !app.is_stopping() {
                    match reader.next_within(std::time::Duration::from_millis(500)) {
                        Ok(LogNext::Line(line)) => {
                            if !send(line) {
                                return;
                            }
                        }
                        Ok(LogNext::Idle) => {
                            if is_gone() {
                                return;
                            }
                        }
                        Ok(LogNext::End) => return,
                        Err(error) => {
                            tracing::warn!(%error, "a log cannot be read");
                            return;
                        }
                    }
                }
            });
        }
    });
}
