//! What is closed, read from the tables once it left memory.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use crate::edge::store::rows;
use crate::gate::StoreError;
use crate::meter::{Reservation, ReservationId};
use crate::model::Timestamp;

/// Reads what is closed.
pub(super) struct Archive {
    connection: Connection,
}

impl Archive {
    pub(super) const fn new(connection: Connection) -> Self {
        Self { connection }
    }

    pub(super) fn reservation(&self, id: ReservationId) -> Result<Option<Reservation>, StoreError> {
        self.find("WHERE id = ?1", id.to_bytes().as_slice())
    }

    pub(super) fn named(&self, key: &str) -> Result<Option<Reservation>, StoreError> {
        // A key may be used again once what it named is long over.
        self.find("WHERE key = ?1 ORDER BY due_at DESC LIMIT 1", key)
    }

    fn find(&self, condition: &str, value: impl rusqlite::ToSql) -> Result<Option<Reservation>, StoreError> {
        let away = |error: ReadError| StoreError::Away(error.to_string().into());
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT id, due_at, key, body, digest, answer FROM closed {condition}"))
            .map_err(|error| away(ReadError::Sqlite(error)))?;
        let found = statement.query_row([value], |row| Ok(reservation(row))).optional();
        found.map_err(|error| away(ReadError::Sqlite(error)))?.transpose().map_err(away)
    }
}

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("a text was expected: {0}")]
    Type(#[from] rusqlite::types::FromSqlError),
    #[error("a row is not as it was written: {0}")]
    Row(#[from] rows::RowError),
}

/// A row of either table: id, when it is due, key, body, digest and answer.
pub(super) fn reservation(row: &rusqlite::Row<'_>) -> Result<Reservation, ReadError> {
    let id: [u8; 16] = row.get(0)?;
    let (due_at, key, body) = (row.get(1)?, row.get::<_, Option<String>>(2)?, row.get::<_, String>(3)?);
    let (digest, answer) = (row.get::<_, Option<[u8; 32]>>(4)?, row.get::<_, Option<Vec<u8>>>(5)?);
    let idempotency = rows::idempotency(key, digest, answer.map(Arc::from));
    Ok(rows::reservation(ReservationId::from_bytes(id), Timestamp::from_millis(due_at), &body, idempotency)?)
}
