//! A node that goes away during training.

use super::super::{Cluster, train};
use super::*;

#[test]
fn a_gang_whose_node_is_lost_begins_again_when_there_is_one() {
    let Some(cluster) = Cluster::connect("node") else { return };
    let Some(mut programs) = Programs::of(&cluster) else { return };
    let s = Slipway::new();
    train::project(&s);
    use_account(&s, &cluster);
    // No retries: the cluster's fault is not the program's.
    let id = train::train(&s, &["--detach", "-e", "SECONDS=90"]).ok();
    let id = id.trim();
    train::wait_for_line(&s, id, "[rank 1] second 2");
    programs.stop("kubelet");
    let note = wait_for("the node's silence to be told", PATIENCE, || {
        let shown = train::run(&s, id);
        assert_eq!(shown["state"], "running", "{shown}");
        shown["note"].as_str().filter(|note| note.contains("does not answer")).map(str::to_owned)
    });
    assert_sentence(&note, &["rank ", "node "]);
    let log = events_until(&s, id, "run.restarted", &cluster);
    let line = log.lines().find(|line| line.contains("run.restarted")).unwrap();
    assert!(line.contains("does not answer") && line.contains("node "), "{log}");
    let shown = train::run(&s, id);
    assert_eq!((&shown["state"], &shown["attempt"]), (&"running".into(), &2.into()), "{shown}");
    let note = wait_for("why it waits", PATIENCE, || {
        let note = train::run(&s, id)["note"].as_str().map(str::to_owned);
        note.filter(|note| note.contains("no node takes it"))
    });
    assert_sentence(&note, &["taint"]);
    programs.start("kubelet");
    train::wait_for_line(&s, id, "attempt 1, from 0");
    let listed = s.run(&["runs"]).ok();
    assert!(listed.contains(id), "{listed}");
    s.run(&["runs", "--cancel", id]).ok();
    assert_eq!(train::run(&s, id)["state"], "cancelled");
    train::end(s, &cluster);
}

fn events_until(s: &Slipway, id: &str, what: &str, cluster: &Cluster) -> String {
    let began = std::time::Instant::now();
    loop {
        let log = events(s, &format!("run/{id}"));
        if log.contains(what) {
            return log;
        }
        let shown = train::run(s, id);
        assert_eq!(shown["state"], "running", "{shown}\n{}", cluster.state());
        assert!(began.elapsed() < PATIENCE, "no {what}: {log}\n{shown}\n{}", cluster.state());
        std::thread::sleep(Duration::from_millis(500));
    }
}
