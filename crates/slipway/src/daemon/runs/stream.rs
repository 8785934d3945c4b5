//! Passes on to a client what a run does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slipway_runtime::{LogNext, LogOptions};
use slipway_types::engine::NATIVE;
use slipway_types::run::{RunEvent, RunStatus};

use super::super::App;
use super::{container, find, kept_log};

/// How often a follower looks whether a run is done.
const POLL: Duration = Duration::from_millis(50);
/// How often a follower of a log looks whether anyone still listens.
const FOLLOW_POLL: Duration = Duration::from_millis(200);
/// How often it is looked whether its engine has something to say.
const NOTE_POLL: Duration = Duration::from_millis(500);

/// Passes on what a run writes, and its end. `send` says whether anyone still listens.
pub fn stream(
    app: &Arc<App>,
    status: &RunStatus,
    is_gone: &dyn Fn() -> bool,
    send: &mut dyn FnMut(RunEvent) -> bool,
) {
    if !send(RunEvent::Started(Box::new(status.clone()))) {
        return;
    }
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let lines = match container(app, &status.id) {
        Some(container) => container.logs(options).ok(),
        None if status.engine != NATIVE => kept_log(app, &status.id, options).ok(),
        None => None,
    };
    let mut notes = Notes { last: None, looked: Instant::now() };
    if let Some(mut lines) = lines {
        loop {
            if status.engine != NATIVE
                && let Some(note) = notes.next(app, &status.id)
                && !send(RunEvent::Note { text: note })
            {
                return;
            }
            match lines.next_within(FOLLOW_POLL) {
                Ok(LogNext::Line(line)) => {
                    if !send(RunEvent::Log(line)) {
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

/// What an engine has to say, each once.
struct Notes {
    last: Option<String>,
    looked: Instant,
}

impl Notes {
    fn next(&mut self, app: &App, id: &str) -> Option<String> {
        if self.looked.elapsed() < NOTE_POLL {
            return None;
        }
        self.looked = Instant::now();
        let note = find(app, id).ok()?.0.note;
        if note == self.last {
            return None;
        }
        self.last.clone_from(&note);
        note
    }
}
