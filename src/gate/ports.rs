//! The few traits through which the way of a request reaches the outside.

mod decision_log;
mod observer;
mod passwords;
mod tokens;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use smol_str::SmolStr;

pub use decision_log::{
    Checkpoint, Decided, DecisionId, DecisionLog, DecisionLogStatus, DecisionRecord, Seen, Unproved, Via,
};
pub use observer::Observer;
pub use passwords::{PasswordWrite, PasswordWriteError, Passwords};
pub use tokens::{
    Family, Issued, KeptKey, KeyLookup, MOST_FAMILIES, MOST_USED, PUBLISHED_FOR_SECONDS, PasswordLookup, RefreshDigest,
    Refreshed, TokenError, TokenStore, Tokens,
};

use super::books::Books;
use crate::meter::{
    Alert, Charge, Closed, Held, Hold, Lack, LedgerError, Refused, Reservation, ReservationId, Standing, Usage,
};
use crate::model::{Amount, EntityUid, KeyHash, KeyRecord, KeyText, SecretText, Timestamp};

/// Where the instant of a decision comes from; read once a request.
pub trait Clock: Send + Sync {
    /// The instant it is now.
    fn now(&self) -> Timestamp;
}

/// What is there at once, or later. In memory nothing waits, so nothing is boxed.
pub enum Later<T> {
    /// The value; `None` once it was taken.
    Ready(Option<T>),
    /// It comes.
    Pending(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T> Later<T> {
    /// What is there.
    pub const fn ready(value: T) -> Self {
        Self::Ready(Some(value))
    }

    /// What comes.
    pub fn pending(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Pending(Box::pin(future))
    }
}

impl<T: Unpin> Future for Later<T> {
    type Output = T;

    /// # Panics
    /// Panics if it is polled after it completed, as a future of an `async` block does: waiting would never end.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut *self {
            #[expect(clippy::expect_used, reason = "only a bug of the caller polls again, and pending would hang")]
            Self::Ready(value) => Poll::Ready(value.take().expect("`Later` is polled after it completed")),
            Self::Pending(future) => future.as_mut().poll(cx),
        }
    }
}

/// What is asked of somebody else's server.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Where: `https://`, or `http://` on this machine.
    pub url: SmolStr,
    /// What is posted, and of which type; without it, the address is got.
    pub body: Option<(&'static str, SecretText)>,
    /// Headers besides; names in small letters.
    pub headers: Vec<(SmolStr, SecretText)>,
    /// For the whole exchange.
    pub timeout: Duration,
    /// Longest answer that is read.
    pub most_bytes: usize,
}

/// What somebody else's server answered. No redirect is followed: it is an answer like any other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers that are texts; names in small letters.
    pub headers: Vec<(SmolStr, SmolStr)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The header called `name`, in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Why nothing came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It is no address that may be asked.
    #[error("{0}")]
    Address(Arc<str>),
    /// It cannot be reached, or what it answers cannot be read.
    #[error("{0}")]
    Away(Arc<str>),
}

/// Asks others, for those who may not open a connection themselves.
pub trait Fetch: Send + Sync {
    /// Asks, and waits for the answer.
    fn fetch(&self, ask: Ask) -> Later<Result<Reply, FetchError>>;
}

/// Why meters could not be read or moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// What was to be kept could not be written.
    #[error("what is held could not be written: {0}")]
    NotWritten(Arc<str>),
    /// It does not answer.
    #[error("the store does not answer: {0}")]
    Away(Arc<str>),
    /// It has less than it acknowledged before.
    #[error("the store lost what it had: {0}")]
    Lost(Arc<str>),
    /// It holds as many reservations as it may.
    #[error("too many reservations are open")]
    Full,
}

/// Why nothing is held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// A meter has no room.
    #[error("a limit has no room")]
    Refused(Refused),
    /// The principal has as many reservations open as it may.
    #[error("the principal has too many open reservations")]
    TooManyOpen,
    /// A request with the same key is there already, or being answered.
    #[error("the idempotency key is taken")]
    KeyTaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a reservation could not be closed, extended or found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// It is unknown, or was closed otherwise.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What its key names was noted before.
    #[error("the idempotency key is taken")]
    KeyTaken(Box<Reservation>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where a meter stands, and what it lacks for what was asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Where it stands.
    pub standing: Standing,
    /// That it has no room.
    pub lack: Option<Lack>,
}

/// That a percent of a limit was crossed, once a period and meter, for whoever watches over limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Which, and where its meter stands.
    pub alert: Alert,
    /// When.
    pub at: Timestamp,
    /// The content of the bundle that decided.
    pub revision: Arc<str>,
}

/// Which meters of a series are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectsOf {
    /// The series.
    pub series: Arc<str>,
    /// What their subjects begin with.
    pub prefix: String,
    /// A subject that is looked for besides.
    pub own: SmolStr,
    /// Only those behind this one.
    pub after: Option<SmolStr>,
    /// How many at most: the first of them.
    pub most: usize,
}

impl SubjectsOf {
    /// Whether `subject` is one of those, if it is of the series.
    #[must_use]
    pub fn takes(&self, subject: &SmolStr) -> bool {
        (subject.starts_with(&self.prefix) || *subject == self.own)
            && self.after.as_ref().is_none_or(|after| subject > after)
    }
}

