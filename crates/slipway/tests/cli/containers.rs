//! `run`, `ps`, `logs`, `exec`, `stop`, `kill`, `rm`, `inspect`.

use std::time::{Duration, Instant};

use crate::support::{Slipway, wait_for};

fn inspect(slipway: &Slipway, name: &str) -> serde_json::Value {
    let text = slipway.run(&["inspect", name]).ok();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()[0].clone()
}

#[test]
fn run_has_dockers_exit_codes() {
    let s = Slipway::new();
    s.busybox();
    assert_eq!(s.run(&["run", "--rm", "box", "echo", "hello"]).ok(), "hello\n");
    for (command, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
        (&["sh", "-c", "sh -c 'kill -TERM $$'; exit $?"], 143),
        (&["/etc/passwd"], 126),
        (&["no-such-program"], 127),
    ] {
        let all = [&["run", "--rm", "box"][..], command].concat();
        assert_eq!(s.run(&all).code, code, "{command:?}");
    }
    let stderr = s.run(&["run", "--rm", "box", "no-such-program"]).fails(127);
    assert!(stderr.contains("no-such-program"), "{stderr}");
    let stderr = s.run(&["run", "box:absent", "true"]).fails(125);
    assert!(stderr.contains("box:absent"), "{stderr}");
    for flags in [
        &["--memory", "lots"][..],
        &["--memory", "1"],
        &["--no-such-flag"],
        &["-v", "relative:/x"],
        &["-v", "/a:b"],
        &["-it"],
        &["-p", "80:80"],
    ] {
        s.run(&[&["run"][..], flags, &["box", "true"]].concat()).fails(125);
    }
    let stderr = s.run(&["run", "-it", "box", "sh"]).fails(125);
    assert!(stderr.contains("`--tty` is not supported yet") && stderr.contains("hint"), "{stderr}");
    // In the background as well.
    s.run(&["run", "-d", "box", "no-such-program"]).fails(127);
    s.run(&["run", "-d", "box", "/etc/passwd"]).fails(126);
    assert_eq!(s.run(&["ps", "-aq"]).ok(), "", "--rm leaves nothing");
    s.finish();
}

#[test]
fn run_flags_act_inside() {
    let s = Slipway::new();
    s.busybox();
    let data = s.write("data/file", "from here\n");
    let volume = format!("{}:/data:ro", data.parent().unwrap().display());
    let sh = |flags: &[&str], script: &str| {
        s.run(&[&["run", "--rm"][..], flags, &["box", "sh", "-c", script]].concat())
    };
    assert_eq!(sh(&["-e", "A=1 2", "-w", "/tmp"], "echo \"$A\"; pwd").ok(), "1 2\n/tmp\n");
    assert_eq!(sh(&["-u", "user"], "id -u; id -g").ok(), "1000\n1000\n");
    assert_eq!(sh(&["-u", "12:34"], "id -u; id -g").ok(), "12\n34\n");
    assert_eq!(
        sh(&["-v", &volume], "cat /data/file; touch /data/x || echo refused").ok(),
        "from here\nrefused\n"
    );
    assert_eq!(sh(&["--read-only"], "touch /x || echo refused").ok(), "refused\n");
    assert_eq!(sh(&["--read-only", "--tmpfs", "/t"], "touch /t/x && echo fine").ok(), "fine\n");
    assert_eq!(sh(&[], "ls /sys/class/net").ok(), "lo\n");
    let host = sh(&["--network", "host"], "ls /sys/class/net | wc -l").ok();
    let here = std::fs::read_dir("/sys/class/net").unwrap().count();
    assert_eq!(host.trim(), here.to_string());
    assert_eq!(sh(&["--entrypoint", "echo"], "x").ok(), "sh -c x\n");
    assert_eq!(s.run_with(&["run", "--rm", "-i", "box", "cat"], b"typed\n").ok(), "typed\n");
    let out = sh(&[], "echo out; echo err >&2");
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", "err\n"));
    s.finish();
}

