//! Who fails too often: guesses at credentials are slowed, by where they come from and by whose credential they guess at.
//!
//! What is hard about it: the rightful owner must not be locked out by those who guess. Three things see to that.
//! 1. What proved somebody lately is no guess: it is let through, wherever it comes from. When it proves nobody any more,
//!    that is no guess either, but the next time it is.
//! 2. That others guess at an id keeps out only sources that have failed at that id themselves.
//! 3. Nothing that is refused here counts, and no more is owed than what goes through at once, so that whoever stops is
//!    let in again after a while.
//!
//! Guesses that come all at once are not told from one another before they are looked at: so of a source that has failed
//! few are looked at at the same time.
//!
//! Pure: the instant is handed in. Its memory is bounded; under a flood from ever new addresses it forgets the oldest,
//! and lets guesses through rather than keeping owners out.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hash};

use super::authenticate::{Credential, Presented};
use crate::model::{RefusalReason, Timestamp, source_of};

/// How many of a source that has failed are looked at at the same time: so many times what goes through at once.
const AT_ONCE: u32 = 4;

/// How many failures are borne.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureLimits {
    /// Failures from one source that go through at once; IPv6 addresses of one /64 are one source.
    pub source_burst: u32,
    /// One more is borne each time this many milliseconds have gone by.
    pub source_every_ms: i64,
    /// Failures at one id that go through at once.
    pub id_burst: u32,
    /// One more is borne each time this many milliseconds have gone by.
    pub id_every_ms: i64,
    /// For how long a credential that proved somebody is let through whatever happens, in milliseconds.
    pub proved_ms: i64,
    /// How many sources, ids, pairs and credentials are remembered, of each.
    pub remembered: usize,
}

impl Default for FailureLimits {
    fn default() -> Self {
        Self {
            source_burst: 20,
            source_every_ms: 3_000,
            id_burst: 10,
            id_every_ms: 30_000,
            proved_ms: 3_600_000,
            remembered: 20_000,
        }
    }
}

/// What a credential is known by here: digests of a key that is this process' own, so that nothing secret is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    source: Option<u64>,
    id: Option<u64>,
    pair: Option<u64>,
    credential: u64,
}

/// Who failed, and who did not.
#[derive(Debug)]
pub struct Failures {
    limits: FailureLimits,
    hasher: RandomState,
    sources: Generations<u64, i64>,
    ids: Generations<u64, i64>,
    /// Until when a source is kept from an id that is guessed at.
    pairs: Generations<u64, i64>,
    /// Until when a credential is let through.
    proved: Generations<u64, i64>,
    /// How many of a source are being looked at.
    looked_at: HashMap<u64, u32>,
}

impl Failures {
    /// Nobody has failed yet.
    #[must_use]
    pub fn new(limits: FailureLimits) -> Self {
        let most = limits.remembered.max(2);
        Self {
            limits,
            hasher: RandomState::new(),
            sources: Generations::of(most),
            ids: Generations::of(most),
            pairs: Generations::of(most),
            proved: Generations::of(most),
            looked_at: HashMap::new(),
        }
    }

    /// What is presented, as it is known here. An id is what the credential itself says: a user's name, a key's public id.
    #[must_use]
    pub fn attempt(&self, presented: &Presented) -> Attempt {
        let hasher = &self.hasher;
        let source = match presented.credential {
            // It came by a proxy that verified it, so there is nothing to guess; and all of the proxy's clients come from there.
            Credential::ForwardedCertificate { .. } => None,
            _ => presented.source,
        };
        let source = source.map(source_of).map(|source| hasher.hash_one(("source", source)));
        let id = id_of(&presented.credential).map(|id| hasher.hash_one(("id", id)));
        // Where nothing is known of the source, all of those are one.
        let pair = id.map(|id| hasher.hash_one(("pair", source, id)));
        Attempt { source, id, pair, credential: hasher.hash_one(Whole(&presented.credential)) }
    }

    /// Whether it is looked at, until [`Failures::ended`]; else, in how many milliseconds it may be.
    ///
    /// # Errors
    /// Where its source, or its source at its id, has failed too often, or too much of its source is being looked at.
    pub fn admit(&mut self, attempt: &Attempt, now: Timestamp) -> Result<(), i64> {
        let waits = self.waits(attempt, now.as_millis());
        if waits > 0 {
            return Err(waits);
        }
        if let Some(source) = attempt.source {
            *self.looked_at.entry(source).or_default() += 1;
        }
        Ok(())
    }

