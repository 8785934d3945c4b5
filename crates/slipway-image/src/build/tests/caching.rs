//! What is executed again, and what is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::world::World;
use crate::build::{Builder, CancelFlag, LocalImages};
use crate::store::Store;

const DOCKERFILE: &str = "FROM base\nWORKDIR /app\nCOPY src /app/src\nRUN write /app/built from $VERSION\n\
                          ENV LATER=1\nRUN write /app/last x\n";

fn world() -> World {
    let world = World::new();
    world.file("src/main.py", "print(1)").file("src/deep/mod.py", "x = 1").file("rootfs/etc/os", "test");
    world.base("base", "FROM scratch\nCOPY rootfs /\n");
    world
}

#[test]
fn an_unchanged_build_executes_nothing() {
    let world = world();
    let first = world.build(DOCKERFILE);
    assert_eq!(first.counts(), (4, 1));
    let runs = world.runner.runs.lock().unwrap().len();
    std::thread::sleep(Duration::from_millis(5));
    let second = world.build(DOCKERFILE);
    assert_eq!(second.counts(), (0, 5));
    assert_eq!(second.image(), first.image());
    assert_eq!(world.runner.runs.lock().unwrap().len(), runs);
    assert_eq!(world.leftovers(), 0);
}

#[test]
fn the_cache_outlives_the_process() {
    let world = world();
    let first = world.build(DOCKERFILE);
    let World { dir, store, runner, bases, builder } = world;
    drop((store, bases, builder));
    let store = Store::open(dir.path().join("store")).unwrap();
    let builder = Builder::new(store.clone(), runner, std::sync::Arc::new(LocalImages(store)));
    let request = slipway_types::build::BuildRequest {
        context: dir.path().join("context"),
        dockerfile_text: Some(DOCKERFILE.to_owned()),
        ..Default::default()
    };
    let again = builder.build(&request, &|_| {}, &CancelFlag::new()).unwrap();
    assert_eq!((again.executed, again.image.unwrap()), (0, first.image()));
}

