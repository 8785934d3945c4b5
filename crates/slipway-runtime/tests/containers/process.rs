//! What runs, as whom, where, and how it ends.

use std::time::{Duration, Instant};

use slipway_runtime::ContainerError;
use slipway_types::container::{ContainerState, Mount};

use crate::fixture::{Fixture, LONG, SHIM};

#[test]
fn exit_codes_are_the_programs() {
    let fixture = Fixture::new();
    for (args, code) in [
        (&["true"][..], 0),
        (&["false"], 1),
        (&["sh", "-c", "exit 77"], 77),
        (&["sh", "-c", "exit 255"], 255),
        // As the shell reports its child.
        (&["sh", "-c", "sh -c 'kill -TERM $$'; exit $?"], 143),
    ] {
        let outcome = fixture.run(args);
        assert_eq!(outcome.exit.code, code, "{args:?}");
        assert_eq!(outcome.exit.error, None);
        assert!(!outcome.exit.oom_killed);
    }
}

#[test]
fn programs_that_cannot_be_executed() {
    let fixture = Fixture::new();
    let image = fixture.image();
    std::fs::write(image.join("bin/plain"), "echo no\n").unwrap();
    std::fs::write(image.join("bin/garbage"), "\x01\x02\x03garbage").unwrap();
    std::fs::write(image.join("bin/orphan"), "#!/no/such/interpreter\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    for name in ["garbage", "orphan"] {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(image.join("bin").join(name), mode).unwrap();
    }
    for (program, code, words) in [
        ("nope", 127, "no program `nope` in the container's PATH (/bin)"),
        ("/no/such", 127, "no file `/no/such`"),
        ("/etc/motd/x", 127, "no file"),
        ("/bin/orphan", 127, "interpreter"),
        ("plain", 126, "Permission denied"),
        ("/tmp", 126, "Permission denied"),
        ("garbage", 126, "not a program for this machine"),
    ] {
        let outcome = fixture.run(&[program]);
        let error = outcome.exit.error.clone().unwrap_or_default();
        assert_eq!(outcome.exit.code, code, "{program}: {error}");
        assert!(error.contains(words), "{program}: {error}");
    }
}

#[test]
fn faults_of_the_request() {
    let fixture = Fixture::new();
    let fails = |change: &dyn Fn(&mut slipway_runtime::ContainerConfig), words: &str| {
        let mut config = fixture.config(&["true"]);
        config.wait_for_attach = false;
        change(&mut config);
        let container = fixture.start(&config);
        match container.wait_started(LONG) {
            Err(ContainerError::NotStarted { exit, .. }) => {
                let error = exit.error.unwrap_or_default();
                assert_eq!(exit.code, 125, "{error}");
                assert!(error.contains(words), "{error}");
            }
            other => panic!("{words}: {other:?}"),
        }
    };
    fails(&|c| c.process.user = "eve".to_owned(), "no user `eve`");
    fails(&|c| c.process.user = "ann:eve".to_owned(), "no group `eve`");
    fails(&|c| c.rootfs.lowers = vec!["/no/such/layer".into()], "/no/such/layer");
    let bind = |source: &str, target: &str| {
        vec![Mount::Bind { source: source.into(), target: target.into(), read_only: false }]
    };
    fails(&|c| c.mounts = bind("/no/such/source", "/mnt"), "/no/such/source");
    fails(&|c| c.mounts = bind("/etc", "/etc/motd"), "/etc/motd");
    fails(&|c| c.process.cwd = "/etc/motd".into(), "/etc/motd");
    fails(
        &|c| {
            c.read_only = true;
            c.process.cwd = "/not/there".into();
        },
        "/not/there",
    );
}

#[test]
fn environment_user_and_folder() {
    let fixture = Fixture::new();
    let show = "id -u; id -g; id -G; pwd; echo $HOME $HOSTNAME $A $(hostname); umask";
    let run = |user: &str, cwd: &str, env: &[&str]| {
        let mut config = fixture.config(&["sh", "-c", show]);
        config.process.user = user.to_owned();
        config.process.cwd = cwd.into();
        config.process.env.extend(env.iter().map(|pair| (*pair).to_owned()));
        fixture.run_config(&config).1.ok()
    };
    assert_eq!(run("", "/", &["A=1", "A=2"]), "0\n0\n0\n/\n/root box 2 box\n0022");
    assert_eq!(run("ann", "/home/ann", &[]), "1000\n1001\n1001 44\n/home/ann\n/home/ann box box\n0022");
    assert_eq!(run("1000:44", "/tmp", &["HOME=/x"]), "1000\n44\n44\n/tmp\n/x box box\n0022");
    assert_eq!(run("4242", "/made/for/it", &[]), "4242\n0\n0\n/made/for/it\n/ box box\n0022");
}

#[test]
fn standard_streams_can_be_opened_again() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr; cat"]);
    config.process.user = "ann".to_owned();
    let outcome = fixture.run_config(&config).1;
    assert_eq!(outcome.ok(), "out");
    assert_eq!(outcome.err(), "err");
}

