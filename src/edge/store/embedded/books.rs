//! The books in the file: what was spent, a row for each day, principal and resource, and for each limit that counted it.

use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, Row as Found, Transaction, params};

use crate::gate::{Books, BooksPage, BooksWish, Collector, Row, StoreError, Sum};
use crate::meter::Entry;
use crate::model::{Amount, Unit};

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

/// Adds to the books.
pub(super) fn note(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    let day = entry.day();
    let (principal, resource) = (entry.spending.principal.to_string(), entry.spending.resource.to_string());
    let fitting = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    if let Some(usage) = entry.usage {
        transaction.prepare_cached(NOTE_USAGE)?.execute(params![
            day,
            principal,
            resource,
            fitting(usage.requests.max(1)),
            fitting(usage.input_tokens),
            fitting(usage.output_tokens),
            usage.usd.map_or(0, Amount::get_signed),
        ])?;
    }
    let mut statement = transaction.prepare_cached(NOTE_CHARGE)?;
    for (limit, unit, charged, before) in &entry.limits {
        let amount = charged.get_signed() - before.get_signed();
        statement.execute(params![day, limit.as_str(), unit.as_str(), principal, resource, amount])?;
    }
    Ok(())
}

/// Reads the books, on a connection of its own: whoever writes does not wait for it.
pub(super) struct Reader {
    connection: Mutex<Connection>,
}

impl Reader {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection: Mutex::new(connection) }
    }

    fn read(&self, wish: &BooksWish) -> Result<BooksPage, ReadError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
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
