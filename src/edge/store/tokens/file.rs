//! Tollgate's own tokens in a file of the data directory. SQLite, each step a transaction that is on the disk before it is
//! answered.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use smol_str::SmolStr;
use zeroize::Zeroizing;

use super::{Known, REVOKED_FOR_MS};
use crate::edge::store::private;
use crate::gate::{Family, KeptKey, MOST_FAMILIES, MOST_USED, RefreshDigest, Refreshed, StoreError, TokenStore};
use crate::model::Timestamp;

/// Its name in the data directory.
const FILE_NAME: &str = "tokens.db";
/// The file that says that a process has it. Not the database itself: SQLite has locks of its own on that.
const LOCK_NAME: &str = "tokens.lock";
/// The version of the tables.
const VERSION: i32 = 2;

const TABLES: &str = "
CREATE TABLE signing_keys (kid TEXT NOT NULL PRIMARY KEY, pkcs8 BLOB NOT NULL, made_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE families (
    id TEXT NOT NULL PRIMARY KEY, identity TEXT NOT NULL, ends_at INTEGER, expires_at INTEGER NOT NULL, revoked_at INTEGER
) WITHOUT ROWID;
CREATE TABLE refresh_tokens (
    digest BLOB NOT NULL PRIMARY KEY, family TEXT NOT NULL, expires_at INTEGER NOT NULL, used_at INTEGER
) WITHOUT ROWID;
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
";
/// What the second version has besides: whose a family is, and what looks for what has ended.
const SINCE_2: &str = "
ALTER TABLE families ADD COLUMN principal TEXT NOT NULL DEFAULT '';
CREATE INDEX families_principal ON families (principal, expires_at);
CREATE INDEX families_end ON families (expires_at);
CREATE INDEX refresh_tokens_end ON refresh_tokens (expires_at);
";
/// Of the first version, what nobody can look up again is forgotten: it does not say by what it was proved.
const OF_1: &str = "
DELETE FROM refresh_tokens WHERE family IN (SELECT id FROM families WHERE revoked_at IS NULL);
DELETE FROM families WHERE revoked_at IS NULL;
";
/// For how long what has ended is known: a token that came of it may be taken a little longer.
const KNOWN_AFTER_MS: i64 = 60_000;
/// How much of what has ended is forgotten at a time.
const FORGET_AT_ONCE: usize = 1_000;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be made or opened.
    #[error("the file of tokens cannot be used: {0}")]
    Io(#[from] std::io::Error),
    /// The database refuses.
    #[error("the file of tokens cannot be used: {0}")]
    Database(#[from] rusqlite::Error),
    /// A later version wrote it.
    #[error("the file of tokens was written by a later version of Tollgate (version {0})")]
    Later(i32),
    /// Another process has it.
    #[error("the file of tokens is in use by another process, which holds `{}`; each needs a data directory of its own", path.display())]
    InUse {
        /// What it holds.
        path: PathBuf,
    },
}

/// The file.
pub struct TokenFile {
    connection: Mutex<Connection>,
    known: Known,
    /// Held for as long as the database is open: two processes would not know each other's keys and revocations.
    _lock: File,
}

impl TokenFile {
    /// Opens the file in `directory`, or makes it.
    ///
    /// # Errors
    /// Where it cannot be used.
    pub fn open(directory: &Path) -> Result<Self, TokenFileError> {
        private::folder(directory)?;
        let lock = lock(directory.join(LOCK_NAME))?;
        let path = directory.join(FILE_NAME);
        // Before SQLite makes it, so that nobody else can read it for a moment.
        drop(private::open(&path, |options| options.append(true))?);
        // From before they were made so; SQLite gives them the mode of its file.
        for name in [path.with_extension("db-wal"), path.with_extension("db-shm")] {
            private::tighten_at(&name);
        }
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match transaction.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))? {
            0 => transaction.execute_batch(&[TABLES, SINCE_2].concat())?,
            1 => transaction.execute_batch(&[OF_1, SINCE_2].concat())?,
            VERSION => {}
            later => return Err(TokenFileError::Later(later)),
        }
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
        let known = Known::default();
        known.replace(signing_keys(&connection)?, revoked(&connection)?);
        Ok(Self { connection: Mutex::new(connection), known, _lock: lock })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock()
    }
}

impl TokenStore for TokenFile {
    fn changes(&self) -> Result<u64, StoreError> {
        Ok(self.known.changes())
    }

    fn signing_keys(&self) -> Vec<KeptKey> {
        self.known.keys()
    }

    fn is_revoked(&self, family: &str) -> bool {
        self.known.is_revoked(family)
    }

    fn keep_key(&self, key: KeptKey, unless_since: Timestamp, forget_before: Timestamp) -> Result<(), StoreError> {
        let mut connection = self.connection();
        keep_key(&mut connection, &key, unless_since, forget_before).map_err(not_written)?;
        let revoked = revoked(&connection).map_err(not_written)?;
        self.known.replace(signing_keys(&connection).map_err(not_written)?, revoked);
        Ok(())
    }

