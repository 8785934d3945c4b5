//! The client against a registry of our own that can be told to misbehave, and against Debian's `docker-registry`.

mod auth;
mod carry;
mod certificates;
mod fake;
mod fixtures;
mod lies;
mod pull;
mod push;
mod real;
mod real_tokens;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use slipway_types::image::{BlobState, Credentials, Registry as Settings, RegistrySettings, TransferEvent};
use slipway_types::{Digest, Reference};

use super::http::RetryPolicy;
use super::{Progress, Registry};
use crate::store::Store;

/// A store in a folder of its own.
pub(super) struct TestStore {
    pub store: Store,
    pub dir: tempfile::TempDir,
}

pub(super) fn store() -> TestStore {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    TestStore { store, dir }
}

impl TestStore {
    /// Nothing came in, and nothing half-done is left.
    pub fn assert_empty(&self) {
        let root = self.dir.path().join("store");
        for folder in ["blobs/sha256", "layers", "tmp"] {
            let left: Vec<_> =
                std::fs::read_dir(root.join(folder)).unwrap().map(|e| e.unwrap().path()).collect();
            assert_eq!(left, Vec::<std::path::PathBuf>::new(), "{folder}");
        }
        assert!(self.store.list().unwrap().is_empty());
    }
}

/// Quick retries; otherwise as shipped.
pub(super) fn client(settings: RegistrySettings, credentials: Vec<(String, Credentials)>) -> Registry {
    let find = move |name: &str| credentials.iter().find(|(n, _)| n == name).map(|(_, c)| c.clone());
    let retries = RetryPolicy {
        tries: 4,
        first_pause: Duration::from_millis(4),
        longest_pause: Duration::from_millis(200),
    };
    Registry::with_retries(settings, Arc::new(find), retries)
}

pub(super) fn plain_client() -> Registry {
    client(RegistrySettings::default(), Vec::new())
}

pub(super) fn mirrored(registry: &str, mirrors: &[&str]) -> RegistrySettings {
    let own = Settings { mirrors: mirrors.iter().map(|m| (*m).to_owned()).collect(), ..Settings::default() };
    RegistrySettings { registries: [(registry.to_owned(), own)].into() }
}

pub(super) fn password(user: &str, password: &str) -> Credentials {
    Credentials::Basic { username: user.to_owned(), password: password.to_owned() }
}

pub(super) fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

pub(super) fn silent() -> Progress {
    Arc::new(|_| {})
}

/// Records what is reported.
#[derive(Clone, Default)]
pub(super) struct Events(Arc<Mutex<Vec<TransferEvent>>>);

impl Events {
    pub fn progress(&self) -> Progress {
        let events = self.0.clone();
        Arc::new(move |event| events.lock().unwrap().push(event))
    }

    /// The last state of a blob, with its bytes.
    pub fn last(&self, wanted: &Digest) -> Option<(BlobState, u64)> {
        self.0.lock().unwrap().iter().rev().find_map(|event| match event {
            TransferEvent::Blob { digest, state, done, .. } if digest == wanted => Some((*state, *done)),
            _ => None,
        })
    }

    pub fn states(&self) -> Vec<BlobState> {
        let events = self.0.lock().unwrap();
        let states = events.iter().filter_map(|event| match event {
            TransferEvent::Blob { state, .. } => Some(*state),
            _ => None,
        });
        states.collect()
    }
}

/// The error, everything behind it, and its debug form: where a secret would show.
pub(super) fn everything(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("{error:?}");
    let mut current = Some(error);
    while let Some(e) = current {
        text.push_str(&format!(" | {e}"));
        current = e.source();
    }
    text
}

/// The daemon runs these in tasks of its own.
#[test]
fn operations_can_be_spawned() {
    fn sendable<T: Send>(_: T) {}
    let (registry, own) = (plain_client(), store());
    let (name, id) = (reference("a/b:1"), super::digest_of(b""));
    let platform = "linux/amd64".parse().unwrap();
    sendable(registry.pull(&own.store, &name, &platform, silent()));
    sendable(registry.push(&own.store, &id, &name, super::Compression::Gzip, silent()));
    sendable(registry.push_artifact(&own.store, &id, &name, silent()));
    sendable(registry.pull_artifact(&own.store, &name, silent()));
    sendable(registry.login_check("a", &password("u", "p")));
}
