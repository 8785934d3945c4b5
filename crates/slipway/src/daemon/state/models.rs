//! Model versions and the aliases that name them.

use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};
use slipway_types::model::{ModelRef, ModelSelector, ModelVersion};

use super::{Context, State, StateError, decode, encode};

/// One move of an alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasMove {
    /// When.
    pub time: jiff::Timestamp,
    /// Model name.
    pub model: String,
    /// Alias.
    pub alias: String,
    /// Version that it named before.
    pub old: Option<u64>,
    /// Version that it names now; none when it was removed.
    pub new: Option<u64>,
}

fn to_sql(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

impl State {
    /// Takes the next version number of a model. A number is never given twice, also after its version was removed.
    pub fn next_model_version(&self, model: &str) -> Result<u64, StateError> {
        self.connection()
            .query_row(
                "INSERT INTO model_counters (model, last) VALUES (?1, 1)
                 ON CONFLICT (model) DO UPDATE SET last = last + 1 RETURNING last",
                [model],
                |row| row.get::<_, i64>(0),
            )
            .map(i64::unsigned_abs)
            .during("numbering a model version")
    }

    /// Records a model version under the number that it got.
    pub fn add_model_version(&self, record: &ModelVersion) -> Result<(), StateError> {
        let text = encode("model version", record)?;
        self.connection()
            .execute(
                "INSERT INTO model_versions (model, version, record) VALUES (?1, ?2, ?3)",
                params![record.model, to_sql(record.version), text],
            )
            .during("a new model version")?;
        Ok(())
    }

    /// Forgets a model version and the aliases that name it.
    pub fn remove_model_version(&self, model: &str, version: u64) -> Result<(), StateError> {
        let what = "removing a model version";
        let mut connection = self.connection();
        let transaction = connection.transaction().during(what)?;
        let aliases: Vec<String> = {
            let mut statement = transaction
                .prepare("SELECT alias FROM model_aliases WHERE model = ?1 AND version = ?2")
                .during(what)?;
            let rows = statement.query_map(params![model, to_sql(version)], |row| row.get(0)).during(what)?;
            rows.collect::<Result<_, _>>().during(what)?
        };
        for alias in &aliases {
            move_alias(&transaction, model, alias, Some(version), None)?;
        }
        transaction
            .execute(
                "DELETE FROM model_versions WHERE model = ?1 AND version = ?2",
                params![model, to_sql(version)],
            )
            .during(what)?;
        transaction.commit().during(what)
    }

    /// The versions of a model (of all models when absent), oldest first, with their aliases.
    pub fn model_versions(&self, model: Option<&str>) -> Result<Vec<ModelVersion>, StateError> {
        let connection = self.connection();
        let what = "listing model versions";
        let mut statement = connection
            .prepare_cached(
                "SELECT record FROM model_versions WHERE ?1 IS NULL OR model = ?1 ORDER BY model, version",
            )
            .during(what)?;
        let rows = statement.query_map([model], |row| row.get::<_, String>(0)).during(what)?;
        let mut versions: Vec<ModelVersion> =
            rows.map(|row| decode("model version", &row.during(what)?)).collect::<Result<_, _>>()?;
        let mut statement = connection
            .prepare_cached("SELECT model, alias, version FROM model_aliases ORDER BY alias")
            .during(what)?;
        let aliases = statement
            .query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?.unsigned_abs()))
            })
            .during(what)?;
        for alias in aliases {
            let (model, alias, version) = alias.during(what)?;
            if let Some(found) = versions.iter_mut().find(|v| v.model == model && v.version == version) {
                found.aliases.push(alias);
            }
        }
        Ok(versions)
    }

    /// The version that a reference means.
    pub fn find_model(&self, reference: &ModelRef) -> Result<Option<ModelVersion>, StateError> {
        let mut versions = self.model_versions(Some(&reference.model))?;
        Ok(match &reference.selector {
            ModelSelector::Latest => versions.pop(),
            ModelSelector::Version(version) => versions.into_iter().find(|v| v.version == *version),
            ModelSelector::Alias(alias) => versions.into_iter().find(|v| v.aliases.contains(alias)),
        })
    }

    /// Lets an alias name a version, or no version, and records the move.
    pub fn set_alias(&self, model: &str, alias: &str, version: Option<u64>) -> Result<(), StateError> {
        let what = "moving an alias";
        let mut connection = self.connection();
        let transaction = connection.transaction().during(what)?;
        let old = transaction
            .query_row(
                "SELECT version FROM model_aliases WHERE model = ?1 AND alias = ?2",
                params![model, alias],
                |row| row.get::<_, i64>(0),
            )
            .optional()
            .during(what)?
            .map(i64::unsigned_abs);
        if old != version {
            move_alias(&transaction, model, alias, old, version)?;
        }
        transaction.commit().during(what)
    }

    /// The aliases that name a version now.
    pub fn aliases(&self, model: &str, version: u64) -> Result<Vec<String>, StateError> {
        let connection = self.connection();
        let what = "listing aliases";
        let mut statement = connection
            .prepare_cached(
                "SELECT alias FROM model_aliases WHERE model = ?1 AND version = ?2 ORDER BY alias",
            )
            .during(what)?;
        let rows = statement.query_map(params![model, to_sql(version)], |row| row.get(0)).during(what)?;
        rows.collect::<Result<_, _>>().during(what)
    }

    /// Every recorded move of a model's aliases, oldest first.
    pub fn alias_moves(&self, model: &str) -> Result<Vec<AliasMove>, StateError> {
        let connection = self.connection();
        let what = "listing alias moves";
        let mut statement = connection
            .prepare_cached("SELECT time, alias, old, new FROM alias_moves WHERE model = ?1 ORDER BY id")
            .during(what)?;
        let rows = statement
            .query_map([model], |row| {
                Ok(AliasMove {
                    time: row.get::<_, String>(0)?.parse().unwrap_or(jiff::Timestamp::UNIX_EPOCH),
                    model: model.to_owned(),
                    alias: row.get(1)?,
                    old: row.get::<_, Option<i64>>(2)?.map(i64::unsigned_abs),
                    new: row.get::<_, Option<i64>>(3)?.map(i64::unsigned_abs),
                })
            })
            .during(what)?;
        rows.collect::<Result<_, _>>().during(what)
    }
}

