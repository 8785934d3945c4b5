//! Token authentication of Debian's `docker-registry`: it trusts tokens that a service of this test signs.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use slipway_types::ErrorCode;

use super::real::{Kind, logged_in, openssl, round_trip, start};
use super::*;

/// Gives tokens to `tester` with the password `slipway`; for what was asked, and nothing to anybody else.
struct TokenService {
    port: u16,
    /// The folder with the signing key, once there is one.
    keys: Arc<OnceLock<PathBuf>>,
    given: Arc<AtomicUsize>,
}

impl TokenService {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (keys, given): (Arc<OnceLock<PathBuf>>, Arc<AtomicUsize>) = Default::default();
        let (theirs, count) = (keys.clone(), given.clone());
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = answer(stream, theirs.get().unwrap());
            }
        });
        Self { port, keys, given }
    }
}

fn answer(mut stream: TcpStream, keys: &std::path::Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut authorization = None;
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        if name.eq_ignore_ascii_case("authorization") {
            authorization = Some(value.trim().to_owned());
        }
    }
    let known = format!("Basic {}", STANDARD.encode("tester:slipway"));
    let (status, body) = match authorization {
        Some(given) if given != known => ("401 Unauthorized", "{}".to_owned()),
        given => {
            let query = first.split(' ').nth(1).and_then(|target| target.split_once('?')).unwrap().1;
            assert!(query.contains("service=test-registry"), "{query}");
            let access = if given.is_some() { access(query) } else { Vec::new() };
            ("200 OK", json!({ "token": sign(keys, &access), "expires_in": 60 }).to_string())
        }
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// The scopes of a query: `repository:team/app:pull,push`, percent-encoded.
fn access(query: &str) -> Vec<serde_json::Value> {
    let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    let decoded = scopes.map(|text| text.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","));
    decoded
        .flat_map(|text| text.split(['+', ' ']).map(str::to_owned).collect::<Vec<_>>())
        .map(|scope| {
            let parts: Vec<&str> = scope.split(':').collect();
            json!({ "type": parts[0], "name": parts[1], "actions": parts[2].split(',').collect::<Vec<_>>() })
        })
        .collect()
}

fn sign(keys: &std::path::Path, access: &[serde_json::Value]) -> String {
    let pem = std::fs::read_to_string(keys.join("token.pem")).unwrap();
    let certificate: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [certificate] });
    let claims = json!({
        "iss": "test-issuer", "sub": "tester", "aud": "test-registry", "jti": "1",
        "iat": now, "nbf": now - 10, "exp": now + 60, "access": access,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &signed).unwrap();
    let signature = openssl(keys, &format!("dgst -sha256 -sign token.key {}", file.path().display()));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tokens() {
    let service = TokenService::new();
    let Some(server) = start(Kind::Token(service.port)) else { return };
    service.keys.set(server.dir.path().to_owned()).unwrap();
    let registry = logged_in(&server, RegistrySettings::default());
    round_trip(&server, &registry).await;
    assert!(service.given.load(Ordering::SeqCst) > 0);
    registry.login_check(&server.host, &password("tester", "slipway")).await.unwrap();
    let refused = registry.login_check(&server.host, &password("tester", "no")).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unauthorized);
    // A token without the right to it is no way in.
    let platform = "linux/amd64".parse().unwrap();
    let name = reference(&format!("{}/team/app:Gzip", server.host));
    let refused = plain_client().pull(&store().store, &name, &platform, silent()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unauthorized, "{}", everything(&refused));
}
