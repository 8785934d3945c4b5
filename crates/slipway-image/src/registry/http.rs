//! One exchange with a registry: address, authorization, redirects, time limits, retries.

use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url};
use slipway_types::image::Credentials;

use super::auth::{self, Scope};
use super::endpoint::Endpoint;
use super::error::{NetworkCause, RegistryAnswer, RegistryAnswers, RequestError};
use super::shared::Shared;

/// How long a reply's headers, and each further piece of its body, may take.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of an error reply that are read.
const MAX_ERROR_BODY: u64 = 64 << 10;
const MAX_REDIRECTS: usize = 5;

/// One endpoint, ready to be asked.
#[derive(Clone)]
pub(crate) struct Session {
    pub shared: Arc<Shared>,
    pub endpoint: Endpoint,
    /// `scheme://host[:port]/v2/`.
    pub base: Url,
    pub client: Client,
}

/// What to send.
pub(crate) struct Call<'a> {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub scope: &'a Scope,
    /// For errors: `manifest x`, `blob sha256:…`.
    pub what: &'a str,
}

impl Session {
    pub fn credentials(&self) -> Option<Credentials> {
        (self.shared.credentials)(&self.endpoint.name)
    }

    /// The repository's path at this endpoint.
    pub fn repository(&self, repository: &str) -> String {
        format!("{}{repository}", self.endpoint.prefix)
    }

    /// `…/v2/<repository>/<rest>`.
    pub fn url(&self, repository: &str, rest: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{rest}", self.repository(repository)));
        url
    }

    fn is_same_origin(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Sends a request without a body once: answers a challenge, follows redirects. A reply that is no success is an error.
    pub async fn send(&self, call: &Call<'_>) -> Result<Response, RequestError> {
        self.send_with(call, REPLY_TIMEOUT, Ok).await
    }

    /// The same with a body that `prepare` adds, anew for every try.
    pub async fn send_with(
        &self,
        call: &Call<'_>,
        timeout: Duration,
        prepare: impl Fn(reqwest::RequestBuilder) -> Result<reqwest::RequestBuilder, RequestError> + Send + Sync,
    ) -> Result<Response, RequestError> {
        let host = &self.endpoint.name;
        let authority = &self.endpoint.authority;
        let mut url = call.url.clone();
        let mut redirects = 0;
        let mut challenged = false;
        let mut authorization = self.shared.auth.get(authority, call.scope);
        loop {
            let mut headers = call.headers.clone();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            let own = self.is_same_origin(&url);
            // Storage that a registry redirects to gets a signed address, never the registry's credentials.
            if let Some(authorization) = authorization.as_ref().filter(|_| own) {
                headers.insert(AUTHORIZATION, authorization.header.clone());
            }
            let request = prepare(self.client.request(call.method.clone(), url.clone()).headers(headers))?;
            let response = within(host, timeout, request.send())
                .await?
                .map_err(|e| network_error(host, &e, self.shared.has_answered(authority)))?;
            self.shared.note_answer(authority);
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && own && !challenged {
                challenged = true;
                let headers = response.headers().clone();
                // The registry's words explain a refusal better than the missing header does.
                let refusal = status_error(host, call.what, false, response).await;
                authorization = match auth::answer_challenge(self, call.scope, &headers).await {
                    Ok(authorization) => Some(authorization),
                    Err(RequestError::Unauthorized { with_credentials: false, answers, .. })
                        if answers.0.is_empty() =>
                    {
                        return Err(refusal);
                    }
                    Err(e) => return Err(e),
                };
                continue;
            }
            // The other redirects would turn an upload into a GET.
            let followed = match status.as_u16() {
                307 | 308 => true,
                301..=303 => matches!(call.method, Method::GET | Method::HEAD),
                _ => false,
            };
            if followed {
                redirects += 1;
                url = self.redirect(&url, &response, redirects)?;
                continue;
            }
            let with_credentials = own && authorization.is_some_and(|a| a.with_credentials);
            return Err(status_error(host, call.what, with_credentials, response).await);
        }
    }

    fn redirect(&self, from: &Url, response: &Response, count: usize) -> Result<Url, RequestError> {
        let problem = |problem: &str| RequestError::Protocol {
            host: self.endpoint.name.clone(),
            problem: problem.to_owned(),
        };
        if count > MAX_REDIRECTS {
            return Err(problem("it redirects without end"));
        }
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|v| v.to_str().ok())
            .ok_or_else(|| problem("it redirects to nowhere"))?;
        let to = from.join(location).map_err(|_| problem("it redirects to an address that is not valid"))?;
        match (from.scheme(), to.scheme()) {
            ("https", "https") | ("http", "http" | "https") => Ok(to),
            _ => Err(problem("it redirects from HTTPS to an address without encryption")),
        }
    }
}

