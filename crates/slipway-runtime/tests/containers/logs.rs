//! The log of a real container.

use std::time::Duration;

use slipway_runtime::{LogNext, LogOptions};
use slipway_types::container::OutputStream;

use crate::fixture::{Fixture, LONG};

#[test]
fn lines_of_both_streams() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "echo one; echo two >&2; printf 'no end'"]);
    config.log = true;
    let (container, _) = fixture.run_config(&config);
    let mut lines: Vec<_> = container
        .logs(LogOptions::default())
        .unwrap()
        .map(|line| line.unwrap())
        .map(|line| (line.stream, line.text))
        .collect();
    lines.sort_by_key(|(stream, _)| *stream == OutputStream::Stderr);
    let text = |text: &str| text.to_owned();
    assert_eq!(
        lines,
        [
            (OutputStream::Stdout, text("one")),
            (OutputStream::Stdout, text("no end")),
            (OutputStream::Stderr, text("two"))
        ]
    );
}

#[test]
fn since_tail_and_follow() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "echo 1; echo 2; sleep 0.3; echo 3; sleep 0.3; echo 4"]);
    config.log = true;
    config.wait_for_attach = false;
    let container = fixture.start(&config);
    container.wait_started(LONG).unwrap();
    let followed: Vec<_> = container
        .logs(LogOptions { follow: true, ..Default::default() })
        .unwrap()
        .map(|line| line.unwrap())
        .collect();
    let texts: Vec<_> = followed.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts, ["1", "2", "3", "4"], "a follower sees the end");
    let since = followed[2].time;
    let later: Vec<_> = container
        .logs(LogOptions { since: Some(since), ..Default::default() })
        .unwrap()
        .map(|line| line.unwrap().text)
        .collect();
    assert_eq!(later, ["3", "4"]);
    let last: Vec<_> = container
        .logs(LogOptions { tail: Some(3), ..Default::default() })
        .unwrap()
        .map(|line| line.unwrap().text)
        .collect();
    assert_eq!(last, ["2", "3", "4"]);
}

#[test]
fn a_follower_of_a_quiet_container_can_leave() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|config| config.log = true);
    let mut reader = container.logs(LogOptions { follow: true, ..Default::default() }).unwrap();
    assert_eq!(reader.next_within(Duration::from_millis(100)).unwrap(), LogNext::Idle);
    container.stop(None, LONG).unwrap();
    assert_eq!(reader.next_within(LONG).unwrap(), LogNext::End);
}

#[test]
fn a_log_stays_within_its_size() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "seq 1 200000"]);
    config.log = true;
    config.log_bytes = 1 << 20;
    let (container, outcome) = fixture.run_config(&config);
    assert_eq!(outcome.exit.code, 0);
    for name in ["log", "log.1"] {
        assert!(std::fs::metadata(container.dir().join(name)).unwrap().len() <= 1 << 20, "{name}");
    }
    assert_eq!(container.logs(Default::default()).unwrap().last().unwrap().unwrap().text, "200000");
}
