//! Sources of ADD that a URL names.

use std::ffi::OsString;
use std::fs::File;
use std::io::Seek;

use reqwest::Url;

use super::Build;
use super::roots::prepare;
use super::steps::Step;
use super::trust::Trust;
use crate::build::error::{Fault, FetchError, StepErrorKind};
use crate::build::fetch::{fetch, redacted, shown};

/// A file that a URL gives.
pub(super) struct Remote {
    url: Url,
    /// What it has, or must have.
    pub(super) digest: [u8; 32],
    /// The file, unless its checksum was given: then it is fetched when the cache has no such step.
    file: Option<(File, Option<i64>)>,
}

impl Remote {
    /// That it cannot be put into a folder.
    pub(super) fn no_name(&self) -> FetchError {
        FetchError::NoName(shown(&self.url))
    }
}

impl Build<'_> {
    /// What a URL gives; nothing is fetched as long as the checksum says enough.
    pub(super) fn remote(
        &self,
        text: &str,
        checksum: Option<[u8; 32]>,
        step: &Step<'_>,
    ) -> Result<Remote, Fault> {
        let url = parse(text)?;
        match checksum {
            Some(digest) => Ok(Remote { url, digest, file: None }),
            None => {
                let (digest, file, modified) = self.download(&url, step)?;
                Ok(Remote { url, digest, file: Some((file, modified)) })
            }
        }
    }

    /// The file at its start, and when it was changed last.
    pub(super) fn fetched(&self, remote: &Remote, step: &Step<'_>) -> Result<(File, Option<i64>), Fault> {
        if let Some((file, modified)) = &remote.file {
            let mut file = file.try_clone().map_err(FetchError::Write)?;
            file.rewind().map_err(FetchError::Write)?;
            return Ok((file, *modified));
        }
        let (digest, mut file, modified) = self.download(&remote.url, step)?;
        if digest != remote.digest {
            let (url, wanted, found) = (shown(&remote.url), hex::encode(remote.digest), hex::encode(digest));
            return Err(FetchError::Mismatch { url, wanted, found }.into());
        }
        file.rewind().map_err(FetchError::Write)?;
        Ok((file, modified))
    }

    /// Fetches into a file that has no name: it is gone with this process.
    fn download(&self, url: &Url, step: &Step<'_>) -> Result<([u8; 32], File, Option<i64>), Fault> {
        let staging = self.parts.machine.store.staging("add")?;
        let mut file = tempfile::tempfile_in(staging.path()).map_err(prepare(staging.path()))?;
        let name = shown(url);
        let mut progress = |done, total| step.progress(&name, done, total);
        let trust = self.parts.trust.as_ref().map(Trust::pem);
        let fetched = fetch(url, &mut file, trust, &self.parts.cancel, &mut progress)?;
        Ok((fetched.digest, file, fetched.modified))
    }
}

/// The name that a file from a URL gets in a folder; empty when the URL has none.
pub(super) fn file_name(text: &str) -> Result<OsString, FetchError> {
    let url = parse(text)?;
    let last = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
    let mut bytes = Vec::with_capacity(last.len());
    let mut rest = last.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        let code = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.filter(|_| byte == b'%').and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &more[2..];
            }
            None => {
                bytes.push(byte);
                rest = more;
            }
        }
    }
    // Not a name of one file in one folder.
    if bytes.contains(&b'/') || bytes.contains(&0) || bytes == b"." || bytes == b".." {
        return Err(FetchError::NoName(shown(&url)));
    }
    Ok(std::os::unix::ffi::OsStringExt::from_vec(bytes))
}

/// Reads `sha256:…`.
pub(super) fn checksum(text: &str) -> Result<[u8; 32], StepErrorKind> {
    let wrong = || StepErrorKind::Checksum(text.to_owned());
    let digits = text.strip_prefix("sha256:").ok_or_else(wrong)?;
    hex::decode(digits).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)
}

fn parse(text: &str) -> Result<Url, FetchError> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some())
        .ok_or_else(|| FetchError::Url(redacted(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_path() {
        for (url, name) in [
            ("http://h/a/b.tar.gz", "b.tar.gz"),
            ("http://h/a/b?x=/c", "b"),
            ("http://h/a/with%20space", "with space"),
            ("http://h/", ""),
            ("http://h", ""),
            ("http://h/50%", "50%"),
        ] {
            assert_eq!(file_name(url).unwrap(), name, "{url}");
        }
        for bad in ["http://h/a%2fb", "http://h/%00", "ftp://h/x", "http://"] {
            assert!(file_name(bad).is_err(), "{bad}");
        }
    }
}
