//! What is decided while a store fails, where every limit says `on_store_error: permit`: each node holds on meters of its
//! own, whose cap is the limit's allowance, so that all nodes together let through at most so many allowances. What they
//! let through is charged to the store when it is back.
//!
//! What is hard about it: nothing may be counted twice or never. A hold made here is known here until the store has it,
//! under a name that follows from its own, so that charging it again changes nothing. Its own the store may know, as that
//! of a hold whose answer was lost.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use smol_str::SmolStr;

use super::background::{Background, Turn, on_a_thread};
use super::{EXPIRE_AT_ONCE, answered, given_back, held, looks};
use crate::gate::{Books, CloseError, HoldError, Later, Look, Meters, StoreError, SubjectsOf};
use crate::meter::{
    Alert, Charge, Closed, Held, Hold, Ledger, LedgerError, Limit, Measure, OnStoreError, Reservation, ReservationId,
    State, Usage,
};
use crate::model::{Amount, Timestamp};

/// How many holds the store may have to be told of: beyond, its error is the answer.
const MOST: usize = 100_000;
/// How many it is told of before it is looked again which are closed.
const TELL_AT_ONCE: usize = 256;

/// A store, and what is held here while it fails.
pub struct Fallback {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Meters>,
    local: Mutex<Local>,
    /// How many reservations are known here, to be read without the lock.
    known: AtomicUsize,
    telling: Arc<AtomicBool>,
    background: Background,
}

#[derive(Default)]
struct Local {
    ledger: Ledger,
    /// What was held here and the store is to be told of, as it would have held it.
    holds: BTreeMap<ReservationId, Hold>,
    /// What it was told of, for a day.
    told: HashSet<ReservationId, RandomState>,
}

impl Local {
    fn known(&self) -> usize {
        self.holds.len() + self.told.len()
    }
}

impl Fallback {
    /// Holds here what `store` cannot.
    #[must_use]
    pub fn new(store: Arc<dyn Meters>) -> Self {
        Self::with(store, on_a_thread("meters-back"))
    }

    /// As [`Fallback::new`], with another way to tell the store what was held here.
    #[must_use]
    pub fn with(store: Arc<dyn Meters>, background: Background) -> Self {
        let (local, known, telling) = (Mutex::default(), AtomicUsize::new(0), Arc::default());
        Self { inner: Arc::new(Inner { store, local, known, telling, background }) }
    }

    /// How many reservations may be known here that the store is to be charged.
    pub const CAPACITY: usize = MOST;

    /// How many reservations were made here that the store is to be charged.
    #[must_use]
    pub fn uncharged(&self) -> usize {
        self.inner.local.lock().holds.len()
    }

    /// Closes what is known here; `None` where the store has to.
    fn here<T>(
        &self,
        id: ReservationId,
        now: Timestamp,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError>,
    ) -> Option<Result<T, CloseError>> {
        if self.inner.known.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut local = self.inner.at(now);
        if local.told.contains(&id) {
            // The store has what it was charged: that is not corrected any more.
            let state = local.ledger.reservation(id).map(|found| found.state);
            if state == Some(State::Expired) {
                return Some(Err(LedgerError::Closed(State::Expired).into()));
            }
        } else if !local.holds.contains_key(&id) {
            return None;
        }
        Some(work(&mut local.ledger).map_err(CloseError::from))
    }
}

/// Whether the store failed, so that its limits say what is decided.
fn has_failed(error: &StoreError) -> bool {
    matches!(error, StoreError::Away(_) | StoreError::NotWritten(_) | StoreError::Lost(_))
}

/// The charges as they are held here; `None` where a limit forbids without its store.
fn permitted(charges: &[Charge]) -> Option<Vec<Charge>> {
    charges.iter().map(|charge| Some(Charge { limit: Arc::new(allowed(&charge.limit)?), ..charge.clone() })).collect()
}

fn may_permit(charges: &[Charge]) -> bool {
    let forbids = |limit: &Limit| limit.is_enforced() && limit.on_store_error == OnStoreError::Forbid;
    charges.iter().all(|charge| !forbids(&charge.limit))
}

/// The limit that a node keeps by itself: of the same kind, with the allowance as its cap.
fn allowed(limit: &Limit) -> Option<Limit> {
    let allowance = match limit.on_store_error {
        OnStoreError::Permit(allowance) => allowance,
        OnStoreError::Forbid if !limit.is_enforced() => limit.cap,
        OnStoreError::Forbid => return None,
    };
    let mut local = Limit { cap: allowance, overrides: Box::default(), warn_at: Box::default(), ..limit.clone() };
    match &mut local.measure {
        Measure::Budget { carry_over_percent, .. } => *carry_over_percent = 0,
        // What flows back is no more than the allowance either.
        Measure::Rate { amount, .. } => *amount = (*amount).min(allowance.max(Amount::ONE)),
        Measure::Concurrency => {}
    }
    Some(local)
}

