//! What was brought to the registries of clusters.

use rusqlite::{OptionalExtension, params};

use super::{Context, State, StateError};

/// Revisions of a service before the newest one that are remembered.
const KEPT: u64 = 8;

/// Whose publication it is; the gateway of an engine is that of no service.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// Service, empty for the gateway.
    pub service: &'a str,
    /// Its revision.
    pub revision: u64,
    /// Registry, with its path.
    pub registry: &'a str,
}

impl State {
    /// What came of a publication; nothing where it was made of anything but `inputs`.
    pub fn published(&self, of: Publication<'_>, inputs: &str) -> Result<Option<String>, StateError> {
        let revision = i64::try_from(of.revision).unwrap_or(i64::MAX);
        self.connection()
            .query_row(
                "SELECT record FROM published
                 WHERE service = ?1 AND revision = ?2 AND registry = ?3 AND inputs = ?4",
                params![of.service, revision, of.registry, inputs],
                |row| row.get(0),
            )
            .optional()
            .during("looking for a publication")
    }

    /// Forgets all that came of the publications of a service.
    pub fn forget_published(&self, service: &str) -> Result<(), StateError> {
        self.connection()
            .execute("DELETE FROM published WHERE service = ?1", [service])
            .during("forgetting publications")?;
        Ok(())
    }

    /// Remembers what came of a publication, unless the service was forgotten meanwhile.
    pub fn put_published(&self, of: Publication<'_>, inputs: &str, record: &str) -> Result<(), StateError> {
        let what = "remembering a publication";
        let revision = i64::try_from(of.revision).unwrap_or(i64::MAX);
        let oldest = i64::try_from(of.revision.saturating_sub(KEPT)).unwrap_or(i64::MAX);
        let mut connection = self.connection();
        let transaction = connection.transaction().during(what)?;
        transaction
            .execute(
                "DELETE FROM published WHERE service = ?1 AND ?1 <> '' AND (registry <> ?2 OR revision < ?3)",
                params![of.service, of.registry, oldest],
            )
            .during(what)?;
        transaction
            .execute(
                "INSERT INTO published (service, revision, registry, inputs, record) SELECT ?1, ?2, ?3, ?4, ?5
                 WHERE ?1 = '' OR EXISTS (SELECT 1 FROM services WHERE name = ?1)
                 ON CONFLICT (service, revision, registry)
                 DO UPDATE SET inputs = excluded.inputs, record = excluded.record",
                params![of.service, revision, of.registry, inputs, record],
            )
            .during(what)?;
        transaction.commit().during(what)
    }
}

#[cfg(test)]
mod tests {
    use slipway_orchestrator::Revision;
    use slipway_types::Digest;
    use slipway_types::service::ServiceSpec;

    use super::super::ServiceRecord;
    use super::*;

    #[test]
    fn is_found_by_all_that_it_was_made_of() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.db")).unwrap();
        let of = |service, revision, registry| Publication { service, revision, registry };
        state.put_published(of("s", 1, "r"), "i", "a").unwrap();
        assert_eq!(state.published(of("s", 1, "r"), "i").unwrap(), None, "there is no such service");

        let target = Revision {
            number: 1,
            spec: ServiceSpec { name: "s".into(), ..ServiceSpec::default() },
            image_id: Digest::from_sha256([1; 32]),
            model: None,
        };
        let record = ServiceRecord {
            target,
            stable: None,
            deleting: false,
            restarts: 0,
            engine: "k".into(),
            exposure: None,
        };
        state.put_service(&record).unwrap();
        state.put_published(of("s", 1, "r"), "i", "a").unwrap();
        state.put_published(of("", 0, "r"), "g", "gateway").unwrap();
        state.put_published(of("", 0, "other"), "g", "its gateway").unwrap();
        drop(state);
        let state = State::open(&dir.path().join("state.db")).unwrap();
        assert_eq!(state.published(of("s", 1, "r"), "i").unwrap().as_deref(), Some("a"));
        state.forget_published("s").unwrap();
        assert_eq!(state.published(of("s", 1, "r"), "i").unwrap(), None);
        assert_eq!(state.published(of("", 0, "r"), "g").unwrap().as_deref(), Some("gateway"));
        state.put_published(of("s", 1, "r"), "i", "a").unwrap();
        for (of, inputs) in [(of("s", 2, "r"), "i"), (of("s", 1, "other"), "i"), (of("s", 1, "r"), "others")]
        {
            assert_eq!(state.published(of, inputs).unwrap(), None, "{of:?} {inputs}");
        }

        state.put_published(of("s", 1, "r"), "others", "b").unwrap();
        assert_eq!(state.published(of("s", 1, "r"), "i").unwrap(), None);
        state.put_published(of("s", 9, "r"), "i", "c").unwrap();
        assert_eq!(state.published(of("s", 1, "r"), "others").unwrap().as_deref(), Some("b"));
        state.put_published(of("s", 10, "r"), "i", "d").unwrap();
        assert_eq!(state.published(of("s", 1, "r"), "others").unwrap(), None, "it is too old");
        state.put_published(of("s", 10, "other"), "i", "e").unwrap();
        assert_eq!(state.published(of("s", 10, "r"), "i").unwrap(), None, "it has moved");
        state.remove_service("s").unwrap();
        assert_eq!(state.published(of("s", 10, "other"), "i").unwrap(), None);
        for (registry, gateway) in [("r", "gateway"), ("other", "its gateway")] {
            assert_eq!(state.published(of("", 0, registry), "g").unwrap().as_deref(), Some(gateway));
        }
    }
}
