//! Containers that users made with `run`, replicas of services and ranks of training runs.

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use slipway_types::Digest;
use slipway_types::container::{ContainerId, ContainerSpec};

use super::{Context, State, StateError, decode, encode, is_duplicate};

/// What is remembered of a container; whether it runs is seen, not remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Id.
    pub id: ContainerId,
    /// Name, unique.
    pub name: String,
    /// Digest of the image's configuration.
    pub image_id: Digest,
    /// Entrypoint and command, resolved.
    pub command: Vec<String>,
    /// When it was recorded.
    pub created_at: jiff::Timestamp,
    /// Its specification.
    pub spec: ContainerSpec,
}

impl State {
    /// Records a new container. Its name must be free.
    pub fn add_container(&self, record: &ContainerRecord) -> Result<(), StateError> {
        let text = encode("container", record)?;
        match self.connection().execute(
            "INSERT INTO containers (id, name, record) VALUES (?1, ?2, ?3)",
            params![record.id.as_str(), record.name, text],
        ) {
            Ok(_) => Ok(()),
            Err(error) if is_duplicate(&error) => Err(StateError::NameTaken(record.name.clone())),
            Err(source) => Err(StateError::Query { what: "a new container", source }),
        }
    }

    /// Forgets a container.
    pub fn remove_container(&self, id: &ContainerId) -> Result<(), StateError> {
        self.connection()
            .execute("DELETE FROM containers WHERE id = ?1", [id.as_str()])
            .during("removing a container")?;
        Ok(())
    }

    /// The container of this name, of this id, or of the only id that begins with this text.
    pub fn find_container(&self, text: &str) -> Result<Option<ContainerRecord>, StateError> {
        let connection = self.connection();
        let what = "looking for a container";
        let exact: Option<String> = connection
            .query_row("SELECT record FROM containers WHERE name = ?1 OR id = ?1", [text], |row| row.get(0))
            .optional()
            .during(what)?;
        if let Some(text) = exact {
            return decode("container", &text).map(Some);
        }
        let hex = text.len() >= 4 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !hex {
            return Ok(None);
        }
        let mut statement = connection
            .prepare_cached("SELECT record FROM containers WHERE substr(id, 1, ?2) = ?1 LIMIT 2")
            .during(what)?;
        let found: Result<Vec<String>, _> =
            statement.query_map(params![text, text.len() as i64], |row| row.get(0)).during(what)?.collect();
        match found.during(what)?.as_slice() {
            [only] => decode("container", only).map(Some),
            _ => Ok(None),
        }
    }

    /// Every container, oldest first.
    pub fn containers(&self) -> Result<Vec<ContainerRecord>, StateError> {
        let connection = self.connection();
        let what = "listing containers";
        let mut statement =
            connection.prepare_cached("SELECT record FROM containers ORDER BY rowid").during(what)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).during(what)?;
        rows.map(|row| decode("container", &row.during(what)?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seed: u8, name: &str) -> ContainerRecord {
        ContainerRecord {
            id: ContainerId::from_random([seed; 12]),
            name: name.to_owned(),
            image_id: Digest::from_sha256([1; 32]),
            command: vec!["true".to_owned()],
            created_at: jiff::Timestamp::UNIX_EPOCH,
            spec: ContainerSpec::default(),
        }
    }

    #[test]
    fn finds_by_name_id_and_unique_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("s.db")).unwrap();
        let (a, b) = (record(0xa1, "one"), record(0xa2, "two"));
        state.add_container(&a).unwrap();
        state.add_container(&b).unwrap();
        assert!(matches!(state.add_container(&record(0xa3, "one")), Err(StateError::NameTaken(_))));
        assert_eq!(state.find_container("one").unwrap(), Some(a.clone()));
        assert_eq!(state.find_container(b.id.as_str()).unwrap(), Some(b.clone()));
        assert_eq!(state.find_container("a1a1").unwrap(), Some(a.clone()));
        for missing in ["a", "a1a1%", "zzzz", ""] {
            assert_eq!(state.find_container(missing).unwrap(), None, "{missing}");
        }
        state.remove_container(&a.id).unwrap();
        assert_eq!(state.containers().unwrap(), [b]);
    }
}