/// Limits how long something may take.
pub(crate) async fn within<T>(
    host: &str,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Result<T, RequestError> {
    tokio::time::timeout(limit, future)
        .await
        .map_err(|_| RequestError::Timeout { host: host.to_owned(), seconds: limit.as_secs() })
}

/// Reads a body of at most `limit` bytes; returns the reply's headers with it.
pub(crate) async fn read_capped(
    host: &str,
    what: &'static str,
    mut response: Response,
    limit: u64,
) -> Result<(HeaderMap, Bytes), RequestError> {
    let too_large = || RequestError::TooLarge { host: host.to_owned(), what, limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    while let Some(chunk) =
        within(host, REPLY_TIMEOUT, response.chunk()).await?.map_err(|e| network_error(host, &e, true))?
    {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok((response.headers().clone(), body.freeze()))
}

/// Turns a reply that is no success into an error that carries the registry's words.
pub(crate) async fn status_error(
    host: &str,
    what: &str,
    with_credentials: bool,
    response: Response,
) -> RequestError {
    let status = response.status();
    let retry_after =
        response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(read_retry_after);
    let answers = match read_capped(host, "error", response, MAX_ERROR_BODY).await {
        Ok((_, body)) => read_answers(&body),
        Err(_) => RegistryAnswers::default(),
    };
    let (host, what) = (host.to_owned(), what.to_owned());
    match status.as_u16() {
        401 => RequestError::Unauthorized { host, with_credentials, answers },
        403 => RequestError::Forbidden { host, what, with_credentials, answers },
        404 => RequestError::NotFound { host, what, answers },
        429 => RequestError::Limited { host, retry_after, answers },
        status => RequestError::Status { host, status, what, retry_after, answers },
    }
}

/// `errors[]` of a reply; also the token services' `{"details": …}`. At most four, each cut to 300 characters.
fn read_answers(body: &[u8]) -> RegistryAnswers {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return RegistryAnswers::default();
    };
    let text = |v: Option<&serde_json::Value>| -> String {
        let text = v.and_then(|v| v.as_str()).unwrap_or_default();
        // What a stranger sends is shown in a terminal.
        text.chars().filter(|c| !c.is_control()).take(300).collect()
    };
    let mut answers: Vec<_> = value
        .get("errors")
        .and_then(|e| e.as_array())
        .into_iter()
        .flatten()
        .take(4)
        .map(|e| RegistryAnswer { code: text(e.get("code")), message: text(e.get("message")) })
        .collect();
    if answers.is_empty() {
        let message = text(value.get("details").or_else(|| value.get("message")));
        answers.push(RegistryAnswer { code: String::new(), message });
    }
    answers.retain(|a| !a.code.is_empty() || !a.message.is_empty());
    RegistryAnswers(answers)
}

/// Seconds, or an HTTP date.
fn read_retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let wait = at.duration_since(jiff::Timestamp::now());
    Some(wait.try_into().unwrap_or_default())
}

/// What kind of network failure it is. `answered_before`: whether this host has spoken before.
pub(crate) fn network_error(host: &str, error: &reqwest::Error, answered_before: bool) -> RequestError {
    let host = host.to_owned();
    let source = NetworkCause(innermost(error));
    match tls_fault(error) {
        Some(TlsFault::Certificate) => RequestError::Certificate { host, source },
        _ if error.is_connect() => RequestError::Connect { host, source, answered_before },
        _ => RequestError::Broken { host, source },
    }
}

/// How TLS failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsFault {
    /// The other side speaks TLS; its certificate is not trusted.
    Certificate,
    /// Anything else that TLS itself reports.
    Handshake,
}