/// Meters, wherever they are kept. What is acknowledged was kept as durably as the limits say.
pub trait Meters: Send + Sync {
    /// Where the meters of `charges` stand and whether the amounts fit; changes nothing.
    fn look(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Look>, StoreError>>;

    /// Holds every charge, or none.
    fn hold(&self, hold: Hold, now: Timestamp) -> Later<Result<Held, HoldError>>;

    /// Charges what was spent without a reservation.
    fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>>;

    /// Charges what a reservation used.
    fn settle(&self, id: ReservationId, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>>;

    /// Charges each part of a reservation the amount that applies to unknown usage, in the order of its parts.
    fn settle_unknown(
        &self,
        id: ReservationId,
        charged: &[Amount],
        now: Timestamp,
    ) -> Later<Result<Closed, CloseError>>;

    /// Gives back what a reservation held.
    fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>>;

    /// The percents that meters of `charges` have reached and nobody was told of; from now on somebody was.
    fn warn(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Alert>, StoreError>>;

    /// Lets a reservation live until `ttl_ms` from now.
    fn extend(&self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Later<Result<Timestamp, CloseError>>;

    /// A reservation of the last day.
    fn reservation(&self, id: ReservationId, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>>;

    /// The reservation of the last day whose client named it so.
    fn named(&self, key: &str, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>>;

    /// Keeps what was answered, for when the same is asked again.
    fn answered(&self, id: ReservationId, answer: Arc<[u8]>) -> Later<Result<(), StoreError>>;

    /// Whose meters of a series there are, sorted. May look through all of them. A store that cannot list them names none.
    fn subjects(&self, _of: &SubjectsOf) -> Later<Result<Vec<SmolStr>, StoreError>> {
        Later::ready(Ok(Vec::new()))
    }

    /// What was spent, if that is kept.
    fn books(&self) -> Option<Arc<dyn Books>> {
        None
    }

    /// Lets expire what is due: some of it, so that nobody waits for long.
    fn tick(&self, now: Timestamp);

    /// Whether the last access to the store failed. It makes no new request.
    fn is_away(&self) -> bool {
        false
    }
}

/// What becomes of a key.
#[derive(Debug, Clone)]
pub enum KeyWrite {
    /// It is new.
    Make(KeyRecord),
    /// It is new, and the first there is.
    MakeFirst(KeyRecord),
    /// It says something else now: it was read one version before.
    Change(KeyRecord),
    /// It is gone. It was read at this version.
    Remove {
        /// Which.
        id: SmolStr,
        /// The version that was read.
        version: u64,
    },
}

/// Why a key is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyWriteError {
    /// There is one with this id; or, of the first, there are others.
    #[error("there is such a key already")]
    Taken,
    /// Somebody else changed it meanwhile, or it is gone.
    #[error("somebody else changed the key meanwhile")]
    Changed,
    /// There are as many as there may be.
    #[error("there are {0} keys, and there may be no more")]
    Full(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which keys are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeysOf {
    /// Whose; anybody's, where none is said.
    pub owner: Option<EntityUid>,
    /// Only those whose ids stand behind this one.
    pub after: Option<SmolStr>,
    /// How many at most: the first of them.
    pub most: usize,
}

/// The keys that Tollgate made, wherever they are kept. All of them are in memory too, so that finding one never waits.
pub trait Keys: Send + Sync {
    /// The key of this id.
    ///
    /// # Errors
    /// Where nobody can say: what is in memory may be older than a revocation.
    fn find(&self, id: &str) -> Result<Option<Arc<KeyRecord>>, StoreError>;

    /// How often a key was made, changed or removed. While that is the same, [`Keys::find`] finds what it found; it is told
    /// before a change is acknowledged.
    ///
    /// # Errors
    /// As [`Keys::find`].
    fn changes(&self) -> Result<u64, StoreError>;

    /// Waits until what other nodes acknowledged before is known here too; `None` where no others write.
    fn catch_up(&self) -> Option<Later<()>> {
        None
    }

    /// Some of the keys, sorted by id. May look through all of them.
    fn page(&self, of: &KeysOf) -> Vec<Arc<KeyRecord>>;

    /// Hands every key to `take`, in no order.
    fn each(&self, take: &mut dyn FnMut(&Arc<KeyRecord>)) {
        self.page(&KeysOf { most: usize::MAX, ..KeysOf::default() }).iter().for_each(take);
    }

    /// How many there are.
    fn count(&self) -> usize;

    /// What a key hashes to here.
    fn hash(&self, key: &KeyText<'_>) -> KeyHash;

    /// Changes a key. What is acknowledged is kept, and holds on this node at once.
    fn write(&self, write: KeyWrite) -> Later<Result<(), KeyWriteError>>;

    /// Notes that a key was used; it is written down a little later.
    fn used(&self, key: &KeyRecord, now: Timestamp);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "polled after it completed")]
    fn ports_a_value_that_was_taken_is_not_waited_for() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut later = Later::ready(1);
        assert_eq!(Pin::new(&mut later).poll(&mut cx), Poll::Ready(1));
        let _polled = Pin::new(&mut later).poll(&mut cx);
    }
}