    fn begin(
        &self,
        family: &Family,
        token: &RefreshDigest,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        begin(&mut self.connection(), &First { family, token, expires_at }, now).map_err(not_written)
    }

    fn family(&self, token: &RefreshDigest) -> Result<Option<Family>, StoreError> {
        let found = find(&self.connection(), token).map_err(not_read)?;
        Ok(found.map(|kept| kept.family))
    }

    fn replace(
        &self,
        used: &RefreshDigest,
        next: &RefreshDigest,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Refreshed, StoreError> {
        let mut connection = self.connection();
        let (refreshed, family) =
            replace(&mut connection, &Exchange { used, next, expires_at }, now).map_err(not_written)?;
        if let Some(family) = family {
            self.known.revoke(family);
            for forgotten in forget_revoked(&connection, used).map_err(not_written)? {
                self.known.forget(&forgotten);
            }
        }
        Ok(refreshed)
    }
}

fn signing_keys(connection: &Connection) -> rusqlite::Result<Vec<KeptKey>> {
    let mut query = connection.prepare("SELECT kid, pkcs8, made_at FROM signing_keys")?;
    let rows = query.query_map([], |row| {
        let (kid, pkcs8): (String, _) = (row.get(0)?, Zeroizing::new(row.get(1)?));
        Ok(KeptKey { kid: kid.into(), pkcs8, made_at: Timestamp::from_millis(row.get(2)?) })
    })?;
    rows.collect()
}

/// Families that were revoked not long before the last that was.
fn revoked(connection: &Connection) -> rusqlite::Result<HashSet<SmolStr>> {
    let query = "SELECT id FROM families WHERE revoked_at >= (SELECT max(revoked_at) FROM families) - ?1";
    let mut query = connection.prepare(query)?;
    let rows = query.query_map([REVOKED_FOR_MS], |row| row.get::<_, String>(0).map(SmolStr::from))?;
    rows.collect()
}

fn keep_key(
    connection: &mut Connection,
    key: &KeptKey,
    unless_since: Timestamp,
    forget_before: Timestamp,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let newest = "SELECT max(made_at) FROM signing_keys";
    let newest: Option<i64> = transaction.query_row(newest, [], |row| row.get(0))?;
    if newest.is_some_and(|made_at| made_at >= unless_since.as_millis()) {
        return Ok(());
    }
    let forget = "DELETE FROM signing_keys WHERE made_at < (SELECT max(made_at) FROM signing_keys WHERE made_at < ?1)";
    transaction.execute(forget, [forget_before.as_millis()])?;
    let values = params![key.kid.as_str(), *key.pkcs8, key.made_at.as_millis()];
    transaction.execute("INSERT INTO signing_keys (kid, pkcs8, made_at) VALUES (?1, ?2, ?3)", values)?;
    transaction.commit()
}

/// A new family with its first refresh token.
struct First<'a> {
    family: &'a Family,
    token: &'a RefreshDigest,
    /// When the token expires.
    expires_at: Timestamp,
}

/// A refresh token that is used, and the next one.
struct Exchange<'a> {
    used: &'a RefreshDigest,
    next: &'a RefreshDigest,
    /// When the next one expires.
    expires_at: Timestamp,
}

fn begin(connection: &mut Connection, first: &First<'_>, now: Timestamp) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    forget_ended(&transaction, now)?;
    let First { family, token, expires_at } = *first;
    let ends_at = family.ends_at.map(Timestamp::as_millis);
    transaction.execute(
        "INSERT INTO families (id, principal, identity, ends_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![family.id.as_str(), family.principal.as_str(), family.identity, ends_at, expires_at.as_millis()],
    )?;
    put(&transaction, &family.id, token, expires_at)?;
    forget_surplus(&transaction, family)?;
    transaction.commit()
}

/// Forgets what has ended: it is of no use, but to tell that a token was used twice.
fn forget_ended(transaction: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    for (table, key) in [("refresh_tokens", "digest"), ("families", "id")] {
        let forget = format!(
            "DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE expires_at < ?1 LIMIT {FORGET_AT_ONCE})"
        );
        transaction.execute(&forget, [now.as_millis().saturating_sub(KNOWN_AFTER_MS)])?;
    }
    Ok(())
}

/// Forgets those of a principal's families that were revoked first, but for as many as are known.
fn forget_revoked(connection: &Connection, of: &RefreshDigest) -> rusqlite::Result<Vec<String>> {
    let surplus = format!(
        "DELETE FROM families WHERE id IN (SELECT id FROM families WHERE revoked_at IS NOT NULL AND principal =
            (SELECT f.principal FROM refresh_tokens t JOIN families f ON f.id = t.family WHERE t.digest = ?1)
         ORDER BY revoked_at DESC LIMIT -1 OFFSET {MOST_FAMILIES}) RETURNING id"
    );
    let mut query = connection.prepare(&surplus)?;
    let forgotten: Vec<String> = query.query_map([of.0], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for family in &forgotten {
        connection.execute("DELETE FROM refresh_tokens WHERE family = ?1", [family])?;
    }
    Ok(forgotten)
}

