//! `engine rbac`.

use crate::support::Slipway;

#[test]
fn rbac_needs_no_daemon_and_says_only_what_is_needed() {
    let s = Slipway::new();
    let text = s.run(&["engine", "rbac", "--namespace", "team-a"]).ok();
    for kind in ["kind: ServiceAccount", "kind: Role\n", "kind: RoleBinding"] {
        assert_eq!(text.matches(&format!("\n{kind}")).count(), 1, "{kind} in\n{text}");
    }
    assert!(text.contains("  name: slipway\n  namespace: team-a\n"), "{text}");
    assert!(!text.contains('*') && !text.contains("escalate") && !text.contains("ClusterRole"), "{text}");
    assert!(!text.contains("jobset"), "{text}");

    let more = s.run(&["engine", "rbac", "--name", "bot", "--with", "jobset", "--with", "dra"]).ok();
    assert!(more.contains("jobsets") && more.contains("resourceclaimtemplates"), "{more}");
    assert!(more.contains("name: bot\n  namespace: default\n"), "{more}");
    let user = s.run(&["engine", "rbac", "--user", "alice@example.com"]).ok();
    assert!(user.contains("alice@example.com") && !user.contains("ServiceAccount"), "{user}");

    let stderr = s.run(&["engine", "rbac", "--namespace", "Team_A"]).fails(2);
    assert!(stderr.contains("namespace"), "{stderr}");
    s.run(&["engine", "rbac", "--user", "a", "--group", "b"]).fails(2);
    assert!(!s.root().exists(), "it starts no daemon");
}
