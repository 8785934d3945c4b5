//! The upper folder as a layer: what a build step leaves.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use slipway_types::container::Mount;

use crate::fixture::Fixture;

#[test]
fn a_step_that_changes_nothing_leaves_nothing() {
    let fixture = Fixture::new();
    // An image with no mount points at all, so that every one must be made up.
    for args in [
        &["true"][..],
        &["sh", "-c", "cat /etc/motd /etc/hosts; ls -R /proc/self /dev /sys/fs >/dev/null; exit 3"],
    ] {
        let mut config = fixture.config(args);
        config.mounts = vec![
            Mount::Tmpfs { target: "/var/cache/deep".into(), size: None },
            Mount::Bind { source: fixture.path("image"), target: "/opt/mnt".into(), read_only: true },
        ];
        let (container, _) = fixture.run_config(&config);
        assert!(fixture.upper(&container).is_empty(), "{:?}", fixture.upper(&container));
    }
}

#[test]
fn a_change_is_that_change() {
    let fixture = Fixture::new();
    let image = fixture.image();
    std::os::unix::fs::chown(image.join("etc"), Some(12), Some(34)).unwrap();
    std::fs::create_dir(image.join("etc/old")).unwrap();
    std::fs::write(image.join("etc/old/file"), "x").unwrap();
    let script = "echo new > /etc/new; rm /etc/motd; rm -r /etc/old; mkdir /etc/old; echo y > /etc/old/other; mv /home /house";
    let config = fixture.config(&["sh", "-c", script]);
    let (container, outcome) = fixture.run_config(&config);
    outcome.ok();
    let upper = container.config().rootfs.upper.clone();
    assert_eq!(
        fixture.upper(&container),
        ["etc", "etc/motd", "etc/new", "etc/old", "etc/old/other", "home", "house", "house/ann"]
    );
    let found = std::fs::metadata(upper.join("etc")).unwrap();
    assert_eq!(
        (found.uid(), found.gid()),
        (12, 34),
        "as the image has it, not as the stand-in for /etc/hosts"
    );
    for gone in ["etc/motd", "home"] {
        let found = std::fs::symlink_metadata(upper.join(gone)).unwrap();
        assert!(found.file_type().is_char_device() && found.rdev() == 0, "{gone} is a whiteout");
    }
    let mut value = [0; 8];
    let count = rustix::fs::getxattr(upper.join("etc/old"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..count], b"y");
    // Nothing else of overlayfs: no origin, no redirect, no metacopy.
    for name in ["etc", "etc/new", "house", "house/ann"] {
        let mut names = [0; 4096];
        let count = rustix::fs::llistxattr(upper.join(name), &mut names).unwrap();
        let names = String::from_utf8_lossy(&names[..count]).into_owned();
        for bad in ["redirect", "metacopy", "index"] {
            assert!(!names.contains(bad), "{name}: {names:?}");
        }
    }
}

#[test]
fn the_next_step_sees_the_last() {
    let fixture = Fixture::new();
    let first = fixture.config(&["sh", "-c", "echo layer > /layer; rm /etc/motd"]);
    let (first, outcome) = fixture.run_config(&first);
    outcome.ok();
    let mut second = fixture.config(&["sh", "-c", "cat /layer; ls /etc"]);
    second.rootfs.lowers.push(first.config().rootfs.upper.clone());
    let (_, outcome) = fixture.run_config(&second);
    assert_eq!(outcome.ok(), "layer\ngroup\nhostname\nhosts\npasswd\nresolv.conf");
}

#[test]
fn mount_points_that_a_layer_deleted() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.image().join("srv/data")).unwrap();
    let first = fixture.config(&["rm", "-r", "/srv"]);
    let (first, outcome) = fixture.run_config(&first);
    outcome.ok();
    let mut second = fixture.config(&["ls", "/srv/data"]);
    second.rootfs.lowers.push(first.config().rootfs.upper.clone());
    second.mounts =
        vec![Mount::Bind { source: fixture.path("image/etc"), target: "/srv/data".into(), read_only: true }];
    let (second, outcome) = fixture.run_config(&second);
    assert_eq!(outcome.ok(), "group\nmotd\npasswd");
    assert!(fixture.upper(&second).is_empty(), "{:?}", fixture.upper(&second));
}

#[test]
fn a_kept_container_runs_without_volatile() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "echo kept > /kept; grep -c volatile /proc/mounts"]);
    config.ephemeral = false;
    let (container, outcome) = fixture.run_config(&config);
    assert_eq!(outcome.out(), "0");
    assert_eq!(fixture.upper(&container), ["kept"]);
}
