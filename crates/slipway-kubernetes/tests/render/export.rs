//! Every export of the corpus says the same as the objects it was made from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use slipway_kubernetes::Capabilities;
use slipway_kubernetes::export::{ChartName, ExportedFile, helm, kustomize, plain, stream};
use slipway_kubernetes::import::{Severity, analyze, convert};
use slipway_kubernetes::object::Object;
use slipway_kubernetes::render::render_service;

use super::checks::plain_service;
use super::corpus::corpus;

/// What a file holds, read by the parser that users' manifests are read by.
fn read(text: &str) -> Value {
    let analysis = analyze(text);
    let broken: Vec<_> =
        analysis.findings.iter().filter(|f| ["yaml", "tab", "duplicate-key"].contains(&f.code)).collect();
    assert!(broken.is_empty() && analysis.documents.len() == 1, "{broken:?}\n{text}");
    analysis.documents[0].root.json()
}

fn objects(files: &[ExportedFile]) -> Vec<Value> {
    files.iter().map(|file| read(&file.text)).collect()
}

fn jsons(objects: &[Object]) -> Vec<Value> {
    objects.iter().map(|object| object.json().clone()).collect()
}

#[test]
fn plain_files_hold_the_objects_in_order() {
    for case in corpus() {
        let files = plain(&case.rendered.objects);
        assert_eq!(objects(&files), jsons(&case.rendered.objects), "{}", case.what);
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert!(paths.is_sorted(), "{paths:?}");
        assert!(files.iter().all(|file| file.text.starts_with("# ")), "{}", case.what);
    }
}

#[test]
fn a_kustomization_lists_every_file() {
    for case in corpus().into_iter().step_by(7) {
        let files = kustomize(&case.rendered.objects);
        let base: Vec<ExportedFile> = files
            .iter()
            .filter(|file| file.path.starts_with("base/") && !file.path.ends_with("kustomization.yaml"))
            .cloned()
            .collect();
        assert_eq!(objects(&base), jsons(&case.rendered.objects));
        let text = |path: &str| read(&files.iter().find(|file| file.path == path).unwrap().text);
        let listed: BTreeSet<String> = text("base/kustomization.yaml")["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| format!("base/{}", name.as_str().unwrap()))
            .collect();
        assert_eq!(listed, base.iter().map(|file| file.path.clone()).collect());
        assert_eq!(text("kustomization.yaml")["resources"][0], "base");
        assert_eq!(text("kustomization.yaml")["namespace"], "team-a");
    }
}

/// The part of Go's templates that the charts use: a value as JSON, and a literal.
fn fill(template: &str, values: &Value) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        out.push_str(&rest[..at]);
        rest = rest[at + 2..].trim_start();
        if rest.starts_with('"') {
            let mut literals = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            out.push_str(&literals.next().unwrap().unwrap());
            rest = &rest[literals.byte_offset()..];
        } else {
            let end = rest.find('|').unwrap();
            let path = rest[..end].trim().strip_prefix(".Values.").unwrap();
            let value = path.split('.').fold(values, |value, key| &value[key]);
            assert!(!value.is_null(), "no value {path}");
            out.push_str(&value.to_string());
            rest = rest[end + 1..].trim_start().strip_prefix("toJson").unwrap();
        }
        rest = rest.trim_start().strip_prefix("}}").unwrap();
    }
    out.push_str(rest);
    out
}

#[test]
fn a_chart_gives_by_default_what_the_plain_export_has() {
    for case in corpus() {
        let name = ChartName { name: "digits".into(), version: "0.7.0".into(), app_version: "3".into() };
        let files = helm(&case.rendered.objects, &name);
        let by_path: BTreeMap<&str, &str> =
            files.iter().map(|f| (f.path.as_str(), f.text.as_str())).collect();
        let about = read(by_path["Chart.yaml"]);
        assert_eq!(
            (&about["apiVersion"], &about["name"], &about["version"]),
            (&"v2".into(), &"digits".into(), &"0.7.0".into())
        );
        // Where nothing is worth a value, the file holds a comment and an empty map.
        let values = read(by_path["values.yaml"]);
        let filled: Vec<Value> = by_path
            .iter()
            .filter(|(path, _)| path.starts_with("templates/"))
            .map(|(_, text)| read(&fill(text, &values)))
            .collect();
        assert_eq!(filled, jsons(&case.rendered.objects), "{}", case.what);
    }
}

#[test]
fn a_chart_lets_the_image_and_the_replicas_change() {
    let objects = render_service(&plain_service(), &Capabilities::default()).unwrap().objects;
    let name = ChartName { name: "digits".into(), version: "0.7.0".into(), app_version: "3".into() };
    let files = helm(&objects, &name);
    let text = |path: &str| files.iter().find(|file| file.path == path).unwrap().text.as_str();
    let mut values = read(text("values.yaml"));
    assert_eq!(values["digits"]["replicas"], 2);
    values["digits"]["replicas"] = 9.into();
    values["digits"]["image"] = "other@sha256:0".into();
    let path = files.iter().find(|f| f.path.contains("-deployment-")).unwrap().path.as_str();
    let deployment = read(&fill(text(path), &values));
    assert_eq!(deployment["spec"]["replicas"], 9);
    assert_eq!(deployment.pointer("/spec/template/spec/containers/0/image").unwrap(), "other@sha256:0");
}

#[test]
fn what_is_exported_is_imported_without_complaint() {
    let mut spec = plain_service();
    spec.spec.name = "my_model".into();
    let rendered = render_service(&spec, &Capabilities::default()).unwrap();
    let analysis = analyze(&stream(&rendered.objects));
    let errors: Vec<_> = analysis.findings.iter().filter(|f| f.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let (projects, _) = convert(&analysis.documents);
    assert_eq!(projects[0].project.name, "my_model", "the name as its user wrote it");
    assert_eq!(projects[0].project.serve.replicas, 2);
    assert_eq!(projects[0].project.serve.env["LEVEL"], "info");
}
