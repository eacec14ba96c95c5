//! Keys in a Redis that many nodes share. Each node has all of them in memory and asks a few times a second what changed, so
//! that a revocation on one holds on the others within a second.
//!
//! What is hard about it: a node that hears nothing does not know what was revoked, and a Redis that came back with less
//! does not either. After a while of silence, and at once where changes are missing, no key is taken any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Value};
use smol_str::SmolStr;
use tokio::runtime::Runtime;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, MissedTickBehavior};

use super::link::{Link, Trouble};
use super::{RedisError, RedisOptions, reply, values};
use crate::edge::store::keys::{Pepper, Table, read, write};
use crate::gate::{KeyWrite, KeyWriteError, Keys, KeysOf, Later, StoreError};
use crate::model::{KeyHash, KeyRecord, KeyText, Timestamp, key_hash_text};

/// How often it is asked what changed.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How many changes are remembered: a node that has not looked for more of them reads everything again.
const CHANGES: u64 = 100_000;
/// How many keys are read at once.
const AT_ONCE: usize = 1_000;
/// For which the first reading is waited for.
const FIRST_WAIT: Duration = Duration::from_secs(60);
/// How many last uses may wait.
const MOST_USES: usize = 100_000;
/// After how many looks last uses are written.
const LOOKS_PER_USES: u32 = 120;
const SCRIPT: &str = include_str!("lua/keys.lua");

/// Keys in a Redis.
pub struct RedisKeys {
    shared: Arc<Shared>,
    // Only gone while it is dropped.
    runtime: Option<Runtime>,
}

struct Shared {
    link: Link,
    prefix: String,
    configured: Option<Pepper>,
    pepper: OnceLock<Pepper>,
    table: Table,
    /// The last change that is in the table; `None` before the first reading. Held while the table follows the Redis, so
    /// that what was read earlier is never put over what was written later.
    seen: AsyncMutex<Option<u64>>,
    /// Whether the table is as the Redis was a moment ago.
    fresh: AtomicBool,
    /// Why it is not.
    trouble: Mutex<StoreError>,
    /// It came back with less, or with another pepper: this process takes no key any more.
    lost: AtomicBool,
    uses: Mutex<Vec<(SmolStr, i64)>>,
}

impl RedisKeys {
    /// Connects, and reads all keys; a Redis that is away does not keep a node from starting, and no key is taken until it
    /// is there.
    ///
    /// # Errors
    /// Where the address is none.
    pub fn open(options: &RedisOptions, pepper: Option<Pepper>, max_stale: Duration) -> Result<Self, RedisError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let built = builder.worker_threads(1).thread_name("keys").enable_all().build();
        let runtime = built.map_err(|error| RedisError::Thread(error.to_string()))?;
        let link = {
            let _on = runtime.enter();
            Link::new(options)?
        };
        let shared = Arc::new(Shared {
            link,
            prefix: format!("{{{}}}:", options.prefix),
            configured: pepper,
            pepper: OnceLock::new(),
            table: Table::default(),
            seen: AsyncMutex::new(None),
            fresh: AtomicBool::new(false),
            trouble: Mutex::new(away("the keys have not been read yet")),
            lost: AtomicBool::new(false),
            uses: Mutex::default(),
        });
        let (told, first) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(follow(Arc::clone(&shared), max_stale, told));
        // Whether it worked is told by whoever asks for a key.
        let _first = first.recv_timeout(FIRST_WAIT);
        Ok(Self { shared, runtime: Some(runtime) })
    }

    /// Why no key can be taken, where that is so.
    ///
    /// # Errors
    /// With the reason.
    pub fn check(&self) -> Result<(), StoreError> {
        self.shared.check()
    }
}

/// Follows the Redis for as long as the store lives.
async fn follow(shared: Arc<Shared>, max_stale: Duration, first: std::sync::mpsc::SyncSender<()>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    for number in 0_u32.. {
        looks.tick().await;
        let asked = Instant::now();
        match shared.look().await {
            Ok(()) => {
                heard = asked;
                shared.fresh.store(true, Ordering::Release);
            }
            Err(error) => {
                *shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = error;
                if heard.elapsed() >= max_stale {
                    shared.fresh.store(false, Ordering::Release);
                }
            }
        }
        // Only the first is waited for.
        let _ = first.try_send(());
        if number % LOOKS_PER_USES == 0 {
            // What fails is forgotten: the next use says it again.
            let _noted = shared.note_uses().await;
        }
    }
}

