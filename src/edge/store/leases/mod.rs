//! Leases: a node draws a share of a meter from a shared store and spends it by itself, so that requests whose limits all
//! say so (`lease`) need no round trip. A lease is a reservation of the store, so nothing is spent that it does not hold:
//! caps hold whatever is lost, late or doubled on the way, and what leases cost is what a node holds and does not spend.
//!
//! What is hard about it: a node that ends without a word may have spent its lease, so the store charges it in full when
//! it expires; what calls use beyond their holds is in no lease, so the store is charged before that is acknowledged; and
//! a refusal has to be the store's, not that of a lease which has run out.

mod local;
mod pool;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use parking_lot::{Mutex, MutexGuard};
use smol_str::SmolStr;

use self::local::{Draw, Local, Step, told, usage};
use self::pool::{Drawn, Return};
use super::EXPIRE_AT_ONCE;
use super::background::{Background, Turn, on_a_thread};
use crate::edge::random;
use crate::gate::{Books, CloseError, HoldError, Later, Look, Meters, StoreError, SubjectsOf};
use crate::meter::{
    Alert, Charge, Closed, Held, Hold, Ledger, LedgerError, MeterKey, Refused, Reservation, ReservationId, Shortfall,
    Usage,
};
use crate::model::{Amount, Timestamp, Unit};

/// How often what is leased may run out while somebody waits, before the store is asked for all of it.
const MOST_STEPS: usize = 64;
/// How often less is asked for, before just what is needed is.
const MOST_SIZES: usize = 3;
/// For how long a lease that the store does not know may still come to it: what a network may hold back.
const UNSURE_MS: i64 = 60_000;
/// How many leases go back at once.
const RETURN_AT_ONCE: usize = 64;

/// Makes names of leases that nobody has had or can guess.
pub type Names = Box<dyn Fn(Timestamp) -> ReservationId + Send + Sync>;

/// A shared store, and what this node has leased of it.
pub struct Leases {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Meters>,
    names: Names,
    background: Background,
    local: Mutex<Local>,
    /// How many meters have or had leases, to be read without the lock.
    pools: AtomicUsize,
    telling: Arc<AtomicBool>,
}

/// Makes the id of a lease.
fn by_chance(now: Timestamp) -> ReservationId {
    ReservationId::new(now, u128::from_le_bytes(random::bytes()))
}

impl Leases {
    /// Leases of what `store` keeps.
    #[must_use]
    pub fn new(store: Arc<dyn Meters>) -> Self {
        Self::with(store, Box::new(by_chance), on_a_thread("leases"))
    }

    /// As [`Leases::new`], with another way to name leases, and to give them back.
    #[must_use]
    pub fn with(store: Arc<dyn Meters>, names: Names, background: Background) -> Self {
        let (local, pools, telling) = (Mutex::default(), AtomicUsize::new(0), Arc::default());
        Self { inner: Arc::new(Inner { store, names, background, local, pools, telling }) }
    }

    /// Gives back all leases, before the node stops: what is open is charged as held, and not known here afterwards.
    pub async fn give_back(&self, now: Timestamp) {
        self.inner.lock().give_back_all();
        self.inner.tell(Vec::new(), now).await;
    }

    /// Changes a reservation that was made here; `None` where the store has to.
    fn here<T: Unpin + Send + 'static>(
        &self,
        id: ReservationId,
        now: Timestamp,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError>,
    ) -> Option<Later<Result<T, CloseError>>> {
        if self.inner.is_unused() {
            return None;
        }
        let (done, owed) = self.inner.at(now).close(id, &self.inner.names, now, work)?;
        let done = done.map_err(CloseError::from);
        if owed.is_empty() || done.is_err() {
            return Some(Later::ready(done));
        }
        let inner = Arc::clone(&self.inner);
        Some(Later::pending(async move {
            inner.pay(&owed, now).await?;
            done
        }))
    }
}

/// As it is told.
fn closed(closed: Closed) -> Closed {
    Closed { reservation: told(closed.reservation), ..closed }
}

