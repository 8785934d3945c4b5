//! Faults of a cluster: each ends in the declared state, or in one sentence that says why not and what to do.

mod api_server;
mod image;
mod namespace;
mod node;
mod owners;
mod proxy;
mod quota;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Output};
use std::time::Duration;

use serde_json::Value;

use super::engine::{address, service};
use super::{Cluster, build_image};
use crate::support::{Outcome, Slipway, http_at, wait_for};

/// The service of these tests.
const NAME: &str = "web";
/// How long a state may take to come about.
const PATIENCE: Duration = Duration::from_secs(180);

/// An image whose server shows `text`, after `seconds` of getting ready.
fn page_image(s: &Slipway, tag: &str, text: &str, seconds: u32) {
    let page = format!("RUN mkdir /www && echo {text} > /www/index.html\n");
    let script = format!("sleep {seconds}; httpd -f -p 9000 -h /www & wait");
    build_image(s, tag, &format!("{NAME}:{tag}"), &page, &script);
}

/// Makes a namespace an engine, without a gateway, under the credentials of a kubeconfig.
fn use_with(s: &Slipway, cluster: &Cluster, kubeconfig: &Path, name: &str) {
    let (kubeconfig, namespace) = (kubeconfig.to_str().unwrap(), cluster.namespace.as_str());
    let flags = ["--kubeconfig", kubeconfig, "--namespace", namespace, "--registry", &cluster.registry];
    s.run(
        &[&["engine", "use", "kubernetes", "--name", name, "--gateway-replicas", "0"][..], &flags].concat(),
    )
    .ok();
}

/// The same with an account of the printed Role.
pub(super) fn use_account(s: &Slipway, cluster: &Cluster) {
    grant(s, cluster);
    use_with(s, cluster, &cluster.account("slipway", &s.path("kubeconfig")), "kubernetes");
}

/// Grants the printed Role.
fn grant(s: &Slipway, cluster: &Cluster) {
    let role = s.run(&["engine", "rbac", "--namespace", &cluster.namespace]).ok();
    let role = s.write("role.yaml", &role);
    cluster.kubectl(&["apply", "--server-side", "-f", role.to_str().unwrap()]);
}

#[track_caller]
fn done(outcome: Outcome, cluster: &Cluster) {
    assert_eq!(outcome.code, 0, "{}\n{}\n{}", outcome.stdout, outcome.stderr, cluster.state());
}

/// Serves the image of a tag on a port of the nodes.
fn serve(s: &Slipway, cluster: &Cluster, tag: &str, replicas: &str) -> SocketAddr {
    let image = format!("{NAME}:{tag}");
    done(s.run(&["deploy", NAME, "--image", &image, "--replicas", replicas]), cluster);
    done(s.run(&["expose", NAME, "--type", "NodePort"]), cluster);
    let at = address(s, NAME);
    wait_for("the port to answer", Duration::from_secs(30), || (page(at).0 == 200).then_some(()));
    at
}

/// What a service shows.
fn page(at: SocketAddr) -> (u16, String) {
    let (status, body) = http_at(at, "GET", "/index.html", "");
    (status, body.trim().to_owned())
}

/// Waits until the service is as declared, with this many ready replicas of its declared revision.
fn wait_until_ready(s: &Slipway, cluster: &Cluster, count: usize) {
    wait_state(s, cluster, &format!("{count} ready replicas"), |shown| {
        let replicas = shown["replicas"].as_array().unwrap();
        replicas.len() == count
            && replicas.iter().all(|one| one["state"] == "ready" && one["revision"] == shown["revision"])
            && shown["failing"].is_null()
            && shown["trouble"].is_null()
    });
}

/// Waits until the service is shown so, and gives what is shown.
fn wait_state(s: &Slipway, cluster: &Cluster, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    let began = std::time::Instant::now();
    loop {
        let shown = service(s, NAME);
        if so(&shown) {
            return shown;
        }
        assert!(began.elapsed() < PATIENCE, "not {what}: {shown:#}\n{}", cluster.state());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Events about something, as text.
fn events(s: &Slipway, subject: &str) -> String {
    s.run(&["events", "--subject", subject]).ok()
}

/// Waits for a command that runs beside.
#[track_caller]
fn finished(child: Child, cluster: &Cluster) -> Output {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}\n{}", cluster.state());
    output
}

/// Asserts that a reason is one sentence: one line that tells something.
#[track_caller]
fn assert_sentence(reason: &str, parts: &[&str]) {
    assert!(!reason.is_empty() && !reason.contains('\n') && reason.len() < 700, "no sentence: {reason}");
    for part in parts {
        assert!(reason.contains(part), "`{part}` is not told: {reason}");
    }
}

/// UIDs of what the engine applied.
fn uids(cluster: &Cluster) -> Vec<String> {
    let kinds = "deployments,services,serviceaccounts,configmaps,networkpolicies,poddisruptionbudgets";
    let label = format!("slipway.dev/service={NAME}");
    let form = "jsonpath={range .items[*]}{.kind}/{.metadata.name}={.metadata.uid}{\"\\n\"}{end}";
    let text = cluster.kubectl(&["get", kinds, "--selector", &label, "--output", form]);
    let mut all: Vec<String> = text.lines().map(str::to_owned).collect();
    all.sort();
    all
}

/// Deletes the service and the engine, and checks that nothing stays.
fn end(s: Slipway, cluster: &Cluster) {
    s.run(&["delete", NAME]).ok();
    forgotten(&s, cluster);
    s.run(&["engine", "rm", "kubernetes"]).ok();
    cluster.assert_empty();
    s.finish();
}

/// Waits until no service is left.
fn forgotten(s: &Slipway, cluster: &Cluster) {
    let began = std::time::Instant::now();
    while s.run(&["services", "--format", "json"]).ok().trim() != "[]" {
        assert!(began.elapsed() < PATIENCE, "it is not forgotten\n{}", cluster.state());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The programs of a cluster of `cargo xtask cluster`; what was stopped starts again at the end.
struct Programs<'a> {
    cluster: &'a Cluster,
    stopped: Vec<&'static str>,
}

impl<'a> Programs<'a> {
    /// `None`, said aloud, for a cluster whose programs are not the tests'.
    fn of(cluster: &'a Cluster) -> Option<Self> {
        if cluster.kubeconfig.with_file_name("control.sock").exists() {
            return Some(Self { cluster, stopped: Vec::new() });
        }
        // Written past the test harness, which would hide it.
        let _ = writeln!(std::io::stderr(), "SKIPPED: this cluster's programs cannot be stopped from here");
        None
    }

    fn ask(&self, action: &str, name: &str) {
        let mut stream = UnixStream::connect(self.cluster.kubeconfig.with_file_name("control.sock")).unwrap();
        stream.write_all(format!("{action} {name}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "ok\n", "{action} {name}");
    }

    /// It starts again by itself.
    fn kill(&self, name: &str) {
        self.ask("kill", name);
    }

    fn stop(&mut self, name: &'static str) {
        self.stopped.push(name);
        self.ask("stop", name);
    }

    fn start(&mut self, name: &'static str) {
        self.ask("start", name);
        self.stopped.retain(|stopped| *stopped != name);
    }
}

impl Drop for Programs<'_> {
    fn drop(&mut self) {
        for name in std::mem::take(&mut self.stopped) {
            self.ask("start", name);
        }
        wait_for("the API server to answer", Duration::from_secs(60), || {
            self.cluster.command(&["get", "--raw", "/readyz"]).status.success().then_some(())
        });
    }
}
