//! What happened, for `slipway events`.

use serde::{Deserialize, Serialize};

/// One recorded event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with every event.
    pub sequence: u64,
    /// When.
    pub time: jiff::Timestamp,
    /// What it is about: `service/digits`, `container/…`, `run/…`, `model/…`, `image/…`.
    pub subject: String,
    /// Stable name of what happened, for example `replica.restarted`.
    pub kind: String,
    /// One sentence for people.
    pub message: String,
}