/// Whether a request is served from leases: every limit says so, and no key has to be known on every node.
fn is_leased(hold: &Hold) -> bool {
    let leased = |charge: &Charge| charge.limit.lease.is_some() && charge.limit.unit() != Unit::Places;
    hold.idempotency.is_none() && !hold.charges.is_empty() && hold.charges.iter().all(leased)
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Local> {
        self.local.lock()
    }

    fn at(&self, now: Timestamp) -> MutexGuard<'_, Local> {
        let mut local = self.lock();
        local.advance(now, EXPIRE_AT_ONCE);
        local
    }

    fn is_unused(&self) -> bool {
        self.pools.load(Ordering::Acquire) == 0
    }

    fn step(self: &Arc<Self>, hold: &Hold, now: Timestamp) -> Next {
        let mut local = self.at(now);
        let step = local.step(hold, now);
        self.pools.store(local.pools_count(), Ordering::Release);
        match step {
            Step::Done(done) => Next::Done(done),
            Step::Store => Next::Store,
            Step::Wait(draw, number) => Next::Wait(draw, number),
            Step::Draw(draw) => Next::Draw(Drawing { inner: Arc::clone(self), draw, asked: None, now, ended: false }),
        }
    }

    /// Holds on what is leased, once that is enough.
    async fn hold(self: Arc<Self>, hold: Hold, mut next: Next, now: Timestamp) -> Result<Held, HoldError> {
        for step in 1.. {
            let (need, charge, drawn) = match next {
                Next::Done(done) => return done,
                Next::Store => break,
                Next::Draw(drawing) => (drawing.draw.need, drawing.draw.charge, drawing.draw().await),
                Next::Wait(draw, number) => (draw.need, draw.charge, self.wait_for(&draw.key, number).await),
            };
            match drawn {
                Drawn::Failed(error) => return Err(error.into()),
                // Somebody else may have asked for more than is needed here.
                Drawn::Refused(asked, short) if asked <= need => {
                    return Err(HoldError::Refused(self.refused(&hold, charge, short, now).await));
                }
                Drawn::Refused(..) | Drawn::Lease => {}
            }
            // INVARIANT: a step that was taken is looked at: it may have held.
            if step == MOST_STEPS {
                break;
            }
            next = self.step(&hold, now);
        }
        self.hold_on_store(hold, now).await
    }

    async fn wait_for(&self, key: &MeterKey, number: u64) -> Drawn {
        std::future::poll_fn(|cx| match self.lock().waited(key, number, cx.waker()) {
            Some(drawn) => Poll::Ready(drawn),
            None => Poll::Pending,
        })
        .await
    }

    /// Everything that has no room: what was refused, and what else the store says, beside what is leased.
    async fn refused(&self, hold: &Hold, charge: usize, short: Shortfall, now: Timestamp) -> Refused {
        let lacking = self.lock().lacking(&hold.charges, now);
        let mut shortfalls = vec![Shortfall { charge, ..short }];
        if lacking.len() > 1
            && let Ok(looks) = self.store.look(&lacking, now).await
        {
            let others = looks.iter().enumerate().filter(|(index, _)| *index != charge);
            let lacks = others.filter(|(index, _)| lacking.get(*index).is_some_and(|one| !one.amount.is_zero()));
            shortfalls
                .extend(lacks.filter_map(|(charge, look)| {
                    Some(Shortfall { charge, standing: look.standing, lack: look.lack? })
                }));
            shortfalls.sort_by_key(|short| short.charge);
        }
        Refused { cause: None, shortfalls, alerts: self.lock().take_alerts() }
    }

    /// Holds on the store. Where that has no room, what this node has leased and not spent is room too.
    async fn hold_on_store(&self, hold: Hold, now: Timestamp) -> Result<Held, HoldError> {
        let refused = match self.store.hold(hold.clone(), now).await {
            Err(HoldError::Refused(refused)) => refused,
            done => return done,
        };
        let ids = self.lock().give_back(&hold.charges, now);
        if ids.is_empty() {
            return Err(HoldError::Refused(refused));
        }
        self.tell_returns(&ids, now).await?;
        let mut done = self.store.hold(hold, now).await;
        match &mut done {
            Ok(held) => held.alerts.extend(refused.alerts),
            Err(HoldError::Refused(again)) => again.alerts.extend(refused.alerts),
            Err(_) => {}
        }
        done
    }

    /// Charges the store what was used beyond what is leased.
    async fn pay(&self, owed: &[ReservationId], now: Timestamp) -> Result<(), StoreError> {
        for id in owed {
            let Some(one) = self.lock().owed.get(id).cloned() else { continue };
            let done = self.store.record(one.hold, one.usage, now).await;
            let mut local = self.lock();
            match done {
                Err(CloseError::Store(error)) => return Err(error),
                Ok(closed) => local.note_alerts(closed.alerts),
                // What it knows by this name it charged before.
                Err(CloseError::Ledger(_) | CloseError::KeyTaken(_)) => {}
            }
            local.owed.remove(id);
        }
        Ok(())
    }

    /// Tells the store all that it is to know, until it fails.
    async fn tell(&self, extended: Vec<(ReservationId, i64)>, now: Timestamp) {
        for (id, lasts_ms) in extended {
            if let Err(CloseError::Store(_)) = self.store.extend(id, lasts_ms, now).await {
                return;
            }
        }
        let (owed, returns): (Vec<_>, Vec<_>) = {
            let local = self.lock();
            (local.owed.keys().copied().collect(), local.returns.keys().copied().collect())
        };
        if self.pay(&owed, now).await.is_err() {
            return;
        }
        // Whether it fails or not, what is left is told at the next tick.
        let _told = self.tell_returns(&returns, now).await;
    }

    async fn tell_returns(&self, ids: &[ReservationId], now: Timestamp) -> Result<(), StoreError> {
        for some in ids.chunks(RETURN_AT_ONCE) {
            let returns: Vec<Return> = {
                let local = self.lock();
                some.iter().filter_map(|id| local.returns.get(id).cloned()).collect()
            };
            // All of them are on their way before the first is waited for.
            let closing: Vec<_> = returns.iter().map(|one| self.close(one, now)).collect();
            for (one, closing) in returns.iter().zip(closing) {
                match closing.await {
                    Err(CloseError::Store(error)) => return Err(error),
                    Err(CloseError::Ledger(LedgerError::Unknown)) if may_come(one, now) => {}
                    _ => drop(self.lock().returns.remove(&one.id)),
                }
            }
        }
        Ok(())
    }

    fn close(&self, one: &Return, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        if one.charged.is_zero() {
            return self.store.release(one.id, now);
        }
        self.store.settle(one.id, usage(one.unit, one.charged), now)
    }
}

