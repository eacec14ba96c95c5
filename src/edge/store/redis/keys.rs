//! Keys and passwords in a Redis that many nodes share. Each node has all of them in memory and follows what changes, so that
//! a revocation on one holds on the others within a second. Both are in one list of changes; the id of a password is whose it
//! is, `User::"alice"`, which no key can be called.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::redis::{Cmd, Value};
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::runtime::Runtime;

use super::follow::{Following, Follows, away, follow, look_anew, odd};
use super::{RedisError, RedisOptions, reply};
use crate::edge::store::keys::{PasswordTable, Pepper, Table, read, read_password, write, write_password};
use crate::gate::{
    KeyWrite, KeyWriteError, Keys, KeysOf, Later, PasswordWrite, PasswordWriteError, Passwords, StoreError,
};
use crate::model::hex;
use crate::model::{EntityUid, KeyHash, KeyRecord, KeyText, PasswordHash, PasswordRecord, Timestamp, key_hash_text};

/// How many changes are remembered: a node that has not looked for more of them reads everything again.
const CHANGES: u64 = 100_000;
/// How many keys are read at once.
const AT_ONCE: usize = 1_000;
/// How many last uses may wait.
const MOST_USES: usize = 100_000;
/// After how many looks last uses are written.
const LOOKS_PER_USES: u32 = 120;
/// Where they are.
const KEYS: &str = "keys:all";
const PASSWORDS: &str = "keys:passwords";
const USES: &str = "keys:uses";
const CHANGED: &str = "keys:changes";
const SEQUENCE: &str = "keys:sequence";
const SCRIPT: &str = include_str!("lua/keys.lua");

/// Keys in a Redis.
pub struct RedisKeys {
    shared: Arc<Shared>,
    // Only gone while it is dropped.
    runtime: Option<Runtime>,
}

struct Shared {
    following: Following,
    configured: Option<Pepper>,
    pepper: OnceLock<Pepper>,
    table: Table,
    passwords: PasswordTable,
    uses: Mutex<Vec<(SmolStr, i64)>>,
}

impl RedisKeys {
    /// Connects, and reads all keys; a Redis that is away does not keep a node from starting, and no key is taken until it
    /// is there.
    ///
    /// # Errors
    /// Where the address is none.
    pub fn open(options: &RedisOptions, pepper: Option<Pepper>, max_stale: Duration) -> Result<Self, RedisError> {
        let (following, runtime) = Following::new(options, "keys", SEQUENCE)?;
        let shared = Arc::new(Shared {
            following,
            configured: pepper,
            pepper: OnceLock::new(),
            table: Table::default(),
            passwords: PasswordTable::default(),
            uses: Mutex::default(),
        });
        follow(&shared, &runtime, max_stale);
        Ok(Self { shared, runtime: Some(runtime) })
    }

    /// Why no key can be taken, where that is so.
    ///
    /// # Errors
    /// With the reason.
    pub fn check(&self) -> Result<(), StoreError> {
        self.shared.following.check()
    }

    fn caught_up(&self) -> Option<Later<()>> {
        let (runtime, shared) = (self.runtime.as_ref()?, Arc::clone(&self.shared));
        let looked = runtime.spawn(async move { look_anew(&*shared).await });
        // Whatever came of it: what is known then decides.
        Some(Later::pending(async move { drop(looked.await) }))
    }

    /// What comes of a write, wherever whoever waits for it runs.
    fn written<E, W>(&self, write: impl FnOnce(Arc<Shared>) -> W) -> Later<Result<(), E>>
    where
        E: From<StoreError> + Send + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
    {
        let gone = || E::from(away("the store of keys was closed"));
        let Some(runtime) = &self.runtime else { return Later::ready(Err(gone())) };
        let asked = runtime.spawn(write(Arc::clone(&self.shared)));
        Later::pending(async move { asked.await.unwrap_or_else(|_ended| Err(gone())) })
    }
}

impl Follows for Shared {
    fn following(&self) -> &Following {
        &self.following
    }

    async fn catch_up(&self, seen: Option<u64>, now: u64) -> Result<(), StoreError> {
        match seen {
            None => {
                self.agree_on_pepper().await?;
                self.read_all().await
            }
            Some(before) if now - before >= CHANGES => self.read_all().await,
            Some(before) => self.read_changes(before).await,
        }
    }

    async fn looked(&self, number: u32) {
        if number.is_multiple_of(LOOKS_PER_USES) {
            // What fails is forgotten: the next use says it again.
            let _noted = self.note_uses().await;
        }
    }
}

/// A change of a record, as `lua/keys.lua` reads it.
struct Change<'a> {
    what: &'a str,
    id: &'a str,
    /// The version that it replaces.
    version: u64,
    body: &'a str,
}

