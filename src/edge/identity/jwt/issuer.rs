//! An issuer: what its tokens must say, and its keys, which a follower fetches and keeps fresh.
//!
//! What is hard about it: keys change while tokens come. The last good set decides until there is a newer one, tokens with
//! an unknown `kid` make the follower look at a bounded rate, and nobody who hangs up stops it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use smol_str::SmolStr;
use tokio::sync::{Notify, watch};

use super::fetching::{self, Fetched};
use crate::edge::identity::claims::Mapping;
use crate::edge::identity::jose::{Checks, KeySet};
use crate::edge::identity::unlinked::UnlinkedWarning;
use crate::gate::{Clock, Fetch};
use crate::model::{SecretText, Timestamp};

/// The first pause after a failure; each one after that is twice as long, up to the pause for unknown keys.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How often files are looked at: a key that is taken out of one decides no longer than this.
const FILES_EVERY: Duration = Duration::from_secs(1);

/// An issuer as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// What its tokens must say.
    pub checks: Checks,
    /// What its claims mean.
    pub mapping: Mapping,
    /// Where its keys come from.
    pub keys: KeySource,
    /// How often they are looked at, where the issuer does not want it sooner.
    pub refresh: Duration,
    /// How often an unknown `kid` makes them be looked at, at most.
    pub unknown_key_pause: Duration,
    /// For how long keys decide that could not be looked at since; for ever, if nothing is said.
    pub max_stale: Option<Duration>,
}

impl IssuerSettings {
    /// An issuer whose tokens are for one of these `audiences`, with what is usual: a leeway of 10 seconds, keys that are
    /// looked at once an hour and for an unknown `kid` once in 30 seconds, and tokens that prove whoever the bundle knows by
    /// its `external_id`, or else `issuer|sub`.
    #[must_use]
    pub fn new(issuer: impl Into<SmolStr>, audiences: Vec<SmolStr>, keys: KeySource) -> Self {
        let checks = Checks {
            issuer: issuer.into(),
            audiences,
            algorithms: None,
            types: ["jwt", "at+jwt", "application/at+jwt"].map(SmolStr::new_static).into(),
            leeway_ms: 10_000,
            max_lifetime_ms: None,
            require: Vec::new(),
        };
        Self {
            checks,
            mapping: Mapping::default(),
            keys,
            refresh: Duration::from_secs(60 * 60),
            unknown_key_pause: Duration::from_secs(30),
            max_stale: None,
        }
    }
}

/// Where the keys of an issuer come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// From the issuer: from this address, or the one that its discovery document names.
    Remote {
        /// The address of its key set.
        jwks_url: Option<SmolStr>,
        /// A file whose token is sent along, as a Kubernetes API server wants it.
        bearer_file: Option<PathBuf>,
    },
    /// Files: sets (JWKS) or public keys (PEM).
    Files(Vec<PathBuf>),
    /// A secret that the issuer shares with this server.
    Secret(SecretText),
}

impl PartialEq for KeySource {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Remote { jwks_url, bearer_file }, Self::Remote { jwks_url: url, bearer_file: file }) => {
                jwks_url == url && bearer_file == file
            }
            (Self::Files(files), Self::Files(others)) => files == others,
            (Self::Secret(secret), Self::Secret(other)) => secret.is(other),
            _ => false,
        }
    }
}

impl Eq for KeySource {}

impl IssuerSettings {
    /// How long it may be until keys are looked at again: not so long that they grow stale while their issuer is well.
    fn longest_pause(&self) -> Duration {
        let usual = match self.keys {
            KeySource::Files(_) => self.refresh.min(FILES_EVERY),
            KeySource::Remote { .. } | KeySource::Secret(_) => self.refresh,
        };
        self.max_stale.map_or(usual, |most| usual.min(most / 2))
    }

    /// The pause until the next look, where whoever publishes keys says that they are good for `max_age`.
    fn pause(&self, max_age: Option<Duration>) -> Duration {
        let longest = self.longest_pause();
        max_age.map_or(longest, |wanted| wanted.clamp(self.unknown_key_pause.min(longest), longest))
    }

    /// The pause after so many failures in a row.
    fn pause_after(&self, failures: u32) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(16));
        pause.min(self.unknown_key_pause).min(self.longest_pause())
    }
}

/// An issuer, with its keys.
pub struct Issuer {
    pub(super) settings: IssuerSettings,
    loaded: ArcSwapOption<Loaded>,
    /// How often the follower has looked.
    tries: watch::Sender<u64>,
    wish: Notify,
    following: AtomicBool,
    looking: AtomicBool,
    /// Whether its keys could not be had when they were last looked for.
    away: AtomicBool,
    /// When it looked last, in milliseconds.
    looked_at: AtomicI64,
    /// Warns once that one of its users is not linked to a declared one.
    pub(super) unlinked: UnlinkedWarning,
}

