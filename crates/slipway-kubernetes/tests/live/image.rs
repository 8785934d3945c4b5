//! An image whose program stands in for the runner: it copies, waits, archives and answers probes.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use slipway_types::Reference;

const RUNNER: &str = r#"#!/bin/sh
case "$1" in
copy) exec cp -r "$2"/. "$3"/ ;;
wait) exec sleep "$2" ;;
output) rm -rf "$3" && exec mkdir -p "$2" "$3" ;;
archive) cd "$2" && exec tar -c -f - $(ls -d "$3" "$4" 2>/dev/null) ;;
esac
[ -z "$BROKEN" ] || { echo "broken on purpose"; exit 3; }
mkdir -p /tmp/www/v2/health
echo ok > /tmp/www/v2/health/ready
echo ok > /tmp/www/v2/health/live
echo "serving $1"
trap 'exit 0' TERM
httpd -f -p 8080 -h /tmp/www &
echo $! > /tmp/pid
wait $!
exit 4
"#;
/// Ends the program behind everybody's back. The first process of a container would not notice a signal.
pub const KILL: [&str; 3] = ["sh", "-c", "kill -9 $(cat /tmp/pid)"];
const APPLETS: &[&str] =
    &["sh", "cp", "rm", "ls", "sleep", "tar", "mkdir", "echo", "httpd", "cat", "seq", "sync"];

fn layer() -> Vec<u8> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = std::fs::read(busybox.expect("needs a static busybox (busybox-static)")).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind: tar::EntryType, mode: u32, size: usize| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header
    };
    for folder in ["bin", "slipway", "slipway/python", "model", "tmp", "workspace"] {
        let mut one = header(tar::EntryType::Directory, if folder == "tmp" { 0o1777 } else { 0o755 }, 0);
        tar.append_data(&mut one, folder, std::io::empty()).unwrap();
    }
    let files: [(&str, &[u8]); 3] = [
        ("bin/busybox", &busybox),
        ("slipway/slipway-runner", RUNNER.as_bytes()),
        ("model/weights", b"42\n"),
    ];
    for (path, bytes) in files {
        tar.append_data(&mut header(tar::EntryType::Regular, 0o755, bytes.len()), path, bytes).unwrap();
    }
    for applet in APPLETS {
        let mut link = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut link, format!("bin/{applet}"), "busybox").unwrap();
    }
    let mut bytes = tar.into_inner().unwrap();
    bytes.flush().unwrap();
    bytes
}

fn digest(bytes: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    slipway_types::Digest::from_sha256(digest).to_string()
}

/// Pushes it and returns it by digest.
pub async fn push(registry: &str) -> Reference {
    let layer = layer();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]}})
    .to_string();
    let blob =
        |media: &str, bytes: &[u8]| json!({"mediaType": media, "digest": digest(bytes), "size": bytes.len()});
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [blob("application/vnd.oci.image.layer.v1.tar", &layer)]})
    .to_string();
    let base = format!("http://{registry}/v2/slipway-live");
    for bytes in [layer, config.into_bytes()] {
        let (code, place) = send(Method::POST, &format!("{base}/blobs/uploads/"), "", Vec::new()).await;
        assert_eq!(code, StatusCode::ACCEPTED);
        let place = place.unwrap();
        let place = if place.starts_with('/') { format!("http://{registry}{place}") } else { place };
        let joint = if place.contains('?') { '&' } else { '?' };
        let url = format!("{place}{joint}digest={}", digest(&bytes));
        assert_eq!(send(Method::PUT, &url, "application/octet-stream", bytes).await.0, StatusCode::CREATED);
    }
    let name = digest(manifest.as_bytes());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let (code, _) = send(Method::PUT, &format!("{base}/manifests/{name}"), kind, manifest.into_bytes()).await;
    assert_eq!(code, StatusCode::CREATED);
    format!("{registry}/slipway-live@{name}").parse().unwrap()
}

async fn send(method: Method, url: &str, kind: &str, body: Vec<u8>) -> (StatusCode, Option<String>) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::builder().method(method).uri(url);
    if !kind.is_empty() {
        request = request.header("content-type", kind);
    }
    let answer = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let place = answer.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
    let code = answer.status();
    answer.into_body().collect().await.unwrap();
    (code, place)
}
