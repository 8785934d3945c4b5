//! Headers of requests and answers on their way through.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, Request, Version};

use crate::refusal::Refusal;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers that concern one connection only, besides those that `Connection` names.
const OF_ONE_CONNECTION: [HeaderName; 7] =
    [TRANSFER_ENCODING, TE, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION];

/// Longest request id that is taken from a client.
const MAX_REQUEST_ID: usize = 128;

/// Checks what would make the request mean one thing here and another at the replica.
pub(crate) fn check<B>(request: &Request<B>, max_bytes: usize, max_count: usize) -> Result<(), Refusal> {
    let headers = request.headers();
    if request.method() == http::Method::CONNECT {
        return Err(Refusal::Tunnel);
    }
    if headers.len() > max_count {
        return Err(Refusal::HeadTooLarge(format!("{} headers", headers.len()), max_count.to_string()));
    }
    let target = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let size =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>() + target;
    if size > max_bytes {
        return Err(Refusal::HeadTooLarge(format!("{size} bytes"), max_bytes.to_string()));
    }
    // hyper drops a Content-Length beside a Transfer-Encoding, and refuses two that differ.
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Refusal::TransferCoding(lossy(coding)));
    }
    if let Some(protocol) = headers.get(UPGRADE)
        // A client that offers HTTP/2 in clear goes on with HTTP/1.1 when the offer is not taken.
        && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")
    {
        return Err(Refusal::Upgrade(lossy(protocol)));
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(Refusal::Malformed("more than one Host header")),
        (None, _) if request.version() >= Version::HTTP_11 => {
            return Err(Refusal::Malformed("no Host header"));
        }
        _ => {}
    }
    if !request.uri().path().starts_with('/') {
        return Err(Refusal::Malformed("the path does not start with `/`"));
    }
    Ok(())
}

/// The host that a request is for; an absolute request target goes before the header.
pub(crate) fn host<B>(request: &Request<B>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(HOST).and_then(|host| host.to_str().ok()),
    }
}

/// The client's request id, if it is one line of at most 128 visible ASCII characters.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let id = headers.get(X_REQUEST_ID)?;
    let sane = (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    sane.then_some(id)
}

/// Makes a client's headers those of the request to a replica. `client` is its address as text.
pub(crate) fn to_replica(
    headers: &mut HeaderMap,
    client: &HeaderValue,
    authority: Option<&str>,
    id: &HeaderValue,
) {
    strip(headers);
    headers.remove(EXPECT);
    if let Some(host) = authority.and_then(|host| HeaderValue::from_str(host).ok()) {
        headers.insert(HOST, host);
    }
    let host = headers.entry(HOST).or_insert(HeaderValue::from_static("localhost")).clone();
    headers.entry(X_FORWARDED_HOST).or_insert(host);
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    append(headers, X_FORWARDED_FOR, client.clone());
    append(headers, VIA, HeaderValue::from_static("1.1 slipway"));
    headers.insert(X_REQUEST_ID, id.clone());
}

/// Makes a replica's headers those of the answer to the client.
pub(crate) fn to_client(headers: &mut HeaderMap, id: &HeaderValue) {
    strip(headers);
    headers.insert(X_REQUEST_ID, id.clone());
}

/// Takes off what concerns one connection only (RFC 9110, section 7.6.1). What gives the body its length stays,
/// whatever `Connection` names.
fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| *name != CONTENT_LENGTH && *name != HOST && *name != X_REQUEST_ID)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    // Most messages have none of these, and to look through the names costs less than a search for each.
    if headers.keys().any(|name| OF_ONE_CONNECTION.contains(name)) {
        for name in &OF_ONE_CONNECTION {
            headers.remove(name);
        }
    }
}

/// Adds to a comma-separated list.
fn append(headers: &mut HeaderMap, name: HeaderName, item: HeaderValue) {
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    if list.is_empty() {
        headers.insert(name, item);
        return;
    }
    list.extend_from_slice(item.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&list) {
        headers.insert(name, value);
    }
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let mut all: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        all.sort();
        all
    }

    #[test]
    fn requests_lose_hop_by_hop_headers_and_gain_where_they_came_from() {
        let mut headers = map(&[
            ("host", "api.example"),
            ("connection", "keep-alive, X-Secret, content-length"),
            ("connection", "te"),
            ("x-secret", "1"),
            ("content-length", "5"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("authorization", "Bearer t"),
        ]);
        to_replica(
            &mut headers,
            &HeaderValue::from_static("127.0.0.1"),
            None,
            &HeaderValue::from_static("id-1"),
        );
        assert_eq!(
            shown(&headers),
            [
                "authorization: Bearer t",
                "content-length: 5",
                "host: api.example",
                "via: 1.1 slipway",
                "x-forwarded-for: 10.0.0.1, 10.0.0.2, 127.0.0.1",
                "x-forwarded-host: api.example",
                "x-forwarded-proto: https",
                "x-request-id: id-1",
            ]
        );
    }

    #[test]
    fn an_absolute_target_sets_the_host() {
        let mut headers = map(&[("host", "lie")]);
        to_replica(
            &mut headers,
            &HeaderValue::from_static("1.2.3.4"),
            Some("truth:80"),
            &HeaderValue::from_static("i"),
        );
        assert_eq!(headers[HOST], "truth:80");
    }

    #[test]
    fn only_sane_request_ids_are_taken() {
        let long = "x".repeat(129);
        for (id, sane) in [("abc-1_2/3", true), ("", false), ("a b", false), ("ä", false), (&long, false)] {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap());
            assert_eq!(request_id(&headers).is_some(), sane, "{id}");
        }
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let request = |headers: &[(&'static str, &'static str)]| {
            let mut request = Request::new(());
            *request.headers_mut() = map(headers);
            check(&request, 1000, 5)
        };
        assert_eq!(request(&[("host", "a")]), Ok(()));
        assert_eq!(request(&[("host", "a"), ("transfer-encoding", "Chunked")]), Ok(()));
        assert_eq!(request(&[("host", "a"), ("upgrade", "h2c")]), Ok(()));
        assert!(matches!(request(&[]), Err(Refusal::Malformed(_))));
        assert!(matches!(request(&[("host", "a"), ("host", "a")]), Err(Refusal::Malformed(_))));
        let coding = [("host", "a"), ("transfer-encoding", "gzip, chunked")];
        assert!(matches!(request(&coding), Err(Refusal::TransferCoding(_))));
        let twice = [("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert!(matches!(request(&twice), Err(Refusal::TransferCoding(_))));
        assert!(matches!(request(&[("host", "a"), ("upgrade", "websocket")]), Err(Refusal::Upgrade(_))));
        let many = [("host", "a"), ("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1")];
        assert!(matches!(request(&many), Err(Refusal::HeadTooLarge(..))));
        let long: &'static str = String::leak("x".repeat(1000));
        assert!(matches!(request(&[("host", "a"), ("a", long)]), Err(Refusal::HeadTooLarge(..))));
    }
}
