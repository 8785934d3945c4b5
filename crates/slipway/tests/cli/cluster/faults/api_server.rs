//! An API server that restarts, cuts what it streams, or refuses for a while.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::super::Cluster;
use super::super::engine::load;
use super::proxy::Proxy;
use super::*;

/// Names of ready pods of a revision, each with its UID.
fn ready_pods(cluster: &Cluster, revision: u32) -> Vec<String> {
    let label = format!("slipway.dev/revision={revision}");
    let form = "jsonpath={range .items[*]}{.metadata.name}={.metadata.uid} \
                {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
    let text = cluster.kubectl(&["get", "pods", "--selector", &label, "--output", form]);
    text.lines().filter_map(|line| Some(line.strip_suffix(" True")?.to_owned())).collect()
}

#[test]
fn an_api_server_that_restarts_during_a_rollout_costs_no_request() {
    let Some(cluster) = Cluster::connect("restart") else { return };
    let Some(mut programs) = Programs::of(&cluster) else { return };
    let s = Slipway::new();
    use_account(&s, &cluster);
    s.busybox();
    page_image(&s, "one", "first", 2);
    page_image(&s, "two", "second", 2);
    let at = serve(&s, &cluster, "one", "3");
    let before = uids(&cluster);
    let pods = load(at, "/index.html", "").during(|| {
        let deploying = s.spawn(&["deploy", NAME, "--image", "web:two"]);
        let pods = wait_for("a pod of the new revision", PATIENCE, || {
            Some(ready_pods(&cluster, 2)).filter(|pods| !pods.is_empty())
        });
        programs.kill("apiserver");
        finished(deploying, &cluster);
        pods
    });
    assert_eq!(page(at), (200, "second".to_owned()));
    assert_eq!(uids(&cluster), before, "nothing was made a second time");
    let now = ready_pods(&cluster, 2);
    assert_eq!(now.len(), 3);
    assert!(pods.iter().all(|pod| now.contains(pod)), "{pods:?} are still there: {now:?}");

    // One that stays away is told, keeps nothing from being declared, and serves nobody less.
    programs.stop("apiserver");
    wait_for("the trouble to be told", Duration::from_secs(60), || {
        let shown = s.run(&["services", NAME]);
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        let told = shown.stderr.contains("the engine `kubernetes` cannot be asked");
        told.then(|| assert!(shown.stderr.contains("cannot reach the API server"), "{}", shown.stderr))
    });
    // Its nodes count as lost if it is away for long, which is another fault.
    load(at, "/index.html", "").during(|| {
        s.run(&["scale", NAME, "2", "--detach"]).ok();
        std::thread::sleep(Duration::from_secs(1));
    });
    programs.start("apiserver");
    wait_until_ready(&s, &cluster, 2);
    assert_eq!(uids(&cluster), before);
    end(s, &cluster);
}

/// Resident memory of the daemon in KiB.
fn memory(s: &Slipway) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", s.daemon_pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn watches_that_are_cut_every_five_seconds_miss_nothing() {
    let Some(cluster) = Cluster::connect("cuts") else { return };
    let s = Slipway::new();
    grant(&s, &cluster);
    let proxy = Proxy::start(&cluster.account("slipway", &s.path("account")), Duration::from_secs(5));
    use_with(&s, &cluster, &proxy.kubeconfig(&s, &cluster), "kubernetes");
    s.busybox();
    page_image(&s, "one", "first", 0);
    page_image(&s, "two", "second", 0);
    let at = serve(&s, &cluster, "one", "1");
    load(at, "/index.html", "").during(|| {
        done(s.run(&["scale", NAME, "3"]), &cluster);
        done(s.run(&["deploy", NAME, "--image", "web:two"]), &cluster);
        done(s.run(&["scale", NAME, "2"]), &cluster);
    });
    assert_eq!(page(at), (200, "second".to_owned()));
    wait_until_ready(&s, &cluster, 2);

    // In calm times there are watches that begin again, and nothing else.
    let faults = &proxy.faults;
    let all = || {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        (count(&faults.watches), count(&faults.lists), count(&faults.others), count(&faults.cut))
    };
    let (before, used) = (all(), memory(&s));
    std::thread::sleep(Duration::from_secs(21));
    let (after, now) = (all(), memory(&s));
    let (watches, lists, others) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    eprintln!(
        "in 21 s: {watches} watches, {lists} lists, {others} other requests; {used} KiB, then {now} KiB"
    );
    // Fifteen kinds, each four or five times.
    assert!((45..=100).contains(&watches), "{watches} watches in 21 s");
    assert_eq!((lists, others), (0, 0), "a watch goes on where the last one was cut");
    assert!(after.3 > 60, "{} watches were cut", after.3);
    assert!(now < used + (16 << 10), "{used} KiB, then {now} KiB");

    // What happens between two watches is seen, too.
    cluster.kubectl(&["delete", "deployment", NAME, "--wait=true"]);
    wait_for("the deployment to be back", PATIENCE, || {
        cluster.command(&["get", "deployment", NAME]).status.success().then_some(())
    });
    wait_until_ready(&s, &cluster, 2);
    assert_eq!(page(at), (200, "second".to_owned()));
    end(s, &cluster);
    drop(proxy);
}

#[test]
fn requests_that_are_refused_for_a_while_are_made_again() {
    let Some(cluster) = Cluster::connect("refused") else { return };
    let s = Slipway::new();
    grant(&s, &cluster);
    let proxy = Proxy::start(&cluster.account("slipway", &s.path("account")), Duration::from_secs(30));
    let faults = &proxy.faults;
    faults.share.store(20, Relaxed);
    use_with(&s, &cluster, &proxy.kubeconfig(&s, &cluster), "kubernetes");
    s.busybox();
    page_image(&s, "one", "first", 0);
    page_image(&s, "two", "second", 0);
    let at = serve(&s, &cluster, "one", "2");
    let before = uids(&cluster);
    load(at, "/index.html", "").during(|| {
        // A burst in the middle of a rollout, and one over a change of the declaration.
        let deploying = s.spawn(&["deploy", NAME, "--image", "web:two"]);
        std::thread::sleep(Duration::from_millis(500));
        for _ in 0..2 {
            faults.burst.store(true, Relaxed);
            std::thread::sleep(Duration::from_secs(6));
            faults.burst.store(false, Relaxed);
            std::thread::sleep(Duration::from_secs(2));
        }
        finished(deploying, &cluster);
        faults.burst.store(true, Relaxed);
        s.run(&["scale", NAME, "3", "--detach"]).ok();
        std::thread::sleep(Duration::from_secs(6));
        faults.burst.store(false, Relaxed);
        wait_until_ready(&s, &cluster, 3);
    });
    assert_eq!(page(at), (200, "second".to_owned()));
    assert_eq!(uids(&cluster), before);
    let refused = faults.refused.load(Relaxed);
    eprintln!("{refused} requests were refused");
    assert!((10..3000).contains(&refused), "{refused} requests were refused");
    end(s, &cluster);
    drop(proxy);
}
