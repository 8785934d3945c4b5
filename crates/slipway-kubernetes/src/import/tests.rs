use super::*;
use crate::spec::Exposure;

fn codes(text: &str) -> Vec<(usize, &'static str)> {
    analyze(text)
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Error)
        .map(|f| (f.line, f.code))
        .collect()
}

fn all(text: &str) -> String {
    let lines = analyze(text).findings.into_iter();
    let lines = lines.map(|f| format!("{}:{} {} {} => {}", f.line, f.column, f.code, f.message, f.fix));
    lines.collect::<Vec<_>>().join("\n")
}

const GOOD: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: digits
  labels: {app: digits}
spec:
  replicas: 3
  selector:
    matchLabels: {app: digits}
  strategy: {type: Recreate}
  template:
    metadata:
      labels: {app: digits}
    spec:
      containers:
      - name: web
        image: registry.example.com/digits:1.2
        ports:
        - {name: http, containerPort: 8000}
        env:
        - {name: LEVEL, value: info}
        - {name: KEY, valueFrom: {secretKeyRef: {name: s, key: k}}}
        resources:
          limits: {memory: 2Gi, cpu: 1500m, nvidia.com/gpu: 1}
          requests: {cpu: 100m}
        readinessProbe: {httpGet: {path: /, port: http}}
---
apiVersion: v1
kind: Service
metadata: {name: digits}
spec:
  type: LoadBalancer
  selector: {app: digits}
  ports: [{port: 8080, targetPort: http}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: digits}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: digits}
  minReplicas: 2
  maxReplicas: 9
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {a: b}
";

#[test]
fn a_sound_file_has_nothing_against_it_and_is_understood() {
    assert_eq!(all(GOOD), "");
    let analysis = analyze(GOOD);
    let (projects, others) = convert(&analysis.documents);
    let [digits] = projects.as_slice() else { panic!("{projects:?}") };
    let toml = digits.toml();
    let back: slipway_types::project::Project = toml::from_str(&toml).unwrap();
    assert_eq!(back, digits.project);
    assert_eq!(back.serve.replicas, 2, "the autoscaler's fewest");
    assert_eq!((back.serve.memory.as_deref(), back.serve.cpus), (Some("2g"), Some(1.5)));
    assert_eq!(back.serve.env["LEVEL"], "info");
    assert_eq!(digits.image.as_deref(), Some("registry.example.com/digits:1.2"));
    assert_eq!((digits.port, &digits.exposure), (Some(8000), &Exposure::LoadBalancer { port: 8080 }));
    let left: Vec<(usize, &str)> = digits.left_out.iter().map(|l| (l.line, l.what.as_str())).collect();
    assert_eq!(
        left,
        [
            (10, "Deployment.spec.strategy"),
            (22, "env.KEY"),
            (24, "limits.nvidia.com/gpu"),
            (25, "container.resources.requests"),
            (26, "container.readinessProbe"),
            (36, "HorizontalPodAutoscaler digits"),
        ]
    );
    assert_eq!(others.len(), 1);
    assert_eq!((others[0].line, others[0].what.as_str()), (44, "ConfigMap other"));
}

#[test]
fn the_shapes_that_tutorials_spread() {
    // No kind, no metadata, no spec: name, image and ports at the top.
    let text = "apiVersion: v1\nname: my_model\nimage: localhost:5000/my_model:latest\nports:\n- 8080\n";
    let found = codes(text);
    for expected in [
        (1, "missing-kind"),
        (1, "missing-metadata"),
        (1, "missing-spec"),
        (2, "misplaced"),
        (3, "misplaced"),
        (4, "misplaced"),
    ] {
        assert!(found.contains(&expected), "{expected:?}: {found:?}");
    }
    let said = all(text);
    assert!(said.contains("add `kind: Deployment` and `apiVersion: apps/v1`"), "{said}");
    assert!(said.contains("name: my-model-535d4cfe"), "{said}");
    assert!(said.contains("move it to spec.template.spec.containers[0].image"), "{said}");

    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: my_service\nspec:\n  selector:\n    app: nothing\n  ports:\n  - port: 80\n    targetPort: \"8080\"\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: other}}\n    spec: {containers: [{name: c, image: \"a:1\", ports: [{containerPort: \"8080\"}]}]}\n";
    let found = codes(text);
    for expected in [(4, "name"), (6, "selector"), (10, "port-text"), (16, "selector"), (19, "port-text")] {
        assert!(found.contains(&expected), "{expected:?}: {found:?}");
    }
    let said = all(text);
    assert!(said.contains("write `name: my-service`") && said.contains("select one of these"), "{said}");
    assert!(said.contains("write `containerPort: 8080`, without quotes"), "{said}");
}

