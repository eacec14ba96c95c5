//! API keys: those that Tollgate made, and those that stand in the bundle as hashes.
//!
//! What is hard about it: an unknown id and a wrong secret look and cost the same, and nobody learns what became of a key
//! (revoked, expired, replaced) but who has its secret. Comparisons take a time that depends on no secret.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Weak};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use foldhash::fast::RandomState;
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use smol_str::SmolStr;

use crate::edge::random;
use crate::gate::{Authenticator, Credential, KeyLookup, Keys, Later, Presented, Recalled, Verdict};
use crate::model::{
    AuthMethod, CredentialMark, EntityUid, Identity, Inherited, KeyHash, KeyRecord, KeyText, RESERVED_ROLE_PREFIX,
    Refusal, RefusalReason, Said, SecretText, Timestamp, bundle_key_hash,
};
use crate::policy::{BundleKey, SetAssociative, Snapshot};

/// How many identities are remembered, so that a key in use need not be put together again.
const REMEMBERED: usize = 16_384;
/// How long an identity is handed out from memory before its key is looked at again, and its use noted.
const RECALLED_MS: i64 = 60_000;

/// How keys are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyOptions {
    /// Whether a key proves somebody whose owner the bundle does not declare.
    pub unknown_owners: bool,
}

/// Knows keys.
pub struct KeyProvider {
    inner: Arc<Inner>,
}

struct Inner {
    keys: Option<Arc<dyn Keys>>,
    options: KeyOptions,
    hasher: RandomState,
    /// Digests texts of keys with a secret of this process: who does not know it finds no two with one digest.
    digests: SipHasher24,
    remembered: SetAssociative<Remembered>,
}

/// A key as it was, and whom it proved.
struct Remembered {
    key: Arc<KeyRecord>,
    identity: Arc<Identity>,
    proof: Option<Proof>,
}

/// By what a key was proved, and all that this depends on besides its record.
#[derive(Clone)]
struct Proof {
    /// Of the text that was presented.
    digest: u128,
    /// The bundle that knew the owner.
    snapshot: Weak<Snapshot>,
    /// How many changes of keys there were before.
    changes: u64,
    at: Timestamp,
}

/// Which of a key's secrets was presented.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secret {
    Current,
    /// The one before, which is taken until then.
    Previous(Timestamp),
    None,
}

impl KeyProvider {
    /// Of the keys in a store, where there is one, and those of the bundle.
    #[must_use]
    pub fn new(keys: Option<Arc<dyn Keys>>, options: KeyOptions) -> Self {
        let remembered = SetAssociative::new(REMEMBERED);
        let hasher = RandomState::default();
        let digests = SipHasher24::new_with_key(&random::bytes());
        Self { inner: Arc::new(Inner { keys, options, hasher, digests, remembered }) }
    }
}

/// A key of the store, and the hash of the text that was shown for it.
struct Shown<'a> {
    record: &'a Arc<KeyRecord>,
    hash: &'a KeyHash,
    /// Remembered for the next request with the same text.
    proof: Option<Proof>,
}

impl Inner {
    fn proved(&self, text: &str, snapshot: &Arc<Snapshot>, now: Timestamp) -> Result<Arc<Identity>, Refusal> {
        let key = KeyText::parse(text);
        let key = key.map_err(|error| Refusal::new(RefusalReason::Malformed, error.to_string()))?;
        self.verdict(&key, snapshot, now)
    }

    fn verdict(&self, key: &KeyText<'_>, snapshot: &Arc<Snapshot>, now: Timestamp) -> Result<Arc<Identity>, Refusal> {
        let Some(keys) = &self.keys else { return of_bundle(key, snapshot) };
        // Counted before: a change that comes in between is one that is seen the next time.
        let found = keys.changes().and_then(|changes| Ok((keys.find(key.id)?, changes)));
        let (found, changes) = found.map_err(|_away| {
            let message = "the store of keys cannot be asked";
            Refusal::new(RefusalReason::ProviderUnavailable, message).about(key.id)
        })?;
        let hash = keys.hash(key);
        match found {
            Some(record) => {
                let proof = self.digest(key.expose());
                let snapshot_then = Arc::downgrade(snapshot);
                let proof = Some(Proof { digest: proof, snapshot: snapshot_then, changes, at: now });
                let identity = self.of_store(Shown { record: &record, hash: &hash, proof }, snapshot, now)?;
                keys.used(&record, now);
                Ok(identity)
            }
            None => of_bundle(key, snapshot),
        }
    }

    fn of_store(&self, shown: Shown<'_>, snapshot: &Arc<Snapshot>, now: Timestamp) -> Result<Arc<Identity>, Refusal> {
        let Shown { record, hash, proof } = shown;
        let secret = secret(record, hash);
        if secret == Secret::None {
            // Nothing is looked up for it, as nothing is for a key that nobody knows.
            return Err(wrong(&record.id));
        }
        self.check(record, snapshot, now)?;
        if let Secret::Previous(until) = secret
            && now >= until
        {
            let message = "the key was replaced by a newer one";
            return Err(Refusal::new(RefusalReason::Rotated, message).about(record.id.clone()));
        }
        Ok(match secret {
            Secret::Previous(until) => {
                let end = Some(record.expires_at.map_or(until, |end| end.min(until)));
                let mark = Some(CredentialMark::of(hash));
                Arc::new(Identity {
                    expires_at: end,
                    key_ends_at: end,
                    mark,
                    replaced: true,
                    ..identity_of_key(record)
                })
            }
            _ => self.remembered(record, proof),
        })
    }

