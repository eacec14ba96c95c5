//! The tables: made, checked, read at the start. What the log has is taken into them (see `fold`).

use std::fs::{File as Handle, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::FILE_NAME;
use super::archive::{Archive, ReadError, reservation};
use super::fold::FoldError;
use super::log::{self, FILE_NAMES, Log, LogError, LogId};
use crate::edge::random;
use crate::edge::store::private;
use crate::edge::store::rows;
use crate::edge::store::whole::{self, MakeError};
use crate::meter::{Ledger, Reservation, ReservationId};
use crate::model::Timestamp;

/// Marks the file as Tollgate's: "TOLL".
const APPLICATION_ID: i32 = 0x544F_4C4C;
/// The version of the tables.
const VERSION: i32 = 2;

const TABLES: &str = "
CREATE TABLE meters (
    series TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (series, subject)
) WITHOUT ROWID;
CREATE TABLE open (
    id BLOB NOT NULL PRIMARY KEY, due_at INTEGER NOT NULL, key TEXT, body TEXT NOT NULL, digest BLOB, answer BLOB
) WITHOUT ROWID;
CREATE TABLE closed (
    id BLOB NOT NULL PRIMARY KEY, due_at INTEGER NOT NULL, key TEXT, body TEXT NOT NULL, digest BLOB, answer BLOB
) WITHOUT ROWID;
CREATE INDEX closed_due ON closed (due_at);
CREATE INDEX closed_key ON closed (key) WHERE key IS NOT NULL;
CREATE TABLE log (id BLOB NOT NULL, folded INTEGER NOT NULL);
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
        "`{path}` is damaged: {reason}; put back a copy of it and of all beside it whose names begin with `meters`, of one \
         moment, or move all of them away to begin with nothing used and nothing held"
    )]
    Damaged {
        /// What.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// It was written by another version.
    #[error("`{path}` was written by another version of Tollgate (its tables are of version {found}, this one knows {known})", known = VERSION)]
    Version {
        /// What.
        path: PathBuf,
        /// The version of its tables.
        found: i32,
    },
    /// No thread could be started.
    #[error("no thread can be started: {0}")]
    Thread(String),
}

/// The tables, open for writing, with all that was in the log. No other process has them meanwhile.
pub(super) struct File {
    path: PathBuf,
    pub(super) connection: Connection,
    pub(super) id: LogId,
    /// The number of the last record of the log that is in the tables.
    pub(super) folded: u64,
    /// Keeps others out as long as it lives.
    _lock: Handle,
}

impl File {
    pub(super) fn open(directory: &Path) -> Result<Self, OpenError> {
        private::folder(directory).map_err(|error| io(directory, &error))?;
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
        if is_new && (directory.join(format!("{FILE_NAME}-wal")).exists() || log::has_records(directory)) {
            let reason = "it is missing, and what was written last is still there beside it".to_owned();
            return Err(OpenError::Damaged { path, reason });
        }
        if is_new {
            make(directory, &path)?;
        }
        // From before they were made so; what SQLite keeps beside its file gets the same mode.
        for name in [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal"), format!("{FILE_NAME}-shm")] {
            private::tighten_at(&directory.join(name));
        }
        let connection = connect(&path)?;
        let mut file = Self { path, connection, id: [0; 16], folded: 0, _lock: lock };
        file.check()?;
        file.take_in(directory)?;
        Ok(file)
    }

    /// The log, to be written on where the tables end.
    pub(super) fn log(&self, directory: &Path) -> Result<Log, OpenError> {
        Log::open(directory, self.id, self.folded).map_err(|error| io(directory, &error))
    }

    /// Takes in what the log has.
    fn take_in(&mut self, directory: &Path) -> Result<(), OpenError> {
        let read = "SELECT id, folded FROM log";
        let read = self.connection.query_row(read, [], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)));
        let (id, folded) = read.map_err(|error| self.failed(&error))?;
        self.id = id;
        self.folded = u64::try_from(folded).unwrap_or_default();
        let paths = log::paths(directory);
        let mut files = Vec::with_capacity(paths.len());
        for path in &paths {
            files.push(log::read(path, &id).map_err(|error| match error {
                LogError::Io(error) => io(path, &error),
                LogError::Damaged(reason) => OpenError::Damaged { path: path.clone(), reason },
            })?);
        }
        let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let folded = self.fold(&files);
        folded.map(|_closed| ()).map_err(|error| match error {
            FoldError::Damaged { file, reason } => {
                OpenError::Damaged { path: directory.join(FILE_NAMES.get(file).unwrap_or(&FILE_NAME)), reason }
            }
            FoldError::Sqlite(error) => self.failed(&error),
            FoldError::Io(error) => io(directory, &error),
        })
    }

    fn check(&self) -> Result<(), OpenError> {
        let pragma = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let damaged = |reason: String| OpenError::Damaged { path: self.path.clone(), reason };
        let application = pragma("application_id").map_err(|error| self.failed(&error))?;
        if application != APPLICATION_ID {
            return Err(damaged("it is not a file of Tollgate's".to_owned()));
        }
        let found = pragma("user_version").map_err(|error| self.failed(&error))?;
        if found != VERSION {
            return Err(OpenError::Version { path: self.path.clone(), found });
        }
        let checked = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        match checked.map_err(|error| self.failed(&error))?.as_str() {
            "ok" => Ok(()),
            reason => Err(damaged(reason.to_owned())),
        }
    }

    fn failed(&self, error: &rusqlite::Error) -> OpenError {
        failed(&self.path, error)
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
            let mut open = connection.prepare("SELECT id, due_at, key, body, digest, answer FROM open")?;
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
        Ok(Archive::new(connect(&self.path)?))
    }

    /// A third one, that reads the books: a report takes its time.
    pub(super) fn books(&self) -> Result<Connection, OpenError> {
        let connection = connect(&self.path)?;
        connection.pragma_update(None, "query_only", true).map_err(|error| self.failed(&error))?;
        Ok(connection)
    }
}

/// The log first, then the tables.
fn make(directory: &Path, path: &Path) -> Result<(), OpenError> {
    let id: [u8; 16] = random::bytes();
    log::make(directory, &id).map_err(|error| io(directory, &error))?;
    let made = whole::make(path, |transaction| {
        transaction.execute_batch(TABLES)?;
        transaction.execute("INSERT INTO log VALUES (?1, 0)", params![id])?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)
    });
    made.map_err(|error| match error {
        MakeError::Io(error) => io(path, &error),
        MakeError::Database(error) => failed(path, &error),
    })
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connected = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // FULL: the log is on disk before a commit returns.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(connection)
    });
    connected.map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            OpenError::Damaged { path, reason }
        }
        _ => OpenError::Io { path, reason },
    }
}

fn lock(path: &Path) -> Result<Handle, OpenError> {
    let handle = private::open(path, |options| options.truncate(false));
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
