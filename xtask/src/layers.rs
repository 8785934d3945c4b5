//! Crates use lower layers only, and no two crates of one layer use each other.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// The layer of every crate. A crate that is missing here fails the check.
const LAYERS: &[(&str, u8)] = &[
    ("slipway-types", 0),
    ("slipway-image", 1),
    ("slipway-runtime", 1),
    ("slipway-orchestrator", 1),
    ("slipway-serving", 1),
    ("slipway-gateway", 2),
    ("slipway-runner", 2),
    ("slipway-native", 2),
    ("slipway-kubernetes", 2),
    ("slipway", 3),
    ("xtask", 9),
];

/// Fails with every edge that breaks the rule.
pub fn check() -> Result<(), String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|e| format!("cannot run cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
    let edges = edges(&metadata);
    let problems = violations(&LAYERS.iter().copied().collect(), &edges);
    if problems.is_empty() {
        println!("{} crates keep to their layers", edges.len());
        Ok(())
    } else {
        Err(problems.join("\n"))
    }
}

/// What each workspace crate uses of the workspace, outside its tests.
fn edges(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let name = |v: &Value| v["name"].as_str().unwrap_or_default().to_owned();
    let own: Vec<String> = packages.iter().map(name).collect();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
            let used = dependencies
                .iter()
                .filter(|d| d["kind"].as_str() != Some("dev"))
                .map(name)
                .filter(|d| own.contains(d))
                .collect();
            (name(package), used)
        })
        .collect()
}

fn violations(layers: &BTreeMap<&str, u8>, edges: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut problems = Vec::new();
    for (from, used) in edges {
        let Some(from_layer) = layers.get(from.as_str()) else {
            problems.push(format!("{from} has no layer: add it to xtask/src/layers.rs and ARCHITECTURE.md"));
            continue;
        };
        for to in used {
            match layers.get(to.as_str()) {
                Some(to_layer) if to_layer < from_layer => {}
                Some(to_layer) => {
                    problems
                        .push(format!("{from} (layer {from_layer}) must not use {to} (layer {to_layer})"));
                }
                None => problems.push(format!("{from} uses {to}, which has no layer")),
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_edges_that_go_up_or_sideways() {
        let layers = [("types", 0), ("image", 1), ("runtime", 1)].into();
        let edge = |from: &str, to: &str| [(from.to_owned(), vec![to.to_owned()])].into();
        assert!(violations(&layers, &edge("image", "types")).is_empty());
        assert_eq!(violations(&layers, &edge("image", "runtime")).len(), 1);
        assert_eq!(violations(&layers, &edge("types", "image")).len(), 1);
        assert_eq!(violations(&layers, &edge("stranger", "types")).len(), 1);
    }
}
