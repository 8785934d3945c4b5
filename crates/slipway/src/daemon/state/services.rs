//! Declared services, and what `up` last made of a project.

use std::sync::PoisonError;

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use slipway_orchestrator::Revision;
use slipway_types::engine::NATIVE;
use slipway_types::expose::Exposure;

use super::{Context, State, StateError, decode, encode};

/// A declared service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// What it shall be.
    pub target: Revision,
    /// The last revision whose rollout completed; replicas go back to it while the target's fail.
    pub stable: Option<Revision>,
    /// It is being deleted: its replicas drain, then it is forgotten.
    pub deleting: bool,
    /// Restarts since it was declared.
    pub restarts: u64,
    /// Name of the engine that runs it.
    #[serde(default = "native")]
    pub engine: String,
    /// How it is reached from outside of its cluster; as its engine says when absent.
    #[serde(default)]
    pub exposure: Option<Exposure>,
}

fn native() -> String {
    NATIVE.to_owned()
}

/// Where a service is among the decoded ones, or would be: SQLite sorts by bytes, too.
fn position(known: &[ServiceRecord], name: &str) -> Result<usize, usize> {
    known.binary_search_by(|record| record.target.spec.name.as_str().cmp(name))
}

impl State {
    /// Records a service, replacing what was declared under its name.
    pub fn put_service(&self, record: &ServiceRecord) -> Result<(), StateError> {
        let text = encode("service", record)?;
        let connection = self.connection();
        connection
            .execute(
                "INSERT INTO services (name, record) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET record = excluded.record",
                params![record.target.spec.name, text],
            )
            .during("declaring a service")?;
        self.keep_up(|known| match position(known, &record.target.spec.name) {
            Ok(at) => known[at] = record.clone(),
            Err(at) => known.insert(at, record.clone()),
        });
        Ok(())
    }

    /// Sets the restart count and nothing else: a user may change the rest at the same moment.
    pub fn set_restarts(&self, name: &str, restarts: u64) -> Result<(), StateError> {
        let connection = self.connection();
        connection
            .execute(
                "UPDATE services SET record = json_set(record, '$.restarts', ?2) WHERE name = ?1",
                params![name, i64::try_from(restarts).unwrap_or(i64::MAX)],
            )
            .during("counting restarts")?;
        self.keep_up(|known| {
            if let Ok(at) = position(known, name) {
                known[at].restarts = restarts;
            }
        });
        Ok(())
    }

    /// Forgets a service.
    pub fn remove_service(&self, name: &str) -> Result<(), StateError> {
        let what = "removing a service";
        let mut connection = self.connection();
        let transaction = connection.transaction().during(what)?;
        transaction.execute("DELETE FROM services WHERE name = ?1", [name]).during(what)?;
        transaction.execute("DELETE FROM published WHERE service = ?1", [name]).during(what)?;
        transaction.commit().during(what)?;
        self.keep_up(|known| {
            if let Ok(at) = position(known, name) {
                known.remove(at);
            }
        });
        Ok(())
    }

    /// One service.
    pub fn service(&self, name: &str) -> Result<Option<ServiceRecord>, StateError> {
        let connection = self.connection();
        if let Some(known) = &*self.services.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(position(known, name).ok().map(|at| known[at].clone()));
        }
        let row: Option<String> = connection
            .query_row("SELECT record FROM services WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .during("looking for a service")?;
        row.map(|text| decode("service", &text)).transpose()
    }

    /// Every service, by name.
    pub fn services(&self) -> Result<Vec<ServiceRecord>, StateError> {
        self.services_where(|_| true)
    }