#[test]
fn each_mistake_has_its_line() {
    for (text, expected) in [
        (
            "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {name: a}\nspec: {}\n",
            (1, "wrong-api-version"),
        ),
        ("apiVersion: v1\nkind: deployment\nmetadata: {name: a}\n", (2, "unknown-kind")),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", (1, "missing-spec")),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n", (4, "empty-spec")),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: A_b}\nspec: {containers: []}\n", (3, "name")),
        ("apiVersion: v1\nkind: Pod\nmetadata: {labels: {a: 1}}\nspec: {containers: []}\n", (3, "label")),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  containers:\n  - name: x\n",
            (5, "misplaced"),
        ),
        (
            "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: \"b:1\"}]}\n",
            (1, "missing-api-version"),
        ),
        (
            "apiVersion: v1\nkind: Pod\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n",
            (3, "duplicate-key"),
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata:\n\tname: a\nspec: {containers: []}\n", (4, "tab")),
        ("apiVersion: v1\nkind: Pod\n---\na: [1\n", (4, "yaml")),
        ("just a text\n", (1, "no-object")),
        ("", (1, "no-object")),
        ("---\n# nothing\n---\n", (1, "no-object")),
        ("apiversion: v1\nKind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n", (2, "capitals")),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  replicas: \"2\"\n  selector:\n    app: a\n  template: {}\n",
            (7, "selector"),
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  replicas: \"2\"\n  template: {spec: {containers: []}}\n",
            (5, "replicas"),
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  type: loadbalancer\n  ports: [{port: 1}]\n",
            (5, "service-type"),
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  A: \"1\"\n  B: 1\n  C: {d: e}\n",
            (6, "config-value"),
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  A: \"1\"\n  C: {d: e}\n",
            (6, "config-value"),
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - image: \"\"\n    env: [{name: A, value: 1}]\n",
            (7, "env-value"),
        ),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: 1a}\nspec: {ports: []}\n", (4, "no-ports")),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  selector: {matchLabels: {a: b}}\n  ports: [{port: 1}]\n",
            (5, "selector"),
        ),
    ] {
        let found = codes(text);
        let near = |(line, code): &(usize, &str)| *code == expected.1 && line.abs_diff(expected.0) <= 1;
        assert!(
            found.contains(&expected) || (expected.1 == "yaml" && found.iter().any(near)),
            "{text}\n{found:?}"
        );
    }
}

#[test]
fn fixes_can_be_written_as_they_are() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: \"2\"\n  selector:\n    app: web\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      - name: my_web\n        image: web:1\n        ports: [{containerPort: 80}]\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  type: nodeport\n  selector: {app: web}\n  ports: [{port: 80}]\n";
    let errors = |text: &str| {
        let all = analyze(text).findings.into_iter();
        all.filter(|found| found.severity == Severity::Error).map(|found| found.fix).collect::<Vec<_>>()
    };
    assert_eq!(
        errors(text),
        [
            "write `replicas: 2`, without quotes",
            "write `matchLabels:`, and below it, indented, `app: web`",
            "write `name: my-web`",
            "write `type: NodePort`",
        ]
    );
    let mended = text
        .replace("\"2\"", "2")
        .replace("  selector:\n    app: web\n", "  selector:\n    matchLabels:\n      app: web\n")
        .replace("my_web", "my-web")
        .replace("nodeport", "NodePort");
    assert_eq!(errors(&mended), [""; 0]);
    let top = "apiVersion: v1\nname: a\nimage: b:1\nports:\n- 80\n";
    let ports = analyze(top).findings.into_iter().find(|found| found.line == 4).unwrap();
    assert_eq!(
        ports.fix,
        "move it to spec.template.spec.containers[0].ports, each as `- containerPort: NUMBER`"
    );
}

#[test]
fn a_tab_does_not_hide_what_follows() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n\tname: A_b\nspec: {containers: []}\n";
    assert_eq!(codes(text), [(4, "tab"), (4, "name")]);
}

#[test]
fn warnings_are_not_errors() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: a, image: \"reg:5000/x\"}\n  - {name: b, image: \"x:latest\"}\n  - {name: c, image: \"x:1\"}\n";
    let analysis = analyze(text);
    assert!(!analysis.has_errors());
    let codes: Vec<_> = analysis.findings.iter().map(|f| (f.line, f.code)).collect();
    assert_eq!(
        codes,
        [(6, "no-limits"), (6, "floating-tag"), (7, "no-limits"), (7, "floating-tag"), (8, "no-limits")]
    );
}

#[test]
fn a_list_is_read_as_its_items() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: A_b}\n  spec: {containers: []}\n- kind: X\n";
    assert_eq!(analyze(text).documents.len(), 2);
    assert!(codes(text).contains(&(6, "name")));
}

#[test]
fn words_that_kubernetes_reads_as_booleans_must_be_quoted() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: a, image: \"b:1\", env: [{name: A, value: yes}, {name: B, value: 'no'}]}\n";
    assert_eq!(codes(text), [(6, "env-value")]);
}

#[test]
fn aliases_are_followed_but_not_for_ever() {
    let text = "a: &x {b: c}\nd: *x\n";
    let documents = analyze(text).documents;
    assert_eq!(documents[0].root.text_at(&["d", "b"]), Some("c"));
    let mut bomb = "a0: &a0 [x]\n".to_owned();
    for level in 1..30 {
        let inner = format!("*a{}, ", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    assert!(codes(&bomb).iter().any(|(_, code)| *code == "yaml"));
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "[a-z:\\- \\n\\t\\[\\]{}&*#'\"|>]{0,200}") {
        analyze(&text);
    }

    #[test]
    fn never_panics_on_any_text(text in ".{0,120}") {
        analyze(&text);
    }
}
