//! What the engine and the gateway may do, and no more; and accounts that may nothing.

use serde_json::{Value, json};

use super::labels::Identity;
use super::{RenderError, Rendered, namespace};
use crate::Capabilities;
use crate::names::NAME_ANNOTATION;
use crate::validate;

/// An account without a token: pods that serve or train have no business with the API.
pub(super) fn no_token_account(id: &Identity, out: &mut Rendered) {
    out.add(
        "The account of the pods; it may nothing and has no token.",
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": id.metadata_as(&id.own),
            "automountServiceAccountToken": false,
        }),
    );
}

/// The Role that the engine needs in its namespace, called `name`, bound to a user or a service account where one is
/// given. A service account of the same namespace is made.
pub fn render_engine_role(
    in_namespace: &str,
    name: &str,
    subject: Option<&Subject>,
    caps: &Capabilities,
) -> Result<Rendered, RenderError> {
    namespace(in_namespace)?;
    validate::dns_1123_label(name)
        .map_err(|source| RenderError::Invalid { what: "name of the role", source })?;
    let mut out = Rendered::default();
    let metadata_as = |object: &str| {
        json!({
            "name": object, "namespace": in_namespace,
            "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "slipway"},
            "annotations": {NAME_ANNOTATION: object},
        })
    };
    let metadata = metadata_as(name);
    if let Some(Subject::ServiceAccount { namespace, name: account }) = subject
        && namespace == in_namespace
    {
        validate::dns_1123_subdomain(account)
            .map_err(|source| RenderError::Invalid { what: "service account", source })?;
        out.add(
            "The account that the engine uses; `kubectl create token` gives it a token.",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata_as(account)}),
        );
    }
    out.add(
        "Everything that Slipway does in this namespace.",
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
            "rules": engine_rules(caps),
        }),
    );
    if let Some(subject) = subject {
        out.add(
            "Who may do it.",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": [subject.json()?],
            }),
        );
    }
    Ok(out)
}

/// Whom a Role is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A user as the cluster's authentication names it.
    User(String),
    /// A group of users.
    Group(String),
    /// A service account.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Subject {
    fn json(&self) -> Result<Value, RenderError> {
        let group = "rbac.authorization.k8s.io";
        Ok(match self {
            Self::User(name) => json!({"kind": "User", "name": name, "apiGroup": group}),
            Self::Group(name) => json!({"kind": "Group", "name": name, "apiGroup": group}),
            Self::ServiceAccount { namespace: at, name } => {
                namespace(at)?;
                json!({"kind": "ServiceAccount", "name": name, "namespace": at})
            }
        })
    }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({ "apiGroups": [group], "resources": resources, "verbs": verbs })
}

/// Server-side apply is a `patch`, and the first one of an object a `create` too.
const OWN: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
const LOOK: &[&str] = &["get", "list", "watch"];

fn engine_rules(caps: &Capabilities) -> Vec<Value> {
    let mut rules = vec![
        rule("", &["configmaps", "persistentvolumeclaims", "secrets", "serviceaccounts", "services"], OWN),
        rule("", &["pods"], &["get", "list", "watch", "delete"]),
        rule("", &["pods/log"], &["get"]),
        // A WebSocket begins as a `get`, and counts as a `create` from 1.35 on.
        rule("", &["pods/exec"], &["create", "get"]),
        rule("", &["events", "resourcequotas", "limitranges"], LOOK),
        rule("apps", &["deployments"], OWN),
        rule("apps", &["replicasets"], LOOK),
        rule("autoscaling", &["horizontalpodautoscalers"], OWN),
        rule("batch", &["jobs"], OWN),
        rule("discovery.k8s.io", &["endpointslices"], LOOK),
        rule("networking.k8s.io", &["ingresses", "networkpolicies"], OWN),
        rule("policy", &["poddisruptionbudgets"], OWN),
        // The gateway's Role is made by the engine, which may only give what it has: `services` and `endpointslices`
        // are above, so no `escalate` and no `bind` is needed.
        rule("rbac.authorization.k8s.io", &["roles", "rolebindings"], OWN),
    ];
    let optional = [
        (caps.metrics_api, rule("metrics.k8s.io", &["pods"], &["get", "list"])),
        (caps.gateway_api.is_some(), rule("gateway.networking.k8s.io", &["httproutes"], OWN)),
        (caps.gateway_api.is_some(), rule("gateway.networking.k8s.io", &["gateways"], LOOK)),
        (caps.jobset.is_some(), rule("jobset.x-k8s.io", &["jobsets"], OWN)),
        (caps.kueue, rule("kueue.x-k8s.io", &["workloads", "localqueues"], LOOK)),
        (caps.volcano, rule("scheduling.volcano.sh", &["podgroups"], OWN)),
        (caps.pod_group.is_some(), rule("scheduling.k8s.io", &["podgroups"], OWN)),
        (caps.dra.is_some(), rule("resource.k8s.io", &["resourceclaimtemplates"], OWN)),
        (caps.dra.is_some(), rule("resource.k8s.io", &["resourceclaims"], LOOK)),
    ];
    rules.extend(optional.into_iter().filter(|(there, _)| *there).map(|(_, rule)| rule));
    rules
}

/// The gateway's account, with what it must see to route.
pub(super) fn gateway_account(id: &Identity, out: &mut Rendered) {
    out.add(
        "The gateway's account; its pods mount the token themselves.",
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": id.metadata(),
            "automountServiceAccountToken": false,
        }),
    );
    out.add(
        "What the gateway must see to route: the Services of this namespace and the addresses of their pods.",
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": id.metadata(),
            "rules": [
                rule("", &["services"], LOOK),
                rule("discovery.k8s.io", &["endpointslices"], LOOK),
            ],
        }),
    );
    out.add(
        "Gives it to the gateway.",
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": id.metadata(),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": id.name},
            "subjects": [{"kind": "ServiceAccount", "name": id.name, "namespace": id.namespace}],
        }),
    );
}
