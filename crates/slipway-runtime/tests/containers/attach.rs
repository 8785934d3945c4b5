//! Clients of a shim: fast ones, slow ones, those that leave.

use std::io::Read;
use std::time::{Duration, Instant};

use slipway_runtime::attach::{AttachClient, Event};
use slipway_types::container::ContainerState;

use crate::fixture::{Fixture, LONG, follow};

#[test]
fn input_is_passed_on() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "wc -c; echo end"]);
    config.interactive = true;
    let container = fixture.start(&config);
    let input = vec![b'x'; 5 << 20];
    assert_eq!(follow(&container.socket(), &input).ok(), format!("{}\nend", 5 << 20));
    // Not asked for: at its end from the start.
    assert_eq!(fixture.run(&["cat"]).ok(), "");
}

#[test]
fn a_conversation() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "while read line; do echo got $line; done; echo bye"]);
    config.interactive = true;
    let container = fixture.start(&config);
    let mut client = AttachClient::connect(&container.socket()).unwrap();
    client.attach(false).unwrap();
    let (mut sender, mut reader) = client.split().unwrap();
    assert!(matches!(reader.next_event().unwrap(), Some(Event::Started { .. })));
    for word in ["one", "two"] {
        sender.stdin(format!("{word}\n").as_bytes()).unwrap();
        assert_eq!(reader.next_event().unwrap(), Some(Event::Stdout(format!("got {word}\n").into_bytes())));
    }
    sender.stdin_eof().unwrap();
    assert_eq!(reader.next_event().unwrap(), Some(Event::Stdout(b"bye\n".to_vec())));
    assert!(matches!(reader.next_event().unwrap(), Some(Event::Exit(exit)) if exit.code == 0));
    assert_eq!(reader.next_event().unwrap(), None);
}

#[test]
fn input_ends_with_its_client() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "cat > /dev/null; exit 4"]);
    config.interactive = true;
    let container = fixture.start(&config);
    let mut client = AttachClient::connect(&container.socket()).unwrap();
    client.attach(false).unwrap();
    container.wait_started(LONG).unwrap();
    drop(client);
    assert_eq!(container.wait_exit(Some(LONG)).unwrap().code, 4);
}

#[test]
fn much_output_arrives_whole() {
    let fixture = Fixture::new();
    let outcome = fixture.sh("dd if=/dev/zero bs=1M count=100 2>/dev/null; echo error >&2");
    assert_eq!(outcome.exit.code, 0);
    assert_eq!(outcome.stdout.len(), 100 << 20);
    assert_eq!(outcome.err(), "error");
}

#[test]
fn a_slow_client_slows_the_process_and_loses_nothing() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "seq 1 1000000"]);
    config.log = true;
    config.log_bytes = 1 << 30;
    let container = fixture.start(&config);
    let mut client = AttachClient::connect(&container.socket()).unwrap();
    client.attach(false).unwrap();
    container.wait_started(LONG).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    // Some megabytes are kept for the client; the rest is still to be written by the process.
    assert_eq!(container.observe().unwrap().state, ContainerState::Running);
    let mut text = Vec::new();
    while let Some(event) = client.next_event().unwrap() {
        if let Event::Stdout(bytes) = event {
            text.extend(bytes);
        }
    }
    let expected: String = (1..=1_000_000).map(|number| format!("{number}\n")).collect();
    assert!(text == expected.as_bytes());
    let lines = container.logs(Default::default()).unwrap().map(|line| line.unwrap().text);
    assert!(lines.eq((1..=1_000_000).map(|number: i32| number.to_string())));
}

#[test]
fn a_dead_client_blocks_nobody() {
    let fixture = Fixture::new();
    let container = fixture.start(&fixture.config(&["sh", "-c", "seq 1 2000000; exit 6"]));
    let mut client = AttachClient::connect(&container.socket()).unwrap();
    client.attach(false).unwrap();
    container.wait_started(LONG).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    drop(client);
    assert_eq!(container.wait_exit(Some(LONG)).unwrap().code, 6);
}

#[test]
fn the_process_waits_for_its_client() {
    let fixture = Fixture::new();
    let container = fixture.start(&fixture.config(&["echo", "here"]));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(container.observe().unwrap().state, ContainerState::Created);
    let outcome = follow(&container.socket(), b"");
    assert_eq!(outcome.ok(), "here");
}

