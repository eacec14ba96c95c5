//! Keys and passwords in a file: SQLite in WAL mode, written by one thread. A change is on disk before it is acknowledged,
//! and holds in memory from then on; last uses are written a minute later at most, and a crash may forget those.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, params};
use smol_str::SmolStr;
use tokio::sync::oneshot;

use super::passwords::PasswordTable;
use super::pepper::{Pepper, PepperError};
use super::rows::{self, RowError};
use super::table::Table;
use crate::edge::store::private;
use crate::edge::store::whole::{self, MakeError};
use crate::gate::{
    KeyWrite, KeyWriteError, Keys, KeysOf, Later, PasswordWrite, PasswordWriteError, Passwords, StoreError,
};
use crate::model::{EntityUid, KeyHash, KeyRecord, KeyText, PasswordHash, PasswordRecord, Timestamp, key_hash_text};

/// The file in the data directory.
const FILE_NAME: &str = "keys.db";
/// Marks the file as Tollgate's: "TKEY".
const APPLICATION_ID: i32 = 0x544B_4559;
/// The version of the tables.
const VERSION: i32 = 1;
/// How many changes may wait.
const MOST_WAITING: usize = 256;
/// How many last uses may wait.
const MOST_USES: usize = 100_000;
/// After which last uses are written.
const USES_WAIT: Duration = Duration::from_secs(30);

const TABLES: &str = "
CREATE TABLE keys (id TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE uses (id TEXT NOT NULL PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE about (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";
/// Added to files from before there were passwords; whoever knows none leaves it alone.
const PASSWORDS: &str =
    "CREATE TABLE IF NOT EXISTS passwords (id TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The directory or the file cannot be made, read or written.
    #[error("`{}` cannot be used: {reason}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It is not as it was written.
    #[error("`{}` is damaged: {reason}; put back a copy of it, or move it away to begin without keys", path.display())]
    Damaged {
        /// What.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// Another pepper than the one that its hashes are keyed with.
    #[error(
        "the keys in `{}` were hashed with another pepper; put back the file keys.pepper beside it, or the \
         `pepper_file` that was configured: without it no key can be proved", path.display()
    )]
    OtherPepper {
        /// What.
        path: PathBuf,
    },
    /// There is no pepper.
    #[error(transparent)]
    Pepper(#[from] PepperError),
}

/// Keys in a file of the data directory.
pub struct KeyFile {
    table: Arc<Table>,
    passwords: Arc<PasswordTable>,
    pepper: Pepper,
    uses: Arc<Mutex<Vec<(SmolStr, i64)>>>,
    // Both only gone while it is dropped.
    waiting: Option<SyncSender<Waiting>>,
    writer: Option<JoinHandle<()>>,
}

/// A change that is to be written, and told to whoever waits for it.
type Waiting = Box<dyn FnOnce(&Writer) + Send>;

impl KeyFile {
    /// Whether `directory` has such a file. Nothing is opened, and nothing made.
    #[must_use]
    pub fn is_in(directory: &Path) -> bool {
        directory.join(FILE_NAME).exists()
    }

    /// Opens the file in `directory`, makes it where there is none, and reads all of it. The pepper is made too, unless it
    /// is handed in.
    ///
    /// # Errors
    /// Where the file or the pepper cannot be used.
    pub fn open(directory: &Path, pepper: Option<Pepper>) -> Result<Self, KeyFileError> {
        let path = directory.join(FILE_NAME);
        let io = |error: std::io::Error| KeyFileError::Io { path: path.clone(), reason: error.to_string() };
        private::folder(directory).map_err(io)?;
        let pepper = match pepper {
            Some(pepper) => pepper,
            None => Pepper::in_directory(directory)?,
        };
        let file = File::open(path.clone(), &pepper)?;
        let (table, passwords) = (Arc::new(Table::default()), Arc::new(PasswordTable::default()));
        file.load(&table)?;
        file.load_passwords(&passwords)?;
        let uses = Arc::new(Mutex::default());
        let (waiting, taken) = sync_channel(MOST_WAITING);
        let (of_keys, of_passwords) = (Arc::clone(&table), Arc::clone(&passwords));
        let writer = Writer { file, table: of_keys, passwords: of_passwords, uses: Arc::clone(&uses) };
        let writer = std::thread::Builder::new().name("keys".to_owned()).spawn(move || writer.run(&taken));
        let writer = writer.map_err(io)?;
        Ok(Self { table, passwords, pepper, uses, waiting: Some(waiting), writer: Some(writer) })
    }

    /// Has the writer do it, when it is its turn.
    fn written<E: From<StoreError> + Send + 'static>(
        &self,
        write: impl FnOnce(&Writer) -> Result<(), E> + Send + 'static,
    ) -> Later<Result<(), E>> {
        let closed = || E::from(StoreError::Away("the store of keys was closed".into()));
        let (done, told) = oneshot::channel();
        let Some(waiting) = &self.waiting else { return Later::ready(Err(closed())) };
        let write = move |writer: &Writer| {
            // Who does not wait any longer need not be told.
            let _ = done.send(write(writer));
        };
        match waiting.try_send(Box::new(write)) {
            Ok(()) => Later::pending(async move { told.await.unwrap_or_else(|_ended| Err(closed())) }),
            Err(TrySendError::Full(_)) => {
                Later::ready(Err(StoreError::Away("too many changes of keys wait to be written".into()).into()))
            }
            Err(_) => Later::ready(Err(closed())),
        }
    }
}

impl Keys for KeyFile {
    fn find(&self, id: &str) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        Ok(self.table.find(id))
    }

    fn changes(&self) -> Result<u64, StoreError> {
        Ok(self.table.changes())
    }

    fn page(&self, of: &KeysOf) -> Vec<Arc<KeyRecord>> {
        self.table.page(of)
    }

    fn each(&self, take: &mut dyn FnMut(&Arc<KeyRecord>)) {
        self.table.each(take);
    }

    fn count(&self) -> usize {
        self.table.count()
    }

    fn hash(&self, key: &KeyText<'_>) -> KeyHash {
        self.pepper.hash(key)
    }

    fn write(&self, write: KeyWrite) -> Later<Result<(), KeyWriteError>> {
        self.written(|writer| writer.write(write))
    }

    fn used(&self, key: &KeyRecord, now: Timestamp) {
        if key.use_at(now) {
            let mut uses = self.uses.lock();
            if uses.len() < MOST_USES {
                uses.push((key.id.clone(), now.as_millis()));
            }
        }
    }
}