fn away(reason: &str) -> StoreError {
    StoreError::Away(reason.into())
}

fn odd() -> StoreError {
    away("it answers what nobody asked about keys")
}

impl Shared {
    fn check(&self) -> Result<(), StoreError> {
        if self.fresh.load(Ordering::Acquire) && !self.lost.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn send(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.link.send(command).await.map_err(Trouble::into_store)
    }

    /// What this process can no longer trust, it takes nothing from.
    fn lose(&self, reason: &str) -> StoreError {
        self.lost.store(true, Ordering::Release);
        StoreError::Lost(reason.into())
    }

    /// Takes over what changed.
    async fn look(&self) -> Result<(), StoreError> {
        if self.lost.load(Ordering::Acquire) {
            return Err(self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone());
        }
        let mut seen = self.seen.lock().await;
        let now = self.sequence().await?;
        match *seen {
            None => {
                self.agree_on_pepper().await?;
                self.read_all().await?;
            }
            Some(before) if before == now => return Ok(()),
            Some(before) if now < before => {
                return Err(self.lose("it has fewer changes of keys than it had; restart to take what is there"));
            }
            Some(before) if now - before >= CHANGES => self.read_all().await?,
            Some(before) => self.read_changes(before).await?,
        }
        *seen = Some(now);
        Ok(())
    }

    async fn sequence(&self) -> Result<u64, StoreError> {
        match self.send(::redis::cmd("GET").arg(self.key("keys:sequence"))).await? {
            Value::Nil => Ok(0),
            value => reply::text(value).and_then(|text| text.parse().ok()).ok_or_else(odd),
        }
    }

    /// The pepper of all nodes: the one that is configured, which must be the same everywhere, else one that the first node
    /// puts there.
    async fn agree_on_pepper(&self) -> Result<(), StoreError> {
        let wish = match &self.configured {
            Some(pepper) => key_hash_text(&pepper.fingerprint()),
            None => {
                let bytes = Pepper::random().map_err(|error| away(&error.to_string()))?;
                format!("here:{}", values::hex(&*bytes))
            }
        };
        let key = self.key("keys:pepper");
        self.send(::redis::cmd("SET").arg(&key).arg(&wish).arg("NX")).await?;
        let kept = reply::text(self.send(::redis::cmd("GET").arg(&key)).await?).ok_or_else(odd)?;
        let pepper = match (&self.configured, kept.strip_prefix("here:")) {
            (Some(pepper), None) if kept == wish => pepper.clone(),
            (None, Some(hex)) => Pepper::new(hex.as_bytes()),
            _ => {
                return Err(
                    self.lose("its keys were hashed with another pepper; every node has the same `pepper_file`")
                );
            }
        };
        let _first = self.pepper.set(pepper);
        Ok(())
    }

    async fn read_all(&self) -> Result<(), StoreError> {
        let uses = self.read_uses().await?;
        let mut known: std::collections::HashSet<SmolStr> = std::collections::HashSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut command = ::redis::cmd("HSCAN");
            command.arg(self.key("keys:all")).arg(&cursor).arg("COUNT").arg(AT_ONCE);
            let (next, pairs) = scanned(self.send(&command).await?)?;
            for (id, body) in pairs {
                let used_at = uses.get(id.as_str()).copied().unwrap_or(0);
                self.put(&id, &body, used_at)?;
                known.insert(id.into());
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        // What was removed while nobody looked.
        let all = self.table.page(&KeysOf { most: usize::MAX, ..KeysOf::default() });
        all.iter().filter(|key| !known.contains(&key.id)).for_each(|key| self.table.remove(&key.id));
        Ok(())
    }

    async fn read_uses(&self) -> Result<std::collections::HashMap<String, i64>, StoreError> {
        let mut uses = std::collections::HashMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut command = ::redis::cmd("HSCAN");
            command.arg(self.key("keys:uses")).arg(&cursor).arg("COUNT").arg(AT_ONCE);
            let (next, pairs) = scanned(self.send(&command).await?)?;
            uses.extend(pairs.into_iter().filter_map(|(id, at)| Some((id, at.parse().ok()?))));
            if next == "0" {
                return Ok(uses);
            }
            cursor = next;
        }
    }

    async fn read_changes(&self, before: u64) -> Result<(), StoreError> {
        let mut command = ::redis::cmd("ZRANGEBYSCORE");
        command.arg(self.key("keys:changes")).arg(format!("({before}")).arg("+inf");
        let Value::Array(ids) = self.send(&command).await? else { return Err(odd()) };
        let ids: Vec<String> = ids.into_iter().map(reply::text).collect::<Option<_>>().ok_or_else(odd)?;
        for ids in ids.chunks(AT_ONCE) {
            let mut command = ::redis::cmd("HMGET");
            command.arg(self.key("keys:all")).arg(ids);
            let Value::Array(bodies) = self.send(&command).await? else { return Err(odd()) };
            for (id, body) in ids.iter().zip(bodies) {
                match body {
                    Value::Nil => self.table.remove(id),
                    body => {
                        let used_at = self.table.find(id).and_then(|key| key.last_used());
                        let body = reply::text(body).ok_or_else(odd)?;
                        self.put(id, &body, used_at.map_or(0, Timestamp::as_millis))?;
                    }
                }
            }
        }
        Ok(())
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
        let mut command = ::redis::cmd("EVAL");
        command.arg(SCRIPT).arg(4);
        for name in ["keys:all", "keys:changes", "keys:sequence", "keys:uses"] {
            command.arg(self.key(name));
        }
        command.arg(what).arg(id.as_str()).arg(version).arg(body).arg(CHANGES);
        let _following = self.seen.lock().await;
        match reply::text(self.send(&command).await?).as_deref() {
            Some("done") => {
                self.table.take(write_of);
                Ok(())
            }
            Some("taken") => Err(KeyWriteError::Taken),
            Some("changed") => Err(KeyWriteError::Changed),
            _ => Err(odd().into()),
        }
    }

    /// Before the pepper is known, what a key hashes to is not.
    fn check_pepper(&self) -> Result<(), StoreError> {
        match self.pepper.get() {
            Some(_) if !self.lost.load(Ordering::Acquire) => Ok(()),
            _ => Err(self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }

    async fn note_uses(&self) -> Result<(), StoreError> {
        let uses = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        for uses in uses.chunks(AT_ONCE) {
            let mut command = ::redis::cmd("HSET");
            command.arg(self.key("keys:uses"));
            let known = || uses.iter().filter(|(id, _)| self.table.find(id).is_some());
            for (id, at) in known() {
                command.arg(id.as_str()).arg(at);
            }
            if known().next().is_some() {
                self.send(&command).await?;
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
    let Some(Value::Array(items)) = parts.next() else { return Err(odd()) };
    let mut items = items.into_iter().map(reply::text);
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let Some(name) = items.next() {
        let value = items.next().flatten();
        pairs.push((name.ok_or_else(odd)?, value.ok_or_else(odd)?));
    }
    Ok((next, pairs))
}

impl Keys for RedisKeys {
    fn find(&self, id: &str) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        self.shared.check()?;
        Ok(self.shared.table.find(id))
    }

    fn changes(&self) -> Result<u64, StoreError> {
        self.shared.check()?;
        Ok(self.shared.table.changes())
    }

    fn page(&self, of: &KeysOf) -> Vec<Arc<KeyRecord>> {
        self.shared.table.page(of)
    }

    fn count(&self) -> usize {
        self.shared.table.count()
    }

    fn hash(&self, key: &KeyText<'_>) -> KeyHash {
        self.shared.pepper.get().map_or([0; 32], |pepper| pepper.hash(key))
    }

    fn write(&self, write: KeyWrite) -> Later<Result<(), KeyWriteError>> {
        let gone = || KeyWriteError::Store(away("the store of keys was closed"));
        let Some(runtime) = &self.runtime else { return Later::ready(Err(gone())) };
        let shared = Arc::clone(&self.shared);
        let asked = runtime.spawn(async move { shared.write(write).await });
        Later::pending(async move { asked.await.unwrap_or_else(|_ended| Err(gone())) })
    }

    fn used(&self, key: &KeyRecord, now: Timestamp) {
        if key.use_at(now) {
            let mut uses = self.shared.uses.lock().unwrap_or_else(PoisonError::into_inner);
            if uses.len() < MOST_USES {
                uses.push((key.id.clone(), now.as_millis()));
            }
        }
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
