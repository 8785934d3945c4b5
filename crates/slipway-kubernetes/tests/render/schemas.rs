//! Every object of the corpus against the schemas of every version that shall take it, by `kubernetes-validate`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::corpus::corpus;

const PACKAGE: &str = "kubernetes-validate==1.37.0";

/// A Python that has the package, in the folder of tools; installed there once.
fn python() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/kubernetes-validate");
    let python = tools.join("bin/python");
    let usable = || {
        Command::new(&python)
            .args(["-c", "import kubernetes_validate"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if usable() {
        return python;
    }
    let run = |command: &mut Command| {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&tools));
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE];
    run(Command::new(&python).args(pip));
    assert!(usable(), "{PACKAGE} is installed and cannot be imported");
    python
}

#[test]
fn every_object_is_valid_in_every_version_from_its_own() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut count = 0;
    for case in corpus() {
        for object in &case.rendered.objects {
            let line = json!({"from": case.caps.version.minor, "case": case.what, "object": object.json()});
            writeln!(file, "{line}").unwrap();
            count += 1;
        }
    }
    file.flush().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validate.py");
    let output = Command::new(python()).arg(script).arg(file.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let summary = said.lines().last().unwrap_or_default();
    assert!(summary.starts_with(&format!("{count} objects")), "{said}");
    assert!(summary.contains("1.29 to 1.37"), "{said}");
    // Each object in each version from its own on: five on average, less those that have no schema.
    let validations = summary.split(' ').nth(2).and_then(|n| n.parse::<usize>().ok()).unwrap_or_default();
    assert!(validations > 4 * count, "{said}");
}
