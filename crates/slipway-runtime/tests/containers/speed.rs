//! Sixty containers in a row, each gone before the next. Prints how long one takes: run with `--nocapture`, in release, on a
//! quiet machine.

use std::path::Path;
use std::time::Instant;

use slipway_runtime::Container;

use crate::fixture::{Fixture, SHIM, follow};

#[test]
#[expect(clippy::print_stderr, reason = "the numbers are what it is for")]
fn create_to_removed() {
    let fixture = Fixture::new();
    let (mut all, mut spawn, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..60 {
        let config = fixture.config(&["true"]);
        let dir = fixture.containers().join(config.id.as_str());
        let begin = Instant::now();
        let container = Container::create(&dir, &config).unwrap();
        container.spawn_shim(Path::new(SHIM)).unwrap();
        spawn.push(begin.elapsed());
        assert_eq!(follow(&container.socket(), b"").exit.code, 0);
        rest.push(begin.elapsed());
        container.remove().unwrap();
        all.push(begin.elapsed());
    }
    for (what, mut times) in [("spawned", spawn), ("exited", rest), ("removed", all)] {
        times.sort();
        let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e3;
        eprintln!("{what:8} min {:.2} p10 {:.2} median {:.2} p90 {:.2} ms", at(0), at(10), at(50), at(90));
    }
}
