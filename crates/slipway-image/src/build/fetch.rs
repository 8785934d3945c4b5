//! Fetching what ADD names by a URL.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use reqwest::header::{LAST_MODIFIED, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, StatusCode, Url};
use sha2::{Digest as _, Sha256};
use slipway_types::ErrorCode;

use super::runner::CancelFlag;
use crate::http_client;
use crate::registry::{TlsFault, tls_fault};

/// How long the reply's headers, and each further piece of its body, may take.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
const CANCEL_POLL: Duration = Duration::from_millis(100);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
const MAX_REDIRECTS: usize = 10;
/// Most bytes that one URL may give.
const MAX_BYTES: u64 = 256 << 30;

/// Why a URL of ADD gave no file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No `http://` or `https://` URL.
    #[error("`{0}` is not a URL that can be fetched")]
    Url(String),
    /// The destination is a folder, and the URL has no name for the file in it.
    #[error("`{0}` does not end with the name of a file")]
    NoName(String),
    /// The certificates to trust cannot be used.
    #[error("cannot trust the given certificates")]
    Trust(#[source] reqwest::Error),
    /// The server cannot be reached.
    #[error("cannot fetch `{url}`: {reason}")]
    Connect {
        /// The URL, without credentials.
        url: String,
        /// The system's words.
        reason: String,
    },
    /// The server's certificate is not trusted.
    #[error("cannot fetch `{url}`: the server's certificate is not trusted: {reason}")]
    Certificate {
        /// The URL, without credentials.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The server answered with something else than the file.
    #[error("cannot fetch `{url}`: the server answered {status}")]
    Status {
        /// The URL, without credentials.
        url: String,
        /// Its status.
        status: StatusCode,
    },
    /// The server leads away from an encrypted connection.
    #[error("cannot fetch `{url}`: it redirects to `{to}`, which is not encrypted")]
    Insecure {
        /// The URL, without credentials.
        url: String,
        /// Where it leads, without credentials.
        to: String,
    },
    /// One redirect after another.
    #[error("cannot fetch `{0}`: it redirects more than {MAX_REDIRECTS} times")]
    Redirects(String),
    /// Nothing came for too long.
    #[error("cannot fetch `{0}`: the server sent nothing for {seconds} s", seconds = REPLY_TIMEOUT.as_secs())]
    Timeout(String),
    /// It is too large.
    #[error("`{0}` has more than {MAX_BYTES} bytes")]
    TooLarge(String),
    /// It is not the file that the Dockerfile names.
    #[error("`{url}` has the checksum sha256:{found}, not sha256:{wanted}")]
    Mismatch {
        /// The URL, without credentials.
        url: String,
        /// What `--checksum` says.
        wanted: String,
        /// What came.
        found: String,
    },
    /// It cannot be written.
    #[error("cannot keep what was fetched")]
    Write(#[source] io::Error),
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
}

impl FetchError {
    /// The public kind of this error.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Connect { .. } | Self::Certificate { .. } | Self::Timeout(_) => ErrorCode::Unavailable,
            Self::Status { .. }
            | Self::Insecure { .. }
            | Self::Redirects(_)
            | Self::Mismatch { .. }
            | Self::Cancelled => ErrorCode::Failed,
            Self::Write(_) => ErrorCode::Internal,
            _ => ErrorCode::InvalidArgument,
        }
    }
}

/// What came.
pub(crate) struct Fetched {
    pub(crate) digest: [u8; 32],
    /// `Last-Modified`, in seconds.
    pub(crate) modified: Option<i64>,
}

/// Whether ADD fetches a source from a URL.
pub(crate) fn is_remote(text: &str) -> bool {
    ["http://", "https://", "ftp://"].iter().any(|start| text.starts_with(start))
}

/// Whether a source is a Git repository.
pub(crate) fn is_git(text: &str) -> bool {
    let path = text.split(['#', '?']).next().unwrap_or_default();
    ["git://", "ssh://", "git@"].iter().any(|start| text.starts_with(start))
        || (is_remote(text) && path.ends_with(".git"))
}

/// The URL without what nobody should read in a message.
pub(crate) fn shown(url: &Url) -> String {
    redacted(url.as_str())
}

/// A URL as written, without what nobody should read in a message or in an image's history: user and password, and
/// the values of its query, which hold the tokens of signed URLs.
pub(crate) fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    if let Some((scheme, after)) = text.split_once("//") {
        out.push_str(scheme);
        out.push_str("//");
        // In what is no URL a password may hold anything.
        let authority = match Url::parse(text) {
            Ok(_) => after.find(['/', '\\', '?', '#']).unwrap_or(after.len()),
            Err(_) => after.len(),
        };
        rest = &after[after[..authority].rfind('@').map_or(0, |at| at + 1)..];
    }
    let (rest, fragment) = rest.find('#').map_or((rest, ""), |at| rest.split_at(at));
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    out.push_str(path);
    for (number, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        out.push(if number == 0 { '?' } else { '&' });
        if let Some((key, _)) = pair.split_once('=') {
            out.push_str(key);
            out.push('=');
        }
        if !pair.is_empty() {
            out.push('…');
        }
    }
    out.push_str(fragment);
    out
}

/// Whether a redirect gives up the encryption.
fn weakens(from: &Url, to: &Url) -> bool {
    from.scheme() == "https" && to.scheme() != "https"
}

/// Fetches a URL into a file. Certificates of `trust` (PEM) count besides the machine's own.
pub(crate) fn fetch(
    url: &Url,
    to: &mut File,
    trust: Option<&[u8]>,
    cancel: &CancelFlag,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Fetched, FetchError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(FetchError::Write)?;
    let client = client(trust)?;
    let (report, reports) = mpsc::channel();
    std::thread::scope(|scope| {
        let transfer = scope.spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    fetched = transfer(&client, url, to, &report) => fetched,
                    () = cancelled(cancel) => Err(FetchError::Cancelled),
                }
            })
        });
        // Who listens may block, which no thread may that drives a runtime. The channel ends with the transfer.
        for (done, total) in reports {
            progress(done, total);
        }
        transfer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

