//! Small documents from a registry: manifests, indexes, configurations. Always whole and always verified.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use sha2::{Digest as _, Sha256};
use slipway_types::Digest;

use super::auth::Scope;
use super::error::RequestError;
use super::http::{Call, Session, read_capped};
use super::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, MAX_CONFIG, MAX_MANIFEST, OCI_INDEX, OCI_MANIFEST,
};

/// A manifest or index as it came.
pub(crate) struct RawDocument {
    pub bytes: Bytes,
    pub digest: Digest,
    pub content_type: Option<String>,
}

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

/// Gets a manifest by tag or digest. `promised` is what the reference or an index says about it.
pub(crate) async fn fetch_manifest(
    session: &Session,
    repository: &str,
    reference: &str,
    promised: Option<&Digest>,
) -> Result<RawDocument, RequestError> {
    let host = &session.endpoint.name;
    let accepted = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", ");
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&accepted) {
        headers.insert(ACCEPT, value);
    }
    let call = Call {
        method: Method::GET,
        url: session.url(repository, &format!("manifests/{reference}")),
        headers,
        scope: &Scope::pull(&session.repository(repository)),
        what: &manifest_name(repository, reference),
    };
    let response = session.send(&call).await?;
    let (headers, bytes) = read_capped(host, "manifest", response, MAX_MANIFEST).await?;
    let digest = digest_of(&bytes);
    let header = headers
        .get("docker-content-digest")
        .and_then(|v| v.to_str().ok())
        // A digest of another kind cannot be compared; what counts is `promised`.
        .and_then(|text| text.parse::<Digest>().ok());
    if let Some(promised) = promised.or(header.as_ref())
        && *promised != digest
    {
        return Err(RequestError::Digest {
            host: host.clone(),
            what: "manifest",
            promised: promised.clone(),
            received: digest,
        });
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
    Ok(RawDocument { bytes, digest, content_type })
}

/// Gets a blob that is small enough for memory.
pub(crate) async fn fetch_config(
    session: &Session,
    repository: &str,
    blob: &Descriptor,
) -> Result<Bytes, RequestError> {
    let host = &session.endpoint.name;
    if blob.size > MAX_CONFIG {
        return Err(RequestError::TooLarge { host: host.clone(), what: "configuration", limit: MAX_CONFIG });
    }
    let call = Call {
        method: Method::GET,
        url: session.url(repository, &format!("blobs/{}", blob.digest)),
        headers: HeaderMap::new(),
        scope: &Scope::pull(&session.repository(repository)),
        what: &format!("configuration {}", blob.digest),
    };
    let response = session.send(&call).await?;
    let (_, bytes) = read_capped(host, "configuration", response, MAX_CONFIG).await?;
    let received = digest_of(&bytes);
    if received != blob.digest {
        return Err(RequestError::Digest {
            host: host.clone(),
            what: "configuration",
            promised: blob.digest.clone(),
            received,
        });
    }
    if bytes.len() as u64 != blob.size {
        return Err(RequestError::Size {
            host: host.clone(),
            what: "configuration",
            digest: blob.digest.clone(),
            promised: blob.size,
            received: bytes.len() as u64,
        });
    }
    Ok(bytes)
}

/// What messages call the manifest that a tag or digest names.
pub(crate) fn manifest_name(repository: &str, target: &str) -> String {
    let separator = if target.contains(':') { '@' } else { ':' };
    format!("manifest {repository}{separator}{target}")
}
