//! A registry in this process: the distribution API over memory, with hooks that let it misbehave.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use futures_util::StreamExt;
use slipway_types::Digest;

use super::super::digest_of;
use super::super::manifest::OCI_INDEX;
use super::fixtures::Image;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    pub status: u16,
    pub body: usize,
}

/// What a hook makes of a request instead of the right answer.
pub(crate) type Hook = Box<dyn FnMut(&Parts) -> Option<Response<Body>> + Send>;

#[derive(Clone, Default)]
pub(crate) enum Auth {
    #[default]
    None,
    Basic {
        user: String,
        password: String,
    },
    /// Tokens from `realm` for this user, and for anybody who wants to pull when `anonymous`.
    Token {
        user: String,
        password: String,
        anonymous: bool,
        /// Each token is good for so many requests.
        uses: usize,
    },
}

#[derive(Default)]
pub(crate) struct State {
    /// By repository and digest.
    pub blobs: HashMap<(String, String), Bytes>,
    /// By repository and tag or digest.
    pub manifests: HashMap<(String, String), (String, Bytes)>,
    pub seen: Vec<Seen>,
    pub auth: Auth,
    pub hook: Option<Hook>,
    pub mounting: bool,
    tokens: HashMap<String, (HashSet<String>, usize)>,
    uploads: usize,
}

pub(crate) struct Fake {
    pub host: String,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, own) = (state.clone(), host.clone());
        let app = axum::Router::new().fallback(move |request: Request<Body>| {
            let (state, host) = (shared.clone(), own.clone());
            async move { answer(state, host, request).await }
        });
        let task = tokio::spawn(async move {
            axum::serve(listener, app).await.unwrap();
        });
        Self { host, state, task }
    }

    pub fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn reference(&self, rest: &str) -> slipway_types::Reference {
        format!("{}/{rest}", self.host).parse().unwrap()
    }

    pub fn add(&self, repository: &str, tag: &str, image: &Image) {
        let mut state = self.state();
        for layer in &image.layers {
            state.blobs.insert((repository.into(), layer.digest.to_string()), layer.blob.clone().into());
        }
        state.blobs.insert((repository.into(), image.id().to_string()), image.config.clone().into());
        let entry = (image.media_type.to_owned(), Bytes::from(image.manifest.clone()));
        state.manifests.insert((repository.into(), tag.into()), entry.clone());
        state.manifests.insert((repository.into(), image.digest().to_string()), entry);
    }

    pub fn add_index(&self, repository: &str, tag: &str, index: &[u8]) {
        let entry = (OCI_INDEX.to_owned(), Bytes::copy_from_slice(index));
        self.state().manifests.insert((repository.into(), tag.into()), entry);
    }

    /// Answers requests whose method and path part match with what `make` gives, `times` times.
    pub fn misbehave(
        &self,
        method: Method,
        part: &str,
        mut times: usize,
        make: impl Fn(&Parts) -> Response<Body> + Send + 'static,
    ) {
        let part = part.to_owned();
        self.state().hook = Some(Box::new(move |parts| {
            let hit = times > 0 && parts.method == method && parts.uri.path().contains(&part);
            hit.then(|| {
                times -= 1;
                make(parts)
            })
        }));
    }

    /// Requests of this method whose path holds `part`, probes of the root left out.
    pub fn seen(&self, method: Method, part: &str) -> Vec<Seen> {
        let state = self.state();
        state.seen.iter().filter(|s| s.method == method && s.path.contains(part)).cloned().collect()
    }

    pub fn forget(&self) {
        self.state().seen.clear();
    }
}

pub(crate) fn reply(status: u16, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(crate) fn error(status: u16, code: &str, message: &str) -> Response<Body> {
    let body = serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string();
    with(reply(status, body), "content-type", "application/json")
}

pub(crate) fn with(mut response: Response<Body>, name: &'static str, value: &str) -> Response<Body> {
    response.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    response
}

/// Promises `length` bytes and breaks off after those of `body`.
pub(crate) fn cut(status: u16, body: Bytes, length: usize) -> Response<Body> {
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        body.chunks(16 << 10).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    let broken = futures_util::stream::once(async {
        // After what was sent has left this process.
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        Err(std::io::Error::other("cut"))
    });
    let stream = futures_util::stream::iter(pieces).chain(broken);
    with(reply(status, Body::from_stream(stream)), "content-length", &length.to_string())
}

async fn answer(
    state: Arc<Mutex<State>>,
    host: String,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let header = |name: header::HeaderName| parts.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
    let body = axum::body::to_bytes(body, 1 << 30).await;
    let received = body.as_ref().map_or(0, Bytes::len);
    let response = {
        let mut state = state.lock().unwrap();
        let mut hook = state.hook.take();
        let bent = hook.as_mut().and_then(|hook| hook(&parts));
        if state.hook.is_none() {
            state.hook = hook;
        }
        match (bent, body) {
            (Some(response), _) => response,
            (None, Ok(body)) => state.answer(&host, &parts, body),
            (None, Err(_)) => reply(400, "the body broke off"),
        }
    };
    state.lock().unwrap().seen.push(Seen {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        authorization: header(header::AUTHORIZATION),
        range: header(header::RANGE),
        status: response.status().as_u16(),
        body: received,
    });
    Ok(response)
}

fn query(parts: &Parts) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://x/?{}", parts.uri.query().unwrap_or_default())).unwrap();
    url.query_pairs().into_owned().collect()
}

