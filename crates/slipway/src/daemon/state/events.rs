//! The record of what happened.

use rusqlite::params;
use slipway_types::event::Event;

use super::{Context, State, StateError};

/// Events beyond this many are forgotten, oldest first.
const KEEP: i64 = 100_000;

impl State {
    /// Records an event.
    pub fn add_event(&self, subject: &str, kind: &str, message: &str) -> Result<(), StateError> {
        let connection = self.connection();
        let what = "a new event";
        let now = jiff::Timestamp::now().to_string();
        connection
            .prepare_cached("INSERT INTO events (time, subject, kind, message) VALUES (?1, ?2, ?3, ?4)")
            .during(what)?
            .execute(params![now, subject, kind, message])
            .during(what)?;
        let last = connection.last_insert_rowid();
        if last % 1000 == 0 {
            connection.execute("DELETE FROM events WHERE sequence <= ?1", [last - KEEP]).during(what)?;
        }
        Ok(())
    }

    /// Events after a sequence number, oldest first, at most `limit`; of one subject (or below it) when given.
    pub fn events(&self, subject: Option<&str>, after: u64, limit: u32) -> Result<Vec<Event>, StateError> {
        let connection = self.connection();
        let what = "listing events";
        let mut statement = connection
            .prepare_cached(
                "SELECT sequence, time, subject, kind, message FROM (
                    SELECT * FROM events WHERE sequence > ?1 AND (?2 IS NULL OR subject = ?2)
                    ORDER BY sequence DESC LIMIT ?3) ORDER BY sequence",
            )
            .during(what)?;
        let rows = statement
            .query_map(params![i64::try_from(after).unwrap_or(i64::MAX), subject, limit], |row| {
                Ok(Event {
                    sequence: row.get::<_, i64>(0)?.unsigned_abs(),
                    time: row.get::<_, String>(1)?.parse().unwrap_or(jiff::Timestamp::UNIX_EPOCH),
                    subject: row.get(2)?,
                    kind: row.get(3)?,
                    message: row.get(4)?,
                })
            })
            .during(what)?;
        rows.collect::<Result<_, _>>().during(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_events_come_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("s.db")).unwrap();
        for n in 0..5 {
            state.add_event("service/a", "test", &n.to_string()).unwrap();
        }
        state.add_event("service/b", "test", "other").unwrap();
        let read = |after, limit| {
            let events = state.events(Some("service/a"), after, limit).unwrap();
            events.into_iter().map(|e| e.message).collect::<Vec<_>>()
        };
        assert_eq!(read(0, 2), ["3", "4"]);
        assert_eq!(read(4, 100), ["4"]);
        assert_eq!(state.events(None, 0, 100).unwrap().len(), 6);
    }
}
