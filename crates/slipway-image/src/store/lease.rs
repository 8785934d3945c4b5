//! Leases: what operations under way have used, and garbage collection must leave.

use std::collections::{BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};

use slipway_types::Digest;

use super::{Inner, Store};

/// While it lives, [`Store::prune`] and [`Store::remove_image`] keep every blob, layer and image that was stored, found
/// or hit in the build cache since it was taken. Take it before the first look-up of a build, a pull or a start.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    number: u64,
}

impl Lease {
    /// Keeps this, too, as long as the lease lives.
    pub fn keep(&self, digest: &Digest) {
        let _collecting = self.store.inner.gc_shared();
        self.store.inner.touch(digest);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.store.inner.leases();
        leases.active.remove(&self.number);
        match leases.active.first().copied() {
            None => leases.touched = HashMap::new(),
            Some(oldest) => leases.touched.retain(|_, at| *at >= oldest),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Leases {
    next: u64,
    active: BTreeSet<u64>,
    /// When each digest was last used, counted in leases taken.
    touched: HashMap<Digest, u64>,
}

impl Store {
    /// See [`Lease`].
    pub fn lease(&self) -> Lease {
        let mut leases = self.inner.leases();
        let number = leases.next;
        leases.next += 1;
        leases.active.insert(number);
        Lease { store: self.clone(), number }
    }
}

impl Inner {
    /// Notes that a digest is used. Called with the collection lock held, so that no collection comes between the
    /// look-up and the note.
    pub(super) fn touch(&self, digest: &Digest) {
        let mut leases = self.leases();
        if let Some(newest) = leases.active.last().copied() {
            leases.touched.insert(digest.clone(), newest);
        }
    }

    pub(super) fn leased(&self) -> Vec<Digest> {
        self.leases().touched.keys().cloned().collect()
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
