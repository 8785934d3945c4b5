//! Pods of a service that run what their image itself runs.

use serde_json::{Value, json};

use super::RenderError;
use super::deployment::START_SECONDS;
use super::pod::{PRE_STOP_SECONDS, tcp_probe};
use super::volumes::Volumes;
use crate::capabilities::{Capabilities, Version};
use crate::spec::PodResources;

pub(super) const WHY: &str = "The pods that run what the image itself runs. Images that were not made for it write below \
    their root and rely on the capabilities that a runtime gives by default, so these pods keep both; they have the \
    runtime's seccomp filter, gain no privileges, and know no token.";

/// The container: program, arguments and working directory are the image's.
pub(super) fn server(
    port: Option<u16>,
    wanted: &PodResources,
    caps: &Capabilities,
    volumes: &mut Volumes,
) -> Result<Value, RenderError> {
    // `/tmp` stays the image's: files of its own may be there.
    volumes.shared_memory(wanted);
    let mut container = json!({ "securityContext": {"allowPrivilegeEscalation": false} });
    let Some(port) = port else { return Ok(container) };
    if port == 0 {
        return Err(RenderError::Contradiction { what: "port", reason: "0 is no port".to_owned() });
    }
    container["ports"] = json!([{ "containerPort": port }]);
    container["startupProbe"] = tcp_probe(port, 2, 2, START_SECONDS / 2);
    container["readinessProbe"] = tcp_probe(port, 5, 2, 2);
    container["livenessProbe"] = tcp_probe(port, 10, 5, 6);
    // Before 1.30 only a program in the image could wait, and there may be none.
    if caps.version >= Version::v1(30) {
        container["lifecycle"] = json!({"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}});
    }
    Ok(container)
}
