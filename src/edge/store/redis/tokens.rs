//! Tollgate's own tokens in a Redis that many nodes share: a token of one node is good on all, its refresh token is good
//! once among all of them, and of several nodes whose key grew old one makes the next.
//!
//! What is hard about it: who reads the Redis must not be able to sign. So private keys are sealed with a key that comes of
//! the pepper, which is in a file of each node and never in the Redis.

use std::collections::HashSet;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ::redis::{Cmd, Value};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use smol_str::SmolStr;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::follow::{Following, Follows, away, follow, look, odd};
use super::{RedisError, RedisOptions, reply};
use crate::edge::store::keys::Pepper;
use crate::edge::store::tokens::{Known, REVOKED_FOR_MS};
use crate::gate::{Family, KeptKey, MOST_FAMILIES, MOST_USED, RefreshDigest, Refreshed, StoreError, TokenStore};
use crate::model::Timestamp;
use crate::model::hex;

const SCRIPT: &str = include_str!("lua/tokens.lua");
/// What all keys begin with.
const PREFIX: &str = "tokens:";
const KEYS: &str = "tokens:keys";
const REVOKED: &str = "tokens:revoked";
const SEQUENCE: &str = "tokens:sequence";

/// Tollgate's own tokens in a Redis.
pub struct RedisTokens {
    shared: Arc<Shared>,
    // Only gone while it is dropped.
    runtime: Option<Runtime>,
}

struct Shared {
    following: Following,
    seal: Seal,
    known: Known,
}

impl RedisTokens {
    /// Connects, and reads what is known; a Redis that is away does not keep a node from starting, and no token is taken or
    /// handed out until it is there. Every node has the same `pepper`.
    ///
    /// # Errors
    /// Where the address is none.
    pub fn open(options: &RedisOptions, pepper: &Pepper, max_stale: Duration) -> Result<Self, RedisError> {
        let (following, runtime) = Following::new(options, "tokens", SEQUENCE)?;
        let shared = Arc::new(Shared { following, seal: Seal::of(pepper), known: Known::default() });
        follow(&shared, &runtime, max_stale);
        Ok(Self { shared, runtime: Some(runtime) })
    }

    /// What came back with less would take a token that was used before.
    fn trusted(&self) -> Result<Arc<Shared>, StoreError> {
        if self.shared.following.is_lost() {
            return Err(self.shared.following.trouble());
        }
        Ok(Arc::clone(&self.shared))
    }

    /// Does that on the thread of this store, and waits for it.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let closed = || away("the store of tokens was closed");
        let (done, waits) = mpsc::sync_channel(1);
        self.runtime.as_ref().ok_or_else(closed)?.spawn(async move {
            // Whoever no longer waits is not told.
            let _ = done.send(work.await);
        });
        waits.recv().map_err(|_gone| closed())?
    }
}

impl Follows for Shared {
    fn following(&self) -> &Following {
        &self.following
    }

    /// All of it each time: it is a few keys, and the families that were revoked within a day.
    async fn catch_up(&self, _seen: Option<u64>, _now: u64) -> Result<(), StoreError> {
        let all = self.following.send(::redis::cmd("HGETALL").arg(self.following.key(KEYS))).await?;
        let texts = reply::pairs(all).ok_or_else(odd)?;
        let mut keys = Vec::with_capacity(texts.len());
        for (kid, text) in texts {
            let opened = self.seal.open(&kid, &text);
            keys.push(opened.ok_or_else(|| {
                self.following.lose("its signing keys are sealed with another pepper; every node has the same one")
            })?);
        }
        let mut command = ::redis::cmd("ZRANGE");
        command.arg(self.following.key(REVOKED)).arg(0).arg(-1);
        let Value::Array(revoked) = self.following.send(&command).await? else { return Err(odd()) };
        let revoked: Option<HashSet<_>> =
            revoked.into_iter().map(|family| reply::text(family).map(SmolStr::from)).collect();
        self.known.replace(keys, revoked.ok_or_else(odd)?);
        Ok(())
    }
}

