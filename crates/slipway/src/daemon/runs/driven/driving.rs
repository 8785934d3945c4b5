//! Who drives runs now: the daemon's end waits for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::super::App;
use super::LOOK;

/// How long the daemon's end waits for those who drive.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Waits a moment until whoever drives a run has left it: the runtime that they use is about to end.
pub fn settle(app: &App) {
    let until = Instant::now() + SETTLE_TIME;
    while app.driving.load(Ordering::SeqCst) > 0 && Instant::now() < until {
        std::thread::sleep(LOOK / 10);
    }
}

/// A thread that drives a run.
pub(super) struct Driving(Arc<App>);

impl Driving {
    pub(super) fn begin(app: &Arc<App>) -> Self {
        app.driving.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(app))
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.driving.fetch_sub(1, Ordering::SeqCst);
    }
}
