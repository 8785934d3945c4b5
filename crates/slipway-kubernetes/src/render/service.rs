//! The Services before a service's pods.

use serde_json::{Value, json};

use super::deployment::route_annotation;
use super::labels::{GATEWAY_LABEL, Identity, ROUTE_ANNOTATION};
use super::pod::{HTTP, HTTP_PORT};
use super::{RenderError, Rendered, map};
use crate::spec::{Exposure, ServiceDeployment, Workload};

/// Port of a Service that is not told otherwise.
pub(super) const SERVICE_PORT: u16 = 80;

/// Without a gateway, one Service that clients use. With one, clients' Service leads to the gateway, and another of ours
/// lists the pods for it.
pub(super) fn render(spec: &ServiceDeployment, id: &Identity, out: &mut Rendered) -> Result<(), RenderError> {
    let content = match &spec.workload {
        Workload::Image { port } => return to_image(*port, &spec.exposure, id, out),
        Workload::Model { content, .. } => content,
    };
    let Some(gateway) = spec.gateway() else {
        let why = "Where clients of the cluster reach the service.";
        out.add(why, client_service(id, &json!(id.selector), &spec.exposure)?);
        return Ok(());
    };
    let hosts = hosts(spec, id);
    let mut metadata = id.metadata_as(&id.pods);
    metadata["annotations"][ROUTE_ANNOTATION] = route_annotation(spec, content, id, hosts);
    out.add(
        "The service's pods, for the gateway: it reads their addresses and what the annotation says.",
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "clusterIP": "None",
                "selector": id.selector,
                "ports": [{"name": HTTP, "port": HTTP_PORT, "targetPort": HTTP, "appProtocol": "http"}],
            },
        }),
    );
    let to_gateway = json!({GATEWAY_LABEL: map(&gateway.name)?});
    let why = "Where clients of the cluster reach the service: through the gateway, which knows it by the host name.";
    out.add(why, client_service(id, &to_gateway, &spec.exposure)?);
    Ok(())
}

/// The way to pods that run what their image runs. Nobody says that it speaks HTTP, so the port is called so only where an
/// Ingress or a route relies on it. Within the cluster it has its own number, unless one was chosen.
fn to_image(
    port: Option<u16>,
    exposure: &Exposure,
    id: &Identity,
    out: &mut Rendered,
) -> Result<(), RenderError> {
    let Some(port) = port else {
        if *exposure == Exposure::ClusterIp {
            return Ok(());
        }
        let reason = "nobody says on which port the image listens".to_owned();
        return Err(RenderError::Contradiction { what: "port", reason });
    };
    let mut service = client_service(id, &json!(id.selector), exposure)?;
    let front = &mut service["spec"]["ports"][0];
    front["targetPort"] = port.into();
    front["appProtocol"] = Value::Null;
    match exposure {
        Exposure::Host { .. } => {}
        Exposure::ClusterIp => {
            front["port"] = port.into();
            front["name"] = Value::Null;
        }
        Exposure::NodePort { .. } | Exposure::LoadBalancer { .. } => front["name"] = Value::Null,
    }
    out.add("Where clients reach the pods.", service);
    Ok(())
}

/// Host names under which the gateway is asked for this service.
fn hosts(spec: &ServiceDeployment, id: &Identity) -> Vec<String> {
    let (name, namespace) = (&id.name, &id.namespace);
    let mut hosts = vec![
        name.clone(),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
    ];
    if let Exposure::Host { host, .. } = &spec.exposure {
        hosts.push(host.clone());
    }
    hosts
}

/// A Service of the type that the exposure says.
pub(super) fn client_service(
    id: &Identity,
    selector: &Value,
    exposure: &Exposure,
) -> Result<Value, RenderError> {
    let (kind, port, node_port) = match exposure {
        Exposure::ClusterIp | Exposure::Host { .. } => ("ClusterIP", SERVICE_PORT, None),
        Exposure::NodePort { port, node_port } => ("NodePort", *port, *node_port),
        Exposure::LoadBalancer { port } => ("LoadBalancer", *port, None),
    };
    if port == 0 {
        return Err(RenderError::Contradiction { what: "port", reason: "0 is no port".to_owned() });
    }
    if node_port.is_some_and(|p| p < 1024) {
        let reason =
            "a port of the nodes is one of 30000 to 32767 unless the cluster says otherwise".to_owned();
        return Err(RenderError::Contradiction { what: "node port", reason });
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": id.metadata(),
        "spec": {
            "type": kind,
            "selector": selector,
            "ports": [{
                "name": HTTP, "port": port, "targetPort": HTTP, "nodePort": node_port, "appProtocol": "http",
            }],
        },
    }))
}