#[test]
fn volumes_start_with_the_images_files_and_stay_out_of_the_image() {
    let s = Slipway::new();
    s.busybox();
    s.write("p/Dockerfile", "FROM box\nRUN mkdir -p /data/sub && echo img > /data/sub/f && chown -R user:extra /data && chmod 750 /data\nVOLUME /data /none\n");
    s.run(&["build", "-t", "vol", "p"]).ok();
    let look = "stat -c '%U:%G %a' /data; cat /data/sub/f; echo new > /data/sub/f; echo y > /none/x; cat /data/sub/f";
    // Writable even where the root file system is not, and as the image has it every time.
    for _ in 0..2 {
        let text = s.run(&["run", "--rm", "--read-only", "vol", "sh", "-c", look]).ok();
        assert_eq!(text, "user:extra 750\nimg\nnew\n");
    }
    let mine = s.write("mine/own", "mine\n");
    let bind = format!("{}:/data", mine.parent().unwrap().display());
    assert_eq!(s.run(&["run", "--rm", "-v", &bind, "vol", "ls", "/data"]).ok(), "own\n");
    assert_eq!(
        s.run(&["run", "--rm", "-v", "/home", "box", "sh", "-c", "grep -c ' /home ' /proc/mounts"]).ok(),
        "1\n"
    );
    s.run(&["run", "-d", "--name", "keeps", "vol", "sleep", "60"]).ok();
    let kept = s.root().join("containers");
    let volumes = || {
        std::fs::read_dir(&kept).unwrap().flatten().filter(|c| c.path().join("volumes/0").exists()).count()
    };
    assert_eq!(volumes(), 1);
    s.run(&["rm", "-f", "keeps"]).ok();
    s.run(&["rm", "-f", "keeps"]).ok();
    s.run(&["rm", "keeps"]).fails(3);
    assert_eq!(volumes(), 0);
    // As with Docker, a source that is missing becomes a folder; it is said aloud.
    let missing = format!("{}:/x", s.path("made/here").display());
    let outcome = s.run(&["run", "--rm", "-v", &missing, "box", "touch", "/x/f"]);
    assert!(outcome.stderr.contains("made the folder"), "{}", outcome.stderr);
    assert!(s.path("made/here/f").exists());
    // Nothing is made for a command line that is wrong.
    let missing = format!("{}:/x", s.path("unmade").display());
    s.run(&["run", "--rm", "-v", &missing, "-v", "named:/y", "box", "true"]).fails(125);
    s.run(&["run", "--rm", "-v", &missing, "-l", "=x", "box", "true"]).fails(125);
    assert!(!s.path("unmade").exists());
    std::os::unix::fs::symlink("nowhere", s.path("dangling")).unwrap();
    let dangling = format!("{}:/x", s.path("dangling").display());
    let stderr = s.run(&["run", "--rm", "-v", &dangling, "box", "true"]).fails(125);
    assert!(stderr.contains("symbolic link to nowhere"), "{stderr}");
    s.finish();
}

#[test]
fn containers_are_confined() {
    let s = Slipway::new();
    s.busybox();
    let script = "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; mount -t tmpfs x /tmp 2>&1; \
                  mknod /tmp/d b 8 0 && dd if=/tmp/d count=1 2>&1; cat /proc/kcore 2>&1 | wc -c; \
                  (echo x > /proc/sys/kernel/hostname) 2>&1; unshare -U true 2>&1";
    let text = s.run(&["run", "--rm", "box", "sh", "-c", script]).stdout;
    assert!(text.contains("NoNewPrivs:\t1") && text.contains("Seccomp:\t2"), "{text}");
    assert!(text.matches("not permitted").count() >= 2, "{text}");
    assert!(text.contains("Read-only"), "{text}");
    s.finish();
}

#[test]
fn limits_act_and_oom_is_told() {
    let s = Slipway::new();
    s.busybox();
    let eat = "dd if=/dev/zero of=/dev/null bs=200M count=1";
    let outcome = s.run(&["run", "--name", "eater", "--memory", "32m", "box", "sh", "-c", eat]);
    assert_ne!(outcome.code, 0);
    let seen = inspect(&s, "eater");
    assert_eq!(seen["exit"]["oom_killed"], true, "{seen}");
    assert!(s.run(&["ps", "-a"]).ok().contains("out of memory"));
    let forks = "i=0; while [ $i -lt 30 ]; do sleep 2 & i=$((i+1)); done 2>&1";
    let text = s.run(&["run", "--rm", "--pids-limit", "10", "box", "sh", "-c", forks]);
    assert!((text.stdout.clone() + &text.stderr).contains("fork"), "{text:?}");
    s.run(&["rm", "eater"]).ok();
    s.finish();
}

