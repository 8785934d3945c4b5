//! Credentials and tokens: what is sent to whom, and for how long.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use slipway_types::image::Credentials;

use super::challenge::{Challenge, read_challenges};
use super::error::{RegistryAnswers, RequestError};
use super::http::{self, Session};

/// The most bytes of a token service's reply.
const MAX_TOKEN_REPLY: u64 = 1 << 20;
/// How long a token lives when its giver does not say (the distribution specification's default).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// Tokens are renewed this long before they end.
const MARGIN: Duration = Duration::from_secs(5);

/// What a request may do, as token services name it: `repository:NAME:pull,push`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scope(Vec<String>);

impl Scope {
    pub fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    pub fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// Also reads another repository, for cross-repository mounts.
    pub fn and_pull(mut self, repository: &str) -> Self {
        self.0.push(format!("repository:{repository}:pull"));
        self
    }
}

/// Headers that worked, by host and scope.
#[derive(Default)]
pub(crate) struct AuthCache {
    entries: Mutex<HashMap<(String, Option<Scope>), Entry>>,
}

#[derive(Clone)]
struct Entry {
    header: HeaderValue,
    with_credentials: bool,
    expires: Option<Instant>,
}

/// An `Authorization` header, and whether credentials of the user's stand behind it.
#[derive(Clone)]
pub(crate) struct Authorization {
    pub header: HeaderValue,
    pub with_credentials: bool,
}

impl AuthCache {
    /// What worked before for this host and scope.
    pub fn get(&self, authority: &str, scope: &Scope) -> Option<Authorization> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a scope: credentials that are good for everything at that host.
        let entry = entries
            .get(&(authority.to_owned(), Some(scope.clone())))
            .or_else(|| entries.get(&(authority.to_owned(), None)))?;
        if entry.expires.is_some_and(|at| at <= Instant::now()) {
            return None;
        }
        Some(Authorization { header: entry.header.clone(), with_credentials: entry.with_credentials })
    }

    fn put(&self, authority: &str, scope: Option<Scope>, entry: Entry) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        entries.retain(|_, e| e.expires.is_none_or(|at| at > now));
        entries.insert((authority.to_owned(), scope), entry);
    }

    pub fn forget(&self, authority: &str, scope: &Scope) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(&(authority.to_owned(), Some(scope.clone())));
        entries.remove(&(authority.to_owned(), None));
    }
}

/// Answers a 401: the header to try again with, or why there is none.
pub(crate) async fn answer_challenge(
    session: &Session,
    scope: &Scope,
    reply: &HeaderMap,
) -> Result<Authorization, RequestError> {
    let authority = &session.endpoint.authority;
    let cache = &session.shared.auth;
    cache.forget(authority, scope);
    let challenges: Vec<_> = reply
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(read_challenges)
        .collect();
    let credentials = session.credentials();
    for challenge in &challenges {
        let Challenge::Bearer { realm, service, scopes } = challenge else { continue };
        let entry = match &credentials {
            Some(Credentials::Token(token)) => Entry {
                header: sensitive(format!("Bearer {token}")).ok_or_else(|| unusable(session))?,
                with_credentials: true,
                expires: None,
            },
            Some(Credentials::Basic { username, password }) => {
                fetch_token(session, realm, service.as_deref(), scope, scopes, Some((username, password)))
                    .await?
            }
            None => fetch_token(session, realm, service.as_deref(), scope, scopes, None).await?,
        };
        let found = Authorization { header: entry.header.clone(), with_credentials: entry.with_credentials };
        cache.put(authority, Some(scope.clone()), entry);
        return Ok(found);
    }
    if challenges.contains(&Challenge::Basic)
        && let Some(Credentials::Basic { username, password }) = &credentials
    {
        let header = basic(username, password).ok_or_else(|| unusable(session))?;
        cache.put(authority, None, Entry { header: header.clone(), with_credentials: true, expires: None });
        return Ok(Authorization { header, with_credentials: true });
    }
    Err(RequestError::Unauthorized {
        host: session.endpoint.name.clone(),
        with_credentials: false,
        answers: RegistryAnswers::default(),
    })
}