impl Inner {
    fn at(&self, now: Timestamp) -> MutexGuard<'_, Local> {
        let mut local = self.local.lock();
        local.ledger.expire(now, EXPIRE_AT_ONCE);
        drop(local.ledger.take_changes());
        local
    }

    fn hold(&self, hold: Hold, error: StoreError, now: Timestamp) -> Result<Held, HoldError> {
        let Some(charges) = permitted(&hold.charges) else { return Err(error.into()) };
        let mut local = self.at(now);
        if local.holds.len() >= MOST {
            return Err(error.into());
        }
        let done = held(&mut local.ledger, Hold { charges, ..hold.clone() }, now)?;
        local.holds.insert(hold.id, hold);
        self.known.store(local.known(), Ordering::Release);
        Ok(done)
    }

    fn look(&self, charges: &[Charge], error: StoreError, now: Timestamp) -> Result<Vec<Look>, StoreError> {
        let charges = permitted(charges).ok_or(error)?;
        Ok(looks(&self.at(now).ledger, &charges, now))
    }

    /// Some that are closed, as the store is to charge them; nothing is to be charged of what was given back.
    fn closed(&self, now: Timestamp) -> Vec<(Hold, Usage)> {
        let mut local = self.at(now);
        let Local { ledger, holds, told } = &mut *local;
        let (mut closed, mut over) = (Vec::new(), Vec::new());
        for (id, hold) in holds.iter() {
            match ledger.reservation(*id) {
                Some(Reservation { state: State::Open, .. }) => {}
                Some(found) if found.state != State::Released => {
                    // From here on the store may have what it is charged; a settle comes too late.
                    if found.state == State::Expired {
                        told.insert(*id);
                    }
                    closed.push(charged(hold, found));
                }
                _ => over.push(*id),
            }
            if closed.len() >= TELL_AT_ONCE {
                break;
            }
        }
        told.retain(|id| ledger.reservation(*id).is_some());
        for id in over {
            holds.remove(&id);
            told.insert(id);
        }
        self.known.store(local.known(), Ordering::Release);
        closed
    }

    fn was_told(&self, id: ReservationId) {
        let mut local = self.local.lock();
        local.holds.remove(&id);
        local.told.insert(id);
    }

    /// Charges the store what was let through while it failed, until it fails again.
    async fn tell(&self, now: Timestamp) {
        loop {
            let closed = self.closed(now);
            if closed.is_empty() {
                return;
            }
            for (hold, usage) in closed {
                let id = hold.id;
                if self.charge(hold, usage, now).await.is_err() {
                    return;
                }
                self.was_told(id);
            }
        }
    }

    async fn charge(&self, hold: Hold, usage: Usage, now: Timestamp) -> Result<(), CloseError> {
        let hold = Hold { id: in_store(hold.id), ..hold };
        match self.store.record(hold.clone(), usage, now).await {
            Err(error @ CloseError::Store(_)) => Err(error),
            // The key names the hold whose answer was lost, or one of another node: this one was let through as well.
            Err(CloseError::KeyTaken(found)) if found.id != hold.id => {
                let unnamed = Hold { idempotency: None, ..hold };
                match self.store.record(unnamed, usage, now).await {
                    Err(error @ CloseError::Store(_)) => Err(error),
                    _ => Ok(()),
                }
            }
            // What it knows by this name was charged before.
            Ok(_) | Err(CloseError::Ledger(_) | CloseError::KeyTaken(_)) => Ok(()),
        }
    }
}

/// By what name the store charges a hold that was made here.
fn in_store(id: ReservationId) -> ReservationId {
    ReservationId::from_bytes((u128::from_be_bytes(id.to_bytes()) ^ 1).to_be_bytes())
}

/// What a hold that was made here is charged.
fn charged(hold: &Hold, found: &Reservation) -> (Hold, Usage) {
    let charges = hold.charges.iter().zip(&found.parts);
    let charges = charges.map(|(charge, part)| Charge { amount: part.charged, ..charge.clone() });
    let usage = match found.state {
        State::Settled(usage) => usage,
        // The caller reported no usage; the call still counts as one request.
        _ => Usage { requests: 1, ..Usage::default() },
    };
    (Hold { charges: charges.collect(), ..hold.clone() }, usage)
}

