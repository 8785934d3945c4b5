//! Limits, and what is counted.

use std::path::Path;

use slipway_types::container::Limits;

use crate::fixture::{Fixture, LONG, exec};

fn limits(memory: Option<u64>, cpu_millis: Option<u32>, pids: Option<u32>) -> Limits {
    Limits { memory, cpu_millis, pids }
}

#[test]
fn a_process_that_eats_all_memory_is_told_apart() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["tail", "/dev/zero"]);
    config.limits = limits(Some(24 << 20), None, None);
    let outcome = fixture.run_config(&config).1;
    assert_eq!(outcome.exit.code, 137);
    assert!(outcome.exit.oom_killed);
    let peak = outcome.exit.peak_memory.unwrap();
    assert!((12 << 20..=24 << 20).contains(&peak), "{peak}");
    // A child's death counts when its parent fails of it, not when it goes on.
    config = fixture.config(&["sh", "-c", "tail /dev/zero; exit 3"]);
    config.limits = limits(Some(24 << 20), None, None);
    let outcome = fixture.run_config(&config).1;
    assert_eq!((outcome.exit.code, outcome.exit.oom_killed), (3, true));
    config = fixture.config(&["sh", "-c", "tail /dev/zero; exit 0"]);
    config.limits = limits(Some(24 << 20), None, None);
    let outcome = fixture.run_config(&config).1;
    assert_eq!((outcome.exit.code, outcome.exit.oom_killed), (0, false));
}

#[test]
fn too_many_processes() {
    let fixture = Fixture::new();
    let mut config =
        fixture.config(&["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all"]);
    config.limits = limits(None, None, Some(6));
    let outcome = fixture.run_config(&config).1;
    assert!(outcome.err().contains("fork"), "{}", outcome.err());
    assert_ne!(outcome.out(), "all");
}

#[test]
fn limits_are_what_was_asked_for() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|config| config.limits = limits(Some(64 << 20), Some(1500), Some(50)));
    let read = |v1: &str, v2: &str| {
        exec(&container, &["sh", "-c", &format!("cat {v1} 2>/dev/null || cat {v2}")]).ok()
    };
    let group = "/sys/fs/cgroup";
    assert_eq!(
        read(&format!("{group}/memory/memory.limit_in_bytes"), &format!("{group}/memory.max")),
        "67108864"
    );
    let cpu = read(&format!("{group}/cpu/cpu.cfs_quota_us"), &format!("{group}/cpu.max"));
    assert_eq!(cpu.split(' ').next().unwrap(), "150000");
    assert_eq!(read(&format!("{group}/pids/pids.max"), &format!("{group}/pids.max")), "50");
    let stats = container.stats().unwrap();
    assert_eq!(stats.memory_limit, Some(64 << 20));
    assert!(stats.pids >= 1 && stats.memory_current > 0 && stats.cpu_usec > 0, "{stats:?}");
    assert_eq!(stats.oom_kills, 0);
    container.stop(None, LONG).unwrap();
}

#[test]
fn a_cpu_limit_holds() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|config| {
        config.process.args = ["sh", "-c", "while :; do :; done"].map(str::to_owned).to_vec();
        config.limits = limits(None, Some(200), None);
    });
    std::thread::sleep(std::time::Duration::from_secs(1));
    let stats = container.stats().unwrap();
    assert!(stats.cpu_usec < 500_000 && stats.throttled_usec > 0 && stats.throttled_periods > 0, "{stats:?}");
    container.stop(Some(9), LONG).unwrap();
}

#[test]
fn the_cgroup_goes_with_the_container() {
    let fixture = Fixture::new();
    let container = fixture.sleeper(|_| {});
    let id = container.config().id.to_string();
    let roots: Vec<_> =
        std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()).collect();
    let there = |id: &str| {
        roots.iter().map(|root| root.join("slipway").join(id)).filter(|folder| folder.exists()).count()
            + usize::from(Path::new("/sys/fs/cgroup/slipway").join(id).exists())
    };
    assert!(there(&id) > 0);
    container.stop(Some(9), LONG).unwrap();
    assert_eq!(there(&id), 0);
}
