//! A chart: the same objects, with what users change most as values.

use serde_json::{Map, Value, json};

use super::yaml::{RAW, to_yaml};
use super::{ExportedFile, file_name, plain};
use crate::object::Object;

/// Name and versions of a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChartName {
    /// Name; a mapped one.
    pub name: String,
    /// Version of the chart, such as `0.3.0`; of the service's revision.
    pub version: String,
    /// What is packed, such as the model's version.
    pub app_version: String,
}

/// `Chart.yaml`, `values.yaml` and a template for each object. With the default values the templates give exactly what
/// the plain export has.
pub fn helm(objects: &[Object], chart: &ChartName) -> Vec<ExportedFile> {
    let mut values = Map::new();
    let mut files = Vec::new();
    for (at, object) in objects.iter().enumerate() {
        let mut json = object.json().clone();
        escape(&mut json);
        values_of(&mut json, &mut values);
        let text = format!("{}{}", plain::head(object).replace("{{", "{ {"), to_yaml(&json));
        files.push(ExportedFile { path: format!("templates/{}", file_name(at, object)), text });
    }
    let about = json!({
        "apiVersion": "v2",
        "name": chart.name,
        "description": format!("{}, exported by Slipway", chart.name),
        "type": "application",
        "version": chart.version,
        "appVersion": chart.app_version,
    });
    let mut out = vec![
        ExportedFile { path: "Chart.yaml".to_owned(), text: to_yaml(&about) },
        ExportedFile {
            path: "values.yaml".to_owned(),
            text: format!(
                "# What the templates are filled in with. By default they give what Slipway itself applies.\n{}",
                to_yaml(&Value::Object(values))
            ),
        },
    ];
    out.extend(files);
    out
}

/// Puts a value into `values.yaml` and its action in its place.
fn lift(place: &mut Value, values: &mut Map<String, Value>, path: &[&str]) {
    let Some((last, folders)) = path.split_last() else { return };
    let mut map = values;
    for folder in folders {
        let inner = map.entry((*folder).to_owned()).or_insert_with(|| json!({}));
        let Value::Object(inner) = inner else { return };
        map = inner;
    }
    let action = format!("{RAW}{{{{ .Values.{} | toJson }}}}", path.join("."));
    let value = std::mem::replace(place, action.into());
    map.insert((*last).to_owned(), value);
}

/// What users change: replicas or their bounds, images, resources, hosts, types and ports of Services.
fn values_of(json: &mut Value, values: &mut Map<String, Value>) {
    let kind = json["kind"].as_str().unwrap_or_default().to_owned();
    let name = json["metadata"]["name"].as_str().unwrap_or_default().replace('-', "_");
    let name = if kind == "Job" { format!("job_{name}") } else { name };
    let own = name.as_str();
    let mut put = |place: Option<&mut Value>, path: &[&str]| {
        if let Some(place) = place {
            lift(place, values, path);
        }
    };
    match kind.as_str() {
        "Deployment" => {
            put(json.pointer_mut("/spec/replicas"), &[own, "replicas"]);
            put(json.pointer_mut("/spec/template/spec/containers/0/image"), &[own, "image"]);
            put(json.pointer_mut("/spec/template/spec/containers/0/resources"), &[own, "resources"]);
            put(json.pointer_mut("/spec/template/spec/nodeSelector"), &[own, "nodeSelector"]);
        }
        "HorizontalPodAutoscaler" => {
            put(json.pointer_mut("/spec/minReplicas"), &[own, "autoscaling", "min"]);
            put(json.pointer_mut("/spec/maxReplicas"), &[own, "autoscaling", "max"]);
        }
        "Service" if json["spec"]["clusterIP"] != "None" => {
            put(json.pointer_mut("/spec/type"), &[own, "service", "type"]);
            put(json.pointer_mut("/spec/ports/0/port"), &[own, "service", "port"]);
        }
        "HTTPRoute" => put(json.pointer_mut("/spec/hostnames"), &[own, "hosts"]),
        "Ingress" => {
            put(json.pointer_mut("/spec/rules/0/host"), &[own, "host"]);
            if let Some(host) = json.pointer_mut("/spec/tls/0/hosts/0") {
                *host = format!("{RAW}{{{{ .Values.{own}.host | toJson }}}}").into();
            }
        }
        "Job" => {
            put(json.pointer_mut("/spec/template/spec/containers/0/image"), &[own, "image"]);
            put(json.pointer_mut("/spec/template/spec/containers/0/resources"), &[own, "resources"]);
        }
        _ => {}
    }
}

/// Texts with the marks of a template become an action that gives them back.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("{{") => {
            // Twice: helm reads the outer string, YAML the inner one.
            let yaml = Value::from(text.as_str()).to_string();
            let action = format!("{RAW}{{{{ {} }}}}", go_string(&yaml));
            *text = action;
        }
        Value::Object(map) => map.values_mut().for_each(escape),
        Value::Array(items) => items.iter_mut().for_each(escape),
        _ => {}
    }
}

/// A string literal of Go's templates, which are those of JSON.
fn go_string(text: &str) -> String {
    Value::from(text).to_string()
}
