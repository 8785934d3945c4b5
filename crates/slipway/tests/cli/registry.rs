//! `pull`, `push`, `login`, `logout`, mirrors: against Debian's docker-registry.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Slipway, free_port, http, tiny_project, wait_for};

/// A running registry; killed when dropped.
pub struct Registry {
    child: Child,
    pub port: u16,
}

impl Registry {
    pub fn start(folder: &Path, extra: &str) -> Self {
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
             http:\n  addr: 127.0.0.1:{port}\n{extra}",
            folder.join("storage").display()
        );
        std::fs::create_dir_all(folder).unwrap();
        let path = folder.join("config.yml");
        std::fs::write(&path, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        wait_for("the registry", Duration::from_secs(10), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self { child, port }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn images_round_trip_and_mirrors_serve_docker_io() {
    let s = Slipway::new();
    s.busybox();
    let registry = Registry::start(&s.path("registry"), "");
    let host = format!("127.0.0.1:{}", registry.port);
    s.write("p/Dockerfile", "FROM box\nRUN echo made > /made\nCMD [\"cat\", \"/made\"]\n");
    let name = format!("{host}/library/made:1");
    s.run(&["build", "-t", &name, "p"]).ok();
    let pushed = s.run(&["push", &name]).ok();
    assert!(pushed.starts_with("sha256:"), "{pushed}");
    assert_eq!(s.run(&["push", &name]).ok(), pushed, "a second push gives the same digest");
    s.run(&["rmi", &name]).ok();
    s.run(&["system", "prune", "--all", "--build-cache"]).ok();
    assert_eq!(s.run(&["pull", &name]).ok(), pushed);
    assert_eq!(s.run(&["run", "--rm", &name]).ok(), "made\n");
    let copy = format!("{host}/copy/made:1");
    s.run(&["tag", &name, &copy]).ok();
    assert_eq!(s.run(&["push", &copy]).ok(), pushed, "what was pulled is pushed as it came");
    s.run(&["pull", &format!("{host}/library/made@{}", pushed.trim())]).ok();
    let stderr = s.run(&["pull", &format!("{host}/library/absent:1")]).fails(3);
    assert!(stderr.contains("absent"), "{stderr}");

    s.settings(&format!("[registries.\"docker.io\"]\nmirrors = [\"{host}\"]\n"));
    assert_eq!(
        s.run(&["run", "--rm", "made:1"]).ok(),
        "made\n",
        "docker.io/library/made comes from the mirror"
    );
    s.write("q/Dockerfile", "FROM made:1\nRUN cat /made\n");
    s.run(&["rmi", "made:1"]).ok();
    s.run(&["build", "q"]).ok();
    s.finish();
}

#[test]
fn credentials_and_certificates() {
    let s = Slipway::new();
    s.busybox();
    let folder = s.path("registry");
    std::fs::create_dir_all(&folder).unwrap();
    let hashed = Command::new("htpasswd").args(["-Bbn", "alice", "open sesame"]).output().unwrap();
    std::fs::write(folder.join("htpasswd"), hashed.stdout).unwrap();
    let (key, certificate) = (folder.join("key.pem"), folder.join("cert.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args([
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-addext",
            "basicConstraints=CA:FALSE",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    let registry = Registry::start(
        &folder,
        &format!(
            "  tls:\n    certificate: {}\n    key: {}\nauth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            certificate.display(),
            key.display(),
            folder.join("htpasswd").display()
        ),
    );
    let host = format!("127.0.0.1:{}", registry.port);
    let name = format!("{host}/private/box:1");
    s.run(&["tag", "box", &name]).ok();
    let stderr = s.run(&["push", &name]).fails(1);
    assert!(stderr.contains(&host), "the certificate is not trusted yet: {stderr}");
    s.settings(&format!("[registries.\"{host}\"]\nca_file = \"{}\"\n", certificate.display()));
    let stderr = s.run(&["push", &name]).fails(1);
    assert!(stderr.contains("slipway login"), "{stderr}");
    s.run_with(&["login", "-u", "alice", "--password-stdin", &host], b"wrong").fails(1);
    let done = s.run_with(&["login", "-u", "alice", "--password-stdin", &host], b"open sesame\n");
    assert_eq!(done.code, 0, "{}", done.stderr);
    let digest = s.run(&["push", &name]).ok();
    assert_eq!(s.run(&["pull", &name]).ok(), digest);
    s.run(&["logout", &host]).ok();
    let stderr = s.run(&["pull", &name]).fails(1);
    assert!(!stderr.contains("sesame"), "{stderr}");
    let log = std::fs::read_to_string(s.root().join("daemon.log")).unwrap();
    assert!(!log.contains("sesame"));
    s.run(&["logout", &host]).fails(3);
    s.finish();
}

#[test]
fn model_versions_round_trip() {
    let s = Slipway::new();
    s.python();
    let registry = Registry::start(&s.path("registry"), "");
    let project = tiny_project(&s, "p", 2.0);
    s.run(&["build", "-t", "slipway/tiny:latest", "p"]).ok();
    s.run(&["train", "--project", project.to_str().unwrap()]).ok();
    let reference = format!("127.0.0.1:{}/models/tiny:1", registry.port);
    let digest = s.run(&["model", "push", "tiny", &reference]).ok();
    let (status, manifest) = http(registry.port, "GET", "/v2/models/tiny/manifests/1", "");
    assert!(status == 200 && manifest.contains("cncf.model"), "{status} {manifest}");
    assert_eq!(s.run(&["model", "pull", &reference, "copied"]).ok(), "copied@1\n");
    let shown: serde_json::Value = serde_json::from_str(&s.run(&["model", "show", "copied@1"]).ok()).unwrap();
    assert_eq!((&shown["manifest"], &shown["metrics"]["accuracy"]), (&digest.trim().into(), &0.97.into()));
    s.finish();
}
