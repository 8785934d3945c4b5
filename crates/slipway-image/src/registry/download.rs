//! Blobs from the network to a consumer: checked for size, resumed where they broke off.

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::auth::Scope;
use super::error::RequestError;
use super::http::{Call, REPLY_TIMEOUT, Session, network_error, within};
use super::manifest::Descriptor;
use super::shared::BlobProgress;
use super::sources::Sources;

/// This much progress between two failures makes the second one the first again.
const PROGRESS_THAT_COUNTS: u64 = 1 << 20;

/// What goes to the consumer. A channel that closes without `End` means that the transfer was given up.
pub(crate) enum Piece {
    Data(Bytes),
    End,
}

/// Why a download ended early.
pub(crate) enum DownloadError {
    Request(RequestError),
    /// The consumer stopped; it knows why.
    ConsumerGone,
    /// Another transfer of the same operation failed.
    Cancelled,
}

impl From<RequestError> for DownloadError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// One blob on its way.
pub(crate) struct Download<'a> {
    pub sources: &'a Sources,
    pub blob: &'a Descriptor,
    /// For errors: `layer`, `file`.
    pub what: &'static str,
    pub sink: &'a mpsc::Sender<Piece>,
    pub progress: &'a mut BlobProgress,
    pub cancel: &'a CancellationToken,
    /// Bytes that the consumer has.
    offset: u64,
    /// Who sent the last of them.
    host: String,
}

impl<'a> Download<'a> {
    pub fn new(
        sources: &'a Sources,
        blob: &'a Descriptor,
        what: &'static str,
        sink: &'a mpsc::Sender<Piece>,
        progress: &'a mut BlobProgress,
        cancel: &'a CancellationToken,
    ) -> Self {
        Self { sources, blob, what, sink, progress, cancel, offset: 0, host: String::new() }
    }

    /// Sends the whole blob and `End` to the consumer; returns the host that sent it (the last of several).
    /// Every source is tried in turn; what one has sent is not asked of the next again.
    pub async fn run(mut self) -> Result<String, DownloadError> {
        let cancel = self.cancel.clone();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(DownloadError::Cancelled),
            done = self.all_sources() => done.map(|()| self.host),
        }
    }

    async fn all_sources(&mut self) -> Result<(), DownloadError> {
        let mut last = None;
        for endpoint in &self.sources.endpoints {
            let result = match self.sources.shared.open(endpoint.clone()).await {
                Ok(session) => {
                    self.host.clone_from(&session.endpoint.name);
                    self.one_source(&session).await
                }
                Err(e) => Err(e.into()),
            };
            match result {
                Ok(()) => return self.give(Piece::End).await,
                Err(DownloadError::Request(e)) if !e.is_corruption() => last = Some(e),
                Err(other) => return Err(other),
            }
        }
        Err(DownloadError::Request(last.unwrap_or_else(|| RequestError::Address { address: String::new() })))
    }

    async fn one_source(&mut self, session: &Session) -> Result<(), DownloadError> {
        let retries = session.shared.retries;
        let mut failures = 0;
        let mut mark = self.offset;
        while self.offset < self.blob.size || self.blob.size == 0 {
            let error = match self.attempt(session).await {
                Ok(()) => break,
                Err(DownloadError::Request(e)) => e,
                Err(other) => return Err(other),
            };
            if self.offset - mark >= PROGRESS_THAT_COUNTS {
                failures = 0;
            }
            mark = self.offset;
            failures += 1;
            match retries.pause(failures, &error) {
                Some(pause) => {
                    tracing::debug!(%error, offset = self.offset, "blob transfer is resumed");
                    tokio::time::sleep(pause).await;
                }
                None => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// One request, from the offset to the end.
    async fn attempt(&mut self, session: &Session) -> Result<(), DownloadError> {
        let host = &session.endpoint.name;
        let mut headers = HeaderMap::new();
        if self.offset > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", self.offset))
        {
            headers.insert(RANGE, range);
        }
        let call = Call {
            method: Method::GET,
            url: session.url(&self.sources.repository, &format!("blobs/{}", self.blob.digest)),
            headers,
            scope: &Scope::pull(&session.repository(&self.sources.repository)),
            what: &format!("{} {}", self.what, self.blob.digest),
        };
        let mut response = match session.send(&call).await {
            Ok(response) => response,
            // Nothing follows what came so far: the blob is shorter than promised.
            Err(RequestError::Status { status: 416, .. }) => {
                return Err(self.wrong_size(host, self.offset).into());
            }
            Err(e) => return Err(e.into()),
        };
        let mut skip = 0;
        let mut expected = self.blob.size;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let start =
                response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).and_then(range_start);
            if start != Some(self.offset) {
                let problem = "it sent another part of a blob than was asked for".to_owned();
                return Err(RequestError::Protocol { host: host.clone(), problem }.into());
            }
            expected -= self.offset;
        } else {
            // The server knows no ranges: what is there already comes again.
            skip = self.offset;
        }
        if let Some(length) = response.content_length()
            && length != expected
        {
            return Err(self.wrong_size(host, self.blob.size - expected + length).into());
        }
        loop {
            let chunk = within(host, REPLY_TIMEOUT, response.chunk())
                .await?
                .map_err(|e| network_error(host, &e, true))?;
            let Some(mut chunk) = chunk else { break };
            if skip > 0 {
                let cut = skip.min(chunk.len() as u64);
                skip -= cut;
                let _ = chunk.split_to(usize::try_from(cut).unwrap_or(chunk.len()));
            }
            if chunk.is_empty() {
                continue;
            }
            let after = self.offset + chunk.len() as u64;
            if after > self.blob.size {
                return Err(self.wrong_size(host, after).into());
            }
            self.give(Piece::Data(chunk)).await?;
            self.offset = after;
            self.progress.at(after);
        }
        if self.offset < self.blob.size {
            let source = super::error::NetworkCause(format!(
                "the reply ended after {} of {} bytes",
                self.offset, self.blob.size
            ));
            return Err(RequestError::Broken { host: host.clone(), source }.into());
        }
        Ok(())
    }

    async fn give(&self, piece: Piece) -> Result<(), DownloadError> {
        self.sink.send(piece).await.map_err(|_| DownloadError::ConsumerGone)
    }

    fn wrong_size(&self, host: &str, received: u64) -> RequestError {
        RequestError::Size {
            host: host.to_owned(),
            what: self.what,
            digest: self.blob.digest.clone(),
            promised: self.blob.size,
            received,
        }
    }
}

/// The first byte of `bytes 5-9/10`.
fn range_start(text: &str) -> Option<u64> {
    text.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_content_range() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        assert_eq!(range_start("bytes 5-9/*"), Some(5));
        for bad in ["", "bytes", "bytes */10", "items 5-9/10", "bytes -9/10"] {
            assert_eq!(range_start(bad), None, "{bad}");
        }
    }
}
