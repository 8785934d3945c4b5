//! What a container sees and may do.

use std::os::unix::fs::symlink;

use slipway_types::container::{Mount, NetworkMode};

use crate::fixture::{Fixture, LONG};

#[test]
fn capabilities_privileges_and_calls() {
    let fixture = Fixture::new();
    let status = fixture.run(&["cat", "/proc/self/status"]).ok();
    for expected in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000a80425fb",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
    ] {
        assert!(status.contains(expected), "{expected} in {status}");
    }
    let mut config = fixture.config(&["cat", "/proc/self/status"]);
    config.process.user = "ann".to_owned();
    assert!(fixture.run_config(&config).1.ok().contains("CapEff:\t0000000000000000"));
    for refused in
        ["unshare -m true", "unshare -U true", "mount -t tmpfs tmpfs /tmp", "umount /proc", "hostname other"]
    {
        let outcome = fixture.sh(refused);
        assert_ne!(outcome.exit.code, 0, "{refused}");
        let words = outcome.err();
        assert!(words.contains("not permitted") || words.contains("permission denied"), "{refused}: {words}");
    }
}

#[test]
fn kernel_files_are_hidden_or_read_only() {
    let fixture = Fixture::new();
    let script = "
        test \"$(cat /proc/kcore | wc -c)\" = 0 || echo kcore
        test -z \"$(ls -A /sys/firmware)\" || echo firmware
        test \"$(cat /proc/timer_list | wc -c)\" = 0 || echo timers
        for file in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/uevent_helper; do
            (echo x > $file) 2>/dev/null && echo written $file
        done
        find=$(ls /sys/fs/cgroup)
        test -n \"$find\" || echo no cgroup
        for file in /sys/fs/cgroup/*/memory.limit_in_bytes /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/memory.max; do
            test -e $file || continue
            (echo 1 > $file) 2>/dev/null && echo written $file
        done
        true";
    assert_eq!(fixture.sh(script).ok(), "");
}

#[test]
fn devices_are_few() {
    let fixture = Fixture::new();
    let names = fixture.run(&["ls", "/dev"]).ok();
    let expected =
        ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"];
    for name in expected {
        assert!(names.lines().any(|line| line == name), "{name} in {names}");
    }
    assert!(!names.lines().any(|name| name.starts_with("vd") || name == "kmsg" || name == "mem"), "{names}");
    // A node can be made, for archives, but not opened.
    let outcome = fixture.sh("mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem");
    assert!(outcome.err().contains("not permitted"), "{}", outcome.err());
    assert_eq!(
        fixture.sh("head -c 4 /dev/zero | wc -c; echo x > /dev/null; head -c 2 /dev/urandom | wc -c").ok(),
        "4\n2"
    );
    let mut config = fixture.config(&["sh", "-c", "stat -f -c %b /dev/shm; stat -f -c %s /dev/shm"]);
    config.shm_bytes = 8 << 20;
    let text = fixture.run_config(&config).1.ok();
    let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers[0] * numbers[1], 8 << 20);
}

#[test]
fn its_own_processes_and_names() {
    let fixture = Fixture::new();
    assert_eq!(fixture.sh("set -- /proc/[0-9]*; echo $#").ok(), "1", "the shell");
    for kind in ["pid", "mnt", "uts", "ipc", "net", "cgroup"] {
        let inside = fixture.run(&["readlink", &format!("/proc/self/ns/{kind}")]).ok();
        let outside = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(inside, outside.to_str().unwrap(), "{kind}");
    }
    assert!(
        fixture.run(&["cat", "/proc/self/cgroup"]).ok().lines().any(|line| line.ends_with(":/")),
        "its own root"
    );
    let mounts = fixture.run(&["cat", "/proc/self/mountinfo"]).ok();
    assert!(!mounts.contains("/dev/vda / "), "no way back to the host's root: {mounts}");
}

#[test]
fn network_none_is_loopback_only() {
    let fixture = Fixture::new();
    let devices = fixture.sh("awk 'NR > 2 { print $1 }' /proc/net/dev").ok();
    assert_eq!(devices, "lo:");
    assert!(fixture.run(&["ifconfig", "lo"]).ok().contains("UP LOOPBACK RUNNING"));
    let script = "cat /etc/hosts /etc/hostname; cat /etc/resolv.conf | wc -c";
    let text = fixture.sh(script).ok();
    assert!(text.contains("127.0.0.1\tlocalhost") && text.contains("127.0.0.1\tbox"), "{text}");
    assert!(text.ends_with("box\n0"), "{text}");
    // As with Docker, a program may change them; that is not a change of the image.
    let config = fixture.config(&["sh", "-c", "echo 127.0.0.1 other >> /etc/hosts && cat /etc/hosts"]);
    let (container, outcome) = fixture.run_config(&config);
    assert!(outcome.ok().ends_with("127.0.0.1 other"));
    assert!(fixture.upper(&container).is_empty(), "{:?}", fixture.upper(&container));
}

#[test]
fn network_host_is_the_hosts() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&[
        "sh",
        "-c",
        "readlink /proc/self/ns/net; cat /etc/hosts; (echo x >> /etc/hosts) 2>/dev/null || echo denied",
    ]);
    config.network = NetworkMode::Host;
    let text = fixture.run_config(&config).1.ok();
    let outside = std::fs::read_link("/proc/self/ns/net").unwrap();
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap();
    assert_eq!(text, format!("{}\n{hosts}denied", outside.display()));
}

#[test]
fn read_only_root() {
    let fixture = Fixture::new();
    let data = fixture.path("data");
    std::fs::create_dir(&data).unwrap();
    let script = "(touch /x) 2>&1; (touch /etc/x) 2>&1; touch /data/x /scratch/y /dev/shm/z && echo fine";
    let mut config = fixture.config(&["sh", "-c", script]);
    config.read_only = true;
    config.mounts = vec![
        Mount::Bind { source: data.clone(), target: "/data".into(), read_only: false },
        Mount::Tmpfs { target: "/scratch".into(), size: Some(1 << 20) },
    ];
    let (container, outcome) = fixture.run_config(&config);
    let text = outcome.ok();
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
    assert!(text.ends_with("fine"), "{text}");
    assert!(data.join("x").exists());
    assert!(fixture.upper(&container).is_empty());
}

#[test]
fn bind_mounts() {
    let fixture = Fixture::new();
    let (data, file) = (fixture.path("data"), fixture.path("file"));
    std::fs::create_dir_all(data.join("inner")).unwrap();
    std::fs::write(data.join("known"), "known\n").unwrap();
    std::fs::write(&file, "file\n").unwrap();
    let script = "cat /ro/known /some/file; touch /rw/new; (touch /ro/no) 2>/dev/null || echo denied; ls /rw";
    let mut config = fixture.config(&["sh", "-c", script]);
    let bind = |source: &std::path::Path, target: &str, read_only| Mount::Bind {
        source: source.to_owned(),
        target: target.into(),
        read_only,
    };
    config.mounts =
        vec![bind(&data, "/ro", true), bind(&data, "/rw", false), bind(&file, "/some/file", true)];
    let (container, outcome) = fixture.run_config(&config);
    assert_eq!(outcome.ok(), "known\nfile\ndenied\ninner\nknown\nnew");
    assert!(fixture.upper(&container).is_empty(), "{:?}", fixture.upper(&container));
}

#[test]
fn read_only_holds_for_what_is_mounted_below() {
    let fixture = Fixture::new();
    let data = fixture.path("data");
    std::fs::create_dir_all(data.join("below")).unwrap();
    let below = data.join("below");
    rustix::mount::mount("tmpfs", &below, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let mut config = fixture.config(&["sh", "-c", "touch /data/below/x"]);
    config.mounts = vec![Mount::Bind { source: data.clone(), target: "/data".into(), read_only: true }];
    let outcome = fixture.run_config(&config).1;
    rustix::mount::unmount(&below, rustix::mount::UnmountFlags::empty()).unwrap();
    assert!(outcome.err().contains("Read-only file system"), "{}", outcome.err());
}

#[test]
fn tmpfs_is_bounded() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "dd if=/dev/zero of=/scratch/x bs=64k count=64"]);
    config.mounts = vec![Mount::Tmpfs { target: "/scratch".into(), size: Some(1 << 20) }];
    let (container, outcome) = fixture.run_config(&config);
    assert!(outcome.err().contains("No space left"), "{}", outcome.err());
    assert!(fixture.upper(&container).is_empty());
}

#[test]
fn links_in_the_image_lead_nowhere_else() {
    let fixture = Fixture::new();
    let (outside, data) = (fixture.path("outside"), fixture.path("data"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("known"), "known\n").unwrap();
    let image = fixture.image();
    let up = format!("../../../../../../../../../..{}", outside.display());
    symlink(&up, image.join("escape")).unwrap();
    symlink(&outside, image.join("absolute")).unwrap();
    symlink(format!("{up}/resolv.conf"), image.join("etc/resolv.conf")).unwrap();
    let mut config = fixture.config(&["sh", "-c", "cat /escape/a/known /absolute/b/known /etc/resolv.conf"]);
    let bind = |target: &str| Mount::Bind { source: data.clone(), target: target.into(), read_only: true };
    config.mounts = vec![bind("/escape/a"), bind("/absolute/b")];
    let (container, outcome) = fixture.run_config(&config);
    assert_eq!(outcome.ok(), "known\nknown");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "nothing was made on the host");
    assert!(fixture.upper(&container).is_empty(), "{:?}", fixture.upper(&container));
}

#[test]
fn mounts_of_the_host_stay_its_own() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(fixture.containers().to_str().unwrap()), "{mounts}");
    container.stop(Some(9), LONG).unwrap();
}
