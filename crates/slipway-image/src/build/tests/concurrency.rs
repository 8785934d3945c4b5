//! Stages side by side, builds side by side, and builds that end early.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slipway_types::build::BuildEvent;

use super::world::World;
use crate::build::{BuildError, CancelFlag};

#[test]
fn independent_stages_run_side_by_side() {
    let world = World::new();
    let dockerfile = "FROM scratch AS a\nRUN write /a x && pause 150\nFROM scratch AS b\nRUN write /b x && pause 150\n\
                      FROM scratch AS unused\nRUN exit 9\n\
                      FROM scratch\nRUN write /c x && pause 150\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
    let built = world.build(dockerfile);
    assert_eq!(world.files(&built.image()), ["/a x", "/b x", "/c x"]);
    assert_eq!(world.runner.most_at_once.load(Ordering::SeqCst), 2);
    assert_eq!(built.counts(), (5, 0));
    // Numbers come in order, and the total is right from the start.
    let numbers: Vec<(u32, u32)> = built
        .events
        .iter()
        .filter_map(|event| match event {
            BuildEvent::StepStarted { step, total, .. } => Some((*step, *total)),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
}

#[test]
fn one_step_is_executed_once_by_two_builds() {
    let world = World::new();
    let dockerfile = "FROM scratch\nRUN write /x y && pause 200\n";
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| world.build(dockerfile));
        let two = scope.spawn(|| world.build(dockerfile));
        (one.join().unwrap(), two.join().unwrap())
    });
    assert_eq!(one.image(), two.image());
    assert_eq!(one.outcome.executed + two.outcome.executed, 1);
    assert_eq!(world.runner.runs.lock().unwrap().len(), 1);
}

#[test]
fn many_builds_of_one_context() {
    let world = World::new();
    for number in 0..50 {
        world.file(&format!("d/{number}"), &number.to_string());
    }
    let images: Vec<_> = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..4)
            .map(|number| {
                let world = &world;
                let dockerfile = format!("FROM scratch\nCOPY d /d\nRUN write /n {}\n", number % 2);
                scope.spawn(move || world.build(&dockerfile).image())
            })
            .collect();
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    });
    assert_eq!(images[0], images[2]);
    assert_ne!(images[0], images[1]);
    assert_eq!(world.files(&images[1]).len(), 52);
    assert_eq!(world.leftovers(), 0);
}

#[test]
fn a_cancelled_build_stops_its_step() {
    let world = World::new();
    let cancel = CancelFlag::new();
    let request = world.request("FROM scratch\nRUN write /done x\nRUN hang\n");
    let started = Instant::now();
    let result = std::thread::scope(|scope| {
        let build = scope.spawn(|| world.builder.build(&request, &|_| {}, &cancel));
        while world.runner.runs.lock().unwrap().len() < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        cancel.cancel();
        build.join().unwrap()
    });
    assert!(matches!(result, Err(BuildError::Cancelled)), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(world.leftovers(), 0);
    // What was finished before is kept.
    let done = world.build("FROM scratch\nRUN write /done x\n");
    assert_eq!(done.counts(), (0, 1));
}

#[test]
fn a_failure_stops_the_other_stages() {
    let world = World::new();
    let dockerfile = "FROM scratch AS a\nRUN hang\nFROM scratch AS b\nRUN pause 50 && exit 4\n\
                      FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
    let failure = world.fail(dockerfile).into_failure();
    assert_eq!(failure.exit_code, Some(4));
    assert_eq!(world.leftovers(), 0);
}

#[test]
fn events_end_with_the_build() {
    let world = World::new();
    let events = Mutex::new(Vec::new());
    let request = world.request("FROM scratch\nRUN write /x y\n");
    let outcome =
        world.builder.build(&request, &|event| events.lock().unwrap().push(event), &CancelFlag::new());
    let outcome = outcome.unwrap();
    assert!(matches!(outcome.event(), Some(BuildEvent::Finished { executed: 1, cached: 0, .. })));
    let events = events.into_inner().unwrap();
    assert!(matches!(events.last(), Some(BuildEvent::StepFinished { step: 1, cached: false, .. })));
}