impl Meters for Fallback {
    fn look(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Look>, StoreError>> {
        let looking = self.inner.store.look(charges, now);
        if !may_permit(charges) {
            return looking;
        }
        let inner = Arc::clone(&self.inner);
        match looking {
            Later::Ready(Some(Err(error))) if has_failed(&error) => Later::ready(inner.look(charges, error, now)),
            Later::Ready(_) => looking,
            Later::Pending(pending) => {
                let charges = charges.to_vec();
                Later::pending(async move {
                    match pending.await {
                        Err(error) if has_failed(&error) => inner.look(&charges, error, now),
                        other => other,
                    }
                })
            }
        }
    }

    fn hold(&self, hold: Hold, now: Timestamp) -> Later<Result<Held, HoldError>> {
        if !may_permit(&hold.charges) {
            return self.inner.store.hold(hold, now);
        }
        let inner = Arc::clone(&self.inner);
        match inner.store.hold(hold.clone(), now) {
            Later::Ready(Some(Err(HoldError::Store(error)))) if has_failed(&error) => {
                Later::ready(inner.hold(hold, error, now))
            }
            Later::Pending(pending) => Later::pending(async move {
                match pending.await {
                    Err(HoldError::Store(error)) if has_failed(&error) => inner.hold(hold, error, now),
                    other => other,
                }
            }),
            ready @ Later::Ready(_) => ready,
        }
    }

    fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.inner.store.record(hold, usage, now)
    }

    fn settle(&self, id: ReservationId, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        match self.here(id, now, |ledger| ledger.settle(id, usage, now)) {
            Some(here) => Later::ready(here),
            None => self.inner.store.settle(id, usage, now),
        }
    }

    fn settle_unknown(
        &self,
        id: ReservationId,
        charged: &[Amount],
        now: Timestamp,
    ) -> Later<Result<Closed, CloseError>> {
        match self.here(id, now, |ledger| ledger.settle_unknown(id, charged, now)) {
            Some(here) => Later::ready(here),
            None => self.inner.store.settle_unknown(id, charged, now),
        }
    }

    fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        match self.here(id, now, |ledger| ledger.release(id, now)) {
            Some(here) => Later::ready(here),
            None => self.inner.store.release(id, now),
        }
    }

    fn warn(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Alert>, StoreError>> {
        self.inner.store.warn(charges, now)
    }

    fn extend(&self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Later<Result<Timestamp, CloseError>> {
        match self.here(id, now, |ledger| ledger.extend(id, ttl_ms, now)) {
            Some(here) => Later::ready(here),
            None => self.inner.store.extend(id, ttl_ms, now),
        }
    }

    fn reservation(&self, id: ReservationId, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        match self.here(id, now, |ledger| Ok(ledger.reservation(id).cloned())) {
            Some(Ok(found)) => Later::ready(Ok(found)),
            _ => self.inner.store.reservation(id, now),
        }
    }

    fn named(&self, key: &str, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        if self.inner.known.load(Ordering::Acquire) > 0 {
            let local = self.inner.at(now);
            let found = local.ledger.named(key).cloned();
            if found.is_some() {
                return Later::ready(Ok(found));
            }
        }
        self.inner.store.named(key, now)
    }

    fn answered(&self, id: ReservationId, answer: Arc<[u8]>) -> Later<Result<(), StoreError>> {
        let keep = |ledger: &mut Ledger| Ok(answered(ledger, id, Arc::clone(&answer)));
        match self.here(id, Timestamp::from_millis(i64::MIN), keep) {
            Some(kept) => Later::ready(kept.unwrap_or_else(|_closed| Err(given_back()))),
            None => self.inner.store.answered(id, answer),
        }
    }

    fn subjects(&self, of: &SubjectsOf) -> Later<Result<Vec<SmolStr>, StoreError>> {
        self.inner.store.subjects(of)
    }

    fn books(&self) -> Option<Arc<dyn Books>> {
        self.inner.store.books()
    }

    fn is_away(&self) -> bool {
        self.inner.store.is_away()
    }

    fn tick(&self, now: Timestamp) {
        self.inner.store.tick(now);
        if self.inner.known.load(Ordering::Acquire) == 0 {
            return;
        }
        let Some(turn) = Turn::take(&self.inner.telling) else { return };
        let inner = Arc::clone(&self.inner);
        (self.inner.background)(Box::pin(async move {
            inner.tell(now).await;
            drop(turn);
        }));
    }
}

impl std::fmt::Debug for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fallback").finish_non_exhaustive()
    }
}
