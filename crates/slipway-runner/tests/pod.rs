//! What pods call the program for, besides serving.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn runner(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slipway-runner")).args(arguments).output().unwrap()
}

#[test]
fn copies_waits_and_archives() {
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

    let archive = runner(&["archive", &path("to"), "weights", "absent"]);
    assert!(archive.status.success(), "{}", String::from_utf8_lossy(&archive.stderr));
    // A header, the file's block, and the end of an archive.
    assert_eq!(
        (archive.stdout.len() % 512, &archive.stdout[..7], archive.stdout[512]),
        (0, &b"weights"[..], b'w')
    );
    assert_eq!(runner(&["archive", &path("absent")]).status.code(), Some(1));

    let began = Instant::now();
    assert!(runner(&["wait", "1"]).status.success());
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(runner(&["wait", "soon"]).status.code(), Some(2));
}
