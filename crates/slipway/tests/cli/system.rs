//! `system`

use crate::support::Slipway;

#[test]
fn prune_removes_what_ended_and_what_nothing_uses() {
    let s = Slipway::new();
    s.busybox();
    s.write("p/Dockerfile", "FROM box\nRUN dd if=/dev/zero of=/big bs=1M count=3\n");
    s.run(&["build", "-t", "big", "p"]).ok();
    s.run(&["run", "--name", "ended", "box", "true"]).ok();
    s.run(&["run", "-d", "--name", "lives", "box", "sleep", "60"]).ok();
    assert!(s.run(&["system", "df"]).ok().contains("images"));
    s.run(&["rmi", "big"]).ok();
    let text = s.run(&["system", "prune", "--build-cache"]).ok();
    assert!(text.contains("container ended") && text.contains("layer"), "{text}");
    assert!(!text.contains("lives"), "{text}");
    assert!(s.run(&["ps"]).ok().contains("lives"));
    let text = s.run(&["system", "prune", "--all", "--build-cache"]).ok();
    assert!(!text.contains("removed image"), "its container uses it: {text}");
    s.run(&["rm", "-f", "lives"]).ok();
    s.run(&["system", "prune", "--all", "--build-cache"]).ok();
    assert_eq!(s.run(&["images", "-q"]).ok(), "");
    s.finish();
}

#[test]
fn damage_and_leftovers_are_found() {
    let s = Slipway::new();
    s.busybox();
    let layers = s.root().join("images/layers");
    std::fs::create_dir(layers.join("ab".repeat(32))).unwrap();
    std::fs::create_dir_all(s.root().join("containers").join("cd".repeat(12))).unwrap();
    let found = s.run(&["system", "check"]);
    assert_eq!(found.code, 1);
    assert!(found.stdout.contains("abab") && found.stdout.contains("cdcd"), "{}", found.stdout);
    s.run(&["system", "prune"]).ok();
    s.run(&["system", "check"]).ok();
    s.finish();
}
