//! Signals that end a command: Ctrl-C and SIGTERM while it waits for a training run.

use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use slipway_types::name::argument;
use slipway_types::{ApiError, ErrorCode};

use crate::client::Client;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::query;
use crate::settings::Settings;

/// The first signal cancels the run, the second ends this process and leaves the run to the daemon.
#[derive(Clone)]
pub struct Interrupts(Arc<Shared>);

struct Shared {
    settings: Settings,
    printer: Printer,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    run: Option<String>,
    signal: Option<i32>,
}

/// Those of `signals` that this process was not started to ignore, as `nohup` and a shell's `&` start it.
pub fn not_ignored(signals: &[i32]) -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    signals.iter().copied().filter(|signal| ignored & (1 << (signal - 1)) == 0).collect()
}

impl Interrupts {
    /// Catches both signals from now on, unless they are ignored.
    pub fn catch(settings: &Settings, printer: Printer) -> Result<Self, Failure> {
        let failed = |e: std::io::Error| {
            Failure::from(ApiError::new(ErrorCode::Internal, format!("cannot catch signals: {e}")))
        };
        let mut signals = Signals::new(not_ignored(&[SIGINT, SIGTERM])).map_err(failed)?;
        let this = Self(Arc::new(Shared { settings: settings.clone(), printer, seen: Mutex::default() }));
        let catcher = this.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || signals.forever().for_each(|signal| catcher.caught(signal)))
            .map_err(failed)?;
        Ok(this)
    }

    /// Names the run; one that a signal came before is cancelled now.
    pub fn started(&self, run: &str) {
        let pending = {
            let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.run = Some(run.to_owned());
            seen.signal.is_some()
        };
        if pending {
            self.cancel(run.to_owned());
        }
    }

    /// The signal that came first.
    pub fn signal(&self) -> Option<i32> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).signal
    }

    fn caught(&self, signal: i32) {
        let (first, run) = {
            let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
            (seen.signal.replace(signal).is_none(), seen.run.clone())
        };
        match (first, run) {
            (true, Some(run)) => self.cancel(run),
            (true, None) => self.0.printer.note("the run is cancelled as soon as it starts"),
            (false, run) => {
                if let Some(run) = run {
                    self.0
                        .printer
                        .note(format!("left: `slipway runs {}` shows what becomes of it", argument(&run)));
                }
                // Ends this process by the signal, as if it had not been caught.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        }
    }

    /// Asks the daemon on a thread of its own: it answers when the run has ended.
    fn cancel(&self, run: String) {
        let Shared { settings, printer, .. } = &*self.0;
        printer.note(format!(
            "cancelling run {run}: it may end by itself, to write a checkpoint; Ctrl-C again leaves at once"
        ));
        let (settings, printer) = (settings.clone(), *printer);
        std::thread::spawn(move || {
            let path = query::path("/v1/runs/cancel", &[("run", &run)]);
            let asked = Client::connect(&settings).and_then(|client| client.post::<_, ()>(&path, &()));
            if let Err(Failure { error: Some(error), .. }) = asked {
                printer.error(&error);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_stay_ignored() {
        use signal_hook::consts::{SIGPIPE, SIGUSR2};
        // Rust programs start with SIGPIPE ignored.
        assert_eq!(not_ignored(&[SIGPIPE, SIGUSR2]), [SIGUSR2]);
    }
}