/// Keys, as they were when the follower last saw them.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) keys: KeySet,
    /// Another one for every other set.
    pub(super) generation: u64,
    /// The content, to tell whether it changed.
    content: [u8; 32],
    seen_at: Timestamp,
}

impl Issuer {
    /// Of these settings; without keys yet.
    #[must_use]
    pub fn new(settings: IssuerSettings) -> Self {
        Self {
            settings,
            loaded: ArcSwapOption::empty(),
            tries: watch::Sender::new(0),
            wish: Notify::new(),
            following: AtomicBool::new(false),
            looking: AtomicBool::new(false),
            away: AtomicBool::new(false),
            looked_at: AtomicI64::new(i64::MIN),
            unlinked: UnlinkedWarning::default(),
        }
    }

    /// Whether its keys could not be had when they were last looked for.
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// What decides now.
    pub(super) fn loaded(&self, now: Timestamp) -> Option<Arc<Loaded>> {
        let loaded = self.loaded.load_full()?;
        self.is_fresh(&loaded, now).then_some(loaded)
    }

    /// Whether the keys of this generation decide now.
    pub(super) fn is_of(&self, generation: u64, now: Timestamp) -> bool {
        let loaded = self.loaded.load();
        loaded.as_ref().is_some_and(|loaded| loaded.generation == generation && self.is_fresh(loaded, now))
    }

    fn is_fresh(&self, loaded: &Loaded, now: Timestamp) -> bool {
        let age = now.as_millis().saturating_sub(loaded.seen_at.as_millis());
        self.settings.max_stale.is_none_or(|most| age <= millis(most))
    }

    /// Waits until the follower has looked again, where it may. False where it may not, so that nothing can have changed.
    pub(super) async fn look_again(&self, now: Timestamp) -> bool {
        let mut tries = self.tries.subscribe();
        let before = *tries.borrow();
        if !self.following.load(Ordering::Acquire) {
            return false;
        }
        if !self.looking.load(Ordering::Acquire) {
            if !self.may_look(now) {
                return false;
            }
            self.wish.notify_one();
        }
        tries.wait_for(|tries| *tries > before).await.is_ok()
    }

    fn may_look(&self, now: Timestamp) -> bool {
        let since = now.as_millis().saturating_sub(self.looked_at.load(Ordering::Acquire));
        // A clock that went back must not keep it from looking.
        since < 0 || since >= millis(self.settings.unknown_key_pause)
    }

    /// Keeps the keys fresh, for as long as it is let.
    pub async fn follow(self: Arc<Self>, fetch: Arc<dyn Fetch>, clock: Arc<dyn Clock>) {
        self.following.store(true, Ordering::Release);
        let mut failures = 0;
        loop {
            self.looking.store(true, Ordering::Release);
            self.looked_at.store(clock.now().as_millis(), Ordering::Release);
            let found = fetching::keys(&self.settings, &*fetch).await;
            let pause = self.take(found, clock.now(), &mut failures);
            self.looking.store(false, Ordering::Release);
            self.tries.send_modify(|tries| *tries += 1);
            let mut left = pause;
            // Wishes that come too soon are passed over.
            while let (began, Ok(())) = (clock.now(), tokio::time::timeout(left, self.wish.notified()).await) {
                if self.may_look(clock.now()) {
                    break;
                }
                let waited = clock.now().as_millis().saturating_sub(began.as_millis());
                left = left.saturating_sub(Duration::from_millis(u64::try_from(waited).unwrap_or(0)));
            }
        }
    }

    /// Takes what was found into use; the pause until it is looked again.
    fn take(&self, found: Result<Fetched, String>, now: Timestamp, failures: &mut u32) -> Duration {
        self.away.store(found.is_err(), Ordering::Release);
        match found {
            Ok(Fetched { keys, content, max_age }) => {
                *failures = 0;
                let before = self.loaded.load_full();
                let generation = match &before {
                    Some(before) if before.content == content => before.generation,
                    before => {
                        let (count, passed_over) = (keys.len(), keys.passed_over());
                        let issuer = self.settings.checks.issuer.as_str();
                        tracing::info!(
                            target: "tollgate::identity",
                            issuer,
                            "keys of {issuer}: {count} in use, {passed_over} passed over",
                        );
                        before.as_ref().map_or(1, |before| before.generation + 1)
                    }
                };
                self.loaded.store(Some(Arc::new(Loaded { keys, generation, content, seen_at: now })));
                self.settings.pause(max_age)
            }
            Err(reason) => {
                if *failures == 0 {
                    let going_on = if self.loaded.load().is_some() { "the last ones go on" } else { "it has none yet" };
                    let issuer = self.settings.checks.issuer.as_str();
                    let what = format!("the keys of {issuer} cannot be fetched, {going_on}: {reason}");
                    tracing::warn!(target: "tollgate::identity", issuer, "{what}");
                }
                let pause = self.settings.pause_after(*failures);
                *failures = failures.saturating_add(1);
                pause
            }
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
