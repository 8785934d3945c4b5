//! Disk full during build, import, pull and training: a clear error, the store intact.

use std::process::Command;

use crate::registry::Registry;
use crate::support::{Slipway, tiny_project};

/// A file system of few bytes, mounted for one test.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(path: std::path::PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "small"])
            .arg(&path)
            .status();
        assert!(done.unwrap().success());
        Self(path)
    }

    /// Somebody made space.
    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_survived() {
    let s = Slipway::new();
    let small = Small::mount(s.root(), "40m");
    s.busybox();
    s.write("p/Dockerfile", "FROM box\nRUN dd if=/dev/zero of=/big bs=1M count=100\n");
    let stderr = s.run(&["build", "p"]).fails(1);
    assert!(stderr.contains("No space left"), "{stderr}");
    let big = s.path("big.bin");
    std::fs::write(&big, vec![7; 100 << 20]).unwrap();
    s.write("q/Dockerfile", "FROM box\nCOPY big.bin /\n");
    std::fs::rename(&big, s.path("q/big.bin")).unwrap();
    let stderr = s.run(&["build", "q"]).fails(1);
    assert!(stderr.contains("No space left") || stderr.contains("space"), "{stderr}");
    let tar = s.path("big.tar");
    assert!(
        Command::new("tar")
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(s.path("q"))
            .arg("big.bin")
            .status()
            .unwrap()
            .success()
    );
    let stderr = s.run(&["import", tar.to_str().unwrap(), "big"]).fails(1);
    assert!(stderr.contains("space"), "{stderr}");
    s.run(&["system", "check", "--deep"]).ok();
    assert_eq!(s.run(&["run", "--rm", "box", "echo", "still fine"]).ok(), "still fine\n");
    s.run(&["daemon", "stop"]).ok();
    drop(small);
}

#[test]
fn a_pull_that_fills_the_disk_fails_cleanly_and_works_once_there_is_space() {
    let maker = Slipway::new();
    maker.busybox();
    let registry = Registry::start(&maker.path("registry"), "");
    let name = |image: &str| format!("127.0.0.1:{}/{image}:1", registry.port);
    // One whose blob does not fit, and one whose small blob unpacks to what does not.
    let noise = Command::new("head").args(["-c", "60M", "/dev/urandom"]).output().unwrap();
    maker.write("noise/Dockerfile", "FROM box\nCOPY noise.bin /\n");
    std::fs::write(maker.path("noise/noise.bin"), noise.stdout).unwrap();
    maker.write("zeros/Dockerfile", "FROM box\nRUN dd if=/dev/zero of=/zeros bs=1M count=60\n");
    for image in ["noise", "zeros"] {
        maker.run(&["build", "-t", &name(image), image]).ok();
        maker.run(&["push", &name(image)]).ok();
    }

    let s = Slipway::new();
    let images = s.root().join("images");
    std::fs::create_dir(s.root()).unwrap();
    std::fs::set_permissions(s.root(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let small = Small::mount(images.clone(), "30m");
    for image in ["noise", "zeros"] {
        let stderr = s.run(&["pull", &name(image)]).fails(1);
        assert!(stderr.contains("No space left"), "{stderr}");
        let disk = format!("the disk that holds {} is full", images.display());
        assert!(stderr.contains(&disk), "{stderr}");
        assert_eq!(s.run(&["images", "-q"]).ok(), "");
        s.run(&["system", "check", "--deep"]).ok();
        let left = rustix::fs::statvfs(&images).unwrap();
        assert!(left.f_bfree * left.f_bsize > 20 << 20, "what did not fit is gone: {} blocks", left.f_bfree);
    }
    small.grow("300m");
    for image in ["noise", "zeros"] {
        s.run(&["pull", &name(image)]).ok();
    }
    assert_eq!(s.run(&["run", "--rm", &name("zeros"), "stat", "-c", "%s", "/zeros"]).ok(), "62914560\n");
    s.run(&["system", "check", "--deep"]).ok();
    s.run(&["daemon", "stop"]).ok();
    drop(small);
    maker.finish();
}

#[test]
fn training_that_fills_the_disk_fails_cleanly() {
    let s = Slipway::new();
    let small = Small::mount(s.root(), "400m");
    s.python();
    tiny_project(&s, "p", 2.0);
    s.run(&["build", "-t", "slipway/tiny:latest", "p"]).ok();
    let fill = "import os; f = open(os.environ['SLIPWAY_MODEL_DIR'] + '/model.onnx', 'wb')\nwhile True: f.write(b'x' * 1048576); f.flush()";
    let outcome = s.run(&["train", "--project", "p", "--", "python3", "-c", fill]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("No space left"), "{}", outcome.stderr);
    assert_eq!(s.run(&["model", "ls", "--format", "json"]).ok().trim(), "[]");
    s.run(&["system", "check"]).ok();
    s.run(&["daemon", "stop"]).ok();
    drop(small);
}