impl Shared {
    /// The pepper of all nodes: the one that is configured, which must be the same everywhere, else one that the first node
    /// puts there.
    async fn agree_on_pepper(&self) -> Result<(), StoreError> {
        let wish = match &self.configured {
            Some(pepper) => key_hash_text(&pepper.fingerprint()),
            None => {
                format!("here:{}", hex::encode(&*Pepper::random()))
            }
        };
        let key = self.following.key("keys:pepper");
        self.following.send(::redis::cmd("SET").arg(&key).arg(&wish).arg("NX")).await?;
        let kept = reply::text(self.following.send(::redis::cmd("GET").arg(&key)).await?).ok_or_else(odd)?;
        let pepper = match (&self.configured, kept.strip_prefix("here:")) {
            (Some(pepper), None) if kept == wish => pepper.clone(),
            (None, Some(hex)) => Pepper::new(hex.as_bytes()),
            _ => {
                return Err(self
                    .following
                    .lose("its keys were hashed with another pepper; every node has the same `pepper_file`"));
            }
        };
        let _first = self.pepper.set(pepper);
        Ok(())
    }

    async fn read_all(&self) -> Result<(), StoreError> {
        let mut uses: HashMap<String, i64> = HashMap::new();
        self.scan(USES, |id, at| {
            uses.extend(at.parse().ok().map(|at| (id, at)));
            Ok(())
        })
        .await?;
        let mut known: HashSet<SmolStr> = HashSet::new();
        self.scan(KEYS, |id, body| {
            self.put(&id, &body, uses.get(id.as_str()).copied().unwrap_or(0))?;
            known.insert(id.into());
            Ok(())
        })
        .await?;
        let mut principals: HashSet<EntityUid> = HashSet::new();
        self.scan(PASSWORDS, |id, body| {
            principals.insert(self.put_password(&id, &body)?);
            Ok(())
        })
        .await?;
        // What was removed while nobody looked.
        let all = self.table.page(&KeysOf { most: usize::MAX, ..KeysOf::default() });
        all.iter().filter(|key| !known.contains(&key.id)).for_each(|key| self.table.remove(&key.id));
        self.passwords.retain(|principal| principals.contains(principal));
        Ok(())
    }

    /// Hands all pairs of a hash to `take`.
    async fn scan(
        &self,
        name: &str,
        mut take: impl FnMut(String, String) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let mut cursor = "0".to_owned();
        loop {
            let mut command = ::redis::cmd("HSCAN");
            command.arg(self.following.key(name)).arg(&cursor).arg("COUNT").arg(AT_ONCE);
            let (next, pairs) = scanned(self.following.send(&command).await?)?;
            for (id, text) in pairs {
                take(id, text)?;
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn read_changes(&self, before: u64) -> Result<(), StoreError> {
        let mut command = ::redis::cmd("ZRANGEBYSCORE");
        command.arg(self.following.key(CHANGED)).arg(format!("({before}")).arg("+inf");
        let Value::Array(ids) = self.following.send(&command).await? else { return Err(odd()) };
        let ids: Vec<String> = ids.into_iter().map(reply::text).collect::<Option<_>>().ok_or_else(odd)?;
        let (passwords, keys): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| id.parse::<EntityUid>().is_ok());
        for (id, body) in self.bodies(KEYS, keys).await? {
            match body {
                None => self.table.remove(&id),
                Some(body) => {
                    let used_at = self.table.find(&id).and_then(|key| key.last_used());
                    self.put(&id, &body, used_at.map_or(0, Timestamp::as_millis))?;
                }
            }
        }
        for (id, body) in self.bodies(PASSWORDS, passwords).await? {
            match (body, id.parse()) {
                (Some(body), _) => drop(self.put_password(&id, &body)?),
                (None, Ok(principal)) => self.passwords.remove(&principal),
                (None, Err(_)) => {}
            }
        }
        Ok(())
    }

    /// What stands at these ids of a hash.
    async fn bodies(&self, name: &str, ids: Vec<String>) -> Result<Vec<(String, Option<String>)>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(AT_ONCE) {
            let mut command = ::redis::cmd("HMGET");
            command.arg(self.following.key(name)).arg(ids);
            let Value::Array(bodies) = self.following.send(&command).await? else { return Err(odd()) };
            for (id, body) in ids.iter().zip(bodies) {
                let body = match body {
                    Value::Nil => None,
                    body => Some(reply::text(body).ok_or_else(odd)?),
                };
                found.push((id.clone(), body));
            }
        }
        Ok(found)
    }

    fn put_password(&self, id: &str, body: &str) -> Result<EntityUid, StoreError> {
        let password = read_password(id, body).map_err(|error| away(&error.to_string()))?;
        let principal = password.principal.clone();
        self.passwords.put(password);
        Ok(principal)
    }

    fn put(&self, id: &str, body: &str, used_at: i64) -> Result<(), StoreError> {
        self.table.put(read(id, body, used_at).map_err(|error| away(&error.to_string()))?);
        Ok(())
    }

    async fn write(&self, write_of: KeyWrite) -> Result<(), KeyWriteError> {
        self.check_pepper()?;
        let (what, id, version, body) = match &write_of {
            KeyWrite::Make(key) => ("make", &key.id, 0, write(key)),
            KeyWrite::MakeFirst(key) => ("first", &key.id, 0, write(key)),
            KeyWrite::Change(key) => ("change", &key.id, key.version.saturating_sub(1), write(key)),
            KeyWrite::Remove { id, version } => ("remove", id, *version, String::new()),
        };
        let command = self.script(KEYS, &Change { what, id, version, body: &body });
        let _paused = self.following.pause().await;
        match reply::text(self.following.send(&command).await?).as_deref() {
            Some("done") => {
                self.table.take(write_of);
                Ok(())
            }
            Some("taken") => Err(KeyWriteError::Taken),
            Some("changed") => Err(KeyWriteError::Changed),
            _ => Err(odd().into()),
        }
    }

    async fn write_password(&self, write_of: PasswordWrite) -> Result<(), PasswordWriteError> {
        self.check_pepper()?;
        self.passwords.check(&write_of)?;
        let (what, principal, body) = match &write_of {
            PasswordWrite::Set(password) => ("set", &password.principal, write_password(password)),
            PasswordWrite::Remove(principal) => ("unset", principal, String::new()),
        };
        let command = self.script(PASSWORDS, &Change { what, id: &principal.to_string(), version: 0, body: &body });
        let _paused = self.following.pause().await;
        match reply::text(self.following.send(&command).await?).as_deref() {
            Some("done") => {
                self.passwords.take(write_of);
                Ok(())
            }
            _ => Err(odd().into()),
        }
    }

    fn script(&self, records: &str, change: &Change<'_>) -> Cmd {
        let mut command = ::redis::cmd("EVAL");
        command.arg(SCRIPT).arg(4);
        for name in [records, CHANGED, SEQUENCE, USES] {
            command.arg(self.following.key(name));
        }
        command.arg(change.what).arg(change.id).arg(change.version).arg(change.body).arg(CHANGES);
        command
    }

    /// Before the pepper is known, what a key hashes to is not.
    fn check_pepper(&self) -> Result<(), StoreError> {
        match self.pepper.get() {
            Some(_) if !self.following.is_lost() => Ok(()),
            _ => Err(self.following.trouble()),
        }
    }

    async fn note_uses(&self) -> Result<(), StoreError> {
        let uses = std::mem::take(&mut *self.uses.lock());
        for uses in uses.chunks(AT_ONCE) {
            let mut command = ::redis::cmd("HSET");
            command.arg(self.following.key(USES));
            let known = || uses.iter().filter(|(id, _)| self.table.find(id).is_some());
            for (id, at) in known() {
                command.arg(id.as_str()).arg(at);
            }
            if known().next().is_some() {
                self.following.send(&command).await?;
            }
        }
        Ok(())
    }
}

/// What HSCAN tells: where to go on, and pairs.
fn scanned(value: Value) -> Result<(String, Vec<(String, String)>), StoreError> {
    let Value::Array(parts) = value else { return Err(odd()) };
    let mut parts = parts.into_iter();
    let next = parts.next().and_then(reply::text).ok_or_else(odd)?;
    let items = parts.next().ok_or_else(odd)?;
    Ok((next, reply::pairs(items).ok_or_else(odd)?))
}

impl Keys for RedisKeys {
    fn find(&self, id: &str) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        self.shared.following.check()?;
        Ok(self.shared.table.find(id))
    }