/// Whether a lease that the store does not know may still come to it.
fn may_come(one: &Return, now: Timestamp) -> bool {
    one.unsure_since.is_some_and(|since| now.as_millis().saturating_sub(since.as_millis()).abs() < UNSURE_MS)
}

/// What comes next for who wants to hold.
enum Next {
    /// That is the answer.
    Done(Result<Held, HoldError>),
    /// So much is drawn first.
    Draw(Drawing),
    /// Somebody else draws; by the number of that draw.
    Wait(Draw, u64),
    /// It is for the store.
    Store,
}

/// That somebody draws. Ends, whatever becomes of who draws, so that nobody waits for ever: who gives up before the first
/// step too.
struct Drawing {
    inner: Arc<Inner>,
    draw: Draw,
    /// What was asked for, as long as nobody knows whether the store holds it.
    asked: Option<(ReservationId, Unit)>,
    now: Timestamp,
    ended: bool,
}

impl Drawing {
    /// Draws a lease: a whole one, or what is needed where there is no room for that.
    async fn draw(mut self) -> Drawn {
        let (inner, now, need) = (Arc::clone(&self.inner), self.now, self.draw.need);
        for size in 0..=MOST_SIZES {
            let most = (size == MOST_SIZES).then_some(need);
            let Some(hold) = inner.lock().wanted(&self.draw, most, &inner.names, now) else { break };
            let Some(Charge { amount, limit, .. }) = hold.charges.first().cloned() else { break };
            self.asked = Some((hold.id, limit.unit()));
            match inner.store.hold(hold.clone(), now).await {
                Ok(held) => {
                    self.asked = None;
                    inner.lock().leased(&self.draw.key, &hold, held, now);
                    return self.end(Drawn::Lease);
                }
                Err(HoldError::Refused(Refused { shortfalls, alerts, .. })) => {
                    self.asked = None;
                    let Some(short) = shortfalls.first().copied() else { break };
                    let remains = inner.lock().refused(&self.draw.key, short.standing, alerts);
                    if amount <= need || remains < need {
                        return self.end(Drawn::Refused(need, short));
                    }
                }
                Err(HoldError::Store(error)) => return self.end(Drawn::Failed(error)),
                // The id is unique, so a taken key means that the store received the request twice. The number of open
                // leases is not limited.
                Err(HoldError::KeyTaken | HoldError::TooManyOpen) => break,
            }
        }
        self.end(Drawn::Failed(StoreError::Away("no lease could be drawn".into())))
    }

