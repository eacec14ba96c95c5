//! Names and passwords (RFC 7617): users and services of the bundle that have a `password_hash`, an htpasswd file, and users
//! whose passwords were set on a running server. What a name is found in first counts, in this order.
//!
//! What is hard about it: a password is slow to check, on purpose, so that checking must not become a way to keep the
//! machine busy; and who guesses must not learn whether a name exists. So a few threads check, a bounded queue waits for
//! them, what was right is remembered for a while, and an unknown name costs what somebody else's costs.

mod decoys;
mod htpasswd;
mod lookup;
mod pool;
mod stored;

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use parking_lot::Mutex;
use smol_str::SmolStr;

use super::named::Named;
use super::recent::{CredentialDigest, Recent};
use crate::edge::random;
use crate::gate::{Authenticator, Credential, Later, Passwords, Presented, StoreError, Verdict};
use crate::model::{
    AuthMethod, EntityUid, Identity, PasswordHash, Refusal, RefusalReason, SecretText, Timestamp, check_name,
};
use crate::policy::Snapshot;

pub use htpasswd::Htpasswd;
pub use stored::hash;

use decoys::Decoys;
use pool::{Busy, Pool};
use stored::Stored;

/// Longest name, and longest password. Argon2 reads a long one as quickly as a short one, but nobody types more.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// Shortest password that is set on a running server, as NIST SP 800-63B has it.
pub const MIN_PASSWORD_BYTES: usize = 8;
/// What everybody is told, whatever is wrong.
const WRONG: &str = "the name or the password is wrong";

/// How passwords are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordOptions {
    /// Threads that check.
    pub at_once: usize,
    /// How many may wait for them.
    pub queue: usize,
    /// For how long a right password is remembered, in milliseconds; 0 for not at all.
    pub cache_ms: i64,
    /// How many right passwords are remembered.
    pub cache_entries: usize,
    /// Whether users and services of the bundle may have passwords.
    pub bundle: bool,
    /// Whether a password of the store proves somebody whom the bundle does not declare.
    pub unknown_users: bool,
}

impl Default for PasswordOptions {
    fn default() -> Self {
        Self { at_once: 2, queue: 32, cache_ms: 60_000, cache_entries: 10_000, bundle: true, unknown_users: false }
    }
}

/// Knows names and passwords.
pub struct BasicProvider {
    name: String,
    inner: Arc<Inner>,
}

struct Inner {
    options: PasswordOptions,
    htpasswd: Option<Htpasswd>,
    store: Option<Arc<dyn Passwords>>,
    pool: Pool,
    /// Until when each was right, by a digest that nobody outside the process can compute.
    right: Arc<Recent<Timestamp>>,
    key: hmac::Key,
    decoys: Mutex<Decoys>,
}

/// Whom a name names, and what is kept of the password.
type Found = (EntityUid, Stored);

/// Where what is kept of a password stands, if not in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordPlace {
    /// In the bundle: `password_hash`.
    Bundle,
    /// In the htpasswd file.
    Htpasswd,
}

impl BasicProvider {
    /// Called `name`, for the users of the bundle, of this file, and of this store.
    ///
    /// # Errors
    /// Where threads cannot be started.
    pub fn new(
        name: String,
        options: PasswordOptions,
        htpasswd: Option<Htpasswd>,
        store: Option<Arc<dyn Passwords>>,
    ) -> std::io::Result<Self> {
        let mut key = [0; 32];
        random::fill(&mut key);
        let pool = Pool::new(options.at_once, options.queue)?;
        let right = Arc::new(Recent::new(if options.cache_ms > 0 { options.cache_entries } else { 0 }));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let inner = Inner { options, htpasswd, store, pool, right, key, decoys: Mutex::default() };
        Ok(Self { name, inner: Arc::new(inner) })
    }

    /// How many passwords are checked or hashed, or wait for it.
    #[must_use]
    pub fn in_work(&self) -> usize {
        self.inner.pool.in_work()
    }

    /// How many may be.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.inner.options.at_once.max(1) + self.inner.options.queue.max(1)
    }

    /// Where the password of a user stands that goes before one of the store; `None` where there is none.
    #[must_use]
    pub fn elsewhere(&self, username: &SmolStr, snapshot: &Snapshot, now: Timestamp) -> Option<PasswordPlace> {
        self.inner.find_elsewhere(username, snapshot, now).map(|(_, place)| place)
    }

    /// What is to be kept of a new password, worked out where passwords are checked; `None` where as many wait there as
    /// may, or the system has no random numbers.
    #[must_use]
    pub fn hash(&self, password: &SecretText, source: Option<IpAddr>) -> Later<Option<PasswordHash>> {
        let password = password.clone();
        match self.inner.pool.run(source, move || hash(&password)) {
            Ok(hashed) => Later::pending(async move { hashed.await.flatten() }),
            Err(Busy) => Later::ready(None),
        }
    }
}

