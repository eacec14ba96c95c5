//! The books in the file: what was spent, a row for each day, principal and resource, and for each limit that counted it.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, Row as Found, Transaction, params};

use super::Shared;
use crate::gate::{Books, BooksPage, BooksWish, Collector, Row, StoreError, Sum};
use crate::model::Unit;

/// A sum that stays at the largest number there is: SQLite would go on with a float.
macro_rules! sum {
    ($column:literal) => {
        concat!(
            $column,
            " = CASE WHEN ",
            $column,
            " > 9223372036854775807 - excluded.",
            $column,
            " THEN 9223372036854775807 ELSE ",
            $column,
            " + excluded.",
            $column,
            " END"
        )
    };
}

const NOTE_USAGE: &str = concat!(
    "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET ",
    sum!("requests"),
    ", ",
    sum!("input_tokens"),
    ", ",
    sum!("output_tokens"),
    ", ",
    sum!("nano_usd"),
);

/// What is given back is below zero, and stays at the lowest number there is.
const NOTE_CHARGE: &str = concat!(
    "INSERT INTO charges VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET amount = CASE ",
    "WHEN excluded.amount > 0 AND amount > 9223372036854775807 - excluded.amount THEN 9223372036854775807 ",
    "WHEN excluded.amount < 0 AND amount < -9223372036854775807 - excluded.amount THEN -9223372036854775807 ",
    "ELSE amount + excluded.amount END",
);

/// Adds what was used to the books.
pub(super) fn note_used(
    transaction: &Transaction<'_>,
    day: i64,
    principal: &str,
    resource: &str,
    [requests, input_tokens, output_tokens, nano_usd]: [i64; 4],
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(NOTE_USAGE)?;
    statement.execute(params![day, principal, resource, requests, input_tokens, output_tokens, nano_usd])?;
    Ok(())
}

/// A row of the books of limits.
pub(super) struct Counted<'a> {
    pub(super) day: i64,
    pub(super) limit: &'a str,
    pub(super) unit: &'a str,
    pub(super) principal: &'a str,
    pub(super) resource: &'a str,
    pub(super) amount: i64,
}

/// Adds the amount that a limit counted in its unit to the books.
pub(super) fn note_counted(transaction: &Transaction<'_>, counted: &Counted<'_>) -> rusqlite::Result<()> {
    let Counted { day, limit, unit, principal, resource, amount } = counted;
    let mut statement = transaction.prepare_cached(NOTE_CHARGE)?;
    statement.execute(params![day, limit, unit, principal, resource, amount])?;
    Ok(())
}

/// Reads the books, on a connection of its own: whoever writes does not wait for it.
pub(super) struct Reader {
    connection: Mutex<Connection>,
    shared: Arc<Shared>,
}

impl Reader {
    pub(super) fn new(connection: Connection, shared: Arc<Shared>) -> Self {
        Self { connection: Mutex::new(connection), shared }
    }

    fn read(&self, wish: &BooksWish) -> Result<BooksPage, ReadError> {
        let connection = self.connection.lock();
        let mut collector = Collector::new(wish);
        let (principal, resource) = (wish.principal.as_deref(), wish.resource.as_deref());
        if wish.is_of_limits() {
            let mut statement = connection.prepare_cached(
                "SELECT day, principal, resource, limit_id, unit, amount FROM charges WHERE day BETWEEN ?1 AND ?2 \
                 AND (?3 IS NULL OR principal = ?3) AND (?4 IS NULL OR resource = ?4) AND (?5 IS NULL OR limit_id = ?5)",
            )?;
            let mut rows = statement.query(params![wish.from, wish.to, principal, resource, wish.limit.as_deref()])?;
            while let Some(row) = rows.next()? {
                let unit = row.get_ref(4)?.as_str()?;
                let unit = Unit::named(unit).ok_or(ReadError::Unit)?;
                let limit = Some((row.get_ref(3)?.as_str()?, unit));
                take(&mut collector, row, limit, Sum::Counted(row.get::<_, i64>(5)?.into()))?;
            }
        } else {
            let mut statement = connection.prepare_cached(
                "SELECT day, principal, resource, requests, input_tokens, output_tokens, nano_usd FROM usage \
                 WHERE day BETWEEN ?1 AND ?2 AND (?3 IS NULL OR principal = ?3) AND (?4 IS NULL OR resource = ?4)",
            )?;
            let mut rows = statement.query(params![wish.from, wish.to, principal, resource])?;
            while let Some(row) = rows.next()? {
                let number = |column| row.get::<_, i64>(column).map(i128::from);
                let (requests, input_tokens) = (number(3)?, number(4)?);
                let (output_tokens, nano_usd) = (number(5)?, number(6)?);
                take(&mut collector, row, None, Sum::Used { requests, input_tokens, output_tokens, nano_usd })?;
            }
        }
        Ok(collector.page())
    }
}

fn take(
    collector: &mut Collector<'_>,
    row: &Found<'_>,
    limit: Option<(&str, Unit)>,
    spent: Sum,
) -> Result<(), ReadError> {
    let (principal, resource) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
    collector.take(&Row { day: row.get(0)?, principal, resource, limit, spent });
    Ok(())
}

impl Books for Reader {
    fn report(&self, wish: &BooksWish) -> Result<BooksPage, StoreError> {
        self.shared.fold_written()?;
        self.read(wish).map_err(|error| StoreError::Away(error.to_string().into()))
    }
}

/// Why the books cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("a text was expected: {0}")]
    Type(#[from] rusqlite::types::FromSqlError),
    #[error("a row of the books has no unit that is known")]
    Unit,
}
