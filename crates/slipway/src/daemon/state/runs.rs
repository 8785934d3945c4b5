//! Training runs.

use rusqlite::{OptionalExtension, params};
use slipway_types::run::{RunSpec, RunStatus};

use super::{Context, State, StateError, decode, encode};

impl State {
    /// Records a new run under the next number of its project; `make` gets the run's id. `fingerprint` is that of the
    /// inputs that `up` trains from.
    pub fn add_run(
        &self,
        spec: &RunSpec,
        fingerprint: Option<&str>,
        make: impl FnOnce(String) -> RunStatus,
    ) -> Result<RunStatus, StateError> {
        let mut connection = self.connection();
        let what = "a new run";
        let transaction = connection.transaction().during(what)?;
        let number: i64 = transaction
            .query_row(
                "SELECT ifnull(max(number), 0) + 1 FROM runs WHERE project = ?1",
                [&spec.project],
                |row| row.get(0),
            )
            .during(what)?;
        let status = make(format!("{}-{number}", spec.project));
        transaction
            .execute(
                "INSERT INTO runs (id, project, number, status, spec, fingerprint) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    status.id,
                    spec.project,
                    number,
                    encode("run", &status)?,
                    encode("run", spec)?,
                    fingerprint
                ],
            )
            .during(what)?;
        transaction.commit().during(what)?;
        Ok(status)
    }

    /// Replaces what is recorded of a run.
    pub fn update_run(&self, status: &RunStatus) -> Result<(), StateError> {
        let text = encode("run", status)?;
        self.connection()
            .execute("UPDATE runs SET status = ?2 WHERE id = ?1", params![status.id, text])
            .during("updating a run")?;
        Ok(())
    }

    /// Forgets the secrets of a run: it begins no more.
    pub fn forget_secrets(&self, id: &str) -> Result<(), StateError> {
        let Some((_, mut spec)) = self.run(id)? else { return Ok(()) };
        if spec.secrets.0.is_empty() {
            return Ok(());
        }
        spec.secrets.0.clear();
        let text = encode("run", &spec)?;
        self.connection()
            .execute("UPDATE runs SET spec = ?2 WHERE id = ?1", params![id, text])
            .during("forgetting the secrets of a run")?;
        Ok(())
    }

    /// One run and what it executes.
    pub fn run(&self, id: &str) -> Result<Option<(RunStatus, RunSpec)>, StateError> {
        let row = self
            .connection()
            .query_row("SELECT status, spec FROM runs WHERE id = ?1", [id], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })
            .optional()
            .during("looking for a run")?;
        row.map(|(status, spec)| Ok((decode("run", &status)?, decode("run", &spec)?))).transpose()
    }

    /// Every run of a project (of all when absent), oldest first.
    pub fn runs(&self, project: Option<&str>) -> Result<Vec<RunStatus>, StateError> {
        let connection = self.connection();
        let what = "listing runs";
        let mut statement = connection
            .prepare_cached("SELECT status FROM runs WHERE ?1 IS NULL OR project = ?1 ORDER BY rowid")
            .during(what)?;
        let rows = statement.query_map([project], |row| row.get::<_, String>(0)).during(what)?;
        rows.map(|row| decode("run", &row.during(what)?)).collect()
    }

    /// The runs of a project that have a fingerprint, and it, newest first.
    pub fn fingerprinted_runs(&self, project: &str) -> Result<Vec<(RunStatus, String)>, StateError> {
        let connection = self.connection();
        let what = "listing runs by their inputs";
        let mut statement = connection
            .prepare_cached(
                "SELECT status, fingerprint FROM runs WHERE project = ?1 AND fingerprint IS NOT NULL
                 ORDER BY number DESC",
            )
            .during(what)?;
        let rows = statement
            .query_map([project], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
            .during(what)?;
        rows.map(|row| {
            row.during(what).and_then(|(status, fingerprint)| Ok((decode("run", &status)?, fingerprint)))
        })
        .collect()
    }
}
