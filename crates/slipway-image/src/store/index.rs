//! The index: what the store holds, in one SQLite database.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use slipway_types::Digest;

use super::error::{During, Result, StoreError};

const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE schema_version (version INTEGER NOT NULL) STRICT;
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE layers (
    diff_id TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    tar_size INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('canonical', 'blob', 'unrecorded')),
    source_blob TEXT CHECK ((source_blob IS NOT NULL) = (source = 'blob')),
    created_by TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE layer_blobs (
    diff_id TEXT NOT NULL REFERENCES layers (diff_id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (diff_id, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    created TEXT,
    platform TEXT NOT NULL,
    stored INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE image_layers (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    diff_id TEXT NOT NULL REFERENCES layers (diff_id),
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers (diff_id);
CREATE TABLE image_manifests (
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    manifest TEXT NOT NULL,
    PRIMARY KEY (image, manifest)
) STRICT, WITHOUT ROWID;
CREATE TABLE names (
    name TEXT PRIMARY KEY,
    repository TEXT NOT NULL,
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX names_by_image ON names (image);
CREATE TABLE repo_digests (
    repository TEXT NOT NULL,
    manifest TEXT NOT NULL,
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    PRIMARY KEY (repository, manifest)
) STRICT, WITHOUT ROWID;
CREATE INDEX repo_digests_by_image ON repo_digests (image);
CREATE TABLE steps (
    key TEXT PRIMARY KEY,
    layer TEXT,
    payload TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE pins (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
";

/// The database. One connection: SQLite has one writer anyway, and reads here take microseconds.
pub(super) struct Index {
    connection: Mutex<Connection>,
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self> {
        const OPEN: &str = "be opened";
        let mut connection = Connection::open(path).during(OPEN)?;
        connection.busy_timeout(Duration::from_secs(10)).during(OPEN)?;
        connection.pragma_update(None, "journal_mode", "WAL").during(OPEN)?;
        // FULL: a commit that was acknowledged survives a loss of power.
        connection.pragma_update(None, "synchronous", "FULL").during(OPEN)?;
        connection.pragma_update(None, "foreign_keys", true).during(OPEN)?;
        connection.set_prepared_statement_cache_capacity(128);
        migrate(&mut connection)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Runs queries.
    pub(super) fn read<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        f(&self.lock())
    }

    /// Runs a transaction, committed if `f` succeeds and rolled back if not.
    pub(super) fn write<T>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.lock();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .during("begin a transaction")?;
        let value = f(&transaction)?;
        transaction.commit().during("commit a transaction")?;
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic in a transaction rolled it back when it unwound.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn migrate(connection: &mut Connection) -> Result<()> {
    const MIGRATE: &str = "be brought to the current format";
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).during(MIGRATE)?;
    let fresh = !transaction.table_exists(None, "schema_version").during(MIGRATE)?;
    if fresh {
        transaction.execute_batch(SCHEMA).during(MIGRATE)?;
        transaction
            .execute("INSERT INTO schema_version (version) VALUES (?1)", [SCHEMA_VERSION])
            .during(MIGRATE)?;
    } else {
        let found: i64 = transaction
            .query_row("SELECT version FROM schema_version", [], |row| row.get(0))
            .during(MIGRATE)?;
        if found > SCHEMA_VERSION {
            return Err(StoreError::NewerSchema { found, supported: SCHEMA_VERSION });
        }
    }
    transaction.commit().during(MIGRATE)
}

/// A digest in a column.
pub(super) struct Column(pub(super) Digest);

impl FromSql for Column {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Self).map_err(|e| FromSqlError::Other(Box::new(e)))
    }
}

/// All digests that a query gives in its first column.
pub(super) fn digests(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Digest>> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map(parameters, |row| row.get(0).map(|Column(digest)| digest))?.collect()
}

/// SQLite's integers are signed; sizes never come near the top bit.
pub(super) fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The clock, in seconds since the epoch.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
