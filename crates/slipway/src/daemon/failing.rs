//! Which services do not come up, and which of them a user asked to try again.

use std::collections::{BTreeMap, BTreeSet};

/// Revisions that do not come up, and why, as the reconciler last found.
#[derive(Debug, Default)]
pub struct Failing {
    found: BTreeMap<String, (u64, String)>,
    /// Services to try again, and whether to take over what others own of them: what the reconciler says of them before
    /// it knows is out of date.
    again: BTreeMap<String, bool>,
    /// Services that the reconciler knows to try again, and has not said anything of since.
    trying: BTreeSet<String>,
}

impl Failing {
    /// Why a revision of a service does not come up.
    pub fn of(&self, service: &str, revision: u64) -> Option<String> {
        let found = self.found.get(service).filter(|_| !self.again.contains_key(service));
        found.filter(|(number, _)| *number == revision).map(|(_, reason)| reason.clone())
    }

    /// Replaces what was found for a service.
    pub fn set(&mut self, service: &str, failing: Option<(u64, &str)>) {
        self.trying.remove(service);
        match failing {
            Some((revision, reason)) => self.found.insert(service.to_owned(), (revision, reason.to_owned())),
            None => self.found.remove(service),
        };
    }

    /// Has a service tried again; until the reconciler takes this, nothing of it is failing.
    pub fn try_again(&mut self, service: &str, take_over: bool) {
        *self.again.entry(service.to_owned()).or_default() |= take_over;
    }

    /// Services that a user asked to try again, and nobody took yet.
    pub fn wished(&self) -> BTreeSet<String> {
        self.again.keys().cloned().collect()
    }

    /// Takes the wish to try a service again, if there is one; it says whether to take over what others own.
    pub fn take(&mut self, service: &str) -> Option<bool> {
        let asked = self.again.remove(service);
        if asked.is_some() {
            self.found.remove(service);
            self.trying.insert(service.to_owned());
        }
        asked
    }

    /// Whether nothing was said of a service since it was to be tried again.
    pub fn is_open(&self, service: &str) -> bool {
        self.again.contains_key(service) || self.trying.contains(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_before_the_wish_to_try_again_is_not_told_after_it() {
        let mut failing = Failing::default();
        failing.set("s", Some((2, "no")));
        assert_eq!((failing.of("s", 2).as_deref(), failing.of("s", 1)), (Some("no"), None));
        failing.try_again("s", true);
        failing.try_again("s", false);
        assert_eq!(failing.of("s", 2), None);
        // A pass that began before ends after.
        failing.set("s", Some((2, "no")));
        assert_eq!(failing.of("s", 2), None);
        assert!(failing.is_open("s"));
        assert!(failing.wished().contains("s"));
        assert_eq!((failing.take("s"), failing.take("s")), (Some(true), None));
        assert_eq!(failing.of("s", 2), None, "the next pass tells anew");
        assert!(failing.is_open("s"));
        failing.set("s", Some((2, "still no")));
        assert!(!failing.is_open("s"));
        assert_eq!(failing.of("s", 2).as_deref(), Some("still no"));
    }
}
