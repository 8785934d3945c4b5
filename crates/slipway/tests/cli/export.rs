//! `export kubernetes`, against Debian's docker-registry.

use std::collections::BTreeSet;
use std::path::Path;

use crate::registry::Registry;
use crate::support::{Slipway, http, tiny_project};

fn files(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

fn read(folder: &Path) -> String {
    files(folder).iter().map(|name| std::fs::read_to_string(folder.join(name)).unwrap()).collect()
}

/// References by digest in a text, without double ones.
fn references(text: &str, host: &str) -> BTreeSet<String> {
    text.split_whitespace()
        .map(|word| word.trim_matches('"'))
        .filter(|word| word.starts_with(host) && word.contains("@sha256:"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_service_becomes_files_and_images() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    // A user by name: a node must get a number.
    s.write(
        "p/Dockerfile",
        "FROM py\nRUN echo 'app:x:1234:567::/:/bin/sh' >> /etc/passwd\nWORKDIR /workspace\nUSER app\n",
    );
    let up = s.run(&["up", "p"]);
    assert_eq!(up.code, 0, "{}\n{}", up.stdout, up.stderr);
    let registry = Registry::start(&s.path("registry"), "");
    let host = format!("127.0.0.1:{}", registry.port);
    let place = format!("{host}/team");

    // What will be pushed is known before it is.
    let base = ["export", "kubernetes", "tiny", "--registry", &place];
    let planned = s.run(&[&base[..], &["--no-push"]].concat()).ok();
    assert_eq!(http(registry.port, "GET", "/v2/_catalog", "").1.trim(), "{\"repositories\":[]}");

    // In the project's folder it needs no name.
    let mut command = s.command(&["export", "kubernetes", "--registry", &place]);
    let output = command.current_dir(s.path("p")).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), planned);
    for what in ["tools: ", "model: ", "image: "] {
        assert!(stderr.contains(what), "{stderr}");
    }
    for part in [
        "runAsUser: 1234",
        "runAsGroup: 567",
        "runAsNonRoot: true",
        "kind: NetworkPolicy",
        "# Deployment tiny",
    ] {
        assert!(planned.contains(part), "{part} is missing in\n{planned}");
    }
    let found = references(&planned, &host);
    assert_eq!(found.len(), 3, "{found:?}");
    for reference in &found {
        let (name, digest) = reference.split_once('@').unwrap();
        let repository = name.strip_prefix(&format!("{host}/")).unwrap();
        let (status, body) = http(registry.port, "GET", &format!("/v2/{repository}/manifests/{digest}"), "");
        assert!(status == 200 && body.contains("layers"), "{reference}: {status} {body}");
    }

    // The second time everything is there already.
    let again = s.run(&base);
    assert!(!again.stderr.contains("pushed") && !again.stderr.contains("compressing"), "{}", again.stderr);
    assert_eq!(again.ok(), planned);

    // The model's image has the model's files and nothing that depends on the day.
    let model = found.iter().find(|r| r.contains("tiny-model@")).unwrap();
    s.run(&["pull", model]).ok();
    s.write("q/Dockerfile", &format!("FROM box\nCOPY --from={model} /model /m\nRUN cat /m/factor.json\n"));
    s.busybox();
    let built = s.run(&["build", "--progress", "plain", "q"]);
    assert!(built.code == 0 && built.stderr.contains("3| 2\n"), "{}", built.stderr);
    let tools = found.iter().find(|r| r.contains("slipway-tools@")).unwrap();
    s.run(&["pull", tools]).ok();
    assert_eq!(s.run(&["run", "--rm", tools, "/slipway/slipway-runner", "wait", "0"]).code, 0);
    s.finish();
}

#[test]
fn the_gateway_is_an_image_of_the_program_that_runs() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    assert_eq!(s.run(&["up", "p"]).code, 0);
    let registry = Registry::start(&s.path("registry"), "");
    let host = format!("127.0.0.1:{}", registry.port);
    let base = ["export", "kubernetes", "tiny", "--registry", &host];
    let export = |more: &[&str]| s.run(&[&base[..], more].concat());
    let planned = export(&["--gateway", "--gateway-replicas", "3", "--no-push"]).ok();
    let done = export(&["--gateway", "--gateway-replicas", "3"]);
    assert!(done.stderr.contains("gateway: "), "{}", done.stderr);
    assert_eq!(done.ok(), planned, "the digest is known before it is sent");
    for part in
        ["# Deployment slipway-gateway", "replicas: 3", "slipway.dev/route", "runAsUser: 65532", "kind: Role"]
    {
        assert!(planned.contains(part), "{part} is missing in\n{planned}");
    }
    let plain = export(&[]).ok();
    assert!(!plain.contains("slipway-gateway") && !plain.contains("slipway.dev/route"), "{plain}");
    export(&["--gateway-replicas", "3"]).fails(2);

    // It runs by itself, as nobody, with a root that it cannot write to.
    let found = references(&planned, &host);
    let image = found.iter().find(|reference| reference.contains("slipway-gateway@")).unwrap();
    s.run(&["pull", image]).ok();
    let run = ["run", "--rm", "--read-only", image, "gateway"];
    let waited = s.run(&[&run[..], &["wait", "0"]].concat());
    assert_eq!((waited.code, waited.stderr.as_str()), (0, ""), "{}", waited.stdout);
    let cluster = ["--in-cluster", "--namespace", "a", "--listen", "127.0.0.1:8080"];
    let stderr = s.run(&[&run[..], &cluster].concat()).fails(2);
    assert!(stderr.contains("KUBERNETES_SERVICE_HOST"), "{stderr}");
    s.run(&[&run[..], &["--in-cluster"]].concat()).fails(2);
    s.finish();
}