    fn end(mut self, how: Drawn) -> Drawn {
        self.finish(how.clone());
        how
    }

    fn finish(&mut self, how: Drawn) {
        let mut local = self.inner.lock();
        if let Some((id, unit)) = self.asked.take() {
            let one = Return { id, unit, charged: Amount::ZERO, unsure_since: Some(self.now) };
            local.returns.insert(id, one);
        }
        let waiting = local.drawn(&self.draw.key, how);
        drop(local);
        waiting.into_iter().for_each(std::task::Waker::wake);
        self.ended = true;
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        if !self.ended {
            // Who waited draws.
            self.finish(Drawn::Lease);
        }
    }
}

impl Meters for Leases {
    fn look(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Look>, StoreError>> {
        let looking = self.inner.store.look(charges, now);
        if self.inner.is_unused() || !self.inner.lock().has_leases(charges) {
            return looking;
        }
        let (inner, charges) = (Arc::clone(&self.inner), charges.to_vec());
        Later::pending(async move {
            let mut looks = looking.await?;
            inner.at(now).mend(&mut looks, &charges, now);
            Ok(looks)
        })
    }

    fn hold(&self, hold: Hold, now: Timestamp) -> Later<Result<Held, HoldError>> {
        if !is_leased(&hold) {
            if self.inner.is_unused() || !self.inner.lock().has_leases(&hold.charges) {
                return self.inner.store.hold(hold, now);
            }
            let inner = Arc::clone(&self.inner);
            return Later::pending(async move { inner.hold_on_store(hold, now).await });
        }
        match self.inner.step(&hold, now) {
            Next::Done(done) => Later::ready(done),
            next => Later::pending(Arc::clone(&self.inner).hold(hold, next, now)),
        }
    }

    fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.inner.store.record(hold, usage, now)
    }

    fn settle(&self, id: ReservationId, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        let here = self.here(id, now, |ledger| ledger.settle(id, usage, now).map(closed));
        here.unwrap_or_else(|| self.inner.store.settle(id, usage, now))
    }

    fn settle_unknown(
        &self,
        id: ReservationId,
        charged: &[Amount],
        now: Timestamp,
    ) -> Later<Result<Closed, CloseError>> {
        let here = self.here(id, now, |ledger| ledger.settle_unknown(id, charged, now).map(closed));
        here.unwrap_or_else(|| self.inner.store.settle_unknown(id, charged, now))
    }

    fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        let here = self.here(id, now, |ledger| ledger.release(id, now).map(closed));
        here.unwrap_or_else(|| self.inner.store.release(id, now))
    }

    fn warn(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Alert>, StoreError>> {
        let warning = self.inner.store.warn(charges, now);
        if self.inner.is_unused() {
            return warning;
        }
        let inner = Arc::clone(&self.inner);
        Later::pending(async move {
            let mut alerts = warning.await?;
            alerts.extend(inner.lock().take_alerts());
            Ok(alerts)
        })
    }

    fn extend(&self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Later<Result<Timestamp, CloseError>> {
        let here = self.here(id, now, |ledger| ledger.extend(id, ttl_ms, now));
        here.unwrap_or_else(|| self.inner.store.extend(id, ttl_ms, now))
    }

    fn reservation(&self, id: ReservationId, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        if !self.inner.is_unused()
            && let Some(found) = self.inner.at(now).ledger.reservation(id)
        {
            return Later::ready(Ok(Some(told(found.clone()))));
        }
        self.inner.store.reservation(id, now)
    }

    fn named(&self, key: &str, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        self.inner.store.named(key, now)
    }

    fn answered(&self, id: ReservationId, answer: Arc<[u8]>) -> Later<Result<(), StoreError>> {
        self.inner.store.answered(id, answer)
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
        if self.inner.is_unused() {
            return;
        }
        let Some(turn) = Turn::take(&self.inner.telling) else { return };
        let extended = {
            let mut local = self.inner.at(now);
            let extended = local.turn(now);
            self.inner.pools.store(local.pools_count(), Ordering::Release);
            if extended.is_empty() && local.returns.is_empty() && local.owed.is_empty() {
                return;
            }
            extended
        };
        let inner = Arc::clone(&self.inner);
        (self.inner.background)(Box::pin(async move {
            inner.tell(extended, now).await;
            drop(turn);
        }));
    }
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leases").finish_non_exhaustive()
    }
}