impl State {
    fn answer(&mut self, host: &str, parts: &Parts, body: Bytes) -> Response<Body> {
        let path = parts.uri.path().to_owned();
        if path == "/token" {
            return self.token(parts);
        }
        let Some(rest) = path.strip_prefix("/v2/") else { return reply(404, "") };
        let (repository, kind, target) = match rest {
            "" => ("", "root", ""),
            _ => {
                let kinds = ["/manifests/", "/blobs/uploads/", "/blobs/"];
                let found = kinds.iter().find_map(|k| rest.split_once(k).map(|(r, t)| (r, *k, t)));
                match found {
                    Some(found) => found,
                    None => return error(404, "NAME_UNKNOWN", "no such page"),
                }
            }
        };
        let action = if matches!(parts.method, Method::GET | Method::HEAD) { "pull" } else { "push" };
        if let Some(refused) = self.refuse(host, parts, repository, action) {
            return refused;
        }
        match (kind, &parts.method) {
            ("root", _) => reply(200, "{}"),
            ("/manifests/", &Method::PUT) => {
                let digest = digest_of(&body).to_string();
                let media_type = parts.headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
                let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let named = value["layers"].as_array().unwrap().iter().chain([&value["config"]]);
                for blob in named {
                    let key = (repository.to_owned(), blob["digest"].as_str().unwrap().to_owned());
                    if !self.blobs.contains_key(&key) {
                        return error(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
                    }
                }
                for key in [target.to_owned(), digest.clone()] {
                    self.manifests.insert((repository.into(), key), (media_type.clone(), body.clone()));
                }
                with(reply(201, ""), "docker-content-digest", &digest)
            }
            ("/manifests/", _) => match self.manifests.get(&(repository.into(), target.into())) {
                Some((media_type, bytes)) => {
                    let digest = digest_of(bytes).to_string();
                    let response = with(reply(200, bytes.clone()), "content-type", media_type);
                    with(response, "docker-content-digest", &digest)
                }
                None => error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            },
            ("/blobs/uploads/", &Method::POST) => {
                let query: HashMap<_, _> = query(parts).into_iter().collect();
                if let (true, Some(digest), Some(from)) =
                    (self.mounting, query.get("mount"), query.get("from"))
                    && let Some(blob) = self.blobs.get(&(from.clone(), digest.clone())).cloned()
                {
                    self.blobs.insert((repository.into(), digest.clone()), blob);
                    return reply(201, "");
                }
                self.uploads += 1;
                let location = format!("/v2/{repository}/blobs/uploads/{}?state=a%3Db", self.uploads);
                with(reply(202, ""), "location", &location)
            }
            ("/blobs/uploads/", &Method::PUT) => {
                let query: HashMap<_, _> = query(parts).into_iter().collect();
                let digest = digest_of(&body).to_string();
                if query.get("state").map(String::as_str) != Some("a=b")
                    || query.get("digest") != Some(&digest)
                {
                    return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
                }
                self.blobs.insert((repository.into(), digest.clone()), body);
                with(reply(201, ""), "docker-content-digest", &digest)
            }
            ("/blobs/", _) => match self.blobs.get(&(repository.into(), target.into())) {
                Some(bytes) => blob(parts, bytes.clone()),
                None => error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
            },
            _ => error(405, "UNSUPPORTED", "not this way"),
        }
    }

    fn refuse(
        &mut self,
        host: &str,
        parts: &Parts,
        repository: &str,
        action: &str,
    ) -> Option<Response<Body>> {
        let sent = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
        match &self.auth {
            Auth::None => None,
            Auth::Basic { user, password } => {
                let right = sent == basic(user, password);
                (!right).then(|| {
                    let refusal = error(401, "UNAUTHORIZED", "authentication required");
                    with(refusal, "www-authenticate", "Basic realm=\"fake\"")
                })
            }
            Auth::Token { .. } => {
                let scope = format!("repository:{repository}:{action}");
                let token = sent.strip_prefix("Bearer ").unwrap_or_default();
                if let Some((scopes, uses)) = self.tokens.get_mut(token)
                    && *uses > 0
                    && (repository.is_empty() || scopes.contains(&scope))
                {
                    *uses -= 1;
                    return None;
                }
                let scope = if repository.is_empty() { String::new() } else { format!(",scope=\"{scope}\"") };
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"fake\"{scope}");
                Some(with(
                    error(401, "UNAUTHORIZED", "authentication required"),
                    "www-authenticate",
                    &challenge,
                ))
            }
        }
    }

    fn token(&mut self, parts: &Parts) -> Response<Body> {
        let Auth::Token { user, password, anonymous, uses } = self.auth.clone() else {
            return reply(404, "");
        };
        let sent = parts.headers.get(header::AUTHORIZATION).map(|v| v.to_str().unwrap().to_owned());
        let known = sent.as_deref() == Some(&basic(&user, &password));
        if sent.is_some() && !known {
            return reply(401, r#"{"details":"incorrect username or password"}"#);
        }
        let mut scopes = HashSet::new();
        for (key, value) in query(parts) {
            if key != "scope" {
                continue;
            }
            let (name, actions) = value.rsplit_once(':').unwrap();
            for action in actions.split(',') {
                if known || (anonymous && action == "pull") {
                    scopes.insert(format!("{name}:{action}"));
                }
            }
        }
        let token = format!("token-{}", self.tokens.len());
        self.tokens.insert(token.clone(), (scopes, uses));
        reply(200, serde_json::json!({"token": token, "expires_in": 300}).to_string())
    }
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {text}")
}

fn blob(parts: &Parts, bytes: Bytes) -> Response<Body> {
    let range = parts.headers.get(header::RANGE).and_then(|v| v.to_str().ok());
    let start = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match start {
        Some(start) if start >= bytes.len() => reply(416, ""),
        Some(start) => {
            let value = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            with(reply(206, bytes.slice(start..)), "content-range", &value)
        }
        None => reply(200, bytes),
    }
}

/// A digest that nothing has.
pub(crate) fn nowhere() -> Digest {
    digest_of(b"nothing has this content")
}