    fn digest(&self, text: &str) -> u128 {
        let mut digest = self.digests;
        digest.write(text.as_bytes());
        digest.finish128().as_u128()
    }

    /// Whom `text` proves, where it did a moment ago and nothing that this depends on has changed since.
    fn recalled(&self, text: &str, snapshot: &Arc<Snapshot>, now: Timestamp) -> Option<Arc<Identity>> {
        let keys = self.keys.as_ref()?;
        let hash = self.place(KeyText::id_of(text)?);
        let digest = self.digest(text);
        self.remembered.find(hash, |known| {
            // One comparison of one number, and of digests that nobody can work out: its time tells nothing.
            let proof = known.proof.as_ref().filter(|proof| proof.digest == digest)?;
            let age = now.as_millis().saturating_sub(proof.at.as_millis());
            let holds = (0..RECALLED_MS).contains(&age)
                && proof.snapshot.as_ptr() == Arc::as_ptr(snapshot)
                && keys.changes().is_ok_and(|changes| changes == proof.changes);
            holds.then(|| Arc::clone(&known.identity))
        })
    }

    /// Where a key is remembered.
    fn place(&self, id: &str) -> usize {
        usize::try_from(self.hasher.hash_one(id)).unwrap_or(0)
    }

    /// Whether a key proves anybody still, whichever of its secrets it was.
    fn check(&self, record: &KeyRecord, snapshot: &Snapshot, now: Timestamp) -> Result<(), Refusal> {
        let refused = |reason, message: &str| Err(Refusal::new(reason, message).about(record.id.clone()));
        if record.details().revoked.is_some() {
            return refused(RefusalReason::Revoked, "the key was revoked");
        }
        if record.expires_at.is_some_and(|end| now >= end) {
            return refused(RefusalReason::Expired, "the key has expired");
        }
        if record.details().disabled.is_some() {
            return refused(RefusalReason::Disabled, "the key is paused");
        }
        if !self.options.unknown_owners && !is_known_owner(snapshot, &record.owner) {
            return refused(RefusalReason::UnknownPrincipal, "the key proves nobody that may ask");
        }
        Ok(())
    }

    /// Whom a key proves; with a proof, remembered by that too.
    fn remembered(&self, record: &Arc<KeyRecord>, proof: Option<Proof>) -> Arc<Identity> {
        let place = self.place(&record.id);
        let of_it = |known: &Arc<Remembered>| Arc::ptr_eq(&known.key, record).then(|| Arc::clone(&known.identity));
        let known = self.remembered.find(place, of_it);
        if let (Some(known), None) = (&known, &proof) {
            return Arc::clone(known);
        }
        let identity = known.unwrap_or_else(|| Arc::new(identity_of_key(record)));
        let remembered = Remembered { key: Arc::clone(record), identity: Arc::clone(&identity), proof };
        self.remembered.put(place, Arc::new(remembered), |known| known.key.id == record.id);
        identity
    }
}

/// Which secret hashes so; both are compared, whichever it is.
fn secret(record: &KeyRecord, hash: &KeyHash) -> Secret {
    let is = |known: &KeyHash| verify_slices_are_equal(known, hash).is_ok();
    let current = is(&record.hash);
    let previous = record.details().previous.filter(|(known, _)| is(known));
    match (current, previous) {
        (true, _) => Secret::Current,
        (false, Some((_, until))) => Secret::Previous(until),
        (false, None) => Secret::None,
    }
}

/// A key of the bundle.
fn of_bundle(key: &KeyText<'_>, snapshot: &Snapshot) -> Result<Arc<Identity>, Refusal> {
    let digest = bundle_key_hash(key);
    let found = snapshot.key(key.id);
    // Compared with something in any case, as a key of the store would have been.
    let known = found.as_ref().map_or(&[0; 32], |found| found.hash);
    let is_right = verify_slices_are_equal(known, &digest).is_ok();
    let Some(found) = found.filter(|_| is_right) else { return Err(wrong(key.id)) };
    let principal = EntityUid::new("ApiKey", key.id).map_err(|_| wrong(key.id))?;
    Ok(Arc::new(identity_of_bundle(principal, &found)))
}

/// Whom a key of the bundle proves. Owner, tags and restrictions are the bundle's, which knows the key.
fn identity_of_bundle(principal: EntityUid, key: &BundleKey<'_>) -> Identity {
    Identity {
        metadata: key.metadata.into(),
        expires_at: key.expires_at,
        key_ends_at: key.expires_at,
        mark: Some(CredentialMark::of(key.hash)),
        ..Identity::new(principal, AuthMethod::ApiKey)
    }
}

