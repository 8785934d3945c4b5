//! Round trips through Debian's `docker-registry` (distribution 2.8).

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use slipway_types::ErrorCode;

use super::super::Compression;
use super::fixtures::{Image, Layer, noise};
use super::*;

const PROGRAM: &str = "/usr/bin/docker-registry";
/// bcrypt of `slipway`, cost 5.
const HTPASSWD: &str = "tester:$2y$05$abcdefghijklmnopqrstuuTbRj4JTB65o.ipLCknMlpHjEAa4HxM6\n";

pub(super) struct Server {
    child: Child,
    pub(super) host: String,
    pub(super) dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Open,
    Password,
    Tls,
    /// The port of the token service on loopback.
    Token(u16),
}

/// `None`, said aloud, where the program is not installed; a failure where no test may be skipped.
pub(super) fn start(kind: Kind) -> Option<Server> {
    if !Path::new(PROGRAM).exists() {
        // Written past the test harness, which would hide it.
        let _ =
            writeln!(std::io::stderr(), "SKIPPED: {PROGRAM} is not installed (apt install docker-registry)");
        assert!(std::env::var_os("SLIPWAY_TEST_NO_SKIP").is_none(), "no test may be skipped here");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = format!("127.0.0.1:{port}");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let mut config = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {host}\n",
        at("data")
    );
    if kind == Kind::Tls {
        make_certificates(dir.path());
        config.push_str(&format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            at("server.pem"),
            at("server.key")
        ));
    }
    if let Kind::Token(service) = kind {
        openssl(
            dir.path(),
            "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout token.key -out token.pem -subj /CN=issuer",
        );
        config.push_str(&format!(
            "auth:\n  token:\n    realm: http://127.0.0.1:{service}/token\n    service: test-registry\n    issuer: test-issuer\n    rootcertbundle: {}\n",
            at("token.pem")
        ));
    } else if kind != Kind::Open {
        std::fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        config.push_str(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", at("htpasswd")));
    }
    std::fs::write(dir.path().join("config.yml"), config).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let child = Command::new(PROGRAM)
        .args(["serve", &at("config.yml")])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let server = Server { child, host, dir };
    for _ in 0..200 {
        if std::net::TcpStream::connect(&server.host).is_ok() {
            return Some(server);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!(
        "the registry does not start: {}",
        std::fs::read_to_string(server.dir.path().join("log")).unwrap()
    );
}

/// An authority of its own and a certificate for 127.0.0.1.
fn make_certificates(dir: &Path) {
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    for command in [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=test-ca",
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj /CN=test",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.pem",
    ] {
        openssl(dir, command);
    }
}

pub(super) fn openssl(dir: &Path, command: &str) -> Vec<u8> {
    let out = Command::new("openssl").args(command.split(' ')).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

pub(super) fn logged_in(server: &Server, settings: RegistrySettings) -> Registry {
    client(settings, vec![(server.host.clone(), password("tester", "slipway"))])
}

pub(super) async fn round_trip(server: &Server, registry: &Registry) {
    let platform = "linux/amd64".parse().unwrap();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let own = store();
        let id = push::build(&own.store);
        let name = reference(&format!("{}/team/app:{compression:?}", server.host));
        let pushed = registry.push(&own.store, &id, &name, compression, silent()).await.unwrap();
        let events = Events::default();
        let again = registry.push(&own.store, &id, &name, compression, events.progress()).await.unwrap();
        assert_eq!(again, pushed);
        assert!(events.states().iter().all(|s| *s == BlobState::Exists), "{:?}", events.states());

        let other = store();
        let pulled = registry.pull(&other.store, &name, &platform, silent()).await.unwrap();
        assert_eq!((&pulled.image, &pulled.manifest), (&id, &pushed));
        let layer = &other.store.image(&id).unwrap().layers[0];
        assert_eq!(
            std::fs::read(other.store.layer_path(layer).join("app/first")).unwrap(),
            noise(200_000, 1)
        );
        // On to another repository: mounted, the digest unchanged; then pulled by that digest.
        let copy = reference(&format!("{}/team/copy:1", server.host));
        assert_eq!(
            registry.push(&other.store, &id, &copy, Compression::Gzip, silent()).await.unwrap(),
            pushed
        );
        let pinned = reference(&format!("{}/team/copy@{pushed}", server.host));
        registry.pull(&store().store, &pinned, &platform, silent()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_on_loopback() {
    let Some(server) = start(Kind::Open) else { return };
    let registry = plain_client();
    round_trip(&server, &registry).await;
    let platform = "linux/amd64".parse().unwrap();
    let missing = reference(&format!("{}/none:1", server.host));
    let failed = registry.pull(&store().store, &missing, &platform, silent()).await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::NotFound);
    assert!(everything(&failed).contains("MANIFEST_UNKNOWN"), "{}", everything(&failed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_password() {
    let Some(server) = start(Kind::Password) else { return };
    let registry = logged_in(&server, RegistrySettings::default());
    round_trip(&server, &registry).await;
    registry.login_check(&server.host, &password("tester", "slipway")).await.unwrap();
    let refused = registry.login_check(&server.host, &password("tester", "no")).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unauthorized);
    let platform = "linux/amd64".parse().unwrap();
    let name = reference(&format!("{}/team/app:Gzip", server.host));
    let refused = plain_client().pull(&store().store, &name, &platform, silent()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unauthorized);
    assert!(refused.hint().unwrap().contains(&format!("slipway login {}", server.host)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_with_an_authority_of_its_own() {
    let Some(server) = start(Kind::Tls) else { return };
    let mut settings = RegistrySettings::default();
    let ca_file = Some(server.dir.path().join("ca.pem"));
    settings.registries.insert(server.host.clone(), Settings { ca_file, ..Settings::default() });
    round_trip(&server, &logged_in(&server, settings.clone())).await;

    // Not trusted is not a reason to try HTTP, on loopback either.
    let platform = "linux/amd64".parse().unwrap();
    let name = reference(&format!("{}/team/app:Gzip", server.host));
    let untrusted = logged_in(&server, RegistrySettings::default());
    let failed = untrusted.pull(&store().store, &name, &platform, silent()).await.unwrap_err();
    assert_eq!(failed.code(), ErrorCode::Unavailable);
    assert!(everything(&failed).contains("certificate") && failed.hint().unwrap().contains("ca_file"));

    settings.registries.get_mut(&server.host).unwrap().ca_file = Some(server.dir.path().join("san"));
    let failed = logged_in(&server, settings.clone())
        .pull(&store().store, &name, &platform, silent())
        .await
        .unwrap_err();
    assert_eq!(failed.code(), ErrorCode::InvalidArgument);
    assert!(everything(&failed).contains("holds no certificate"), "{}", everything(&failed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_mirror_of_docker_hub() {
    let Some(server) = start(Kind::Open) else { return };
    let own = store();
    let registry = client(mirrored("docker.io", &[&server.host]), vec![]);
    let id = push::build(&own.store);
    let at_mirror = reference(&format!("{}/library/python:3.12", server.host));
    let pushed = registry.push(&own.store, &id, &at_mirror, Compression::Gzip, silent()).await.unwrap();
    let other = store();
    let platform = "linux/amd64".parse().unwrap();
    let pulled = registry.pull(&other.store, &reference("python:3.12"), &platform, silent()).await.unwrap();
    assert_eq!(pulled.manifest, pushed);
    assert_eq!(other.store.image(&id).unwrap().names, [reference("docker.io/library/python:3.12")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_image_and_a_model_keep_their_digests() {
    let Some(server) = start(Kind::Password) else { return };
    let registry = logged_in(&server, RegistrySettings::default());
    let platform = "linux/amd64".parse().unwrap();
    let image = Image::docker(vec![Layer::gzip_members(&[("a", &noise(100_000, 1))])]);
    let fake = fake::Fake::start().await;
    fake.add("foreign", "1", &image);
    let own = store();
    let pulled = registry.pull(&own.store, &fake.reference("foreign:1"), &platform, silent()).await.unwrap();
    let name = reference(&format!("{}/foreign:1", server.host));
    let pushed = registry.push(&own.store, &pulled.image, &name, Compression::Zstd, silent()).await.unwrap();
    assert_eq!(pushed, image.digest());
    let back = registry.pull(&store().store, &name, &platform, silent()).await.unwrap();
    assert_eq!(back.manifest, image.digest());

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.onnx"), noise(500_000, 2)).unwrap();
    std::fs::write(folder.path().join("empty"), b"").unwrap();
    let meta = crate::model::ModelMeta {
        model: "m".into(),
        version: 1,
        format: slipway_types::model::ModelFormat::Onnx,
        entry: None,
        lineage: Default::default(),
        metrics: Default::default(),
        created_at: "2026-11-24T10:00:00Z".parse().unwrap(),
    };
    let packed = crate::model::pack(&own.store, folder.path(), &meta).unwrap();
    let name = reference(&format!("{}/models/m:1", server.host));
    registry.push_artifact(&own.store, &packed.manifest, &name, silent()).await.unwrap();
    let other = store();
    assert_eq!(registry.pull_artifact(&other.store, &name, silent()).await.unwrap(), packed.manifest);
    assert_eq!(crate::model::read_manifest(&other.store, &packed.manifest).unwrap().files, packed.files);
}