impl Inner {
    /// Whom `username` names, and what is kept of the password.
    ///
    /// # Errors
    /// Where only the store could say, and cannot.
    fn find(&self, username: &SmolStr, snapshot: &Snapshot, now: Timestamp) -> Result<Option<Found>, StoreError> {
        match self.find_elsewhere(username, snapshot, now) {
            Some((found, _)) => Ok(Some(found)),
            None => self.find_in_store(username, snapshot),
        }
    }

    /// A user of the bundle, of the file, a service of the bundle.
    fn find_elsewhere(
        &self,
        username: &SmolStr,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Option<(Found, PasswordPlace)> {
        let [user, service] = ["User", "Service"].map(|kind| EntityUid::new(kind, username.clone()).ok());
        let of_bundle = |principal: &EntityUid| {
            let hash = snapshot.password(principal).filter(|_| self.options.bundle)?;
            Some(((principal.clone(), Stored::Argon2id(hash.clone())), PasswordPlace::Bundle))
        };
        // Looked up in any case, so that the file is looked at again when that is due.
        let of_file = self.htpasswd.as_ref().and_then(|file| file.find(username, now));
        let user_of_bundle = user.as_ref().and_then(of_bundle);
        let user_of_file = || Some(((user?, of_file?), PasswordPlace::Htpasswd));
        user_of_bundle.or_else(user_of_file).or_else(|| service.as_ref().and_then(of_bundle))
    }

    fn find_in_store(&self, username: &SmolStr, snapshot: &Snapshot) -> Result<Option<Found>, StoreError> {
        let (Some(store), Ok(user)) = (&self.store, EntityUid::new("User", username.clone())) else { return Ok(None) };
        // Whom the bundle does not declare any more is nobody, as the owner of a key is.
        let found = store.find(&user)?.filter(|_| self.options.unknown_users || snapshot.declares(&user));
        Ok(found.map(|kept| (user, Stored::Argon2id(kept.hash.clone()))))
    }

    /// What an unknown name is checked against.
    fn decoy(&self, username: &str, snapshot: &Snapshot) -> Stored {
        let names = self.htpasswd.as_ref().map(Htpasswd::names);
        let stored = self.store.as_ref().map(|store| store.decoys());
        let mut decoys = self.decoys.lock();
        if !decoys.are_of(snapshot.revision(), names.as_ref(), stored.as_ref()) {
            let of_bundle = snapshot.passwords().filter(|_| self.options.bundle).cloned().map(Stored::Argon2id);
            let of_file = names.iter().flat_map(|names| names.values()).cloned();
            *decoys = Decoys::new(Arc::clone(snapshot.revision()), names.clone(), stored, of_bundle.chain(of_file));
        }
        let shared = self.store.as_ref().and_then(|store| store.decoy_key());
        let shared = shared.map(|key| hmac::Key::new(hmac::HMAC_SHA256, &*key));
        decoys.choose(shared.as_ref().unwrap_or(&self.key), username)
    }

    /// The digest of all that was presented and all that is kept: another password, or another hash, is another digest.
    fn digest(&self, username: &str, password: &SecretText, stored: &Stored) -> CredentialDigest {
        let mut signing = hmac::Context::with_key(&self.key);
        for part in [username, stored.expose(), password.expose()] {
            signing.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            signing.update(part.as_bytes());
        }
        let mut digest = CredentialDigest::default();
        for (to, from) in digest.iter_mut().zip(signing.sign().as_ref()) {
            *to = *from;
        }
        digest
    }

    /// Whether what was presented is what was found.
    fn check(&self, found: Option<Found>, asked: &Asked, snapshot: &Snapshot) -> Later<Verdict> {
        let Some((principal, stored)) = found else { return self.check_nobody(asked, snapshot) };
        let Asked { username, password, source, now } = asked;
        let mark = Some(lookup::mark(&stored));
        let proved = Verdict::Proved(Arc::new(Identity { mark, ..Identity::new(principal, AuthMethod::Basic) }));
        let digest = self.digest(username, password, &stored);
        if self.right.get(&digest).is_some_and(|until| *now < until) {
            return Later::ready(proved);
        }
        let (refused, right) = (Named::Known(username).told_in(wrong()), Arc::clone(&self.right));
        let until = Timestamp::from_millis(now.as_millis().saturating_add(self.options.cache_ms));
        self.asking(stored, password, *source, move |answer| match answer {
            Some(true) => {
                right.put(digest, until);
                proved
            }
            Some(false) => Verdict::Refused(refused),
            None => Verdict::Refused(busy()),
        })
    }

    /// A name that nobody has. Whatever the check comes to, this is nobody.
    fn check_nobody(&self, asked: &Asked, snapshot: &Snapshot) -> Later<Verdict> {
        let Asked { username, password, source, .. } = asked;
        let (decoy, refused) = (self.decoy(username, snapshot), Named::Unknown(username).told_in(wrong()));
        self.asking(decoy, password, *source, move |answer| Verdict::Refused(answer.map_or_else(busy, |_| refused)))
    }

    /// Has the password checked; `None` is answered where it could not be.
    fn asking(
        &self,
        stored: Stored,
        password: &SecretText,
        source: Option<IpAddr>,
        then: impl FnOnce(Option<bool>) -> Verdict + Send + 'static,
    ) -> Later<Verdict> {
        let password = password.clone();
        match self.pool.run(source, move || stored.is(&password)) {
            Ok(answer) => Later::pending(async move { then(answer.await) }),
            Err(Busy) => Later::ready(Verdict::Refused(busy())),
        }
    }

    /// What is wrong by `found` may be right by what another node set a moment ago.
    async fn once_more(&self, verdict: Verdict, found: Option<Found>, asked: &Asked, snapshot: &Snapshot) -> Verdict {
        let is_wrong = matches!(&verdict, Verdict::Refused(refusal) if refusal.reason == RefusalReason::Wrong);
        let store = self.store.as_ref().filter(|_| is_wrong);
        let Some(caught_up) = store.and_then(|store| store.catch_up()) else { return verdict };
        caught_up.await;
        match self.find(&asked.username, snapshot, asked.now) {
            Ok(now) if now == found => verdict,
            Ok(now) => self.check(now, asked, snapshot).await,
            Err(_away) => Verdict::Refused(away()),
        }
    }
}

/// What was presented, where it came from, and when.
struct Asked {
    username: SmolStr,
    password: SecretText,
    source: Option<IpAddr>,
    now: Timestamp,
}

impl Authenticator for BasicProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn authenticate(&self, presented: &Presented, snapshot: &Arc<Snapshot>, now: Timestamp) -> Later<Verdict> {
        let Credential::Basic { username, password } = &presented.credential else {
            return Later::ready(Verdict::Passed);
        };
        let fits = |text: &str| text.len() <= MAX_PASSWORD_BYTES && !text.contains('\0');
        // What nobody can be called, and what no password can be, is refused before anything is computed.
        if check_name(username).is_err() || !fits(username) || !fits(password.expose()) {
            return Later::ready(Verdict::Refused(Refusal::new(RefusalReason::Malformed, WRONG)));
        }
        let asked = Asked { username: username.clone(), password: password.clone(), source: presented.source, now };
        let Ok(found) = self.inner.find(username, snapshot, now) else {
            return Later::ready(Verdict::Refused(away()));
        };
        match self.inner.check(found.clone(), &asked, snapshot) {
            Later::Pending(checked) => {
                let (inner, snapshot) = (Arc::clone(&self.inner), Arc::clone(snapshot));
                Later::pending(async move { inner.once_more(checked.await, found, &asked, &snapshot).await })
            }
            known @ Later::Ready(_) => known,
        }
    }

    fn challenge(&self, _: Timestamp) -> Option<String> {
        Some("Basic realm=\"tollgate\", charset=\"UTF-8\"".to_owned())
    }
}

fn wrong() -> Refusal {
    Refusal::new(RefusalReason::Wrong, WRONG)
}

fn busy() -> Refusal {
    let message = "as many passwords are being checked as may be; try again in a moment";
    Refusal::new(RefusalReason::ProviderUnavailable, message)
}

fn away() -> Refusal {
    Refusal::new(RefusalReason::ProviderUnavailable, "the store of passwords cannot be asked")
}

/// A hash that nobody's password comes to, as dear as those that are made here.
fn nobody() -> Option<PasswordHash> {
    let digest = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    PasswordHash::parse(&format!("$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ib2Q${digest}")).ok()
}
