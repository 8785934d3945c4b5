//! Disk full during build, import and training: a clear error, the store intact.

use std::process::Command;

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