    /// The services that are asked for, by name. `wanted` is quick, and asks the state nothing.
    pub fn services_where(
        &self,
        wanted: impl Fn(&ServiceRecord) -> bool,
    ) -> Result<Vec<ServiceRecord>, StateError> {
        let connection = self.connection();
        let mut decoded = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if decoded.is_none() {
            let what = "listing services";
            let mut statement =
                connection.prepare_cached("SELECT record FROM services ORDER BY name").during(what)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0)).during(what)?;
            *decoded = Some(rows.map(|row| decode("service", &row.during(what)?)).collect::<Result<_, _>>()?);
        }
        Ok(decoded.iter().flatten().filter(|record| wanted(record)).cloned().collect())
    }

    /// Changes what was decoded as the table was changed; called with the connection held. To decode all anew for each of a
    /// thousand declarations would cost more than the declarations.
    fn keep_up(&self, change: impl FnOnce(&mut Vec<ServiceRecord>)) {
        if let Some(known) = &mut *self.services.lock().unwrap_or_else(PoisonError::into_inner) {
            change(known);
        }
    }

    /// Remembers that this version of a project's model was trained from this fingerprint of its inputs.
    pub fn put_project(&self, name: &str, fingerprint: &str, version: u64) -> Result<(), StateError> {
        self.connection()
            .execute(
                "INSERT INTO projects (name, fingerprint, version) VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET fingerprint = excluded.fingerprint, version = excluded.version",
                params![name, fingerprint, i64::try_from(version).unwrap_or(i64::MAX)],
            )
            .during("remembering a project")?;
        Ok(())
    }

    /// The fingerprint and model version that [`State::put_project`] remembered.
    pub fn project(&self, name: &str) -> Result<Option<(String, u64)>, StateError> {
        self.connection()
            .query_row("SELECT fingerprint, version FROM projects WHERE name = ?1", [name], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
            })
            .optional()
            .during("looking for a project")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_before_there_were_engines_is_of_this_host() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.db")).unwrap();
        let record = r#"{
            "target": {
                "number": 3,
                "spec": {"name": "digits", "model": "digits", "version": 1, "replicas": 2},
                "image_id": "sha256:0101010101010101010101010101010101010101010101010101010101010101",
                "model": {
                    "manifest": "sha256:0202020202020202020202020202020202020202020202020202020202020202",
                    "format": "onnx"
                }
            },
            "stable": null,
            "deleting": false,
            "restarts": 5
        }"#;
        state
            .connection()
            .execute("INSERT INTO services (name, record) VALUES ('digits', ?1)", [record])
            .unwrap();
        let mut record = state.service("digits").unwrap().unwrap();
        assert_eq!((record.engine.as_str(), record.restarts, record.target.number), (NATIVE, 5, 3));
        record.engine = "kubernetes".into();
        state.put_service(&record).unwrap();
        state.set_restarts("digits", 6).unwrap();
        record.restarts = 6;
        assert_eq!(state.services().unwrap(), [record.clone()]);
    }

    #[test]
    fn a_list_is_never_older_than_what_was_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.db")).unwrap();
        let record = |name: &str, engine: &str| ServiceRecord {
            target: Revision {
                number: 1,
                spec: slipway_types::service::ServiceSpec { name: name.into(), ..Default::default() },
                image_id: slipway_types::Digest::from_sha256([1; 32]),
                model: None,
            },
            stable: None,
            deleting: false,
            restarts: 0,
            engine: engine.into(),
            exposure: None,
        };
        assert_eq!(state.services().unwrap(), []);
        state.put_service(&record("b", "c1")).unwrap();
        state.put_service(&record("a", NATIVE)).unwrap();
        let names = |records: Vec<ServiceRecord>| {
            records.into_iter().map(|record| record.target.spec.name).collect::<Vec<_>>()
        };
        assert_eq!(names(state.services().unwrap()), ["a", "b"]);
        assert_eq!(names(state.services_where(|record| record.engine == "c1").unwrap()), ["b"]);
        assert_eq!(state.service("b").unwrap().unwrap().engine, "c1");
        assert_eq!(state.service("ab").unwrap(), None);
        state.set_restarts("b", 4).unwrap();
        state.set_restarts("none", 4).unwrap();
        state.put_service(&record("c", "c2")).unwrap();
        state.put_service(&record("a", "c3")).unwrap();
        state.remove_service("c").unwrap();
        state.remove_service("none").unwrap();
        let kept = state.services().unwrap();
        assert_eq!(names(kept.clone()), ["a", "b"]);
        assert_eq!((kept[0].engine.as_str(), kept[1].restarts), ("c3", 4));
        // Another daemon finds the same in the file.
        drop(state);
        let state = State::open(&dir.path().join("state.db")).unwrap();
        assert_eq!(state.service("b").unwrap().unwrap(), kept[1]);
        assert_eq!(state.services().unwrap(), kept);
    }
}
