//! What pods call the program for, besides serving.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn runner(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slipway-runner")).args(arguments).output().unwrap()
}

#[test]
fn copies_and_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("from")).unwrap();
    std::fs::create_dir(path("to")).unwrap();
    std::fs::write(path("from/weights"), "w").unwrap();
    for _ in 0..2 {
        let done = runner(&["copy", &path("from"), &path("to")]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(std::fs::read(path("to/weights")).unwrap(), b"w");
    }
    let failed = runner(&["copy", &path("absent"), &path("to")]);
    assert_eq!(failed.status.code(), Some(1));
    let text = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(text.contains("absent") && text.contains("No such file"), "{text}");

    let began = Instant::now();
    assert!(runner(&["wait", "1"]).status.success());
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(runner(&["wait", "soon"]).status.code(), Some(2));
}
