//! What replicas use, and an autoscaler that goes by it. Where the cluster measures nothing, that is said in one sentence.

use std::time::Duration;

use serde_json::Value;

use super::engine::{service, use_cluster};
use super::train::end;
use super::{Cluster, build_image, delete};
use crate::support::{Slipway, wait_for};

/// A program that never rests, in 100 thousandths of a processor; fewer where others need theirs, so little is expected.
fn busy(s: &Slipway) {
    s.busybox();
    build_image(s, "busy", "busy:1", "", "httpd -f -p 9000 -h /tmp & while :; do :; done");
}

fn up(s: &Slipway, cluster: &Cluster, more: &[&str]) {
    let deploy = ["deploy", "busy", "--image", "busy:1", "--cpus", "0.1", "--memory", "64m"];
    let deployed = s.run(&[&deploy[..], more].concat());
    assert_eq!(deployed.code, 0, "{}\n{}\n{}", deployed.stdout, deployed.stderr, cluster.state());
}

/// Whether anything in the cluster measures.
fn measures(cluster: &Cluster) -> bool {
    cluster.command(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1"]).status.success()
}

fn pods(cluster: &Cluster) -> u64 {
    let count = cluster.kubectl(&["get", "deployment", "busy", "--output", "jsonpath={.spec.replicas}"]);
    count.parse().unwrap()
}

#[test]
fn what_replicas_use_is_shown_and_an_autoscaler_keeps_its_number() {
    let Some(cluster) = Cluster::connect("top") else { return };
    let s = Slipway::new();
    use_cluster(&s, &cluster);
    busy(&s);
    up(&s, &cluster, &[]);
    let top = ["top", "busy", "--format", "json"];

    // The Role that is printed without more does not name the API.
    let said = s.run(&top).fails(1);
    let measures = measures(&cluster);
    let lacks = if measures {
        "slipway engine rbac --with metrics"
    } else {
        "in this cluster: install metrics-server"
    };
    assert!(said.contains(lacks) && said.trim().lines().count() == 1, "{said}");
    let role = s.run(&["engine", "rbac", "--namespace", &cluster.namespace, "--with", "metrics"]).ok();
    let role = s.write("role.yaml", &role);
    cluster.kubectl(&["apply", "--server-side", "-f", role.to_str().unwrap()]);

    // An autoscaler as `kubectl` makes it.
    let range = ["--min=2", "--max=3", "--cpu-percent=5"];
    cluster.command(&[&["autoscale", "deployment", "busy"][..], &range].concat());
    if measures {
        let used: Value = wait_for("a measurement", Duration::from_secs(90), || {
            let value: Value = serde_json::from_str(&s.run(&top).ok()).unwrap();
            (value[0]["cpu_millis"].as_u64() > Some(10)).then(|| value[0].clone())
        });
        assert!(used["cpu_millis"].as_u64().unwrap() < 200 && used["memory"].as_u64().unwrap() > 0, "{used}");
        assert_eq!((&used["service"], &used["memory_limit"]), (&"busy".into(), &(64 << 20).into()));
        // kubectl counts the same, in whole thousandths; the next measurement may have come between.
        let theirs =
            cluster.kubectl(&["top", "pods", "--no-headers", "--selector", "slipway.dev/service=busy"]);
        let theirs: u64 = theirs.split_whitespace().nth(1).unwrap().trim_end_matches('m').parse().unwrap();
        assert!(theirs.abs_diff(used["cpu_millis"].as_u64().unwrap()) < 200, "{theirs} and {used}");
    } else {
        assert!(s.run(&top).fails(1).contains(lacks));
    }
    // It holds its fewest pods without a measurement, and adds one for the load.
    let (expected, limit) = if measures { (3, 120) } else { (2, 60) };
    wait_for("the autoscaler", Duration::from_secs(limit), || (pods(&cluster) == expected).then_some(()));

    // Another revision and another declared number: the autoscaler's stays, and everything else is done.
    up(&s, &cluster, &["-e", "SECOND=1"]);
    assert_eq!(service(&s, "busy")["revision"], 2);
    s.run(&["scale", "busy", "1"]).ok();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(pods(&cluster), expected);
    let events = s.run(&["events"]).ok();
    assert!(events.contains("HorizontalPodAutoscaler `busy` decides how many pods run"), "{events}");
    // Without it, what was declared is what is wanted.
    cluster.kubectl(&["delete", "horizontalpodautoscaler", "busy"]);
    s.run(&["deploy", "busy", "--image", "busy:1", "--take-over"]).ok();
    wait_for("one pod", Duration::from_secs(60), || (pods(&cluster) == 1).then_some(()));
    delete(&s, "busy");
    end(s, &cluster);
}

#[test]
fn an_exported_autoscaler_scales_and_is_not_reset() {
    let (Some(home), Some(cluster)) = (Cluster::connect("scaled"), Cluster::connect("exported")) else {
        return;
    };
    let s = Slipway::new();
    use_cluster(&s, &home);
    busy(&s);
    up(&s, &home, &[]);
    let folder = s.path("k8s");
    let folder = folder.to_str().unwrap();
    let target = ["export", "kubernetes", "busy", "--namespace", &cluster.namespace, "--output", folder];
    s.run(&[&target[..], &["--replicas", "2"]].concat()).ok();
    // Other files get other numbers: nobody is told to delete what is still there.
    let exported = s.run(&[&target[..], &["--autoscale", "2:3", "--cpu-target", "5"]].concat());
    assert!(exported.code == 0 && exported.stderr.contains("removed"), "{}", exported.stderr);
    if !measures(&cluster) {
        let lacks = "the cluster has no metrics API (metrics-server), so nothing scales by cpu";
        assert!(exported.stderr.contains(lacks), "{}", exported.stderr);
        return;
    }
    assert!(!exported.stderr.contains("kubectl delete"), "{}", exported.stderr);
    cluster.apply(folder, "busy");
    wait_for("its fewest pods", Duration::from_secs(60), || (pods(&cluster) >= 2).then_some(()));
    wait_for("a third pod", Duration::from_secs(180), || (pods(&cluster) == 3).then_some(()));
    let metric = "jsonpath={.status.currentMetrics[0].resource.current.averageUtilization}";
    let used = cluster.kubectl(&["get", "hpa", "busy", "--output", metric]);
    assert!(used.parse::<u64>().unwrap() > 5, "{used}");
    cluster.apply(folder, "busy");
    assert_eq!(pods(&cluster), 3, "nothing that is exported says how many run");
    cluster.delete(folder);
    s.run(&["delete", "busy"]).ok();
    s.run(&["engine", "rm", "kubernetes"]).ok();
    s.finish();
}

#[test]
fn load_decides_how_many_run_where_it_is_declared() {
    let Some(cluster) = Cluster::connect("auto") else { return };
    let s = Slipway::new();
    use_cluster(&s, &cluster);
    busy(&s);
    up(&s, &cluster, &["--replicas", "2"]);
    up(&s, &cluster, &["--autoscale", "2:3", "--cpu-target", "5"]);
    assert_eq!(service(&s, "busy")["revision"], 1, "how many run is no other revision");
    if measures(&cluster) {
        assert_eq!(pods(&cluster), 2, "it begins with what is there");
        wait_for("a third pod", Duration::from_secs(180), || (pods(&cluster) == 3).then_some(()));
        assert!(s.run(&["services"]).ok().contains("/2-3"));
        // Another revision leaves the number alone.
        up(&s, &cluster, &["-e", "SECOND=1"]);
        assert_eq!(pods(&cluster), 3);
    } else {
        let events = s.run(&["events"]).ok();
        assert!(events.contains("nothing scales the service: 2 replicas run, as declared"), "{events}");
    }
    s.run(&["scale", "busy", "1"]).fails(4);
    up(&s, &cluster, &["--replicas", "1"]);
    wait_for("one pod", Duration::from_secs(60), || (pods(&cluster) == 1).then_some(()));
    assert!(!cluster.command(&["get", "hpa", "busy"]).status.success(), "nothing scales it any more");
    delete(&s, "busy");
    end(s, &cluster);
}
