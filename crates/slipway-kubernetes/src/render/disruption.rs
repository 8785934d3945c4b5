//! PodDisruptionBudget.

use serde_json::json;

use super::Rendered;
use super::labels::Identity;

/// One pod at a time may be evicted. With a single pod a budget would only keep its node from ever being drained.
pub(super) fn render(fewest: u32, id: &Identity, out: &mut Rendered) {
    if fewest < 2 {
        return;
    }
    out.add(
        "Lets a drained node evict one pod at a time. Pods that are not ready anyway are never in the way.",
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": id.metadata(),
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": id.selector},
            },
        }),
    );
}