#[test]
fn forms_options_and_mistakes() {
    let s = Slipway::new();
    s.python();
    tiny_project(&s, "p", 2.0);
    assert_eq!(s.run(&["up", "p"]).code, 0);
    let base = ["export", "kubernetes", "tiny", "--registry", "registry.example/team", "--no-push"];
    let export = |more: &[&str]| s.run(&[&base[..], more].concat());

    let out = s.path("out");
    let to = ["-o", out.to_str().unwrap()];
    export(&to).ok();
    let first = files(&out);
    assert!(first.contains("04-deployment-tiny.yaml"), "{first:?}");
    assert_eq!(export(&to).ok(), "", "the same again changes nothing");
    s.write("out/mine.yaml", "kind: Mine\n");
    // Another type changes a file, autoscaling adds one, and takes it away again.
    let changed =
        export(&[&to[..], &["--type", "nodeport", "--node-port", "30080", "--autoscale", "1:4"]].concat())
            .ok();
    assert!(
        changed.contains("horizontalpodautoscaler") && read(&out).contains("nodePort: 30080"),
        "{changed}"
    );
    let back = export(&to);
    assert!(
        back.stderr.contains("removed") && !read(&out).contains("HorizontalPodAutoscaler"),
        "{}",
        back.stderr
    );
    assert_eq!(files(&out).len(), first.len() + 1, "mine.yaml stays");
    s.write("out/04-deployment-tiny.yaml", "kind: Edited\n");
    let stderr = export(&to).fails(4);
    assert!(stderr.contains("04-deployment-tiny.yaml") && stderr.contains("--force"), "{stderr}");
    export(&[&to[..], &["--force"]].concat()).ok();
    assert!(!read(&out).contains("Edited") && read(&out).contains("kind: Mine"));

    export(&["--kustomize", s.path("kustomize").to_str().unwrap()]).ok();
    assert!(s.path("kustomize/base/kustomization.yaml").is_file());
    export(&["--helm", s.path("chart").to_str().unwrap()]).ok();
    assert!(s.path("chart/templates").is_dir() && s.path("chart/Chart.yaml").is_file());

    let ingress =
        export(&["--ingress", "tiny.example", "--tls-secret", "cert", "--namespace", "team-a"]).ok();
    assert!(ingress.contains("kind: Ingress") && ingress.contains("namespace: team-a"), "{ingress}");
    let route = export(&["--route", "tiny.example", "--parent", "infra/public"]).ok();
    assert!(route.contains("kind: HTTPRoute") && route.contains("name: public"), "{route}");
    let new = export(&["--kubernetes-version", "1.33", "--image-volumes", "--replicas", "5"]).ok();
    assert!(new.contains("replicas: 5") && new.contains("sleep:") && !new.contains("copy-model"), "{new}");
    assert!(export(&["--pull-secret", "regcred"]).ok().contains("name: regcred"));

    for (more, code, expected) in [
        (&["--kubernetes-version", "1.20"][..], 2, "1.29"),
        (&["--kubernetes-version", "1.30", "--image-volumes"], 2, "image volumes"),
        (&["--autoscale", "4:1"], 2, "4:1"),
        (&["--namespace", "Team A"], 2, "namespace"),
        (&["--route", "a.example"], 2, "--parent"),
        (&["--node-port", "30000"], 2, "NodePort"),
        (&["--ingress", "no host"], 2, "host"),
        (&["--force"], 2, "--output"),
    ] {
        let stderr = export(more).fails(code);
        assert!(stderr.contains(expected), "{more:?}: {stderr}");
    }
    s.run(&["export", "kubernetes", "absent", "--registry", "registry.example"]).fails(3);
    s.run(&["export", "kubernetes", "tiny", "--registry", "https://registry.example"]).fails(2);
    s.run(&["export", "kubernetes", "--registry", "registry.example"]).fails(3);
    // Nobody listens there.
    let stderr = s.run(&["export", "kubernetes", "tiny", "--registry", "127.0.0.1:9"]).fails(1);
    assert!(stderr.contains("127.0.0.1:9"), "{stderr}");
    s.finish();
}
