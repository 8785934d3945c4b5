//! Where the content of one repository is asked for, best first.

use std::future::Future;
use std::sync::Arc;

use super::endpoint::Endpoint;
use super::error::{PullError, RequestError};
use super::http::Session;
use super::shared::Shared;

/// The mirrors of a registry and itself, for one repository.
pub(crate) struct Sources {
    pub shared: Arc<Shared>,
    pub endpoints: Vec<Endpoint>,
    pub repository: String,
}

/// Why no source gave it.
pub(crate) struct NoSource {
    /// What each but the last said.
    mirrors: Vec<String>,
    last: Box<RequestError>,
}

impl NoSource {
    pub fn pulling(self, reference: &str) -> PullError {
        PullError::Request { reference: reference.to_owned(), mirrors: self.mirrors, source: self.last }
    }
}

impl Sources {
    pub fn new(shared: &Arc<Shared>, registry: &str, repository: &str) -> Result<Self, RequestError> {
        Ok(Self {
            shared: Arc::clone(shared),
            endpoints: Endpoint::for_pull(&shared.settings, registry)?,
            repository: repository.to_owned(),
        })
    }

    /// Asks one after the other, each as often as is sensible. Changed content ends it at once:
    /// a mirror that lies must be seen, not worked around.
    pub async fn first<T, F>(&self, ask: impl Fn(Session) -> F) -> Result<(T, usize), NoSource>
    where
        F: Future<Output = Result<T, RequestError>>,
    {
        let mut mirrors = Vec::new();
        let mut last = None;
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            let result = match self.shared.open(endpoint.clone()).await {
                Ok(session) => self.shared.retries.run(|| ask(session.clone())).await,
                Err(e) => Err(e),
            };
            match result {
                Ok(value) => return Ok((value, i)),
                Err(e) if e.is_corruption() => return Err(NoSource { mirrors, last: Box::new(e) }),
                Err(e) => {
                    mirrors.extend(last.replace(e).map(|e: RequestError| e.one_line()));
                }
            }
        }
        let last = last.unwrap_or(RequestError::Address { address: String::new() });
        Err(NoSource { mirrors, last: Box::new(last) })
    }

    /// Asks this one before the others from now on.
    pub fn prefer(&mut self, index: usize) {
        self.endpoints[..=index].rotate_right(1);
    }
}