impl Shared {
    fn script(&self, which: &str, keys: &[&str]) -> Cmd {
        let mut command = ::redis::cmd("EVAL");
        command.arg(SCRIPT).arg(keys.len());
        for key in keys {
            command.arg(self.following.key(key));
        }
        command.arg(which);
        command
    }

    async fn run(&self, command: &Cmd) -> Result<Vec<String>, StoreError> {
        let Value::Array(told) = self.following.send(command).await? else { return Err(odd()) };
        told.into_iter().map(reply::text).collect::<Option<_>>().ok_or_else(odd)
    }

    /// The family of a refresh token.
    async fn family(&self, token: &str) -> Result<Option<Family>, StoreError> {
        let named = ::redis::cmd("HGET").arg(self.following.key(token)).arg("family").to_owned();
        let id = match self.following.send(&named).await? {
            Value::Nil => return Ok(None),
            id => reply::text(id).ok_or_else(odd)?,
        };
        let mut command = ::redis::cmd("HMGET");
        command.arg(self.following.key(&family_key(&id))).arg(&["identity", "ends_at", "principal"]);
        let Value::Array(said) = self.following.send(&command).await? else { return Err(odd()) };
        let [identity, ends_at, principal] = <[Value; 3]>::try_from(said).map_err(|_| odd())?;
        // One that does not say whose it is was begun by the first version, which did not say by what it was proved either.
        if matches!(identity, Value::Nil) || matches!(principal, Value::Nil) {
            return Ok(None);
        }
        let text = |value| reply::text(value).ok_or_else(odd);
        let ends_at = match text(ends_at)?.as_str() {
            "" => None,
            millis => Some(Timestamp::from_millis(millis.parse().map_err(|_| odd())?)),
        };
        Ok(Some(Family { id: id.into(), principal: text(principal)?.into(), identity: text(identity)?, ends_at }))
    }

    async fn replace(
        &self,
        used: RefreshDigest,
        next: RefreshDigest,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Refreshed, StoreError> {
        let (used, next) = (refresh_key(&used), refresh_key(&next));
        let Some(family) = self.family(&used).await? else { return Ok(Refreshed::Unknown) };
        let id = &family.id;
        let (all, used_before) = (families_key(&family.principal), used_key(id));
        let revoked = revoked_key(&family.principal);
        let keys = [&family_key(id), &used, &next, REVOKED, SEQUENCE, &used_before, &all, &revoked];
        let mut command = self.script("replace", &keys);
        let forget_before = now.as_millis() - REVOKED_FOR_MS;
        command.arg(id.as_str()).arg(now.as_millis()).arg(expires_at.as_millis()).arg(forget_before).arg(MOST_USED);
        command.arg(MOST_FAMILIES).arg(self.following.key(PREFIX));
        let told = self.run(&command).await?;
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        match told.as_slice() {
            ["replaced"] => Ok(Refreshed::Replaced(family)),
            ["revoked"] => {
                // Here it holds at once: no look that began earlier takes it away again.
                let _looked = look(self).await;
                self.known.revoke(family.id);
                Ok(Refreshed::Revoked)
            }
            ["expired"] => Ok(Refreshed::Expired),
            ["unknown"] => Ok(Refreshed::Unknown),
            _ => Err(odd()),
        }
    }
}

fn family_key(id: &str) -> String {
    format!("{PREFIX}family:{id}")
}

/// The tokens of a family that were used, the last first.
fn used_key(id: &str) -> String {
    format!("{PREFIX}used:{id}")
}

/// Those of a principal's families that are revoked, by when.
fn revoked_key(principal: &str) -> String {
    format!("{PREFIX}revoked-of:{principal}")
}

/// The families of a principal, by when they end.
fn families_key(principal: &str) -> String {
    format!("{PREFIX}of:{principal}")
}

fn refresh_key(digest: &RefreshDigest) -> String {
    format!("{PREFIX}refresh:{}", hex::encode(&digest.0))
}

impl TokenStore for RedisTokens {
    fn changes(&self) -> Result<u64, StoreError> {
        self.shared.following.check()?;
        Ok(self.shared.known.changes())
    }

