//! Declared services, and what `up` last made of a project.

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

impl State {
    /// Records a service, replacing what was declared under its name.
    pub fn put_service(&self, record: &ServiceRecord) -> Result<(), StateError> {
        let text = encode("service", record)?;
        self.connection()
            .execute(
                "INSERT INTO services (name, record) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET record = excluded.record",
                params![record.target.spec.name, text],
            )
            .during("declaring a service")?;
        Ok(())
    }

    /// Sets the restart count and nothing else: a user may change the rest at the same moment.
    pub fn set_restarts(&self, name: &str, restarts: u64) -> Result<(), StateError> {
        self.connection()
            .execute(
                "UPDATE services SET record = json_set(record, '$.restarts', ?2) WHERE name = ?1",
                params![name, i64::try_from(restarts).unwrap_or(i64::MAX)],
            )
            .during("counting restarts")?;
        Ok(())
    }

    /// Forgets a service.
    pub fn remove_service(&self, name: &str) -> Result<(), StateError> {
        let what = "removing a service";
        let mut connection = self.connection();
        let transaction = connection.transaction().during(what)?;
        transaction.execute("DELETE FROM services WHERE name = ?1", [name]).during(what)?;
        transaction.execute("DELETE FROM published WHERE service = ?1", [name]).during(what)?;
        transaction.commit().during(what)
    }

    /// One service.
    pub fn service(&self, name: &str) -> Result<Option<ServiceRecord>, StateError> {
        let row: Option<String> = self
            .connection()
            .query_row("SELECT record FROM services WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .during("looking for a service")?;
        row.map(|text| decode("service", &text)).transpose()
    }

    /// Every service, by name.
    pub fn services(&self) -> Result<Vec<ServiceRecord>, StateError> {
        let connection = self.connection();
        let what = "listing services";
        let mut statement =
            connection.prepare_cached("SELECT record FROM services ORDER BY name").during(what)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).during(what)?;
        rows.map(|row| decode("service", &row.during(what)?)).collect()
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
        assert_eq!(state.services().unwrap(), [record]);
    }
}