#[derive(Deserialize)]
struct TokenReply {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Asks a token service (the distribution project's `auth/token` protocol).
async fn fetch_token(
    session: &Session,
    realm: &str,
    service: Option<&str>,
    wanted: &Scope,
    offered: &[String],
    login: Option<(&str, &str)>,
) -> Result<Entry, RequestError> {
    let protocol = |problem: &str| RequestError::Protocol {
        host: session.endpoint.name.clone(),
        problem: problem.to_owned(),
    };
    let mut url = Url::parse(realm).map_err(|_| protocol("its token service's address is not valid"))?;
    let secure = match url.scheme() {
        "https" => true,
        "http" => false,
        _ => return Err(protocol("its token service's address is not valid")),
    };
    // A password never leaves on a weaker connection than the registry's own.
    if !secure && session.base.scheme() == "https" {
        return Err(protocol("its token service would get the password without encryption"));
    }
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        let mut scopes = wanted.0.clone();
        // What the registry asks for beyond our own reading of the request.
        scopes.extend(offered.iter().filter(|s| !covers(&wanted.0, s)).cloned());
        for scope in &scopes {
            query.append_pair("scope", scope);
        }
        if let Some((username, _)) = login {
            query.append_pair("account", username);
        }
    }
    let mut request = session.client.get(url.clone());
    if let Some((username, password)) = login {
        request = request.header(AUTHORIZATION, basic(username, password).ok_or_else(|| unusable(session))?);
    }
    let host = url.host_str().unwrap_or("the token service").to_owned();
    let response = http::within(&host, http::REPLY_TIMEOUT, request.send())
        .await?
        .map_err(|e| http::network_error(&host, &e, true))?;
    let status = response.status();
    if !status.is_success() {
        let error = http::status_error(&host, "a token", login.is_some(), response).await;
        // The user knows the registry's name, not its token service's.
        return Err(match error {
            RequestError::Unauthorized { answers, .. } => RequestError::Unauthorized {
                host: session.endpoint.name.clone(),
                with_credentials: login.is_some(),
                answers,
            },
            other => other,
        });
    }
    let (_, body) = http::read_capped(&host, "reply of the token service", response, MAX_TOKEN_REPLY).await?;
    let reply: TokenReply =
        serde_json::from_slice(&body).map_err(|_| protocol("its token service's reply is not valid JSON"))?;
    let token = reply
        .token
        .filter(|t| !t.is_empty())
        .or(reply.access_token)
        .ok_or_else(|| protocol("its token service gave no token"))?;
    let lifetime = reply.expires_in.map_or(DEFAULT_LIFETIME, |s| Duration::from_secs(s.min(24 * 3600)));
    Ok(Entry {
        header: sensitive(format!("Bearer {token}"))
            .ok_or_else(|| protocol("its token service's token is not valid"))?,
        with_credentials: login.is_some(),
        expires: Some(Instant::now() + lifetime.saturating_sub(MARGIN)),
    })
}

/// Whether one of `wanted` allows all that `offered` does.
fn covers(wanted: &[String], offered: &str) -> bool {
    let Some((name, actions)) = offered.rsplit_once(':') else { return false };
    wanted.iter().any(|w| {
        w.rsplit_once(':')
            .is_some_and(|(n, ours)| n == name && actions.split(',').all(|a| ours.split(',').any(|o| o == a)))
    })
}

fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    sensitive(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

/// Marked so that no library logs it.
fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn unusable(session: &Session) -> RequestError {
    RequestError::Unauthorized {
        host: session.endpoint.name.clone(),
        with_credentials: true,
        answers: RegistryAnswers::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_no_scope_twice() {
        let wanted = Scope::push("a/b").0;
        for (offered, covered) in [
            ("repository:a/b:pull", true),
            ("repository:a/b:push,pull", true),
            ("repository:a/b:delete", false),
            ("repository:a/c:pull", false),
            ("registry:catalog:*", false),
            ("nonsense", false),
        ] {
            assert_eq!(covers(&wanted, offered), covered, "{offered}");
        }
    }

    #[test]
    fn debug_output_hides_headers() {
        let header = basic("user", "secret").unwrap();
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert!(sensitive("Bearer a\nb".to_owned()).is_none());
    }

    #[test]
    fn tokens_end() {
        let cache = AuthCache::default();
        let entry =
            |expires| Entry { header: HeaderValue::from_static("x"), with_credentials: false, expires };
        let scope = Scope::pull("a");
        cache.put("h", Some(scope.clone()), entry(Some(Instant::now())));
        assert!(cache.get("h", &scope).is_none());
        cache.put("h", Some(scope.clone()), entry(Some(Instant::now() + Duration::from_secs(60))));
        assert!(cache.get("h", &scope).is_some());
        assert!(cache.get("h", &Scope::push("a")).is_none() && cache.get("other", &scope).is_none());
        cache.put("h", None, entry(None));
        assert!(cache.get("h", &Scope::push("a")).is_some());
        cache.forget("h", &scope);
        assert!(cache.get("h", &scope).is_none());
    }
}
