//! What all operations of a [`Registry`](super::Registry) share: settings, connections, tokens.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Url};
use slipway_types::image::RegistrySettings;

use super::auth::AuthCache;
use super::endpoint::Endpoint;
use super::error::{NetworkCause, RequestError};
use super::http::{RetryPolicy, Session, TlsFault, innermost, network_error, tls_fault, within};
use super::{CredentialsSource, Progress};
use crate::http_client;

/// How long a probe of a loopback address may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it is remembered whether a loopback address speaks HTTPS.
const SCHEME_LIFETIME: Duration = Duration::from_secs(60);
/// The most bytes of a file with certificates; a whole system's bundle has some 200 KiB.
const MAX_CA_FILE: u64 = 4 << 20;

pub(crate) struct Shared {
    pub settings: RegistrySettings,
    pub credentials: CredentialsSource,
    pub auth: AuthCache,
    pub retries: RetryPolicy,
    clients: Mutex<HashMap<Option<PathBuf>, Client>>,
    schemes: Mutex<HashMap<String, (&'static str, Instant)>>,
    answered: Mutex<HashSet<String>>,
}

impl Shared {
    pub fn new(settings: RegistrySettings, credentials: CredentialsSource, retries: RetryPolicy) -> Self {
        Self {
            settings,
            credentials,
            auth: AuthCache::default(),
            retries,
            clients: Mutex::default(),
            schemes: Mutex::default(),
            answered: Mutex::default(),
        }
    }

    /// A session with the registry itself, for pushes and log-ins.
    pub async fn session(self: &Arc<Self>, registry: &str) -> Result<Session, RequestError> {
        self.open(Endpoint::registry(&self.settings, registry)?).await
    }

    /// Finds out how an endpoint is spoken to.
    pub async fn open(self: &Arc<Self>, endpoint: Endpoint) -> Result<Session, RequestError> {
        let client = self.client(&endpoint)?;
        let scheme = if endpoint.plain_http {
            "http"
        } else if endpoint.is_loopback() {
            self.probe(&endpoint, &client).await?
        } else {
            "https"
        };
        let base = base_url(scheme, &endpoint)?;
        Ok(Session { shared: Arc::clone(self), endpoint, base, client })
    }

    /// HTTPS where it is spoken, else HTTP. A certificate that is not trusted is an error, never a reason for HTTP.
    async fn probe(&self, endpoint: &Endpoint, client: &Client) -> Result<&'static str, RequestError> {
        let known =
            self.schemes.lock().unwrap_or_else(PoisonError::into_inner).get(&endpoint.authority).copied();
        if let Some((scheme, at)) = known
            && at.elapsed() < SCHEME_LIFETIME
        {
            return Ok(scheme);
        }
        let host = &endpoint.name;
        let mut spoken = Err(RequestError::Address { address: host.clone() });
        for scheme in ["https", "http"] {
            let request = client.get(base_url(scheme, endpoint)?).send();
            spoken = match within(host, PROBE_TIMEOUT, request).await {
                Ok(Ok(_)) => Ok(scheme),
                Ok(Err(e)) if tls_fault(&e) == Some(TlsFault::Certificate) => {
                    return Err(network_error(host, &e, false));
                }
                Ok(Err(e)) => Err(network_error(host, &e, false)),
                Err(e) => Err(e),
            };
            if spoken.is_ok() {
                break;
            }
        }
        let scheme = spoken?;
        self.schemes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(endpoint.authority.clone(), (scheme, Instant::now()));
        Ok(scheme)
    }

    /// Whether a host has spoken before: only then is a refused connection a passing fault.
    pub fn has_answered(&self, authority: &str) -> bool {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).contains(authority)
    }

    pub fn note_answer(&self, authority: &str) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if !answered.contains(authority) {
            answered.insert(authority.to_owned());
        }
    }

    /// Connections are shared by all endpoints that trust the same certificates.
    fn client(&self, endpoint: &Endpoint) -> Result<Client, RequestError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&endpoint.ca_file) {
            return Ok(client.clone());
        }
        let client = build_client(endpoint)?;
        clients.insert(endpoint.ca_file.clone(), client.clone());
        Ok(client)
    }
}

fn base_url(scheme: &str, endpoint: &Endpoint) -> Result<Url, RequestError> {
    Url::parse(&format!("{scheme}://{}/v2/", endpoint.authority))
        .map_err(|_| RequestError::Address { address: endpoint.name.clone() })
}

fn build_client(endpoint: &Endpoint) -> Result<Client, RequestError> {
    let ca_error = |reason: String| RequestError::CaFile {
        host: endpoint.name.clone(),
        path: endpoint.ca_file.clone().unwrap_or_default(),
        source: NetworkCause(reason),
    };
    let extra = match &endpoint.ca_file {
        Some(path) => {
            let size = std::fs::metadata(path).map_err(|e| ca_error(e.to_string()))?.len();
            if size > MAX_CA_FILE {
                return Err(ca_error(format!("it has {size} bytes, more than {MAX_CA_FILE}")));
            }
            let pem = std::fs::read(path).map_err(|e| ca_error(e.to_string()))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|_| ca_error("it is no valid PEM file".to_owned()))?;
            if certificates.is_empty() {
                return Err(ca_error("it holds no certificate".to_owned()));
            }
            certificates
        }
        None => Vec::new(),
    };
    http_client::client(extra, Policy::none).map_err(|e| ca_error(innermost(&e)))
}

/// Emits at most some ten events a second for one blob.
pub(crate) struct BlobProgress {
    progress: Progress,
    digest: slipway_types::Digest,
    state: slipway_types::image::BlobState,
    total: Option<u64>,
    last: Instant,
}

impl BlobProgress {
    const INTERVAL: Duration = Duration::from_millis(100);

    pub fn new(
        progress: Progress,
        digest: slipway_types::Digest,
        state: slipway_types::image::BlobState,
        total: Option<u64>,
    ) -> Self {
        let mut this = Self { progress, digest, state, total, last: Instant::now() };
        this.emit(0);
        this
    }

    /// `done` bytes are through.
    pub fn at(&mut self, done: u64) {
        if self.last.elapsed() >= Self::INTERVAL {
            self.emit(done);
        }
    }

    /// The blob entered another state.
    pub fn enter(&mut self, state: slipway_types::image::BlobState, done: u64) {
        self.state = state;
        self.emit(done);
    }

    fn emit(&mut self, done: u64) {
        self.last = Instant::now();
        (self.progress)(slipway_types::image::TransferEvent::Blob {
            digest: self.digest.clone(),
            state: self.state,
            done,
            total: self.total,
        });
    }
}
