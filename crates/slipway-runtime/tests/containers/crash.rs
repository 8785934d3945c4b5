//! SIGKILL at any moment: nothing is left that a sweep does not find and remove.

use std::time::Duration;

use slipway_runtime::{Container, ContainerError, Leak};
use slipway_types::container::{ContainerState, ExecSpec};

use crate::fixture::{Fixture, LONG, SHIM, eventually, kill, shims};

#[test]
fn a_killed_shim_is_recovered() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    let pid = container.observe().unwrap().pid.unwrap();
    let init = format!("/proc/{pid}");
    shims(&fixture.containers()).into_iter().for_each(kill);
    eventually("the container dies with it", || {
        std::fs::read_to_string(format!("{init}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
    eventually("the shim is dead", || !container.observe().unwrap().shim_alive);
    let seen = container.observe().unwrap();
    assert_eq!((seen.state, seen.shim_alive, seen.needs_recovery), (ContainerState::Running, false, true));
    assert!(matches!(container.wait_exit(Some(LONG)), Err(ContainerError::ShimGone { .. })));
    assert!(matches!(container.clone().remove(), Err(ContainerError::ShimGone { .. })));
    let leaks = slipway_runtime::check(&fixture.containers()).unwrap();
    let dir = std::fs::canonicalize(container.dir()).unwrap();
    assert_eq!(leaks, [Leak::Container { dir }]);
    let exit = container.recover().unwrap().unwrap();
    assert_eq!((exit.code, exit.error.as_deref()), (137, Some("the shim was killed")));
    assert_eq!(container.observe().unwrap().exit, Some(exit.clone()));
    assert_eq!(container.recover().unwrap(), Some(exit), "again is fine");
    assert!(container.stats().is_err());
}

#[test]
fn processes_that_lost_everyone_are_found() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|config| config.process.args[2] = "sleep 1000 & sleep 1000".to_owned());
    container
        .exec(SHIM.as_ref(), "x", &ExecSpec { command: vec!["true".to_owned()], ..Default::default() })
        .unwrap();
    shims(&fixture.containers()).into_iter().for_each(kill);
    eventually("the shim is dead", || container.observe().unwrap().needs_recovery);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(container.recover().unwrap().unwrap().code, 137));
        }
    });
    assert!(!container.socket().exists());
    assert_eq!(slipway_runtime::check(&fixture.containers()).unwrap(), []);
}

#[test]
fn killed_at_every_moment() {
    let fixture = Fixture::new();
    // From before it has its lock to after the process runs, in steps of a fraction of a start.
    for step in 0..40 {
        let mut config = fixture.config(&["sleep", "1000"]);
        config.wait_for_attach = step % 2 == 0;
        let container = fixture.start(&config);
        std::thread::sleep(Duration::from_micros(step * 400));
        shims(&fixture.containers()).into_iter().for_each(kill);
        eventually("the shim is gone", || !container.observe().unwrap().shim_alive);
        let exit = container.recover().unwrap().expect("a shim was started");
        assert_eq!(exit.code, 137, "step {step}");
        // A clone that was on its way into the cgroup ends by itself.
        eventually("no process is left", || {
            let leaks = slipway_runtime::check(&fixture.containers()).unwrap();
            leaks.is_empty() || {
                slipway_runtime::prune(&leaks);
                false
            }
        });
        container.remove().unwrap();
    }
}

#[test]
fn a_sweep_finds_and_removes_each_kind() {
    let fixture = Fixture::new();
    let root = std::fs::canonicalize(fixture.containers()).unwrap();
    // A folder that never became a container, an hour ago, and one of this moment.
    let (old, new) = (root.join("old"), root.join("new"));
    for folder in [&old, &new] {
        std::fs::create_dir(folder).unwrap();
    }
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::open(&old).unwrap().set_modified(hour_ago).unwrap();
    // A mount of someone who did not use a namespace.
    let place = root.join("new/mnt point");
    std::fs::create_dir(&place).unwrap();
    rustix::mount::mount("tmpfs", &place, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    // A cgroup whose container's folder was removed by force, and its shim.
    let container = fixture.sleeper(|_| {});
    let dir = std::fs::canonicalize(container.dir()).unwrap();
    let name = container.config().id.to_string();
    let shim = shims(&root)[0] as u32;
    std::fs::remove_dir_all(&dir).unwrap();
    let leaks = slipway_runtime::check(&root).unwrap();
    assert!(leaks.contains(&Leak::Folder { path: old.clone() }), "{leaks:?}");
    assert!(leaks.contains(&Leak::Mount { path: place.clone() }), "{leaks:?}");
    assert!(leaks.contains(&Leak::Shim { pid: shim, dir }), "{leaks:?}");
    assert!(
        leaks.iter().any(
            |leak| matches!(leak, Leak::Cgroup { name: found, pids } if *found == name && !pids.is_empty())
        ),
        "{leaks:?}"
    );
    assert_eq!(leaks.len(), 4, "{leaks:?}");
    // Another instance's sweep leaves it all alone.
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(slipway_runtime::check(elsewhere.path()).unwrap(), []);
    let failed = slipway_runtime::prune(&leaks);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(!old.exists() && new.exists());
    assert_eq!(fixture.leaks(), []);
    std::fs::remove_dir_all(new).unwrap();
}

#[test]
fn no_daemon_is_needed() {
    // What holds a container is its shim: a handle made by anyone, any time later, serves as well.
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    let dir = container.dir().to_owned();
    drop(container);
    let again = Container::open(&dir).unwrap();
    assert!(again.observe().unwrap().shim_alive);
    assert_eq!(again.stop(None, LONG).unwrap().code, 0);
}