    fn signing_keys(&self) -> Vec<KeptKey> {
        self.shared.known.keys()
    }

    fn is_revoked(&self, family: &str) -> bool {
        self.shared.known.is_revoked(family)
    }

    fn keep_key(&self, key: KeptKey, unless_since: Timestamp, forget_before: Timestamp) -> Result<(), StoreError> {
        let shared = self.trusted()?;
        self.wait(async move {
            let text = shared.seal.close(&key).ok_or_else(|| away("the key cannot be sealed"))?;
            let mut command = shared.script("keep", &[KEYS, SEQUENCE]);
            command.arg(key.kid.as_str()).arg(text).arg(key.made_at.as_millis());
            command.arg(unless_since.as_millis()).arg(forget_before.as_millis());
            shared.run(&command).await?;
            // Also where another node was quicker: its key is the one.
            look(&*shared).await
        })
    }

    fn begin(
        &self,
        family: &Family,
        token: &RefreshDigest,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let keys = [&family_key(&family.id), &refresh_key(token), &families_key(&family.principal)];
        let mut command = self.shared.script("begin", &keys.map(String::as_str));
        command.arg(family.id.as_str()).arg(&family.identity);
        command.arg(family.ends_at.map_or_else(String::new, |ends| ends.as_millis().to_string()));
        command.arg(expires_at.as_millis()).arg(family.principal.as_str()).arg(now.as_millis());
        command.arg(MOST_FAMILIES).arg(self.shared.following.key(PREFIX));
        let shared = self.trusted()?;
        self.wait(async move { shared.run(&command).await.map(drop) })
    }

    fn family(&self, token: &RefreshDigest) -> Result<Option<Family>, StoreError> {
        let (shared, token) = (self.trusted()?, refresh_key(token));
        self.wait(async move { shared.family(&token).await })
    }

    fn replace(
        &self,
        used: &RefreshDigest,
        next: &RefreshDigest,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Refreshed, StoreError> {
        let (shared, used, next) = (self.trusted()?, *used, *next);
        self.wait(async move { shared.replace(used, next, expires_at, now).await })
    }
}

impl Drop for RedisTokens {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Seals private keys, each with its name, so that none can be put in the place of another.
struct Seal(Option<RandomizedNonceKey>);

impl Seal {
    fn of(pepper: &Pepper) -> Self {
        Self(RandomizedNonceKey::new(&AES_256_GCM, &*pepper.sealing_key()).ok())
    }

    /// `<made at> <nonce and sealed key>`.
    fn close(&self, key: &KeptKey) -> Option<String> {
        let made_at = key.made_at.as_millis();
        let mut sealed = key.pkcs8.to_vec();
        let nonce = self.0.as_ref()?.seal_in_place_append_tag(aad(&key.kid, made_at), &mut sealed).ok()?;
        Some(format!("{made_at} {}", STANDARD_NO_PAD.encode([nonce.as_ref().as_slice(), &sealed].concat())))
    }

    fn open(&self, kid: &str, text: &str) -> Option<KeptKey> {
        let (made_at, sealed) = text.split_once(' ')?;
        let made_at: i64 = made_at.parse().ok()?;
        let mut sealed = Zeroizing::new(STANDARD_NO_PAD.decode(sealed).ok()?);
        let (nonce, sealed) = sealed.split_at_mut_checked(NONCE_LEN)?;
        let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        let opened = self.0.as_ref()?.open_in_place(nonce, aad(kid, made_at), sealed).ok()?;
        let pkcs8 = Zeroizing::new(opened.to_vec());
        Some(KeptKey { kid: kid.into(), pkcs8, made_at: Timestamp::from_millis(made_at) })
    }
}

fn aad(kid: &str, made_at: i64) -> Aad<Vec<u8>> {
    Aad::from(format!("tollgate signing key {kid} {made_at}").into_bytes())
}