fn wrong(id: &str) -> Refusal {
    Refusal::new(RefusalReason::Wrong, "the key is wrong").about(id)
}

/// Whether the bundle declares the owner, or it is Tollgate's own.
pub(crate) fn is_known_owner(snapshot: &Snapshot, owner: &EntityUid) -> bool {
    (owner.kind() == "Service" && owner.id().starts_with(RESERVED_ROLE_PREFIX)) || snapshot.declares(owner)
}

/// Whom a key proves, whatever became of it.
pub(crate) fn identity_of_key(record: &KeyRecord) -> Identity {
    let details = record.details();
    let inherited = details.inherited.as_deref();
    let all = |own: &[SmolStr], more: fn(&Inherited) -> &[SmolStr]| -> Box<[SmolStr]> {
        own.iter().chain(inherited.map(more).unwrap_or_default()).cloned().collect()
    };
    let said = Said {
        teams: all(&[], |inherited| &inherited.teams),
        orgs: all(&[], |inherited| &inherited.orgs),
        tags: all(&details.tags, |inherited| &inherited.tags),
        roles: all(&details.roles, |inherited| &inherited.roles),
        ..Said::default()
    };
    // What a store has in it was checked when it was put there.
    let principal = EntityUid::trusted("ApiKey", record.id.clone());
    Identity {
        owner: Some(record.owner.clone()),
        said,
        metadata: details.metadata.clone(),
        payer: details.payer.clone(),
        narrowed: details.narrowed.clone(),
        limits: Arc::clone(&details.limits),
        expires_at: record.expires_at,
        key_ends_at: record.expires_at,
        mark: Some(CredentialMark::of(&record.hash)),
        ..Identity::new(principal, AuthMethod::ApiKey)
    }
}

impl KeyLookup for KeyProvider {
    fn identity(
        &self,
        key: &EntityUid,
        mark: &str,
        snapshot: &Arc<Snapshot>,
        now: Timestamp,
    ) -> Result<Arc<Identity>, Refusal> {
        let inner = &self.inner;
        let away =
            |_| Refusal::new(RefusalReason::ProviderUnavailable, "the store of keys cannot be asked").about(key.id());
        let replaced = || Refusal::new(RefusalReason::Rotated, "the key was replaced by a newer one").about(key.id());
        let found = inner.keys.as_ref().map(|keys| keys.find(key.id())).transpose().map_err(away)?.flatten();
        if let Some(record) = found.filter(|_| key.kind() == "ApiKey") {
            let is = |hash: &KeyHash| CredentialMark::of(hash).text() == mark;
            let previous = record.details().previous.filter(|(hash, _)| is(hash));
            let hash = if is(&record.hash) { record.hash } else { previous.ok_or_else(replaced)?.0 };
            return inner.of_store(Shown { record: &record, hash: &hash, proof: None }, snapshot, now);
        }
        // Whoever has a token of it guessed nothing.
        let gone = || Refusal::new(RefusalReason::Revoked, "the key is gone").about(key.id());
        let found = snapshot.key(key.id()).filter(|_| key.kind() == "ApiKey").ok_or_else(gone)?;
        let identity = identity_of_bundle(key.clone(), &found);
        if identity.mark.is_none_or(|known| known.text() != mark) {
            return Err(replaced());
        }
        Ok(Arc::new(identity))
    }

    fn catch_up(&self) -> Option<Later<()>> {
        self.inner.keys.as_ref()?.catch_up()
    }
}

/// The text that a credential of the form of a key is.
fn meant(presented: &Presented) -> Option<&str> {
    match &presented.credential {
        Credential::Bearer(text) | Credential::ApiKey(text) => {
            Some(text.expose()).filter(|text| KeyText::is_meant(text))
        }
        _ => None,
    }
}

impl Authenticator for KeyProvider {
    fn name(&self) -> &'static str {
        "keys"
    }

    fn recall(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Recalled {
        match meant(presented) {
            Some(text) => self.inner.recalled(text, snapshot, now).map_or(Recalled::Unknown, Recalled::Proved),
            None => Recalled::Passed,
        }
    }

    fn authenticate(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict> {
        let Some(text) = meant(presented) else { return Later::ready(Verdict::Passed) };
        let told = |proved: Result<_, _>| proved.map_or_else(Verdict::Refused, Verdict::Proved);
        let proved = self.inner.proved(text, snapshot, now);
        let is_wrong = proved.as_ref().is_err_and(|refusal| refusal.reason == RefusalReason::Wrong);
        // One that another node made or changed a moment ago is no guess.
        let Some(caught_up) = self.inner.keys.as_ref().filter(|_| is_wrong).and_then(|keys| keys.catch_up()) else {
            return Later::ready(told(proved));
        };
        let (inner, text, snapshot) = (Arc::clone(&self.inner), SecretText::new(text), Arc::clone(snapshot));
        Later::pending(async move {
            caught_up.await;
            told(inner.proved(text.expose(), &snapshot, now))
        })
    }
}
