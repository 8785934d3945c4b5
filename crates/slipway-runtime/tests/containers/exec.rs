//! More processes in a running container.

use std::time::Duration;

use slipway_runtime::ContainerError;
use slipway_runtime::attach::{AttachClient, Event};
use slipway_types::container::ExecSpec;

use crate::fixture::{Fixture, LONG, SHIM, eventually, exec, exec_spec};

fn spec(args: &[&str]) -> ExecSpec {
    ExecSpec { command: args.iter().map(|arg| (*arg).to_owned()).collect(), ..ExecSpec::default() }
}

#[test]
fn exit_codes() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    assert_eq!(exec(&container, &["true"]).exit.code, 0);
    assert_eq!(exec(&container, &["sh", "-c", "echo out; echo err >&2; exit 42"]).exit.code, 42);
    assert_eq!(exec(&container, &["sh", "-c", "kill -9 $$"]).exit.code, 137);
    let missing = exec(&container, &["nope"]).exit;
    assert_eq!(missing.code, 127, "{missing:?}");
    assert!(missing.error.unwrap().contains("PATH (/bin)"));
    let denied = exec(&container, &["/etc/motd"]).exit;
    assert_eq!(denied.code, 126, "{denied:?}");
    let user =
        exec_spec(&container, "u", &ExecSpec { user: Some("eve".to_owned()), ..spec(&["true"]) }, b"").exit;
    assert_eq!(user.code, 125, "{user:?}");
    container.stop(None, LONG).unwrap();
}

#[test]
fn it_is_in_the_container() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|config| config.process.env.push("BASE=1".to_owned()));
    let mine = exec(
        &container,
        &["sh", "-c", "for n in pid mnt uts ipc net cgroup; do readlink /proc/1/ns/$n; done"],
    )
    .ok();
    let own = exec(
        &container,
        &["sh", "-c", "for n in pid mnt uts ipc net cgroup; do readlink /proc/self/ns/$n; done"],
    )
    .ok();
    assert_eq!(mine, own);
    assert_eq!(
        exec(&container, &["cat", "/proc/self/cgroup"]).ok(),
        exec(&container, &["cat", "/proc/1/cgroup"]).ok()
    );
    let status = exec(&container, &["cat", "/proc/self/status"]).ok();
    for expected in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "SigIgn:\t0000000000000000",
    ] {
        assert!(status.contains(expected), "{expected} in {status}");
    }
    assert!(exec(&container, &["unshare", "-m", "true"]).err().contains("not permitted"));
    assert_eq!(exec(&container, &["ls", "/proc/self/fd"]).ok(), "0\n1\n2\n3");
    assert_eq!(exec(&container, &["sh", "-c", "echo $BASE $HOME $(pwd) $(id -u)"]).ok(), "1 /root / 0");
    let other = ExecSpec {
        env: vec!["BASE=2".to_owned(), "MORE=3".to_owned()],
        workdir: Some("/tmp".to_owned()),
        user: Some("ann".to_owned()),
        ..spec(&["sh", "-c", "echo $BASE $MORE $HOME $(pwd) $(id -u) $(id -G)"])
    };
    assert_eq!(exec_spec(&container, "other", &other, b"").ok(), "2 3 /home/ann /tmp 1000 1001 44");
    container.stop(None, LONG).unwrap();
}

#[test]
fn input_and_much_output() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    let request = ExecSpec { interactive: true, ..spec(&["cat"]) };
    let input: Vec<u8> = (0..8_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let outcome = exec_spec(&container, "cat", &request, &input);
    assert_eq!(outcome.exit.code, 0);
    assert!(outcome.stdout == input);
    assert_eq!(exec(&container, &["cat"]).ok(), "", "no input unless asked for");
    container.stop(None, LONG).unwrap();
}

#[test]
fn signals_reach_it() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    let socket = container.exec(SHIM.as_ref(), "sleep", &spec(&["sleep", "1000"])).unwrap();
    let mut client = AttachClient::connect(&socket).unwrap();
    client.attach(false).unwrap();
    let (sender, mut reader) = client.split().unwrap();
    assert!(matches!(reader.next_event().unwrap(), Some(Event::Started { .. })));
    sender.signal(15).unwrap();
    assert!(matches!(reader.next_event().unwrap(), Some(Event::Exit(exit)) if exit.code == 143));
    eventually("its files are gone", || !socket.exists());
    container.stop(None, LONG).unwrap();
}

#[test]
fn it_ends_with_the_container() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    let socket = container.exec(SHIM.as_ref(), "long", &spec(&["sleep", "1000"])).unwrap();
    let waiting = container.exec(SHIM.as_ref(), "waiting", &spec(&["true"])).unwrap();
    let mut client = AttachClient::connect(&socket).unwrap();
    client.attach(false).unwrap();
    assert!(matches!(client.next_event().unwrap(), Some(Event::Started { .. })));
    container.stop(None, LONG).unwrap();
    assert!(matches!(client.next_event().unwrap(), Some(Event::Exit(exit)) if exit.code == 137));
    // One that has not started joins nothing, whoever may have the number now.
    let outcome = crate::fixture::follow(&waiting, b"");
    assert_eq!(outcome.exit.code, 125, "{:?}", outcome.exit);
    assert!(matches!(
        container.exec(SHIM.as_ref(), "late", &spec(&["true"])),
        Err(ContainerError::NotRunning { .. })
    ));
}

#[test]
fn it_outlives_its_client() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    let socket =
        container.exec(SHIM.as_ref(), "x", &spec(&["sh", "-c", "sleep 0.3; echo done > /tmp/done"])).unwrap();
    let mut client = AttachClient::connect(&socket).unwrap();
    client.attach(false).unwrap();
    assert!(matches!(client.next_event().unwrap(), Some(Event::Started { .. })));
    drop(client);
    eventually("it went on", || exec(&container, &["cat", "/tmp/done"]).out() == "done");
    container.stop(None, LONG).unwrap();
}

#[test]
fn a_dead_shim_takes_it_along() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    let socket = container.exec(SHIM.as_ref(), "x", &spec(&["sleep", "4242"])).unwrap();
    let mut client = AttachClient::connect(&socket).unwrap();
    client.attach(false).unwrap();
    let Some(Event::Started { pid, .. }) = client.next_event().unwrap() else { panic!("not started") };
    let line = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let shim = crate::fixture::shims(&fixture.containers())
        .into_iter()
        .find(|pid| line(*pid).contains("exec"))
        .unwrap();
    crate::fixture::kill(shim);
    eventually("the process is gone", || !line(pid as i32).contains("4242"));
    assert_eq!(client.next_event().unwrap(), None);
    container.stop(None, LONG).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let leaks = slipway_runtime::check(&fixture.containers()).unwrap();
    assert!(
        leaks.iter().all(|leak| matches!(leak, slipway_runtime::Leak::Socket { .. })) && !leaks.is_empty(),
        "{leaks:?}"
    );
    assert!(slipway_runtime::prune(&leaks).is_empty());
}

#[test]
fn bad_requests() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    for (id, request) in [("../x", spec(&["true"])), ("", spec(&["true"])), ("a", spec(&[]))] {
        let refused = container.exec(SHIM.as_ref(), id, &request);
        assert!(matches!(refused, Err(ContainerError::InvalidExec { .. })), "{id}: {refused:?}");
    }
    container.stop(None, LONG).unwrap();
}
