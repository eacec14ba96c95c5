//! Names and passwords (RFC 7617): users and services of the bundle that have a `password_hash`, and an htpasswd file.
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
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::hmac;
use smol_str::SmolStr;

use super::named::Named;
use super::recent::{CredentialDigest, Recent};
use crate::gate::{Authenticator, Credential, Later, Presented, Verdict};
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
const MAX_BYTES: usize = 1024;
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
}

impl Default for PasswordOptions {
    fn default() -> Self {
        Self { at_once: 2, queue: 32, cache_ms: 60_000, cache_entries: 10_000, bundle: true }
    }
}

/// Knows names and passwords.
pub struct BasicProvider {
    name: String,
    options: PasswordOptions,
    htpasswd: Option<Htpasswd>,
    pool: Pool,
    /// Until when each was right, by a digest that nobody outside the process can compute.
    right: Arc<Recent<Timestamp>>,
    key: hmac::Key,
    decoys: Mutex<Decoys>,
}

impl BasicProvider {
    /// Called `name`, for the users of the bundle, or of this file, or of both.
    ///
    /// # Errors
    /// Where there are no random numbers, or no threads.
    pub fn new(name: String, options: PasswordOptions, htpasswd: Option<Htpasswd>) -> std::io::Result<Self> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| std::io::Error::other("the system has no random numbers"))?;
        let pool = Pool::new(options.at_once, options.queue)?;
        let right = Arc::new(Recent::new(if options.cache_ms > 0 { options.cache_entries } else { 0 }));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        Ok(Self { name, options, htpasswd, pool, right, key, decoys: Mutex::default() })
    }

    /// Whom `username` names, and what is kept of the password: a user of the bundle, of the file, a service of the bundle.
    fn find(&self, username: &SmolStr, snapshot: &Snapshot, now: Timestamp) -> Option<(EntityUid, Stored)> {
        let [user, service] = ["User", "Service"].map(|kind| EntityUid::new(kind, username.clone()).ok());
        let of_bundle = |principal: &EntityUid| {
            let hash = snapshot.password(principal).filter(|_| self.options.bundle)?;
            Some((principal.clone(), Stored::Argon2id(hash.clone())))
        };
        // Looked up in any case, so that the file is looked at again when that is due.
        let of_file = self.htpasswd.as_ref().and_then(|file| file.find(username, now));
        let user_of_bundle = user.as_ref().and_then(of_bundle);
        user_of_bundle.or_else(|| Some((user?, of_file?))).or_else(|| service.as_ref().and_then(of_bundle))
    }

    /// What an unknown name is checked against.
    fn decoy(&self, username: &str, snapshot: &Snapshot) -> Stored {
        let names = self.htpasswd.as_ref().map(Htpasswd::names);
        let mut decoys = self.decoys.lock().unwrap_or_else(PoisonError::into_inner);
        if !decoys.are_of(snapshot.revision(), names.as_ref()) {
            let of_bundle = snapshot.passwords().filter(|_| self.options.bundle).cloned().map(Stored::Argon2id);
            let of_file = names.iter().flat_map(|names| names.values()).cloned();
            *decoys = Decoys::new(Arc::clone(snapshot.revision()), names.clone(), of_bundle.chain(of_file));
        }
        decoys.choose(&self.key, username)
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

    fn check(&self, (principal, stored): (EntityUid, Stored), asked: Asked<'_>) -> Later<Verdict> {
        let Asked { username, password, source, now } = asked;
        let mark = Some(lookup::mark(&stored));
        let proved = Verdict::Proved(Arc::new(Identity { mark, ..Identity::new(principal, AuthMethod::Basic) }));
        let digest = self.digest(username, password, &stored);
        if self.right.get(&digest).is_some_and(|until| now < until) {
            return Later::ready(proved);
        }
        let (refused, right) = (Named::Known(username).told_in(wrong()), Arc::clone(&self.right));
        let until = Timestamp::from_millis(now.as_millis().saturating_add(self.options.cache_ms));
        self.asking(stored, password, source, move |answer| match answer {
            Some(true) => {
                right.put(digest, until);
                proved
            }
            Some(false) => Verdict::Refused(refused),
            None => Verdict::Refused(busy()),
        })
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
}

/// What was presented, where it came from, and when.
#[derive(Clone, Copy)]
struct Asked<'a> {
    username: &'a SmolStr,
    password: &'a SecretText,
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
        let fits = |text: &str| text.len() <= MAX_BYTES && !text.contains('\0');
        // What nobody can be called, and what no password can be, is refused before anything is computed.
        if check_name(username).is_err() || !fits(username) || !fits(password.expose()) {
            return Later::ready(Verdict::Refused(Refusal::new(RefusalReason::Malformed, WRONG)));
        }
        let asked = Asked { username, password, source: presented.source, now };
        match self.find(username, snapshot, now) {
            Some(found) => self.check(found, asked),
            None => {
                let (decoy, refused) = (self.decoy(username, snapshot), Named::Unknown(username).told_in(wrong()));
                // Whatever it comes to, this is nobody.
                self.asking(decoy, password, presented.source, move |answer| {
                    Verdict::Refused(answer.map_or_else(busy, |_| refused))
                })
            }
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

/// A hash that nobody's password comes to, as dear as those that are made here.
fn nobody() -> Option<PasswordHash> {
    let digest = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    PasswordHash::parse(&format!("$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ib2Q${digest}")).ok()
}
