//! Names as people write them, on a cluster; and what a daemon that starts again remembers of their publication.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::Cluster;
use super::engine::{address, use_cluster};
use crate::names::{escaped, import, longest, predictions};
use crate::support::{Slipway, http_at, wait_for};

const ONE: &str = "{\"instances\": [[1, 2]]}";

/// How often the parts of a service went to the registry.
fn publications(s: &Slipway, name: &str) -> usize {
    let events = s.run(&["events", "--subject", &format!("service/{name}")]).ok();
    events.matches("service.published").count()
}

#[test]
fn any_name_is_a_service_of_a_cluster_and_is_published_once() {
    let Some(cluster) = Cluster::connect("names") else { return };
    let s = Slipway::new();
    use_cluster(&s, &cluster);
    s.python();
    let longest = longest();
    let names = [("My Model", 2.0), ("my model", 3.0), ("模型", 4.0), (longest.as_str(), 5.0)];
    for (name, factor) in names {
        import(&s, &format!("p{factor}"), name, factor);
        let deployed = s.run(&["deploy", name, "--image", "py"]);
        assert_eq!(deployed.code, 0, "{}\n{}", deployed.stderr, cluster.state());
    }
    let ask_all = || {
        for (name, factor) in names {
            let url = escaped(name);
            for path in [format!("/v1/models/{url}:predict"), format!("/{url}/v1/models/{url}:predict")] {
                let answer = http_at(address(&s, name), "POST", &path, ONE);
                assert_eq!((answer.0, answer.1.trim()), (200, &*predictions(factor)), "{path}");
            }
        }
    };
    ask_all();
    let kept: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "deployments", "--output", "json"])).unwrap();
    let original =
        |one: &Value| one["metadata"]["annotations"]["slipway.dev/name"].as_str().unwrap().to_owned();
    let kept: BTreeSet<String> = kept["items"].as_array().unwrap().iter().map(original).collect();
    assert!(names.iter().all(|(name, _)| kept.contains(*name)), "{kept:?}");
    assert!(!s.run(&["logs", names[2].0]).ok().is_empty());
    s.run(&["diff", names[0].0]).ok();
    let export = ["export", "kubernetes", names[3].0, "--registry", &cluster.registry, "--no-push"];
    let exported = s.run(&[&export[..], &["--namespace", &cluster.namespace]].concat()).ok();
    assert!(exported.contains(names[3].0), "{exported}");

    // The next daemon sends nothing anew.
    s.run(&["daemon", "stop"]).ok();
    s.run(&["scale", names[0].0, "2"]).ok();
    ask_all();
    assert_eq!(names.map(|(name, _)| publications(&s, name)), [1; 4]);

    // Unless what it remembers is not there.
    s.run(&["daemon", "stop"]).ok();
    let state = || rusqlite::Connection::open(s.root().join("state.db")).unwrap();
    let remembered = |name: &str| -> String {
        let query = "SELECT record FROM published WHERE service = ?1";
        state().query_row(query, [name], |row| row.get(0)).unwrap()
    };
    let record = remembered(names[2].0);
    let mut lost: Value = serde_json::from_str(&record).unwrap();
    let image = lost["image"].as_str().unwrap().split_once('@').unwrap().0.to_owned();
    lost["image"] = format!("{image}@sha256:{}", "07".repeat(32)).into();
    let changed = state()
        .execute("UPDATE published SET record = ?2 WHERE service = ?1", [names[2].0, &lost.to_string()])
        .unwrap();
    assert_eq!(changed, 1);
    s.run(&["services"]).ok();
    wait_for("it to be published again", Duration::from_secs(60), || {
        (publications(&s, names[2].0) == 2 && remembered(names[2].0) == record).then_some(())
    });
    assert_eq!(publications(&s, names[1].0), 1);
    s.run(&["scale", names[2].0, "1"]).ok();
    ask_all();

    for (name, _) in names {
        s.run(&["delete", name]).ok();
    }
    wait_for("them to be forgotten", Duration::from_secs(120), || {
        s.run(&["services", "--format", "json"]).ok().trim().eq("[]").then_some(())
    });
    let left: i64 = state()
        .query_row("SELECT count(*) FROM published WHERE service <> ''", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
    s.run(&["engine", "rm", "kubernetes"]).ok();
    cluster.assert_empty();
    s.finish();
}