fn move_alias(
    transaction: &Transaction<'_>,
    model: &str,
    alias: &str,
    old: Option<u64>,
    new: Option<u64>,
) -> Result<(), StateError> {
    let what = "moving an alias";
    match new {
        Some(version) => transaction.execute(
            "INSERT INTO model_aliases (model, alias, version) VALUES (?1, ?2, ?3)
             ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version",
            params![model, alias, to_sql(version)],
        ),
        None => transaction
            .execute("DELETE FROM model_aliases WHERE model = ?1 AND alias = ?2", params![model, alias]),
    }
    .during(what)?;
    transaction
        .execute(
            "INSERT INTO alias_moves (time, model, alias, old, new) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![jiff::Timestamp::now().to_string(), model, alias, old.map(to_sql), new.map(to_sql)],
        )
        .during(what)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_types::Digest;
    use slipway_types::model::{Lineage, ModelFormat};

    fn version(number: u64) -> ModelVersion {
        ModelVersion {
            model: "digits".into(),
            version: number,
            manifest: Digest::from_sha256([number as u8; 32]),
            format: ModelFormat::Sklearn,
            size: 1,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            aliases: Vec::new(),
            lineage: Lineage::default(),
            metrics: [("accuracy".to_owned(), 0.97)].into(),
        }
    }

    #[test]
    fn numbers_are_never_reused_and_alias_moves_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("s.db")).unwrap();
        for expected in 1..=2 {
            let number = state.next_model_version("digits").unwrap();
            assert_eq!(number, expected);
            state.add_model_version(&version(number)).unwrap();
        }
        state.set_alias("digits", "champion", Some(1)).unwrap();
        state.set_alias("digits", "champion", Some(2)).unwrap();
        state.set_alias("digits", "champion", Some(2)).unwrap();
        let find = |text: &str| state.find_model(&text.parse().unwrap()).unwrap().map(|v| v.version);
        assert_eq!((find("digits"), find("digits@1"), find("digits@champion")), (Some(2), Some(1), Some(2)));
        state.set_alias("digits", "beta", Some(2)).unwrap();
        state.set_alias("other", "alpha", Some(2)).unwrap();
        assert_eq!(state.aliases("digits", 2).unwrap(), ["beta", "champion"]);
        assert_eq!(state.aliases("digits", 1).unwrap(), [""; 0]);
        state.set_alias("digits", "beta", None).unwrap();
        state.remove_model_version("digits", 2).unwrap();
        assert_eq!((find("digits"), find("digits@champion"), find("other")), (Some(1), None, None));
        assert_eq!(state.next_model_version("digits").unwrap(), 3);
        let moves: Vec<_> =
            state.alias_moves("digits").unwrap().into_iter().map(|m| (m.old, m.new)).collect();
        let beta = [(None, Some(2)), (Some(2), None)];
        assert_eq!(moves, [(None, Some(1)), (Some(1), Some(2)), beta[0], beta[1], (Some(2), None)]);
    }
}
