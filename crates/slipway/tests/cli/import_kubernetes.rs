//! `import kubernetes`.

use crate::support::Slipway;

/// What tutorials spread: no kind, everything at the top level.
const BROKEN: &str = "apiVersion: v1\nname: my_model\nimage: my_model:latest\nports:\n  - 8080\n";
const GOOD: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: ranker}
spec:
  replicas: 3
  selector: {matchLabels: {app: ranker}}
  template:
    metadata: {labels: {app: ranker}}
    spec:
      nodeSelector: {disk: ssd}
      containers:
        - name: server
          image: registry.example/ranker:1.2
          env: [{name: LEVEL, value: info}]
          ports: [{containerPort: 9000}]
          readinessProbe: {httpGet: {path: /, port: 9000}}
          resources: {limits: {memory: 2Gi, cpu: 500m}, requests: {cpu: 100m}}
---
apiVersion: v1
kind: Service
metadata: {name: ranker}
spec:
  selector: {app: ranker}
  ports: [{port: 80, targetPort: 9000}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: lonely}
";

#[test]
fn broken_manifests_are_told_line_by_line() {
    let s = Slipway::new();
    s.write("broken.yaml", BROKEN);
    let outcome = s.run(&["import", "kubernetes", "broken.yaml"]);
    assert_eq!(outcome.code, 1, "{}\n{}", outcome.stdout, outcome.stderr);
    for part in ["missing-kind", "broken.yaml:1:1", "my_model", "broken.yaml:2:1", "help:"] {
        assert!(outcome.stdout.contains(part), "{part} is missing in\n{}", outcome.stdout);
    }
    assert!(outcome.stderr.contains("error"), "{}", outcome.stderr);

    // The same from standard input and as JSON; nothing is written when something is wrong.
    let piped =
        s.run_with(&["import", "kubernetes", "-", "--format", "json", "-o", "out"], BROKEN.as_bytes());
    assert_eq!(piped.code, 1, "{}", piped.stderr);
    let report: serde_json::Value = serde_json::from_str(&piped.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().any(|f| f["code"] == "missing-kind" && f["severity"] == "error"), "{report}");
    assert!(findings.iter().all(|f| f["line"].as_u64() > Some(0) && f["fix"].is_string()), "{report}");
    assert!(!s.path("out").exists());

    let tabs = s.run_with(&["import", "kubernetes", "-"], b"a:\n\tb: \xc3\xa9\n");
    assert!(tabs.code == 1 && tabs.stdout.contains("standard input:2:1"), "{}", tabs.stdout);
    assert!(s.run_with(&["import", "kubernetes", "-"], b"a: 1\nb: \xff\n").fails(2).contains(":2:"));
    s.run(&["import", "kubernetes", "absent.yaml"]).fails(3);
    assert!(!s.root().exists(), "it starts no daemon");
}

#[test]
fn a_deployment_becomes_a_project() {
    let s = Slipway::new();
    s.write("good.yaml", GOOD);
    let outcome = s.run(&["import", "kubernetes", "good.yaml", "-o", "out"]);
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stdout, outcome.stderr);
    let toml = std::fs::read_to_string(s.path("out/slipway.toml")).unwrap();
    for line in ["name = \"ranker\"", "replicas = 3", "memory = \"2g\"", "cpus = 0.5", "LEVEL = \"info\""] {
        assert!(toml.contains(line), "{line} is missing in\n{toml}");
    }
    for part in ["nodeSelector", "requests", "ConfigMap lonely", "registry.example/ranker:1.2"] {
        assert!(outcome.stderr.contains(part), "{part} is missing in\n{}", outcome.stderr);
    }
    // It is a project file that the other commands read.
    let stderr = s.run(&["up", "out"]).fails(3);
    assert!(stderr.contains("Dockerfile"), "{stderr}");
    let stderr = s.run(&["import", "kubernetes", "good.yaml", "-o", "out"]).fails(4);
    assert!(stderr.contains("--force"), "{stderr}");
    s.run(&["import", "kubernetes", "good.yaml", "-o", "out", "--force"]).ok();

    s.write("two.yaml", &format!("{GOOD}---\n{}", GOOD.replace("ranker", "other")));
    let outcome = s.run(&["import", "kubernetes", "two.yaml", "-o", "both"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(s.path("both/ranker/slipway.toml").is_file() && s.path("both/other/slipway.toml").is_file());
}

#[test]
fn tars_are_imported_as_before() {
    let s = Slipway::new();
    let tar = crate::support::busybox_tar();
    // A tar may be called as the subcommand.
    std::fs::copy(&tar, s.path("kubernetes")).unwrap();
    s.run(&["import", "./kubernetes", "box"]).ok();
    assert!(s.run(&["import", "--help"]).ok().contains("kubernetes"));
    s.run(&["import"]).fails(2);
    s.run(&["import", tar.to_str().unwrap()]).fails(2);
    s.run(&["run", "--rm", "box", "true"]).ok();
    s.finish();
}
