//! A base with all objects, and an overlay to begin from.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ExportedFile, plain, yaml::to_yaml};
use crate::object::Object;

const API: &str = "kustomize.config.k8s.io/v1beta1";

/// `base/` with one file an object, and a `kustomization.yaml` on it that names the namespace and pins the images.
pub fn kustomize(objects: &[Object]) -> Vec<ExportedFile> {
    let files = plain(objects);
    let resources: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let base = json!({"apiVersion": API, "kind": "Kustomization", "resources": resources});
    let mut overlay = json!({"apiVersion": API, "kind": "Kustomization", "resources": ["base"]});
    if let Some(namespace) = objects.iter().map(Object::namespace).find(|namespace| !namespace.is_empty()) {
        overlay["namespace"] = namespace.into();
    }
    let images: Vec<Value> = images(objects)
        .into_iter()
        .map(|(name, digest)| json!({ "name": name, "newName": name, "digest": digest }))
        .collect();
    if !images.is_empty() {
        overlay["images"] = images.into();
    }
    let mut out: Vec<ExportedFile> = files
        .into_iter()
        .map(|file| ExportedFile { path: format!("base/{}", file.path), text: file.text })
        .collect();
    out.push(ExportedFile {
        path: "base/kustomization.yaml".to_owned(),
        text: format!("# All objects, as they are. Change them in an overlay.\n{}", to_yaml(&base)),
    });
    out.push(ExportedFile {
        path: "kustomization.yaml".to_owned(),
        text: format!(
            "# Apply with: kubectl apply --server-side -k .\n# Another registry: change `newName`. Another namespace: change it here.\n{}",
            to_yaml(&overlay)
        ),
    });
    out
}

/// Repositories of all containers' images that are named by one digest only, since an override goes by repository.
fn images(objects: &[Object]) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for object in objects {
        collect(object.json(), &mut found);
    }
    found
        .into_iter()
        .filter_map(|(name, mut digests)| {
            digests.sort();
            digests.dedup();
            match digests.as_slice() {
                [one] => Some((name, one.clone())),
                _ => None,
            }
        })
        .collect()
}

fn collect(value: &Value, found: &mut BTreeMap<String, Vec<String>>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match (key.as_str(), inner.as_str().and_then(|text| text.split_once('@'))) {
                    ("image", Some((name, digest))) => {
                        let repository = match name.rsplit_once(':') {
                            Some((repository, tag)) if !tag.contains('/') => repository,
                            _ => name,
                        };
                        found.entry(repository.to_owned()).or_default().push(digest.to_owned());
                    }
                    _ => collect(inner, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}
