//! What events say beyond an object's own status.

use serde_json::Value;

use super::refusal::{self, refusal as explain};
use super::{Reason, ReasonKind, clip, text};

/// The newest event about an object with one of these reasons. Later ones come later in the list.
pub(super) fn newest<'a>(events: &[&'a Value], reasons: &[&str]) -> Option<&'a Value> {
    events.iter().rev().find(|event| reasons.contains(&text(event, "/reason"))).copied()
}

/// What the newest warning about an object says.
pub fn newest_warning(events: &[&Value]) -> Option<String> {
    let warning = events.iter().rev().find(|event| text(event, "/type") == "Warning")?;
    Some(clip(text(warning, "/message")))
}

/// Why a controller could not make a pod.
pub(super) fn failed_create(message: &str) -> Reason {
    if let Some(text) = refusal::quota(message) {
        return Reason::new(ReasonKind::Quota, text);
    }
    let refused = crate::client::Refusal { code: 403, message: message.to_owned(), ..Default::default() };
    let told = explain(&refused);
    Reason::new(ReasonKind::Admission, format!("no pod can be made: {told}"))
}

/// Why a volume is not there.
pub(super) fn volume(events: &[&Value]) -> Option<Reason> {
    let event = newest(events, &["FailedMount", "FailedAttachVolume", "ProvisioningFailed"])?;
    let message = clip(text(event, "/message"));
    Some(Reason::new(
        ReasonKind::Volume,
        format!(
            "a volume cannot be mounted ({message}): check that the claim, Secret or ConfigMap is there and that a node can reach it"
        ),
    ))
}

/// Which probe fails, and how.
pub(super) fn probe(events: &[&Value]) -> Option<Reason> {
    let event = newest(events, &["Unhealthy", "ProbeWarning"])?;
    let message = clip(text(event, "/message"));
    Some(Reason::new(
        ReasonKind::Probe,
        format!("it runs and does not answer as it should ({message}): look at its log"),
    ))
}
