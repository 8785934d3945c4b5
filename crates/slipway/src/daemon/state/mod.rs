//! What the daemon remembers: one SQLite database, one writer, every commit durable before it is acknowledged.

mod containers;
mod engines;
mod events;
mod models;
mod published;
mod runs;
mod services;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use slipway_types::{ApiError, ErrorCode};

pub use containers::ContainerRecord;
pub use models::AliasMove;
pub use published::Publication;
pub use services::ServiceRecord;

/// Version of the tables below. An older file is migrated step by step; a newer one is refused.
const SCHEMA_VERSION: u32 = 1 + MIGRATIONS.len() as u32;

/// What each version after the first changed. A new file goes through all of them.
const MIGRATIONS: [&str; 3] = [
    "ALTER TABLE runs ADD COLUMN fingerprint TEXT;",
    "CREATE TABLE engines (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
     CREATE TABLE choices (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;",
    "CREATE TABLE published (service TEXT NOT NULL, revision INTEGER NOT NULL, registry TEXT NOT NULL,
        inputs TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (service, revision, registry)) STRICT;",
];

/// Version 1.
const SCHEMA: &str = "
CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL) STRICT;
CREATE TABLE runs (id TEXT PRIMARY KEY, project TEXT NOT NULL, number INTEGER NOT NULL, status TEXT NOT NULL,
    spec TEXT NOT NULL, UNIQUE (project, number)) STRICT;
CREATE TABLE model_versions (model TEXT NOT NULL, version INTEGER NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (model, version)) STRICT;
CREATE TABLE model_counters (model TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT;
CREATE TABLE model_aliases (model TEXT NOT NULL, alias TEXT NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (model, alias)) STRICT;
CREATE TABLE alias_moves (id INTEGER PRIMARY KEY, time TEXT NOT NULL, model TEXT NOT NULL, alias TEXT NOT NULL,
    old INTEGER, new INTEGER) STRICT;
CREATE TABLE services (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE projects (name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, version INTEGER NOT NULL) STRICT;
CREATE TABLE events (sequence INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, subject TEXT NOT NULL,
    kind TEXT NOT NULL, message TEXT NOT NULL) STRICT;
CREATE INDEX events_by_subject ON events (subject, sequence);
";

/// The state database.
#[derive(Debug)]
pub struct State {
    connection: Mutex<Connection>,
    /// Every declared service by name, decoded; absent until it is asked for. Reconcilers look several times a second.
    /// Locked only while the connection is, so that it is never older than the table.
    services: Mutex<Option<Vec<ServiceRecord>>>,
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be opened or migrated.
    #[error("cannot open the state database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A newer Slipway wrote it.
    #[error("the state database {path} has schema {found}, newer than this binary's {SCHEMA_VERSION}")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
    },
    /// A statement failed.
    #[error("the state database refused {what}")]
    Query {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// A stored record cannot be read.
    #[error("the state database holds an unreadable {what}")]
    Record {
        /// Which.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The name is taken.
    #[error("the name `{0}` is in use")]
    NameTaken(String),
}

impl StateError {
    /// The public kind of this error.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NameTaken(_) => ErrorCode::Conflict,
            Self::Query { source, .. } | Self::Open { source, .. } if is_full(source) => {
                ErrorCode::ResourceExhausted
            }
            Self::Record { .. } => ErrorCode::DataLoss,
            Self::Open { .. } | Self::TooNew { .. } | Self::Query { .. } => ErrorCode::Internal,
        }
    }
}

impl From<StateError> for ApiError {
    fn from(error: StateError) -> Self {
        Self::from_error(error.code(), &error)
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

fn is_duplicate(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}

/// Gives a statement's error its place.
trait Context<T> {
    fn during(self, what: &'static str) -> Result<T, StateError>;
}

impl<T> Context<T> for Result<T, rusqlite::Error> {
    fn during(self, what: &'static str) -> Result<T, StateError> {
        self.map_err(|source| StateError::Query { what, source })
    }
}

fn encode<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, StateError> {
    serde_json::to_string(value).map_err(|source| StateError::Record { what, source })
}

fn decode<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StateError> {
    serde_json::from_str(text).map_err(|source| StateError::Record { what, source })
}

impl State {
    /// Opens the database, making it where there is none.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let fail = |source| StateError::Open { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(fail)?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;")
            .map_err(fail)?;
        let transaction = connection.transaction().map_err(fail)?;
        let found: u32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fail)?;
        if found > SCHEMA_VERSION {
            return Err(StateError::TooNew { path: path.to_owned(), found });
        }
        if found == 0 {
            transaction.execute_batch(SCHEMA).map_err(fail)?;
        }
        for (_, migration) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version >= found) {
            transaction.execute_batch(migration).map_err(fail)?;
        }
        if found != SCHEMA_VERSION {
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(fail)?;
        }
        transaction.commit().map_err(fail)?;
        Ok(Self { connection: Mutex::new(connection), services: Mutex::new(None) })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic between statements leaves no half-done transaction: rusqlite rolls it back on drop.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_twice_and_refuses_a_newer_schema() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        drop(State::open(&path).unwrap());
        let state = State::open(&path).unwrap();
        state.connection().pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        drop(state);
        assert!(matches!(State::open(&path), Err(StateError::TooNew { .. })));
    }

    #[test]
    fn an_old_file_is_migrated_and_keeps_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(SCHEMA).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        old.execute("INSERT INTO projects (name, fingerprint, version) VALUES ('digits', 'f', 7)", [])
            .unwrap();
        let count = |connection: &Connection| -> i64 {
            connection
                .query_row(
                    "SELECT count(*) FROM pragma_table_info('runs') WHERE name = 'fingerprint'",
                    [],
                    |row| row.get(0),
                )
                .unwrap()
        };
        assert_eq!(count(&old), 0);
        drop(old);
        for _ in 0..2 {
            let state = State::open(&path).unwrap();
            assert_eq!(count(&state.connection()), 1);
            assert_eq!(state.project("digits").unwrap(), Some(("f".to_owned(), 7)));
        }
    }
}