#[test]
fn detached_containers_live_on_and_are_looked_after() {
    let s = Slipway::new();
    s.busybox();
    let script = "trap 'echo bye; exit 3' TERM; echo one; echo two >&2; while :; do sleep 0.1; done";
    let id = s.run(&["run", "-d", "--name", "web", "box", "sh", "-c", script]).ok();
    let short = &id[..12];
    assert!(s.run(&["ps"]).ok().contains("web"));
    wait_for("the log", Duration::from_secs(5), || {
        s.run(&["logs", "web"]).ok().contains("one").then_some(())
    });
    let logs = s.run(&["logs", short]);
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\n", "two\n"));
    assert_eq!(s.run(&["logs", "--tail", "1", "web"]).stderr, "two\n");
    assert_eq!(s.run(&["exec", "-e", "X=5", "web", "sh", "-c", "echo $X; exit 4"]).stdout, "5\n");
    s.run(&["exec", "web", "sh", "-c", "exit 4"]).fails(4);
    s.run(&["exec", "web", "absent"]).fails(127);
    assert_eq!(s.run_with(&["exec", "-i", "web", "cat"], b"in").ok(), "in");
    let stderr = s.run(&["run", "--name", "web", "box", "true"]).fails(125);
    assert!(stderr.contains("in use"), "{stderr}");
    s.run(&["rm", "web"]).fails(4);
    s.run(&["rmi", "box"]).fails(4);

    s.run(&["daemon", "stop"]).ok();
    assert!(s.run(&["ps"]).ok().contains("Up"), "it outlives the daemon");
    let began = Instant::now();
    s.run(&["stop", "web"]).ok();
    assert!(began.elapsed() < Duration::from_secs(8), "its own handler ended it");
    let seen = inspect(&s, "web");
    assert_eq!((seen["state"].as_str(), seen["exit"]["code"].as_u64()), (Some("exited"), Some(3)), "{seen}");
    assert!(s.run(&["logs", "web"]).ok().ends_with("bye\n"));
    s.run(&["exec", "web", "true"]).fails(4);
    s.run(&["kill", "web"]).fails(4);
    s.run(&["rm", "web"]).ok();
    s.run(&["inspect", "web"]).fails(3);
    s.run(&["logs", "web"]).fails(3);
    s.finish();
}

#[test]
fn stop_kills_what_does_not_listen() {
    let s = Slipway::new();
    s.busybox();
    s.run(&["run", "-d", "--name", "deaf", "box", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
        .ok();
    std::thread::sleep(Duration::from_millis(300));
    s.run(&["stop", "-t", "1", "deaf"]).ok();
    assert_eq!(inspect(&s, "deaf")["exit"]["code"], 137);
    s.run(&["run", "-d", "--name", "hup", "box", "sleep", "60"]).ok();
    s.run(&["kill", "-s", "HUP", "hup"]).ok();
    // The first process of a container ignores signals without a handler, as in Docker.
    s.run(&["kill", "hup"]).ok();
    wait_for("its end", Duration::from_secs(5), || (inspect(&s, "hup")["state"] == "exited").then_some(()));
    s.run(&["rm", "deaf", "hup"]).ok();
    s.finish();
}

#[test]
fn a_foreground_run_takes_signals_and_follows_logs() {
    let s = Slipway::new();
    s.busybox();
    let child = s.spawn(&[
        "run",
        "--rm",
        "--name",
        "fg",
        "box",
        "sh",
        "-c",
        "trap 'exit 9' INT; echo up; while :; do sleep 0.1; done",
    ]);
    wait_for("it to run", Duration::from_secs(5), || {
        s.run(&["logs", "fg"]).stdout.contains("up").then_some(())
    });
    crate::support::kill(child.id() as i32, "INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(9));
    s.run(&["run", "-d", "--name", "talk", "box", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done"])
        .ok();
    assert_eq!(s.run(&["logs", "-f", "talk"]).ok(), "1\n2\n3\n");
    s.run(&["rm", "talk"]).ok();
    s.finish();
}

#[test]
fn a_detached_container_with_rm_goes_by_itself() {
    let s = Slipway::new();
    s.busybox();
    s.run(&["run", "-d", "--rm", "box", "sleep", "0.3"]).ok();
    wait_for("its removal", Duration::from_secs(5), || s.run(&["ps", "-aq"]).ok().is_empty().then_some(()));
    s.finish();
}

/// Containers that are just being made or removed are no errors to who looks, and `--rm` removes each once.
#[test]
fn looking_while_containers_come_and_go() {
    let s = Slipway::new();
    s.busybox();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                s.run(&["ps", "-aq"]).ok();
            }
        });
        for _ in 0..40 {
            let outcome = s.run(&["run", "--rm", "box", "true"]);
            assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        looking.join().unwrap();
    });
    s.finish();
}