    fn changes(&self) -> Result<u64, StoreError> {
        self.shared.following.check()?;
        Ok(self.shared.table.changes())
    }

    fn catch_up(&self) -> Option<Later<()>> {
        self.caught_up()
    }

    fn page(&self, of: &KeysOf) -> Vec<Arc<KeyRecord>> {
        self.shared.table.page(of)
    }

    fn each(&self, take: &mut dyn FnMut(&Arc<KeyRecord>)) {
        self.shared.table.each(take);
    }

    fn count(&self) -> usize {
        self.shared.table.count()
    }

    fn hash(&self, key: &KeyText<'_>) -> KeyHash {
        self.shared.pepper.get().map_or([0; 32], |pepper| pepper.hash(key))
    }

    fn write(&self, write: KeyWrite) -> Later<Result<(), KeyWriteError>> {
        self.written(|shared| async move { shared.write(write).await })
    }

    fn used(&self, key: &KeyRecord, now: Timestamp) {
        if key.use_at(now) {
            let mut uses = self.shared.uses.lock();
            if uses.len() < MOST_USES {
                uses.push((key.id.clone(), now.as_millis()));
            }
        }
    }
}

impl Passwords for RedisKeys {
    fn find(&self, principal: &EntityUid) -> Result<Option<Arc<PasswordRecord>>, StoreError> {
        self.shared.following.check()?;
        Ok(self.shared.passwords.find(principal))
    }

    fn decoy_key(&self) -> Option<zeroize::Zeroizing<[u8; 32]>> {
        self.shared.pepper.get().map(Pepper::decoy_key)
    }

    fn decoys(&self) -> Arc<[PasswordHash]> {
        self.shared.passwords.decoys()
    }

    fn catch_up(&self) -> Option<Later<()>> {
        self.caught_up()
    }

    fn write(&self, write: PasswordWrite) -> Later<Result<(), PasswordWriteError>> {
        self.written(|shared| async move { shared.write_password(write).await })
    }
}

impl Drop for RedisKeys {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for RedisKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisKeys").field("count", &self.shared.table.count()).finish_non_exhaustive()
    }
}
