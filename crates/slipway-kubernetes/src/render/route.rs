//! The way in under a host name: HTTPRoute where the Gateway API is served, else Ingress.

use serde_json::{Value, json};

use super::labels::Identity;
use super::service::SERVICE_PORT;
use super::{RenderError, Rendered};
use crate::Capabilities;
use crate::spec::{Exposure, RouteParent};
use crate::validate;

pub(super) fn render(
    exposure: &Exposure,
    id: &Identity,
    caps: &Capabilities,
    out: &mut Rendered,
) -> Result<(), RenderError> {
    let Exposure::Host { host, parent, ingress_class, tls_secret } = exposure else { return Ok(()) };
    validate::hostname(host).map_err(|source| RenderError::Invalid { what: "host", source })?;
    let invalid = |what| move |source| RenderError::Invalid { what, source };
    match (&caps.gateway_api, parent) {
        (Some(version), Some(parent)) => http_route(version, host, parent, id, out)?,
        (served, parent) => {
            if parent.is_some() && served.is_none() {
                out.warn("the cluster has no Gateway API, so an Ingress takes the place of the HTTPRoute");
            }
            if let Some(class) = ingress_class {
                validate::dns_1123_subdomain(class).map_err(invalid("ingress class"))?;
            }
            if let Some(secret) = tls_secret {
                validate::dns_1123_subdomain(secret).map_err(invalid("TLS secret"))?;
            }
            ingress(host, ingress_class.as_deref(), tls_secret.as_deref(), id, out);
        }
    }
    Ok(())
}

fn http_route(
    version: &str,
    host: &str,
    parent: &RouteParent,
    id: &Identity,
    out: &mut Rendered,
) -> Result<(), RenderError> {
    validate::dns_1123_subdomain(&parent.name)
        .map_err(|source| RenderError::Invalid { what: "parent of the route", source })?;
    out.add(
        "The way in from outside, through a Gateway of the cluster.",
        json!({
            "apiVersion": format!("gateway.networking.k8s.io/{version}"),
            "kind": "HTTPRoute",
            "metadata": id.metadata(),
            "spec": {
                "parentRefs": [{
                    "group": "gateway.networking.k8s.io", "kind": "Gateway",
                    "name": parent.name, "namespace": parent.namespace, "sectionName": parent.section,
                }],
                "hostnames": [host],
                "rules": [{
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "backendRefs": [{"group": "", "kind": "Service", "name": id.name, "port": SERVICE_PORT, "weight": 1}],
                }],
            },
        }),
    );
    Ok(())
}

fn ingress(host: &str, class: Option<&str>, tls: Option<&str>, id: &Identity, out: &mut Rendered) {
    let backend = json!({"service": {"name": id.name, "port": {"name": super::pod::HTTP}}});
    out.add(
        "The way in from outside, through the cluster's ingress controller.",
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": id.metadata(),
            "spec": {
                "ingressClassName": class,
                "tls": tls.map_or(Value::Null, |secret| json!([{ "hosts": [host], "secretName": secret }])),
                "rules": [{
                    "host": host,
                    "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
                }],
            },
        }),
    );
}