#[test]
fn a_waiting_container_can_be_ended() {
    let fixture = Fixture::new();
    let container = fixture.start(&fixture.config(&["true"]));
    container.signal(15).unwrap();
    let exit = container.wait_exit(Some(LONG)).unwrap();
    assert_eq!(exit.code, 143);
    assert!(container.observe().unwrap().started_at.is_none());
}

#[test]
fn a_build_step_dies_with_its_client() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sleep", "1000"]);
    config.kill_on_detach = true;
    let container = fixture.start(&config);
    let mut client = AttachClient::connect(&container.socket()).unwrap();
    client.attach(false).unwrap();
    container.wait_started(LONG).unwrap();
    let before = Instant::now();
    drop(client);
    let exit = container.wait_exit(Some(LONG)).unwrap();
    assert_eq!(exit.code, 137);
    assert!(exit.error.unwrap().contains("client"));
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[test]
fn several_clients_see_the_same() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "echo early; cat; echo late"]);
    config.interactive = true;
    config.log = true;
    let container = fixture.start(&config);
    let mut first = AttachClient::connect(&container.socket()).unwrap();
    first.attach(false).unwrap();
    assert!(matches!(first.next_event().unwrap(), Some(Event::Started { .. })));
    assert_eq!(first.next_event().unwrap(), Some(Event::Stdout(b"early\n".to_vec())));
    let socket = container.socket();
    let reader = |replay: bool| {
        let mut client = AttachClient::connect(&socket).unwrap();
        client.attach(replay).unwrap();
        assert!(matches!(client.next_event().unwrap(), Some(Event::Started { .. })));
        client
    };
    let (mut replaying, mut late) = (reader(true), reader(false));
    assert_eq!(replaying.next_event().unwrap(), Some(Event::Stdout(b"early\n".to_vec())));
    // A request that is answered comes after those before it.
    container.signal(28).unwrap();
    let (mut sender, mut first) = first.split().unwrap();
    sender.stdin_eof().unwrap();
    assert_eq!(first.next_event().unwrap(), Some(Event::Stdout(b"late\n".to_vec())));
    assert_eq!(late.next_event().unwrap(), Some(Event::Stdout(b"late\n".to_vec())));
    assert_eq!(replaying.next_event().unwrap(), Some(Event::Stdout(b"late\n".to_vec())));
    for client in [&mut late, &mut replaying] {
        assert!(matches!(client.next_event().unwrap(), Some(Event::Exit(_))));
    }
}

#[test]
fn a_replay_of_a_long_log_is_whole() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "seq 1 300000; printf unfinished; cat"]);
    config.interactive = true;
    config.log = true;
    config.wait_for_attach = false;
    let container = fixture.start(&config);
    let last = |container: &slipway_runtime::Container| {
        container.logs(slipway_runtime::LogOptions { tail: Some(1), ..Default::default() }).unwrap().last()
    };
    crate::fixture::eventually("all is logged", || {
        last(&container).is_some_and(|line| line.unwrap().text == "300000")
    });
    std::thread::sleep(Duration::from_millis(100));
    let mut client = AttachClient::connect(&container.socket()).unwrap();
    client.attach(true).unwrap();
    let (mut sender, mut reader) = client.split().unwrap();
    let mut text = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        if let Event::Stdout(bytes) = event {
            text.extend(bytes);
            if text.ends_with(b"unfinished") {
                sender.stdin(b" but now").unwrap();
                sender.stdin_eof().unwrap();
            }
        }
    }
    let expected: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
    assert!(text == format!("{expected}unfinished but now").as_bytes());
}

#[test]
fn nonsense_ends_only_its_own_connection() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    let mut stream = std::os::unix::net::UnixStream::connect(container.socket()).unwrap();
    std::io::Write::write_all(&mut stream, &[250; 64]).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(!answer.is_empty());
    assert_eq!(container.observe().unwrap().state, ContainerState::Running);
    container.stop(None, LONG).unwrap();
}

#[test]
fn a_shim_that_cannot_start_still_tells_its_client() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["true"]);
    config.process.user = "nobody-here".to_owned();
    let container = fixture.start(&config);
    container.wait_exit(Some(LONG)).unwrap();
    let outcome = follow(&container.socket(), b"");
    assert_eq!(outcome.exit.code, 125);
    assert!(outcome.exit.error.unwrap().contains("nobody-here"));
}