#[test]
fn nothing_of_the_shim_is_inherited() {
    let fixture = Fixture::new();
    // 3 is the folder that ls reads.
    assert_eq!(fixture.run(&["ls", "/proc/self/fd"]).ok(), "0\n1\n2\n3");
    let status = fixture.run(&["cat", "/proc/self/status"]).ok();
    for expected in
        ["SigIgn:\t0000000000000000", "SigBlk:\t0000000000000000", "Groups:\t \n", "Pid:\t1\n", "PPid:\t0\n"]
    {
        assert!(format!("{status}\n").contains(expected), "{expected:?} in {status}");
    }
    assert_eq!(fixture.run(&["env"]).ok(), "PATH=/bin\nHOSTNAME=box\nHOME=/root");
    assert_eq!(fixture.sh("yes | head -n 1").ok(), "y");
}

#[test]
fn a_life_as_files_tell_it() {
    let fixture = Fixture::new();
    let mut config =
        fixture.config(&["sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done"]);
    config.wait_for_attach = false;
    config.log = true;
    config.ephemeral = false;
    let dir = fixture.containers().join(config.id.as_str());
    let container = slipway_runtime::Container::create(&dir, &config).unwrap();
    let seen = container.observe().unwrap();
    assert_eq!((seen.state, seen.shim_alive, seen.needs_recovery), (ContainerState::Created, false, false));
    assert_eq!(container.recover().unwrap(), None, "nothing was ever started");
    container.spawn_shim(SHIM.as_ref()).unwrap();
    let again = container.spawn_shim(SHIM.as_ref()).unwrap_err();
    assert!(
        matches!(&again, ContainerError::Spawn { source, .. } if source.to_string().contains("another shim")),
        "{again:?}"
    );
    let started = container.wait_started(LONG).unwrap();
    let seen = slipway_runtime::Container::open(&dir).unwrap().observe().unwrap();
    assert_eq!((seen.state, seen.shim_alive, seen.pid), (ContainerState::Running, true, Some(started.pid)));
    assert_eq!(seen.started_at, Some(started.started_at));
    assert!(matches!(container.recover(), Err(ContainerError::StillRunning { .. })));
    assert!(matches!(container.clone().remove(), Err(ContainerError::StillRunning { .. })));
    assert!(matches!(
        container.wait_exit(Some(Duration::from_millis(20))),
        Err(ContainerError::Timeout { .. })
    ));
    // The program's own log says that its trap is set.
    crate::fixture::eventually("it is up", || container.logs(Default::default()).unwrap().next().is_some());
    container.signal(10).unwrap();
    let exit = container.wait_exit(Some(LONG)).unwrap();
    assert_eq!((exit.code, exit.error.clone()), (9, None));
    let seen = container.observe().unwrap();
    assert_eq!((seen.state, seen.exit), (ContainerState::Exited, Some(exit)));
    assert!(matches!(container.signal(15), Err(ContainerError::NotRunning { .. })));
    assert!(matches!(container.stats(), Err(ContainerError::NotRunning { .. })));
    crate::fixture::eventually("the shim ends", || !container.observe().unwrap().shim_alive);
    let again = container.spawn_shim(SHIM.as_ref()).unwrap_err();
    assert!(
        matches!(&again, ContainerError::Spawn { source, .. } if source.to_string().contains("run once")),
        "{again:?}"
    );
    container.remove().unwrap();
    assert!(!dir.exists());
}

#[test]
fn stop_asks_then_kills() {
    let fixture = Fixture::new();
    let polite = fixture.sleeper(|_| {});
    assert_eq!(polite.stop(None, LONG).unwrap().code, 0);
    let custom = fixture.sleeper(|config| {
        config.process.args[2] = "trap 'exit 5' USR2; while :; do sleep 0.05; done".to_owned();
        config.stop_signal = Some("SIGUSR2".to_owned());
    });
    assert_eq!(custom.stop(None, LONG).unwrap().code, 5);
    let deaf = fixture.sleeper(|config| config.process.args = ["sleep", "1000"].map(str::to_owned).to_vec());
    let before = Instant::now();
    assert_eq!(deaf.stop(None, Duration::from_millis(200)).unwrap().code, 137);
    assert!(before.elapsed() >= Duration::from_millis(200) && before.elapsed() < Duration::from_secs(5));
    assert!(matches!(deaf.stop(None, LONG), Err(ContainerError::NotRunning { .. })));
}

#[test]
fn children_die_with_the_first_process() {
    let fixture = Fixture::new();
    let before = Instant::now();
    let outcome = fixture.sh("sleep 1000 & sleep 1000 & echo up");
    assert_eq!(outcome.ok(), "up");
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[test]
fn many_at_once() {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for number in 0..24 {
            let fixture = &fixture;
            scope.spawn(move || {
                let outcome = fixture.sh(&format!("echo {number}; exit {number}"));
                assert_eq!((outcome.exit.code, outcome.out()), (number, number.to_string()));
            });
        }
    });
}

#[test]
fn the_shims_program_cannot_be_written() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    for pid in crate::fixture::shims(&fixture.containers()) {
        let found = rustix::fs::statvfs(format!("/proc/{pid}/exe")).unwrap();
        assert!(found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    }
    container.stop(Some(9), LONG).unwrap();
}
