//! The file: made, checked, read at the start, written in transactions.

use std::fs::{File as Handle, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use super::FILE_NAME;
use super::books::{self, Reader};
use crate::edge::store::rows;
use crate::gate::StoreError;
use crate::meter::{Changes, Ledger, Reservation, ReservationId};
use crate::model::Timestamp;

/// Marks the file as Tollgate's: "TOLL".
const APPLICATION_ID: i32 = 0x544F_4C4C;
/// The version of the tables.
const VERSION: i32 = 1;
/// How many forgotten reservations are dropped with a commit.
const DROP_AT_ONCE: i64 = 500;

const TABLES: &str = "
CREATE TABLE meters (
    series TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (series, subject)
) WITHOUT ROWID;
CREATE TABLE reservations (
    id BLOB NOT NULL PRIMARY KEY, open INTEGER NOT NULL, due_at INTEGER NOT NULL, key TEXT, body TEXT NOT NULL,
    digest BLOB, answer BLOB
) WITHOUT ROWID;
CREATE INDEX reservations_due ON reservations (due_at);
CREATE INDEX reservations_key ON reservations (key) WHERE key IS NOT NULL;
CREATE TABLE usage (
    day INTEGER NOT NULL, principal TEXT NOT NULL, resource TEXT NOT NULL, requests INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, nano_usd INTEGER NOT NULL,
    PRIMARY KEY (day, principal, resource)
) WITHOUT ROWID;
CREATE TABLE charges (
    day INTEGER NOT NULL, limit_id TEXT NOT NULL, unit TEXT NOT NULL, principal TEXT NOT NULL, resource TEXT NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (day, limit_id, unit, principal, resource)
) WITHOUT ROWID;
";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or the file cannot be made, read or written.
    #[error("`{path}` cannot be used: {reason}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another process has it.
    #[error("`{path}` is in use by another process; give each server a data directory of its own (--data)")]
    InUse {
        /// What.
        path: PathBuf,
    },
    /// It is not as it was written.
    #[error(
        "`{path}` is damaged: {reason}; put back a copy of it (with the files beside it whose names begin alike), or move \
         it away to begin with nothing used and nothing held"
    )]
    Damaged {
        /// What.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// It was written by a later version.
    #[error("`{path}` was written by a later version of Tollgate (its tables are of version {found}, this one knows {known})", known = VERSION)]
    Later {
        /// What.
        path: PathBuf,
        /// The version of its tables.
        found: i32,
    },
    /// No thread could be started.
    #[error("no thread can be started: {0}")]
    Thread(String),
}

/// The file, open for writing. No other process has it meanwhile.
pub(super) struct File {
    path: PathBuf,
    connection: Connection,
    /// Keeps others out as long as it lives.
    _lock: Handle,
}

impl File {
    pub(super) fn open(directory: &Path) -> Result<Self, OpenError> {
        make_private(directory).map_err(|error| io(directory, &error))?;
        let lock = lock(&directory.join("meters.lock"))?;
        let path = directory.join(FILE_NAME);
        let is_new = match std::fs::metadata(&path) {
            Ok(found) if found.len() == 0 => {
                return Err(OpenError::Damaged { path, reason: "it is empty".to_owned() });
            }
            Ok(_) => false,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(io(&path, &error)),
        };
        if is_new && directory.join(format!("{FILE_NAME}-wal")).exists() {
            let reason = "it is missing, and what was written last is still there beside it".to_owned();
            return Err(OpenError::Damaged { path, reason });
        }
        let mut file = Self { connection: connect(&path, !is_new)?, path, _lock: lock };
        let ready = if is_new { file.make() } else { file.check() };
        ready?;
        Ok(file)
    }

    /// In one transaction, so that a half-made one is never found.
    fn make(&mut self) -> Result<(), OpenError> {
        let made = self.connection.transaction().and_then(|transaction| {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()
        });
        made.map_err(|error| self.failed(&error))
    }

    fn check(&self) -> Result<(), OpenError> {
        let pragma = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let damaged = |reason: String| OpenError::Damaged { path: self.path.clone(), reason };
        let application = pragma("application_id").map_err(|error| self.failed(&error))?;
        if application != APPLICATION_ID {
            return Err(damaged("it is not a file of Tollgate's".to_owned()));
        }
        let found = pragma("user_version").map_err(|error| self.failed(&error))?;
        if found > VERSION {
            return Err(OpenError::Later { path: self.path.clone(), found });
        }
        let checked = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        match checked.map_err(|error| self.failed(&error))?.as_str() {
            "ok" => Ok(()),
            reason => Err(damaged(reason.to_owned())),
        }
    }

