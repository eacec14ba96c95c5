//! What of Tollgate's own tokens must outlive the process: signing keys, and refresh tokens as digests. SQLite, each step a
//! transaction that is on the disk before it is answered.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::model::{SecretText, Timestamp};

/// Its name in the data directory.
const FILE_NAME: &str = "tokens.db";
/// The file that says that a process has it. Not the database itself: SQLite has locks of its own on that.
const LOCK_NAME: &str = "tokens.lock";
/// The version of the tables.
const VERSION: i32 = 1;

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

/// Why what must last cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum TokenStoreError {
    /// The file cannot be made or opened.
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

/// A key that signs, as it is kept.
pub(super) struct KeptKey {
    pub(super) kid: String,
    pub(super) pkcs8: Zeroizing<Vec<u8>>,
    pub(super) made_at: Timestamp,
}

/// What becomes of a refresh token.
pub(super) enum Refreshed {
    /// It was good, and is replaced.
    Replaced(Family),
    /// Nobody knows it.
    Unknown,
    /// It has ended.
    Expired,
    /// It, or its family, is revoked: this family, now or before.
    Revoked(String),
}

/// All refresh tokens that came of one credential.
pub(super) struct Family {
    pub(super) id: String,
    /// Whom they are for, in JSON.
    pub(super) identity: String,
    /// When the credential itself ends.
    pub(super) ends_at: Option<Timestamp>,
}

/// The file.
pub(super) struct Store {
    connection: Connection,
    /// Held for as long as the database is open: two processes would not know each other's keys and revocations.
    _lock: File,
}

impl Store {
    pub(super) fn open(directory: &Path) -> Result<Self, TokenStoreError> {
        std::fs::create_dir_all(directory)?;
        let lock = lock(directory.join(LOCK_NAME))?;
        let path = directory.join(FILE_NAME);
        // Before SQLite makes it, so that nobody else can read it for a moment.
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        drop(file);
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match transaction.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))? {
            0 => {
                transaction.execute_batch(TABLES)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            VERSION => {}
            later => return Err(TokenStoreError::Later(later)),
        }
        transaction.commit()?;
        Ok(Self { connection, _lock: lock })
    }

    /// Every signing key, the newest first.
    pub(super) fn signing_keys(&self) -> Result<Vec<KeptKey>, TokenStoreError> {
        let mut query =
            self.connection.prepare("SELECT kid, pkcs8, made_at FROM signing_keys ORDER BY made_at DESC, kid")?;
        let rows = query.query_map([], |row| {
            let pkcs8 = Zeroizing::new(row.get(1)?);
            Ok(KeptKey { kid: row.get(0)?, pkcs8, made_at: Timestamp::from_millis(row.get(2)?) })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps a key, and forgets those made before `forget_before`.
    pub(super) fn keep_key(&mut self, key: &KeptKey, forget_before: Timestamp) -> Result<(), TokenStoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("DELETE FROM signing_keys WHERE made_at < ?1", [forget_before.as_millis()])?;
        let values = params![key.kid, *key.pkcs8, key.made_at.as_millis()];
        transaction.execute("INSERT INTO signing_keys (kid, pkcs8, made_at) VALUES (?1, ?2, ?3)", values)?;
        Ok(transaction.commit()?)
    }

    /// Families that were revoked at `since` or later.
    pub(super) fn revoked(&self, since: Timestamp) -> Result<Vec<String>, TokenStoreError> {
        let mut query = self.connection.prepare("SELECT id FROM families WHERE revoked_at >= ?1")?;
        let rows = query.query_map([since.as_millis()], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Begins a family with its first token.
    pub(super) fn begin(
        &mut self,
        family: &Family,
        token: &SecretText,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), TokenStoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // What has ended is of no use, but to tell that a token was used twice.
        transaction.execute("DELETE FROM refresh_tokens WHERE expires_at < ?1", [now.as_millis()])?;
        transaction.execute("DELETE FROM families WHERE expires_at < ?1", [now.as_millis()])?;
        let ends_at = family.ends_at.map(Timestamp::as_millis);
        transaction.execute(
            "INSERT INTO families (id, identity, ends_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
            params![family.id, family.identity, ends_at, expires_at.as_millis()],
        )?;
        put(&transaction, &family.id, token, expires_at)?;
        Ok(transaction.commit()?)
    }

    /// Replaces `used` by `next`. One that is used a second time was stolen, or its answer was lost: nobody can tell, so
    /// its whole family ends.
    pub(super) fn replace(
        &mut self,
        used: &SecretText,
        next: &SecretText,
        expires_at: impl Fn(Option<Timestamp>) -> Timestamp,
        now: Timestamp,
    ) -> Result<Refreshed, TokenStoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = transaction
            .query_row(
                "SELECT f.id, f.identity, f.ends_at, f.revoked_at, t.expires_at, t.used_at
                 FROM refresh_tokens t JOIN families f ON f.id = t.family WHERE t.digest = ?1",
                [digest(used)],
                |row| {
                    let ends_at: Option<i64> = row.get(2)?;
                    let family =
                        Family { id: row.get(0)?, identity: row.get(1)?, ends_at: ends_at.map(Timestamp::from_millis) };
                    Ok((family, row.get::<_, Option<i64>>(3)?, row.get::<_, i64>(4)?, row.get::<_, Option<i64>>(5)?))
                },
            )
            .optional()?;
        let Some((family, revoked, expires, spent)) = found else { return Ok(Refreshed::Unknown) };
        if revoked.is_some() {
            return Ok(Refreshed::Revoked(family.id));
        }
        if spent.is_some() {
            transaction
                .execute("UPDATE families SET revoked_at = ?2 WHERE id = ?1", params![family.id, now.as_millis()])?;
            transaction.commit()?;
            return Ok(Refreshed::Revoked(family.id));
        }
        if now.as_millis() >= expires {
            return Ok(Refreshed::Expired);
        }
        transaction.execute(
            "UPDATE refresh_tokens SET used_at = ?2 WHERE digest = ?1",
            params![digest(used), now.as_millis()],
        )?;
        let until = expires_at(family.ends_at);
        transaction
            .execute("UPDATE families SET expires_at = ?2 WHERE id = ?1", params![family.id, until.as_millis()])?;
        // Those that were used live as long as the family, so that a second use is told.
        transaction.execute(
            "UPDATE refresh_tokens SET expires_at = ?2 WHERE family = ?1 AND used_at IS NOT NULL",
            params![family.id, until.as_millis()],
        )?;
        put(&transaction, &family.id, next, until)?;
        transaction.commit()?;
        Ok(Refreshed::Replaced(family))
    }
}

fn lock(path: PathBuf) -> Result<File, TokenStoreError> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TokenStoreError::InUse { path }),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn put(
    transaction: &rusqlite::Transaction<'_>,
    family: &str,
    token: &SecretText,
    expires_at: Timestamp,
) -> Result<(), TokenStoreError> {
    let values = params![digest(token), family, expires_at.as_millis()];
    transaction.execute("INSERT INTO refresh_tokens (digest, family, expires_at) VALUES (?1, ?2, ?3)", values)?;
    Ok(())
}

/// Of 256 random bits a plain digest is enough: there is nothing to guess.
fn digest(token: &SecretText) -> Vec<u8> {
    Sha256::digest(token.expose().as_bytes()).to_vec()
}
