//! Parts of every pod: users, environment, probes, ends.

use serde_json::{Value, json};

use super::{RenderError, Rendered};
use crate::capabilities::{Capabilities, Version};
use crate::spec::{Environment, RunAs};
use crate::validate;

/// Port on which a replica answers.
pub const HTTP_PORT: u16 = 8080;
/// Name of that port.
pub(super) const HTTP: &str = "http";
/// Time between a pod's removal from the endpoints and its end, in which every proxy learns of it.
pub(super) const PRE_STOP_SECONDS: u64 = 5;

/// Security context of a pod.
pub(super) fn pod_security(run_as: RunAs) -> Value {
    let seccomp = json!({"type": "RuntimeDefault"});
    match run_as {
        // The image says root and its files may need it; it still has no capabilities.
        RunAs::Root => json!({ "seccompProfile": seccomp }),
        RunAs::User { uid, gid } => json!({
            "runAsNonRoot": true, "runAsUser": uid, "runAsGroup": gid,
            "fsGroup": gid, "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": seccomp,
        }),
    }
}

/// Refuses the contradiction of a user 0 that is said not to be root, and warns of root.
pub(super) fn check_user(run_as: RunAs, out: &mut Rendered) -> Result<(), RenderError> {
    match run_as {
        RunAs::Root => {
            out.warn(
                "the image runs as root, which a namespace with the `restricted` pod security standard refuses: add a USER to its Dockerfile",
            );
            Ok(())
        }
        RunAs::User { uid: 0, .. } => Err(RenderError::Contradiction {
            what: "image",
            reason: "its user is 0, which is root".to_owned(),
        }),
        RunAs::User { .. } => Ok(()),
    }
}

/// Security context of a container.
pub(super) fn container_security(read_only: bool) -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": read_only,
        "capabilities": {"drop": ["ALL"]},
    })
}

/// A text that Kubernetes passes on as it is: it would expand `$(NAME)` and `$$` in commands and environments.
pub(super) fn literal(text: &str) -> String {
    if text.contains("$(") || text.contains("$$") { text.replace('$', "$$") } else { text.to_owned() }
}

/// Environment from `KEY=value` pairs, of which a later one replaces an earlier one, and from Secrets.
pub(super) fn environment(
    pairs: &[String],
    secret: Option<&str>,
    more: &Environment,
) -> Result<Vec<Value>, RenderError> {
    let mut variables: Vec<(String, Value)> = Vec::new();
    let mut set = |name: &str, variable: Value| -> Result<(), RenderError> {
        validate::env_name(name).map_err(|source| RenderError::Invalid { what: "environment", source })?;
        match variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = variable,
            None => variables.push((name.to_owned(), variable)),
        }
        Ok(())
    };
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=') else {
            let reason = format!("`{pair}` is not KEY=value");
            return Err(RenderError::Contradiction { what: "environment", reason });
        };
        if value.contains('\0') {
            let reason = format!("the value of {name} holds a NUL");
            return Err(RenderError::Contradiction { what: "environment", reason });
        }
        set(name, json!({ "name": name, "value": literal(value) }))?;
    }
    let from = |name: &str, secret: &str, key: &str| json!({ "name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}} });
    if let Some(secret) = secret {
        for name in more.secrets.keys() {
            set(name, from(name, secret, name))?;
        }
    }
    for reference in &more.secret_refs {
        set(&reference.env, from(&reference.env, &reference.secret, &reference.key))?;
    }
    Ok(variables.into_iter().map(|(_, variable)| variable).collect())
}

/// `lifecycle` that waits before the end. Clusters before 1.30 have no sleep of their own; there `waiter`, a program of
/// ours in the container, waits.
pub(super) fn pre_stop(caps: &Capabilities, waiter: &[&str]) -> Value {
    if caps.version >= Version::v1(30) {
        return json!({"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}});
    }
    let mut command: Vec<String> = waiter.iter().map(|part| (*part).to_owned()).collect();
    command.push(PRE_STOP_SECONDS.to_string());
    json!({"preStop": {"exec": {"command": command}}})
}

/// A probe that connects.
pub(super) fn tcp_probe(port: u16, period: u32, timeout: u32, failures: u32) -> Value {
    json!({
        "tcpSocket": {"port": port}, "periodSeconds": period, "timeoutSeconds": timeout, "failureThreshold": failures,
    })
}

/// An HTTP probe.
pub(super) fn probe(path: &str, period: u32, timeout: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": HTTP}, "periodSeconds": period, "timeoutSeconds": timeout,
        "failureThreshold": failures,
    })
}