/// Forgets those families of a principal that end first, but for as many as it may have. Those that are revoked stay known.
fn forget_surplus(transaction: &Transaction<'_>, family: &Family) -> rusqlite::Result<()> {
    let surplus = format!(
        "SELECT id FROM families WHERE principal = ?1 AND revoked_at IS NULL AND id <> ?2
         ORDER BY expires_at DESC LIMIT -1 OFFSET {}",
        MOST_FAMILIES - 1
    );
    let of = params![family.principal.as_str(), family.id.as_str()];
    transaction.execute(&format!("DELETE FROM refresh_tokens WHERE family IN ({surplus})"), of)?;
    transaction.execute(&format!("DELETE FROM families WHERE id IN ({surplus})"), of)?;
    Ok(())
}

/// A refresh token, as it is kept.
struct Kept {
    family: Family,
    revoked_at: Option<i64>,
    expires_at: i64,
    used_at: Option<i64>,
}

/// What became of it, and the family that is revoked now.
fn replace(
    connection: &mut Connection,
    exchange: &Exchange<'_>,
    now: Timestamp,
) -> rusqlite::Result<(Refreshed, Option<SmolStr>)> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Exchange { used, next, expires_at } = *exchange;
    let Some(kept) = find(&transaction, used)? else { return Ok((Refreshed::Unknown, None)) };
    let family = kept.family;
    if kept.revoked_at.is_some() {
        return Ok((Refreshed::Revoked, None));
    }
    if kept.used_at.is_some() {
        transaction.execute(
            "UPDATE families SET revoked_at = ?2 WHERE id = ?1",
            params![family.id.as_str(), now.as_millis()],
        )?;
        transaction.commit()?;
        return Ok((Refreshed::Revoked, Some(family.id)));
    }
    if now.as_millis() >= kept.expires_at {
        return Ok((Refreshed::Expired, None));
    }
    let until = family.ends_at.map_or(expires_at, |ends| ends.min(expires_at));
    // It is known for as long as the one that follows it, so that a second use is told.
    transaction.execute(
        "UPDATE refresh_tokens SET used_at = ?2, expires_at = ?3 WHERE digest = ?1",
        params![used.0, now.as_millis(), until.as_millis()],
    )?;
    transaction
        .execute("UPDATE families SET expires_at = ?2 WHERE id = ?1", params![family.id.as_str(), until.as_millis()])?;
    put(&transaction, &family.id, next, until)?;
    let surplus = format!(
        "DELETE FROM refresh_tokens WHERE digest IN (SELECT digest FROM refresh_tokens
         WHERE family = ?1 AND used_at IS NOT NULL ORDER BY used_at DESC LIMIT -1 OFFSET {MOST_USED})"
    );
    transaction.execute(&surplus, [family.id.as_str()])?;
    transaction.commit()?;
    Ok((Refreshed::Replaced(family), None))
}

fn find(connection: &Connection, token: &RefreshDigest) -> rusqlite::Result<Option<Kept>> {
    let query = "SELECT f.id, f.identity, f.ends_at, f.revoked_at, t.expires_at, t.used_at, f.principal
        FROM refresh_tokens t JOIN families f ON f.id = t.family WHERE t.digest = ?1";
    let found = connection.query_row(query, [token.0], |row| {
        let (id, ends_at, principal): (String, Option<i64>, String) = (row.get(0)?, row.get(2)?, row.get(6)?);
        let (id, principal, ends_at) = (id.into(), principal.into(), ends_at.map(Timestamp::from_millis));
        let family = Family { id, principal, identity: row.get(1)?, ends_at };
        Ok(Kept { family, revoked_at: row.get(3)?, expires_at: row.get(4)?, used_at: row.get(5)? })
    });
    found.optional()
}

fn put(
    transaction: &Transaction<'_>,
    family: &str,
    token: &RefreshDigest,
    expires_at: Timestamp,
) -> rusqlite::Result<()> {
    let values = params![token.0, family, expires_at.as_millis()];
    transaction.execute("INSERT INTO refresh_tokens (digest, family, expires_at) VALUES (?1, ?2, ?3)", values)?;
    Ok(())
}

fn lock(path: PathBuf) -> Result<File, TokenFileError> {
    let file = private::open(&path, |options| options.append(true))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TokenFileError::InUse { path }),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what errors are mapped by")]
fn not_read(error: rusqlite::Error) -> StoreError {
    StoreError::Away(error.to_string().into())
}

#[expect(clippy::needless_pass_by_value, reason = "it is what errors are mapped by")]
fn not_written(error: rusqlite::Error) -> StoreError {
    StoreError::NotWritten(error.to_string().into())
}