    fn failed(&self, error: &rusqlite::Error) -> OpenError {
        let (path, reason) = (self.path.clone(), error.to_string());
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                OpenError::Damaged { path, reason }
            }
            _ => OpenError::Io { path, reason },
        }
    }

    /// Every meter, and every reservation that is open.
    pub(super) fn load(&mut self, now: Timestamp) -> Result<Ledger, OpenError> {
        let mut ledger = Ledger::default();
        let read = |connection: &Connection, ledger: &mut Ledger| -> Result<(), ReadError> {
            let mut meters = connection.prepare("SELECT series, subject, state FROM meters")?;
            let mut found = meters.query([])?;
            let mut series = rows::Series::default();
            while let Some(row) = found.next()? {
                let key = series.key(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
                ledger.restore(key, rows::meter(row.get_ref(2)?.as_str()?)?);
            }
            let mut open = connection.prepare(&format!("{SELECT} WHERE open = 1"))?;
            let mut found = open.query([])?;
            while let Some(row) = found.next()? {
                ledger.recall(reservation(row)?);
            }
            Ok(())
        };
        read(&self.connection, &mut ledger).map_err(|error| match error {
            ReadError::Sqlite(error) => self.failed(&error),
            other => OpenError::Damaged { path: self.path.clone(), reason: other.to_string() },
        })?;
        // Whoever asked for these was never answered, so nobody will settle them.
        let unanswered = |found: &&Reservation| found.idempotency.as_ref().is_some_and(|key| key.answer.is_none());
        let unanswered: Vec<ReservationId> = ledger.reservations().filter(unanswered).map(|found| found.id).collect();
        for id in unanswered {
            let _given_back = ledger.release(id, now);
        }
        Ok(ledger)
    }

    /// A second connection, that reads beside the writer.
    pub(super) fn archive(&self) -> Result<Archive, OpenError> {
        Ok(Archive { connection: connect(&self.path, true)? })
    }

    /// A third one, that reads the books: a report takes its time.
    pub(super) fn books(&self) -> Result<Reader, OpenError> {
        let connection = connect(&self.path, true)?;
        connection.pragma_update(None, "query_only", true).map_err(|error| self.failed(&error))?;
        Ok(Reader::new(connection))
    }

    /// Writes in one transaction, and returns when it is on disk.
    pub(super) fn write(&mut self, changes: &Changes) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let not_written = |error: rusqlite::Error| StoreError::NotWritten(error.to_string().into());
        let transaction = self.connection.transaction().map_err(not_written)?;
        put(&transaction, changes).map_err(not_written)?;
        transaction.commit().map_err(not_written)
    }
}

const SELECT: &str = "SELECT id, due_at, key, body, digest, answer FROM reservations";

/// Reads what is closed.
pub(super) struct Archive {
    connection: Connection,
}

impl Archive {
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
            .prepare_cached(&format!("{SELECT} {condition}"))
            .map_err(|error| away(ReadError::Sqlite(error)))?;
        let found = statement.query_row([value], |row| Ok(reservation(row))).optional();
        found.map_err(|error| away(ReadError::Sqlite(error)))?.transpose().map_err(away)
    }
}

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("a text was expected: {0}")]
    Type(#[from] rusqlite::types::FromSqlError),
    #[error("a row is not as it was written: {0}")]
    Row(#[from] rows::RowError),
}

fn reservation(row: &rusqlite::Row<'_>) -> Result<Reservation, ReadError> {
    let id: [u8; 16] = row.get(0)?;
    let (due_at, key, body) = (row.get(1)?, row.get::<_, Option<String>>(2)?, row.get::<_, String>(3)?);
    let (digest, answer) = (row.get::<_, Option<[u8; 32]>>(4)?, row.get::<_, Option<Vec<u8>>>(5)?);
    let idempotency = rows::idempotency(key, digest, answer.map(Arc::from));
    Ok(rows::reservation(ReservationId::from_bytes(id), Timestamp::from_millis(due_at), &body, idempotency)?)
}

fn put(transaction: &Transaction<'_>, changes: &Changes) -> rusqlite::Result<()> {
    let mut statement = transaction
        .prepare_cached("INSERT INTO meters VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET state = excluded.state")?;
    for (key, meter) in &changes.meters {
        statement.execute(params![&*key.series, rows::subject(key), rows::meter_text(meter)])?;
    }
    let mut statement = transaction.prepare_cached("DELETE FROM meters WHERE series = ?1 AND subject = ?2")?;
    for key in &changes.blank {
        statement.execute(params![&*key.series, rows::subject(key)])?;
    }
    let mut statement = transaction.prepare_cached(
        "INSERT INTO reservations VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (id) DO UPDATE SET \
         open = excluded.open, due_at = excluded.due_at, body = excluded.body, answer = excluded.answer",
    )?;
    for one in &changes.reservations {
        let key = one.idempotency.as_ref();
        statement.execute(params![
            one.id.to_bytes().as_slice(),
            one.state == crate::meter::State::Open,
            one.due_at.as_millis(),
            key.map(|key| key.key.as_str()),
            rows::reservation_text(one),
            key.map(|key| key.digest.as_slice()),
            key.and_then(|key| key.answer.as_deref()),
        ])?;
    }
    for entry in &changes.entries {
        books::note(transaction, entry)?;
    }
    if let Some(latest) = changes.reservations.iter().map(|one| one.created_at.as_millis()).max() {
        let mut statement = transaction.prepare_cached(
            "DELETE FROM reservations WHERE id IN (SELECT id FROM reservations WHERE due_at < ?1 AND open = 0 LIMIT ?2)",
        )?;
        statement.execute(params![latest, DROP_AT_ONCE])?;
    }
    Ok(())
}

fn connect(path: &Path, exists: bool) -> Result<Connection, OpenError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if !exists {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connected = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // FULL: the log is on disk before a commit returns.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(connection)
    });
    connected.map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            OpenError::Damaged { path: path.to_owned(), reason: error.to_string() }
        }
        _ => OpenError::Io { path: path.to_owned(), reason: error.to_string() },
    })
}

/// Only its owner may look into it: it says who spent what.
fn make_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn lock(path: &Path) -> Result<Handle, OpenError> {
    let handle = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let handle = handle.map_err(|error| io(path, &error))?;
    match handle.try_lock() {
        Ok(()) => Ok(handle),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io(path, &error)),
    }
}

fn io(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), reason: error.to_string() }
}
