//! Engines that a user added, and the choices that hold for the whole daemon.

use rusqlite::{OptionalExtension, params};
use slipway_types::engine::{ClusterSpec, NATIVE};

use super::{Context, State, StateError, decode, encode};

/// Engine of services and runs that name none.
const DEFAULT_ENGINE: &str = "engine";
/// Who this state folder is among all that work in one cluster.
const OWNER: &str = "owner";

impl State {
    /// Every engine but this host, by name.
    pub fn engines(&self) -> Result<Vec<(String, ClusterSpec)>, StateError> {
        let connection = self.connection();
        let what = "listing engines";
        let mut statement =
            connection.prepare_cached("SELECT name, record FROM engines ORDER BY name").during(what)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).during(what)?;
        rows.map(|row| {
            let (name, text) = row.during(what)?;
            Ok((name, decode("engine", &text)?))
        })
        .collect()
    }

    /// Records an engine, and whether it is the default one, together.
    pub fn put_engine(
        &self,
        name: &str,
        cluster: Option<&ClusterSpec>,
        default: bool,
    ) -> Result<(), StateError> {
        let record = cluster.map(|cluster| encode("engine", cluster)).transpose()?;
        let mut connection = self.connection();
        let what = "recording an engine";
        let transaction = connection.transaction().during(what)?;
        if let Some(record) = record {
            transaction
                .execute(
                    "INSERT INTO engines (name, record) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET record = excluded.record",
                    params![name, record],
                )
                .during(what)?;
        }
        if default {
            transaction
                .execute(
                    "INSERT INTO choices (name, value) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    params![DEFAULT_ENGINE, name],
                )
                .during(what)?;
        }
        transaction.commit().during(what)
    }

    /// Forgets an engine; this host becomes the default one if it was.
    pub fn remove_engine(&self, name: &str) -> Result<(), StateError> {
        let mut connection = self.connection();
        let what = "removing an engine";
        let transaction = connection.transaction().during(what)?;
        transaction.execute("DELETE FROM engines WHERE name = ?1", [name]).during(what)?;
        transaction
            .execute("DELETE FROM choices WHERE name = ?1 AND value = ?2", params![DEFAULT_ENGINE, name])
            .during(what)?;
        transaction.commit().during(what)
    }

    /// The engine of services and runs that name none.
    pub fn default_engine(&self) -> Result<String, StateError> {
        Ok(self.choice(DEFAULT_ENGINE)?.unwrap_or_else(|| NATIVE.to_owned()))
    }

    /// The id of this state folder, which `make` gives when it has none yet.
    pub fn owner(&self, make: impl FnOnce() -> String) -> Result<String, StateError> {
        if let Some(owner) = self.choice(OWNER)? {
            return Ok(owner);
        }
        let owner = make();
        self.connection()
            .execute("INSERT INTO choices (name, value) VALUES (?1, ?2)", params![OWNER, owner])
            .during("recording the owner")?;
        Ok(owner)
    }

    fn choice(&self, name: &str) -> Result<Option<String>, StateError> {
        self.connection()
            .query_row("SELECT value FROM choices WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .during("reading a choice")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_goes_with_its_engine_and_the_owner_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.db")).unwrap();
        assert_eq!(state.default_engine().unwrap(), NATIVE);
        let cluster = ClusterSpec { registry: "r".into(), gateway_replicas: 2, ..ClusterSpec::default() };
        state.put_engine("k", Some(&cluster), true).unwrap();
        assert_eq!(state.engines().unwrap(), [("k".to_owned(), cluster.clone())]);
        assert_eq!(state.default_engine().unwrap(), "k");
        state.put_engine(NATIVE, None, true).unwrap();
        assert_eq!((state.default_engine().unwrap().as_str(), state.engines().unwrap().len()), (NATIVE, 1));
        state.put_engine("k", None, true).unwrap();
        state.remove_engine("k").unwrap();
        assert_eq!((state.default_engine().unwrap().as_str(), state.engines().unwrap().len()), (NATIVE, 0));
        let owner = state.owner(|| "a".into()).unwrap();
        assert_eq!((owner.as_str(), state.owner(|| "b".into()).unwrap().as_str()), ("a", "a"));
    }
}
