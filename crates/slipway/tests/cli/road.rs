//! The whole road on real frameworks: `up` of the examples, accuracy measured through the served REST API.

use std::process::Command;

use crate::support::{Slipway, workspace};

/// Builds the base image, brings an example up, and sends it the held-out digits.
fn example(name: &str) {
    let s = Slipway::new();
    let packages = ["-p", "python3", "-p", "python3-pip", "-p", "python-is-python3"];
    s.run(&[&["base", "debian"][..], &packages, &["-t", "slipway/python:bookworm"]].concat()).ok();
    let folder = workspace().join("examples").join(name);
    let up = s.run(&["up", folder.to_str().unwrap()]);
    assert_eq!(up.code, 0, "{}\n{}", up.stdout, up.stderr);
    let request = folder.join("request.json");
    s.run(&["predict", name, "--file", request.to_str().unwrap()]).ok();
    let verified = Command::new("/usr/bin/python3")
        .arg(workspace().join("examples/verify.py"))
        .args(["--url", &format!("http://127.0.0.1:{}", s.port), "--service", name, "--example", name])
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&verified.stdout).into_owned() + &String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{text}");
    assert!(s.run(&["up", folder.to_str().unwrap()]).ok().contains("nothing to do"));
    s.finish();
}

#[test]
fn digits_sklearn() {
    example("digits-sklearn");
}

#[test]
fn custom_python() {
    example("custom-python");
}

#[test]
fn digits_tensorflow() {
    example("digits-tensorflow");
}

#[test]
fn digits_pytorch() {
    example("digits-pytorch");
}