impl Passwords for KeyFile {
    fn find(&self, principal: &EntityUid) -> Result<Option<Arc<PasswordRecord>>, StoreError> {
        Ok(self.passwords.find(principal))
    }

    fn decoy_key(&self) -> Option<zeroize::Zeroizing<[u8; 32]>> {
        Some(self.pepper.decoy_key())
    }

    fn decoys(&self) -> Arc<[PasswordHash]> {
        self.passwords.decoys()
    }

    fn write(&self, write: PasswordWrite) -> Later<Result<(), PasswordWriteError>> {
        self.written(|writer| writer.write_password(write))
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        drop(self.waiting.take());
        if let Some(writer) = self.writer.take() {
            let _ended = writer.join();
        }
    }
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyFile").field("count", &self.table.count()).finish_non_exhaustive()
    }
}

/// The one thread that writes.
struct Writer {
    file: File,
    table: Arc<Table>,
    passwords: Arc<PasswordTable>,
    uses: Arc<Mutex<Vec<(SmolStr, i64)>>>,
}

impl Writer {
    fn run(self, taken: &Receiver<Waiting>) {
        loop {
            match taken.recv_timeout(USES_WAIT) {
                Ok(write) => write(&self),
                Err(RecvTimeoutError::Timeout) => self.note_uses(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.note_uses();
    }

    fn write(&self, write: KeyWrite) -> Result<(), KeyWriteError> {
        self.table.check(&write)?;
        self.file.write(&write)?;
        self.table.take(write);
        Ok(())
    }

    fn write_password(&self, write: PasswordWrite) -> Result<(), PasswordWriteError> {
        self.passwords.check(&write)?;
        self.file.write_password(&write)?;
        self.passwords.take(write);
        Ok(())
    }

    /// What fails is forgotten: the next use says it again.
    fn note_uses(&self) {
        let uses = std::mem::take(&mut *self.uses.lock());
        let _noted = self.file.note_uses(&uses);
    }
}

struct File {
    path: PathBuf,
    connection: Connection,
}

impl File {
    fn open(path: PathBuf, pepper: &Pepper) -> Result<Self, KeyFileError> {
        if !path.exists() {
            make(&path, pepper)?;
        }
        // There may be one from before it was made so, and a log of it.
        for name in [path.clone(), path.with_extension("db-wal"), path.with_extension("db-shm")] {
            if name.exists() {
                whole::private(&name)
                    .map_err(|error| KeyFileError::Io { path: name.clone(), reason: error.to_string() })?;
            }
        }
        let connected = Connection::open(&path).and_then(|connection| {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // FULL: the log is on disk before a commit returns.
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.busy_timeout(Duration::from_secs(5))?;
            // No other process may write beside this one, which has all of it in memory.
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            Ok(connection)
        });
        let connection = connected.map_err(|error| failed(&path, &error))?;
        let file = Self { path, connection };
        file.check(pepper)?;
        file.connection.execute(PASSWORDS, []).map_err(|error| failed(&file.path, &error))?;
        Ok(file)
    }

    fn check(&self, pepper: &Pepper) -> Result<(), KeyFileError> {
        let wrong = |error: rusqlite::Error| failed(&self.path, &error);
        let damaged = |reason: String| KeyFileError::Damaged { path: self.path.clone(), reason };
        let pragma = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        if pragma("application_id").map_err(wrong)? != APPLICATION_ID {
            return Err(damaged("it is not a file of Tollgate's keys".to_owned()));
        }
        if pragma("user_version").map_err(wrong)? > VERSION {
            return Err(damaged("it was written by a later version of Tollgate".to_owned()));
        }
        let checked = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        let checked = checked.map_err(wrong)?;
        if checked != "ok" {
            return Err(damaged(checked));
        }
        let kept = self
            .connection
            .query_row("SELECT value FROM about WHERE name = 'pepper'", [], |row| row.get::<_, String>(0));
        if kept.map_err(wrong)? == key_hash_text(&pepper.fingerprint()) {
            return Ok(());
        }
        Err(KeyFileError::OtherPepper { path: self.path.clone() })
    }

    fn load(&self, table: &Table) -> Result<(), KeyFileError> {
        let all = "SELECT keys.id, body, coalesce(at, 0) FROM keys LEFT JOIN uses ON uses.id = keys.id";
        self.each(all, |row| {
            let (id, body) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
            table.put(rows::read(id, body, row.get(2)?)?);
            Ok(())
        })
    }

    fn load_passwords(&self, passwords: &PasswordTable) -> Result<(), KeyFileError> {
        self.each("SELECT id, body FROM passwords", |row| {
            passwords.put(rows::read_password(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?)?);
            Ok(())
        })
    }

    fn each(
        &self,
        select: &str,
        mut take: impl FnMut(&rusqlite::Row<'_>) -> Result<(), ReadError>,
    ) -> Result<(), KeyFileError> {
        let mut read = || -> Result<(), ReadError> {
            let mut statement = self.connection.prepare(select)?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                take(row)?;
            }
            Ok(())
        };
        read().map_err(|error| match error {
            ReadError::Sqlite(error) => failed(&self.path, &error),
            other => KeyFileError::Damaged { path: self.path.clone(), reason: other.to_string() },
        })
    }

    fn write_password(&self, write: &PasswordWrite) -> Result<(), StoreError> {
        let written = match write {
            PasswordWrite::Set(password) => self.connection.execute(
                "INSERT INTO passwords VALUES (?1, ?2) ON CONFLICT DO UPDATE SET body = excluded.body",
                params![password.principal.to_string(), rows::write_password(password)],
            ),
            PasswordWrite::Remove(principal) => {
                self.connection.execute("DELETE FROM passwords WHERE id = ?1", [principal.to_string()])
            }
        };
        written.map(drop).map_err(|error| StoreError::NotWritten(error.to_string().into()))
    }

    fn write(&self, write: &KeyWrite) -> Result<(), StoreError> {
        let written = match write {
            KeyWrite::Make(key) | KeyWrite::MakeFirst(key) => {
                self.connection.execute("INSERT INTO keys VALUES (?1, ?2)", params![key.id.as_str(), rows::write(key)])
            }
            KeyWrite::Change(key) => self
                .connection
                .execute("UPDATE keys SET body = ?2 WHERE id = ?1", params![key.id.as_str(), rows::write(key)]),
            KeyWrite::Remove { id, .. } => self
                .connection
                .execute("DELETE FROM uses WHERE id = ?1", [id.as_str()])
                .and_then(|_| self.connection.execute("DELETE FROM keys WHERE id = ?1", [id.as_str()])),
        };
        match written {
            Ok(1) => Ok(()),
            Ok(_) => Err(StoreError::NotWritten("the key is not in the file".into())),
            Err(error) => Err(StoreError::NotWritten(error.to_string().into())),
        }
    }

    fn note_uses(&self, uses: &[(SmolStr, i64)]) -> rusqlite::Result<()> {
        if uses.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.unchecked_transaction()?;
        {
            let mut statement = transaction.prepare_cached(
                "INSERT INTO uses SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM keys WHERE id = ?1) \
                 ON CONFLICT DO UPDATE SET at = excluded.at",
            )?;
            for (id, at) in uses {
                statement.execute(params![id.as_str(), at])?;
            }
        }
        transaction.commit()
    }
}

/// Makes the file.
fn make(path: &Path, pepper: &Pepper) -> Result<(), KeyFileError> {
    let fingerprint = key_hash_text(&pepper.fingerprint());
    let made = whole::make(path, |transaction| {
        transaction.execute_batch(TABLES)?;
        transaction.execute("INSERT INTO about VALUES ('pepper', ?1)", [fingerprint])?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)
    });
    made.map_err(|error| match error {
        MakeError::Io(error) => KeyFileError::Io { path: path.to_owned(), reason: error.to_string() },
        MakeError::Database(error) => failed(path, &error),
    })
}

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("a text was expected: {0}")]
    Type(#[from] rusqlite::types::FromSqlError),
    #[error(transparent)]
    Row(#[from] RowError),
}

fn failed(path: &Path, error: &rusqlite::Error) -> KeyFileError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            KeyFileError::Damaged { path, reason }
        }
        _ => KeyFileError::Io { path, reason },
    }
}