    /// It is no longer looked at, whatever it came to.
    pub fn ended(&mut self, attempt: &Attempt) {
        if let Some(source) = attempt.source
            && let Entry::Occupied(mut count) = self.looked_at.entry(source)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn waits(&self, attempt: &Attempt, now: i64) -> i64 {
        if self.proved.get(&attempt.credential).is_some_and(|until| now < until) {
            return 0;
        }
        let wait = |known: Option<i64>, every_ms: i64, burst: u32| {
            let room = every_ms.saturating_mul(i64::from(burst).saturating_sub(1).max(0));
            known.map_or(0, |empty_at| empty_at.saturating_sub(now).saturating_sub(room))
        };
        let source = attempt.source.and_then(|source| self.sources.get(&source));
        let at_once = self.limits.source_burst.saturating_mul(AT_ONCE);
        let looked_at = attempt.source.and_then(|source| self.looked_at.get(&source));
        if source.is_some_and(|until| now < until) && looked_at.is_some_and(|count| *count >= at_once) {
            return self.limits.source_every_ms;
        }
        let source = wait(source, self.limits.source_every_ms, self.limits.source_burst);
        let id = attempt.id.and_then(|id| self.ids.get(&id));
        let id = wait(id, self.limits.id_every_ms, self.limits.id_burst);
        let has_failed = || attempt.pair.and_then(|pair| self.pairs.get(&pair)).is_some_and(|until| now < until);
        let id = if id > 0 && has_failed() { id } else { 0 };
        source.max(id).max(0)
    }

    /// It proved nobody, for this reason. Only what may be a guess counts.
    pub fn failed(&mut self, attempt: &Attempt, reason: RefusalReason, now: Timestamp) {
        if !is_guess(reason) {
            return;
        }
        let now = now.as_millis();
        // Whoever has it was right until a moment ago.
        if self.proved.remove(&attempt.credential).is_some_and(|until| now < until) {
            return;
        }
        let later = |known: Option<i64>, every_ms: i64, burst: u32| {
            let most = now.saturating_add(every_ms.saturating_mul(i64::from(burst)));
            known.unwrap_or(now).max(now).saturating_add(every_ms).min(most)
        };
        if let Some(source) = attempt.source {
            let known = self.sources.get(&source);
            self.sources.put(source, later(known, self.limits.source_every_ms, self.limits.source_burst));
        }
        if let (Some(id), Some(pair)) = (attempt.id, attempt.pair) {
            let known = self.ids.get(&id);
            let empty_at = later(known, self.limits.id_every_ms, self.limits.id_burst);
            self.ids.put(id, empty_at);
            let whole = self.limits.id_every_ms.saturating_mul(i64::from(self.limits.id_burst));
            self.pairs.put(pair, now.saturating_add(whole));
        }
    }

    /// It proved somebody.
    pub fn proved(&mut self, attempt: &Attempt, now: Timestamp) {
        self.proved.put(attempt.credential, now.as_millis().saturating_add(self.limits.proved_ms));
    }

    /// Whether nobody has failed lately, so that nobody need be looked at.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.sources.is_empty() && self.ids.is_empty()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.sources.len() + self.ids.len() + self.pairs.len() + self.proved.len()
    }
}

/// Whether somebody who has no credential may have made it up.
fn is_guess(reason: RefusalReason) -> bool {
    use RefusalReason::{NotRecognized, UnknownPrincipal, Untrusted, Wrong};
    matches!(reason, Wrong | NotRecognized | UnknownPrincipal | Untrusted)
}

/// What a credential says of whose it is, before anything of it is proved.
fn id_of(credential: &Credential) -> Option<&str> {
    match credential {
        Credential::Basic { username, .. } => Some(username),
        Credential::Bearer(text) | Credential::ApiKey(text) => {
            let id = text.expose().strip_prefix("tg_")?;
            id.split('_').next().filter(|id| !id.is_empty() && id.len() <= 64)
        }
        Credential::Digest { username, .. } => username.as_deref(),
        Credential::Certificates(_) | Credential::ForwardedCertificate { .. } => None,
    }
}

/// The whole of a credential, to be hashed.
struct Whole<'a>(&'a Credential);

impl Hash for Whole<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self.0 {
            Credential::Bearer(text) => (0, text.expose()).hash(state),
            Credential::ApiKey(text) => (1, text.expose()).hash(state),
            Credential::Basic { username, password } => (2, username, password.expose()).hash(state),
            Credential::Digest { parameters, .. } => (3, parameters.expose()).hash(state),
            Credential::Certificates(certificates) => (4, certificates).hash(state),
            Credential::ForwardedCertificate { said, .. } => (5, said).hash(state),
        }
    }
}

/// A bounded memory: when the younger half is full, it becomes the older one, and what was the older is forgotten.
#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    most: usize,
}

impl<K: Hash + Eq + Copy, V: Copy> Generations<K, V> {
    fn of(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), most: most.div_ceil(2) }
    }

    fn get(&self, key: &K) -> Option<V> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.most && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.old.remove(key);
        self.young.remove(key).or(old)
    }

    fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
#[path = "failures_tests.rs"]
mod tests;