pub(crate) fn tls_fault(error: &(dyn StdError + 'static)) -> Option<TlsFault> {
    let mut current = Some(error);
    while let Some(e) = current {
        // `io::Error` hides its payload from `source`.
        let inner = e.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let tls = e
            .downcast_ref::<rustls::Error>()
            .or_else(|| inner.and_then(|i| i.downcast_ref::<rustls::Error>()));
        match tls {
            Some(rustls::Error::InvalidCertificate(_)) => return Some(TlsFault::Certificate),
            Some(_) => return Some(TlsFault::Handshake),
            None => {}
        }
        current = match inner {
            Some(inner) => Some(inner),
            None => e.source(),
        };
    }
    None
}

/// The words of the error below all others.
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut current = error;
    while let Some(next) = current.source() {
        current = next;
    }
    current.to_string()
}

/// How often, and after which pauses, something is tried again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy {
    /// Tries in all.
    pub tries: u32,
    /// The first pause; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause, also when a registry asks for more.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { tries: 5, first_pause: Duration::from_millis(250), longest_pause: Duration::from_secs(60) }
    }
}

impl RetryPolicy {
    /// The pause after the `failures`-th failure in a row (from 1), or `None` when it is not worth another try.
    pub fn pause(&self, failures: u32, error: &RequestError) -> Option<Duration> {
        if failures >= self.tries || !error.is_transient() {
            return None;
        }
        let doubled = self.first_pause.saturating_mul(1 << (failures - 1).min(16));
        // Between half and the whole, so that parallel transfers do not knock together.
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.subsec_nanos() % 512);
        let own = doubled / 2 + doubled.saturating_mul(nanos) / 1024;
        Some(error.retry_after().unwrap_or_default().max(own).min(self.longest_pause))
    }

    /// Tries until it works, is hopeless, or was tried often enough.
    pub async fn run<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, RequestError>
    where
        F: Future<Output = Result<T, RequestError>>,
    {
        let mut failures = 0;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            failures += 1;
            match self.pause(failures, &error) {
                Some(pause) => {
                    tracing::debug!(%error, ?pause, "registry request is tried again");
                    tokio::time::sleep(pause).await;
                }
                None => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_registrys_words() {
        let body =
            br#"{"errors":[{"code":"DENIED","message":"no \u001b[31maccess","detail":{}},{"code":"X"}]}"#;
        assert_eq!(read_answers(body).to_string(), ": DENIED: no [31maccess; X");
        assert_eq!(read_answers(br#"{"details":"incorrect username"}"#).to_string(), ": incorrect username");
        for nothing in [&b"<html>"[..], b"", b"{}", b"[]", br#"{"errors":3}"#] {
            assert_eq!(read_answers(nothing).to_string(), "");
        }
        let many = serde_json::json!({"errors": vec![serde_json::json!({"code": "A".repeat(9999)}); 100]});
        assert!(read_answers(many.to_string().as_bytes()).to_string().len() < 2000);
    }

    #[test]
    fn reads_retry_after() {
        assert_eq!(read_retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(read_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let far = read_retry_after("Fri, 21 Oct 2050 07:28:00 GMT").unwrap();
        assert!(far > Duration::from_secs(3600 * 24 * 365));
        assert_eq!(read_retry_after("soon"), None);
    }

    #[test]
    fn pauses_grow_and_end() {
        let policy = RetryPolicy::default();
        let limited = |wait| RequestError::Limited {
            host: "h".into(),
            retry_after: wait,
            answers: RegistryAnswers::default(),
        };
        for (failures, from, to) in [(1, 125, 250), (2, 250, 500), (4, 1000, 2000)] {
            let pause = policy.pause(failures, &limited(None)).unwrap().as_millis();
            assert!((from..=to).contains(&pause), "{failures}: {pause}");
        }
        assert_eq!(policy.pause(1, &limited(Some(Duration::from_secs(9)))), Some(Duration::from_secs(9)));
        assert_eq!(policy.pause(1, &limited(Some(Duration::from_secs(9999)))), Some(policy.longest_pause));
        assert_eq!(policy.pause(5, &limited(None)), None);
        let hopeless = RequestError::NotFound {
            host: "h".into(),
            what: "x".into(),
            answers: RegistryAnswers::default(),
        };
        assert_eq!(policy.pause(1, &hopeless), None);
    }
}
