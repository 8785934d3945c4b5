//! Passes on to a client what a run does.

use std::time::Duration;

use slipway_runtime::{LogNext, LogOptions};
use slipway_types::container::LogLine;
use slipway_types::run::{RunEvent, RunStatus};

use super::super::App;
use super::{container, find};

/// How often a follower looks whether a run is done.
const POLL: Duration = Duration::from_millis(50);
/// How often a follower of a log looks whether anyone still listens.
const FOLLOW_POLL: Duration = Duration::from_millis(200);

/// Passes on what a run writes, and its end. `send` says whether anyone still listens.
pub fn stream(
    app: &App,
    status: &RunStatus,
    is_gone: &dyn Fn() -> bool,
    send: &mut dyn FnMut(RunEvent) -> bool,
) {
    if !send(RunEvent::Started(Box::new(status.clone()))) {
        return;
    }
    let mut on_line = |line: LogLine| send(RunEvent::Log(line));
    if let Some(container) = container(app, &status.id) {
        let options = LogOptions { follow: true, ..LogOptions::default() };
        if let Ok(mut lines) = container.logs(options) {
            loop {
                match lines.next_within(FOLLOW_POLL) {
                    Ok(LogNext::Line(line)) => {
                        if !on_line(line) {
                            return;
                        }
                    }
                    Ok(LogNext::Idle) => {
                        if is_gone() || app.is_stopping() {
                            return;
                        }
                    }
                    Ok(LogNext::End) | Err(_) => break,
                }
            }
        }
    }
    loop {
        match find(app, &status.id) {
            Ok((now, _)) if now.state.is_final() => {
                send(RunEvent::Finished(Box::new(now)));
                return;
            }
            Ok(_) if app.is_stopping() || is_gone() => return,
            Ok(_) => std::thread::sleep(POLL),
            Err(error) => {
                send(RunEvent::Failed(error));
                return;
            }
        }
    }
}