async fn cancelled(cancel: &CancelFlag) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(CANCEL_POLL).await;
    }
}

fn client(trust: Option<&[u8]>) -> Result<Client, FetchError> {
    let extra = match trust {
        Some(pem) => Certificate::from_pem_bundle(pem).map_err(FetchError::Trust)?,
        None => Vec::new(),
    };
    let redirect = || {
        Policy::custom(|attempt| {
            let weaker = attempt.previous().last().is_some_and(|from| weakens(from, attempt.url()));
            if weaker || attempt.previous().len() > MAX_REDIRECTS { attempt.stop() } else { attempt.follow() }
        })
    };
    http_client::client(extra, redirect).map_err(FetchError::Trust)
}

async fn transfer(
    client: &Client,
    url: &Url,
    to: &mut File,
    report: &mpsc::Sender<(u64, Option<u64>)>,
) -> Result<Fetched, FetchError> {
    let name = || shown(url);
    let failed = |error: reqwest::Error| failure(name(), &error);
    let late = |_| FetchError::Timeout(name());
    // What is hashed is what the server keeps, not what a connection made of it.
    let request = client.get(url.clone()).header(reqwest::header::ACCEPT_ENCODING, "identity");
    let mut response: Response =
        tokio::time::timeout(REPLY_TIMEOUT, request.send()).await.map_err(late)?.map_err(failed)?;
    if let Some(to) = redirect(&response) {
        return Err(if weakens(response.url(), &to) {
            FetchError::Insecure { url: name(), to: shown(&to) }
        } else {
            FetchError::Redirects(name())
        });
    }
    if !response.status().is_success() {
        return Err(FetchError::Status { url: name(), status: response.status() });
    }
    let modified = response.headers().get(LAST_MODIFIED).and_then(|value| value.to_str().ok());
    let modified = modified.and_then(|text| {
        jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(|at| at.as_second())
    });
    let total = response.content_length();
    if let Some(total) = total {
        if total > MAX_BYTES {
            return Err(FetchError::TooLarge(name()));
        }
        let disk = rustix::fs::fstatvfs(&*to).map_err(|error| FetchError::Write(error.into()))?;
        if total > disk.f_bavail.saturating_mul(disk.f_frsize) {
            return Err(FetchError::Write(io::ErrorKind::StorageFull.into()));
        }
    }
    let mut hash = Sha256::new();
    let mut done = 0_u64;
    let mut last: Option<Instant> = None;
    while let Some(chunk) =
        tokio::time::timeout(REPLY_TIMEOUT, response.chunk()).await.map_err(late)?.map_err(failed)?
    {
        done += chunk.len() as u64;
        if done > MAX_BYTES {
            return Err(FetchError::TooLarge(name()));
        }
        hash.update(&chunk);
        to.write_all(&chunk).map_err(FetchError::Write)?;
        if last.is_none_or(|last| last.elapsed() >= PROGRESS_INTERVAL) {
            last = Some(Instant::now());
            // Nobody listens when the caller panicked.
            let _ = report.send((done, total));
        }
    }
    Ok(Fetched { digest: hash.finalize().into(), modified })
}

/// Where an answer leads that was not followed.
fn redirect(response: &Response) -> Option<Url> {
    let followed = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(LOCATION).filter(|_| followed)?;
    response.url().join(location.to_str().ok()?).ok()
}

fn failure(url: String, error: &reqwest::Error) -> FetchError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let reason = cause.to_string();
    match tls_fault(error) {
        Some(TlsFault::Certificate) => FetchError::Certificate { url, reason },
        _ => FetchError::Connect { url, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        for (url, shown) in [
            ("https://h/a/b.tar", "https://h/a/b.tar"),
            ("https://me:pw@h:8/a@b", "https://h:8/a@b"),
            ("https://pw@h", "https://h"),
            ("https://h/f?X-Sig=pw&b=&pw#frag", "https://h/f?X-Sig=…&b=…&…#frag"),
            ("https://me:pw@h?sig=pw", "https://h?sig=…"),
            ("ssh://git:pw@h/x.git", "ssh://h/x.git"),
            ("git@h:x.git", "git@h:x.git"),
            ("https://me:pw/pw@h/x.git", "https://h/x.git"),
            ("https://me:pw@pw@h/", "https://h/"),
        ] {
            assert_eq!(redacted(url), shown, "{url}");
        }
        for torn in ["https://me:p#w@h/x", "https://me:x?w@h/f", "http://u:w@", "http://u:w@[::/x"] {
            assert!(!redacted(torn).contains("w@"), "{}", redacted(torn));
        }
    }

    #[test]
    fn repositories_are_told_from_files() {
        for (source, remote, git) in [
            ("https://h/x.git", true, true),
            ("https://h/x.git#main:dir", true, true),
            ("https://h/x.git.txt", true, false),
            ("ftp://h/x", true, false),
            ("git://h/x", false, true),
            ("ssh://git@h/x", false, true),
            ("git@h:x.git", false, true),
            ("x.git", false, false),
        ] {
            assert_eq!((is_remote(source), is_git(source)), (remote, git), "{source}");
        }
    }

    #[test]
    fn redirects_stay_encrypted() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert!(weakens(&url("https://h/"), &url("http://h/")));
        assert!(!weakens(&url("https://h/"), &url("https://i/")));
        assert!(!weakens(&url("http://h/"), &url("http://i/")));
    }
}
