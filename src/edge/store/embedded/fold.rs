//! Takes what the log has into the tables, in one transaction that also says how far it went: as often as it is
//! done, and wherever it is interrupted, each record counts once.

use std::collections::BTreeMap;
use std::ops::Range;

use rusqlite::{Transaction, params};

use super::books;
use super::file::File;
use super::log::{self, LogError};
use super::record::{ReservationRow, Row, Rows};
use crate::meter::ReservationId;

/// How many forgotten reservations are dropped, beside as many as there are new ones.
const DROP_AT_ONCE: usize = 500;

/// Why it cannot be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum FoldError {
    /// Which of the files, and how it shows.
    #[error("{reason}")]
    Damaged { file: usize, reason: String },
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl File {
    /// Takes in what `files` have that the tables have not; says which reservations are closed by it.
    pub(super) fn fold(&mut self, files: &[&[u8]]) -> Result<Vec<ReservationId>, FoldError> {
        let mut records = Vec::new();
        for (file, bytes) in files.iter().enumerate() {
            let found = log::records(bytes, &self.id, self.folded).map_err(|error| match error {
                LogError::Io(error) => FoldError::Io(error),
                LogError::Damaged(reason) => FoldError::Damaged { file, reason },
            })?;
            records.extend(found.into_iter().map(|(number, says)| (number, file, says)));
        }
        records.sort_unstable_by_key(|(number, ..)| *number);
        let Some((last, ..)) = records.last() else { return Ok(Vec::new()) };
        let last = *last;
        let changed = gather(files, &records, self.folded)?;
        let transaction = self.connection.transaction()?;
        changed.put(&transaction)?;
        let number = i64::try_from(last).unwrap_or(i64::MAX);
        transaction.prepare_cached("UPDATE log SET folded = ?1")?.execute([number])?;
        transaction.commit()?;
        self.folded = last;
        let closed = changed.reservations.iter().filter(|(_, row)| !row.is_open);
        Ok(closed.map(|(id, _)| ReservationId::from_bytes(**id)).collect())
    }
}

/// Reads all records, where none is missing.
fn gather<'a>(
    files: &[&'a [u8]],
    records: &[(u64, usize, Range<usize>)],
    folded: u64,
) -> Result<Changed<'a>, FoldError> {
    let mut changed = Changed { latest: i64::MIN, ..Changed::default() };
    let mut expected = folded;
    for (number, file, says) in records {
        expected += 1;
        if *number != expected {
            let reason = format!("what was written before its record {number} is gone");
            return Err(FoldError::Damaged { file: *file, reason });
        }
        let says = files.get(*file).and_then(|bytes| bytes.get(says.clone())).unwrap_or_default();
        let mut rows = Rows::new(says);
        for row in &mut rows {
            changed.take(row);
        }
        if rows.is_damaged() {
            let reason = format!("its record {number} says what this version does not know");
            return Err(FoldError::Damaged { file: *file, reason });
        }
    }
    Ok(changed)
}

/// What many records come to: of each row what it is in the end. In the order of the tables, which is the quicker.
#[derive(Default)]
struct Changed<'a> {
    /// By series and subject.
    meters: BTreeMap<(&'a str, &'a str), Option<&'a str>>,
    reservations: BTreeMap<&'a [u8; 16], ReservationRow<'a>>,
    /// By day, principal and resource.
    used: BTreeMap<(i64, &'a str, &'a str), [i128; 4]>,
    /// By day, limit, unit, principal and resource.
    counted: BTreeMap<(i64, &'a str, &'a str, &'a str, &'a str), i128>,
    latest: i64,
}

impl<'a> Changed<'a> {
    fn take(&mut self, row: Row<'a>) {
        match row {
            Row::Meter { series, subject, state } => {
                self.meters.insert((series, subject), state);
            }
            Row::Reservation(id, row) => {
                self.latest = self.latest.max(row.created_at);
                self.reservations.insert(id, row);
            }
            Row::Used { day, principal, resource, sums } => {
                let all = self.used.entry((day, principal, resource)).or_default();
                all.iter_mut().zip(sums).for_each(|(all, sum)| *all += i128::from(sum));
            }
            Row::Counted { day, principal, resource, limit, unit, amount } => {
                *self.counted.entry((day, limit, unit, principal, resource)).or_default() += i128::from(amount);
            }
        }
    }

    fn put(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut put = transaction.prepare_cached(
            "INSERT INTO meters VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET state = excluded.state",
        )?;
        let mut drop = transaction.prepare_cached("DELETE FROM meters WHERE series = ?1 AND subject = ?2")?;
        for ((series, subject), state) in &self.meters {
            match state {
                Some(state) => put.execute(params![series, subject, state])?,
                None => drop.execute(params![series, subject])?,
            };
        }
        self.put_reservations(transaction)?;
        for ((day, principal, resource), sums) in &self.used {
            books::note_used(transaction, *day, principal, resource, sums.map(fitting))?;
        }
        for ((day, limit, unit, principal, resource), amount) in &self.counted {
            let (day, amount) = (*day, fitting(*amount));
            books::note_counted(transaction, &books::Counted { day, limit, unit, principal, resource, amount })?;
        }
        Ok(())
    }

    fn put_reservations(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        const CHANGED: &str = "VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET due_at = excluded.due_at, \
                               body = excluded.body, answer = excluded.answer";
        let mut open = transaction.prepare_cached(&format!("INSERT INTO open {CHANGED}"))?;
        let mut close = transaction.prepare_cached(&format!("INSERT INTO closed {CHANGED}"))?;
        let mut drop = transaction.prepare_cached("DELETE FROM open WHERE id = ?1")?;
        for (id, row) in &self.reservations {
            let (key, digest, answer) = match row.key {
                Some((key, digest, answer)) => (Some(key), Some(digest.as_slice()), answer),
                None => (None, None, None),
            };
            let row_of = params![id.as_slice(), row.due_at, key, row.body, digest, answer];
            if row.is_open {
                open.execute(row_of)?;
            } else {
                close.execute(row_of)?;
                drop.execute([id.as_slice()])?;
            }
        }
        let mut forget = transaction
            .prepare_cached("DELETE FROM closed WHERE id IN (SELECT id FROM closed WHERE due_at < ?1 LIMIT ?2)")?;
        let most = i64::try_from(DROP_AT_ONCE + self.reservations.len()).unwrap_or(i64::MAX);
        forget.execute(params![self.latest, most])?;
        Ok(())
    }
}

fn fitting(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { -i64::MAX } else { i64::MAX })
}
