//! Mistakes on the command line and in files: clear, with the documented exit code, changing nothing.

use crate::support::Slipway;

#[test]
fn help_and_versions() {
    let s = Slipway::new();
    let help = s.run(&["--help"]).ok();
    for command in ["up", "build", "run", "train", "deploy", "predict", "model", "system"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing in\n{help}");
    }
    assert!(s.run(&["--version"]).ok().starts_with("slipway "));
    assert!(s.run(&["build", "--help"]).ok().contains("--ca-certificates"));
    assert!(!s.root().exists(), "help starts no daemon");
    s.run(&["no-such-command"]).fails(2);
    s.run(&["run"]).fails(125);
    s.run(&["exec", "--bad", "x", "y"]).fails(125);
    s.run(&["daemon", "status"]).fails(5);
}

#[test]
fn mistakes_in_files_are_located() {
    let s = Slipway::new();
    s.write("p/slipway.toml", "name = \"x\"\n[train]\ncomand = []\n");
    let stderr = s.run(&["up", "p"]).fails(2);
    assert!(stderr.contains("slipway.toml:3:1"), "{stderr}");
    let stderr = s.run(&["up", "."]).fails(3);
    assert!(stderr.contains("slipway.toml") && stderr.contains("hint"), "{stderr}");
    s.settings("[registries.\"docker.io\"]\nmirror = []\n");
    let stderr = s.run(&["images"]).fails(2);
    assert!(stderr.contains("settings.toml:4:1"), "{stderr}");
}
