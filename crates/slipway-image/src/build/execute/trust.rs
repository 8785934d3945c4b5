//! `--ca-certificates`: more trust for RUN steps, and no trace of it in the image.
//!
//! The bundle lies in a folder that is mounted below `/dev`, which is a file system of its own in every container:
//! not even a mount point stays behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use slipway_types::container::Mount;

use super::roots::{make_dir, prepare};
use crate::build::error::{BuildError, Fault, StepErrorKind};
use crate::build::root::Root;
use crate::store::Staging;

/// Where files that a step needs are seen inside.
pub(super) const INSIDE: &str = "/dev/slipway";
const BUNDLE: &str = "ca-certificates.crt";
const APT: &str = "apt.conf";
/// Largest bundle, of the caller or the image.
const MAX_BUNDLE: u64 = 16 << 20;

/// Bundles where distributions keep them.
const IMAGE_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Variables by which programs find a bundle: OpenSSL and Go, requests, pip, curl, Node, git, AWS tools, cargo.
const VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
];

/// A bundle of certificates that RUN steps trust besides the image's own.
pub(crate) struct Trust {
    pem: Vec<u8>,
}

impl Trust {
    pub(crate) fn read(path: &Path) -> Result<Self, BuildError> {
        use std::io::Read;
        let fail = |reason: String| BuildError::Certificates { path: path.to_owned(), reason };
        let mut pem = Vec::new();
        let file = fs::File::open(path).map_err(|error| fail(error.to_string()))?;
        file.take(MAX_BUNDLE + 1).read_to_end(&mut pem).map_err(|error| fail(error.to_string()))?;
        if pem.len() as u64 > MAX_BUNDLE {
            return Err(fail(format!("it has more than {MAX_BUNDLE} bytes")));
        }
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(fail("it holds no certificate in PEM form".to_owned()));
        }
        Ok(Self { pem })
    }

    /// The bundle itself.
    pub(super) fn pem(&self) -> &[u8] {
        &self.pem
    }

    /// Writes the bundle into a step's folder; the variables that point to it.
    pub(super) fn install(&self, root: &Root, folder: &Path) -> Result<Vec<(&'static str, String)>, Fault> {
        let mut bundle = Vec::new();
        for path in IMAGE_BUNDLES {
            // A bundle that cannot be read is as good as none.
            if let Ok(Some(bytes)) = root.read(Path::new(path), MAX_BUNDLE) {
                bundle = bytes;
                break;
            }
        }
        if !bundle.is_empty() && !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
        bundle.extend(&self.pem);
        write(&folder.join(BUNDLE), &bundle, 0o644)?;
        let inside = format!("{INSIDE}/{BUNDLE}");
        write(&folder.join(APT), format!("Acquire::https::CAInfo \"{inside}\";\n").as_bytes(), 0o644)?;
        let mut variables: Vec<(&str, String)> =
            VARIABLES.iter().map(|&name| (name, inside.clone())).collect();
        variables.push(("APT_CONFIG", format!("{INSIDE}/{APT}")));
        Ok(variables)
    }
}

/// The folder of files that a step needs and no layer gets, made when something is put into it.
pub(super) struct StepFiles<'a> {
    staging: &'a Staging,
    folder: Option<PathBuf>,
}

impl<'a> StepFiles<'a> {
    pub(super) fn new(staging: &'a Staging) -> Self {
        Self { staging, folder: None }
    }

    pub(super) fn folder(&mut self) -> Result<&Path, Fault> {
        if self.folder.is_none() {
            self.folder = Some(make_dir(self.staging.path(), "files", 0o755)?);
        }
        Ok(self.folder.as_deref().unwrap_or(self.staging.path()))
    }

    /// The path inside of an executable script.
    pub(super) fn script(&mut self, name: &str, content: &str) -> Result<String, Fault> {
        let safe: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .collect();
        let name = format!("script-{safe}");
        write(&self.folder()?.join(&name), content.as_bytes(), 0o755)?;
        Ok(format!("{INSIDE}/{name}"))
    }

    pub(super) fn mount(&self) -> Option<Mount> {
        let source = self.folder.clone()?;
        Some(Mount::Bind { source, target: INSIDE.into(), read_only: true })
    }
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StepErrorKind> {
    fs::write(path, bytes)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(prepare(path))
}