#[test]
fn only_what_counts_counts() {
    let world = world();
    let first = world.build(DOCKERFILE).image();
    let source = world.context().join("src/main.py");
    // Times are nothing, in the context or of it.
    fs::File::open(&source).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(world.build(DOCKERFILE).counts().0, 0);
    // A file that is not copied is nothing.
    world.file("unrelated", "x");
    assert_eq!(world.build(DOCKERFILE).counts().0, 0);
    // Content, mode, a new file, a link: everything from COPY on.
    let copies = ["COPY src /app/src", "RUN write /app/built from $VERSION", "RUN write /app/last x"];
    world.file("src/main.py", "print(2)");
    assert_eq!(world.build(DOCKERFILE).executed(), copies);
    fs::set_permissions(&source, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(world.build(DOCKERFILE).executed(), copies);
    std::os::unix::fs::symlink("main.py", world.context().join("src/link")).unwrap();
    assert_eq!(world.build(DOCKERFILE).executed(), copies);
    fs::remove_file(world.context().join("src/link")).unwrap();
    std::os::unix::fs::symlink("deep/mod.py", world.context().join("src/link")).unwrap();
    assert_eq!(world.build(DOCKERFILE).executed(), copies);
    // Back to how it was: all there still.
    fs::remove_file(world.context().join("src/link")).unwrap();
    world.file("src/main.py", "print(1)");
    let back = world.build(DOCKERFILE);
    assert_eq!((back.counts().0, back.image()), (0, first));
}

#[test]
fn arguments_count_where_they_are_seen() {
    let world = world();
    let dockerfile = "FROM base\nRUN write /before x\nARG VERSION=1\nRUN write /after x\nCOPY src /src\n";
    world.build(dockerfile);
    let changed = world.build_as(dockerfile, |request| {
        request.build_args.insert("VERSION".into(), "2".into());
    });
    // The layers below COPY are other ones, so it runs again too, unless they turn out the same.
    assert_eq!(changed.executed()[0], "RUN write /after x");
    assert!(!changed.executed().contains(&"RUN write /before x".to_owned()));
    // Proxies and certificates change nothing.
    let bundle = world.dir.path().join("ca.pem");
    fs::write(&bundle, "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n").unwrap();
    let proxied = world.build_as(dockerfile, |request| {
        request.build_args.insert("HTTPS_PROXY".into(), "http://proxy:1".into());
        request.ca_certificates = Some(bundle);
    });
    assert_eq!(proxied.counts().0, 0);
    // Unless ARG declares them.
    let declared = dockerfile.replace("ARG VERSION=1", "ARG VERSION=1\nARG HTTPS_PROXY");
    world.build(&declared);
    let proxied = world.build_as(&declared, |request| {
        request.build_args.insert("HTTPS_PROXY".into(), "http://proxy:1".into());
    });
    assert!(proxied.counts().0 > 0);
}

#[test]
fn every_input_of_run_counts() {
    let world = world();
    let key_changes =
        |dockerfile: &str| world.build(dockerfile).executed().contains(&"RUN write /x y".to_owned());
    assert!(key_changes("FROM base\nRUN write /x y\n"));
    assert!(!key_changes("FROM base\nRUN write /x y\n"));
    // Not seen by RUN.
    assert!(!key_changes("FROM base\nLABEL a=b\nEXPOSE 1\nCMD x\nRUN write /x y\n"));
    for before in ["ENV A=1", "USER app", "SHELL [\"/bin/sh\", \"-c\"]\nENV B=2", "ARG Z=1"] {
        let dockerfile = format!("FROM base\n{before}\nRUN write /x y\n");
        assert!(key_changes(&dockerfile), "{before}");
        assert!(!key_changes(&dockerfile), "{before}");
    }
    for run in ["RUN --network=none write /x y", "RUN --mount=type=tmpfs,target=/t write /x y"] {
        let executed = world.build(&format!("FROM base\n{run}\n")).executed();
        assert_eq!(executed, [run]);
    }
    let offline = world.build_as("FROM base\nRUN write /n y\n", |request| {
        request.network = Some(slipway_types::container::NetworkMode::Host);
    });
    let default = world.build("FROM base\nRUN write /n y\n");
    assert_eq!((offline.counts().0, default.counts().0), (1, 0));
}

#[test]
fn copies_between_stages_look_at_contents() {
    let world = world();
    let dockerfile = "FROM base AS build\nCOPY src /src\nRUN write /out same\n\
                      FROM base\nCOPY --from=build /out /out\nRUN write /last x\n";
    let first = world.build(dockerfile);
    world.file("src/main.py", "changed");
    let second = world.build(dockerfile);
    // The stage was built anew, and what is taken from it is the same.
    assert_eq!(second.executed(), ["COPY src /src", "RUN write /out same"]);
    assert_eq!(second.image(), first.image());
    assert_eq!(world.build(dockerfile).counts().0, 0);
}

#[test]
fn no_cache_executes_and_keeps() {
    let world = world();
    let first = world.build(DOCKERFILE);
    let forced = world.build_as(DOCKERFILE, |request| request.no_cache = true);
    assert_eq!(forced.counts(), (4, 1));
    assert_ne!(forced.image(), first.image());
    let after = world.build(DOCKERFILE);
    assert_eq!((after.counts().0, after.image()), (0, forced.image()));
}

#[test]
fn a_pull_asks_the_registry() {
    let world = world();
    world.build(DOCKERFILE);
    let asked = world.bases.asked.load(Ordering::SeqCst);
    let pulled = world.build_as(DOCKERFILE, |request| request.pull = true);
    assert_eq!(pulled.executed(), ["FROM base"]);
    assert_eq!(world.bases.asked.load(Ordering::SeqCst), asked + 1);
}

#[test]
fn a_date_can_be_set() {
    let world = world();
    let build = || {
        world.build_as(DOCKERFILE, |request| {
            request.build_args.insert("SOURCE_DATE_EPOCH".into(), "1000000000".into());
        })
    };
    let config = world.config(&build().image());
    assert_eq!(config["created"], "2001-09-09T01:46:40Z");
    let history = config["history"].as_array().unwrap();
    assert!(history[1..].iter().all(|entry| entry["created"] == "2001-09-09T01:46:40Z"), "{history:?}");
    // A date that is no date.
    let error = world.fail_as(DOCKERFILE, |request| {
        request.build_args.insert("SOURCE_DATE_EPOCH".into(), "yesterday".into());
    });
    assert!(error.to_string().contains("seconds since 1970"));
}

#[test]
fn a_lost_layer_is_made_again() {
    let world = world();
    let first = world.build(DOCKERFILE).image();
    // Nothing is tagged, so everything but the base may go.
    let options = crate::store::PruneOptions { all: false, build_cache: true };
    world.store.prune(&options).unwrap();
    assert!(world.store.image(&first).is_err());
    let again = world.build(DOCKERFILE);
    assert_eq!(again.counts().0, 4);
    assert_eq!(world.files(&again.image()).len(), 9);
}

/// Prints how long a build takes when none of 20,000 files changed.
#[test]
fn twenty_thousand_unchanged_files() {
    let world = World::new();
    for folder in 0..200 {
        let at = world.context().join(format!("data/part-{folder:03}"));
        fs::create_dir_all(&at).unwrap();
        for file in 0..100 {
            fs::write(at.join(format!("file-{file:03}.txt")), format!("{folder} {file}")).unwrap();
        }
    }
    // Files that changed a moment ago are not trusted.
    std::thread::sleep(Duration::from_millis(2100));
    let dockerfile = "FROM scratch\nCOPY . /\n";
    let first = Instant::now();
    let image = world.build(dockerfile).image();
    let first = first.elapsed();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        let again = world.build(dockerfile);
        best = best.min(started.elapsed());
        assert_eq!((again.counts(), again.image()), ((0, 1), image.clone()));
    }
    #[expect(clippy::print_stdout, reason = "a figure for people; machines differ too much to assert on it")]
    {
        println!("20,000 files: first build {first:?}, unchanged {best:?}");
    }
}
