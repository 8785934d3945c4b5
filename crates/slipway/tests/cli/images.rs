//! `images`, `tag`, `rmi`, `inspect`, `import`, `base`.

use std::process::Command;

use crate::support::{Slipway, busybox_tar};

#[test]
fn names_come_and_go() {
    let s = Slipway::new();
    s.busybox();
    s.run(&["tag", "box", "registry.example/team/box:v1"]).ok();
    let table = s.run(&["images"]).ok();
    assert!(table.contains("registry.example/team/box") && table.starts_with("REPOSITORY"), "{table}");
    let text = s.run(&["inspect", "box"]).ok();
    let image: serde_json::Value = serde_json::from_str(&text).unwrap();
    let id = image[0]["id"].as_str().unwrap();
    assert_eq!(image[0]["names"].as_array().unwrap().len(), 2);
    assert!(s.run(&["rmi", "box"]).ok().contains("Untagged: "));
    s.run(&["inspect", "box"]).fails(3);
    s.run(&["run", "--rm", &id[7..19], "true"]).ok();
    assert!(s.run(&["rmi", "registry.example/team/box:v1"]).ok().contains("Deleted: "));
    assert_eq!(s.run(&["images", "-q"]).ok(), "");
    s.run(&["rmi", "box"]).fails(3);
    s.run(&["tag", "box", "x"]).fails(3);
    s.busybox();
    s.run(&["tag", "box", "Bad Name"]).fails(2);
    s.finish();
}

#[test]
fn import_sets_the_configuration() {
    let s = Slipway::new();
    let tar = busybox_tar();
    let gz = s.path("box.tar.gz");
    let packed = Command::new("gzip").arg("-c").arg(&tar).output().unwrap();
    std::fs::write(&gz, packed.stdout).unwrap();
    s.run(&[
        "import",
        "-c",
        "ENV A=b",
        "-c",
        "CMD [\"sh\", \"-c\", \"echo $A\"]",
        gz.to_str().unwrap(),
        "set:1",
    ])
    .ok();
    assert_eq!(s.run(&["run", "--rm", "set:1"]).ok(), "b\n");
    let bytes = std::fs::read(&tar).unwrap();
    s.run_with(&["import", "-", "piped"], &bytes).ok();
    assert_eq!(s.run(&["run", "--rm", "piped", "echo", "x"]).ok(), "x\n");
    s.run(&["import", "-c", "RUN true", gz.to_str().unwrap(), "bad"]).fails(2);
    s.run(&["import", s.path("settings.toml").to_str().unwrap(), "bad"]).fails(1);
    s.run(&["import", "/absent", "bad"]).fails(3);
    s.run(&["import", "-c", "EXPOSE nowhere", gz.to_str().unwrap(), "bad"]).fails(2);
    let listed = s.run(&["images"]).ok();
    assert!(!listed.contains("bad") && !listed.contains("<none>"), "{listed}");
    s.finish();
}

/// Archives that try to write outside the image's root.
#[test]
fn hostile_archives_are_refused() {
    let s = Slipway::new();
    let outside = s.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let script = "import io, sys, tarfile\n\
        kind, path, out = sys.argv[1:]\n\
        with tarfile.open(path, 'w') as t:\n\
        \x20   def add(name, type=tarfile.REGTYPE, link='', data=b'evil'):\n\
        \x20       i = tarfile.TarInfo(name); i.type = type; i.linkname = link; i.size = len(data) if type == tarfile.REGTYPE else 0\n\
        \x20       t.addfile(i, io.BytesIO(data) if type == tarfile.REGTYPE else None)\n\
        \x20   if kind == 'dots': add('../../../../../../../..' + out + '/evil')\n\
        \x20   if kind == 'absolute': add(out + '/evil')\n\
        \x20   if kind == 'symlink': add('l', tarfile.SYMTYPE, out); add('l/evil')\n\
        \x20   if kind == 'hardlink': add('h', tarfile.LNKTYPE, '../../../../../../../../etc/passwd')\n";
    for kind in ["dots", "absolute", "symlink", "hardlink"] {
        let tar = s.path(&format!("{kind}.tar"));
        let made = Command::new("/usr/bin/python3")
            .args(["-c", script, kind, tar.to_str().unwrap(), outside.to_str().unwrap()])
            .status()
            .unwrap();
        assert!(made.success());
        let outcome = s.run(&["import", tar.to_str().unwrap(), &format!("evil:{kind}")]);
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{kind} escaped");
        if matches!(kind, "dots" | "hardlink") {
            assert_ne!(outcome.code, 0, "{kind}: {}", outcome.stdout);
        }
    }
    s.finish();
}
