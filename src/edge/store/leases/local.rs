//! What a node knows of its leases, and moves under one lock.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::task::Waker;

use super::Names;
use super::pool::{Drawn, Lease, Pool, Return, Which, later, meter};
use crate::edge::store::held;
use crate::gate::{HoldError, Look};
use crate::meter::{
    Alert, Charge, Held, Hold, Ledger, LedgerError, MEMORY_MS, MeterKey, Part, Reservation, ReservationId, Spending,
    Standing, State, Usage,
};
use crate::model::{Amount, EntityUid, Timestamp, Unit};

/// How many meters have leases at most; what is beyond is held on the store.
const MOST_POOLS: usize = 1_000_000;
/// How many reservations are remembered once they are closed: at half a kilobyte each, 50 MB.
const MOST_CLOSED: usize = 100_000;
/// How many pools are looked at, whether leases go back, at each tick.
const TURN_AT_ONCE: usize = 4096;

/// Pools, and what was served from them.
#[derive(Default)]
pub(super) struct Local {
    pub(super) ledger: Ledger,
    pools: BTreeMap<MeterKey, Pool>,
    /// Leases that go back to the store.
    pub(super) returns: BTreeMap<ReservationId, Return>,
    /// What the store has to be charged beyond what is leased.
    pub(super) owed: BTreeMap<ReservationId, Owed>,
    closed: VecDeque<ReservationId>,
    /// Percents that were crossed when something was leased, for the next who is answered.
    alerts: Vec<Alert>,
    /// The last pool that was looked at.
    looked: Option<MeterKey>,
}

/// What calls used beyond what they held, and beyond what is leased.
#[derive(Debug, Clone)]
pub(super) struct Owed {
    key: MeterKey,
    pub(super) hold: Hold,
    pub(super) usage: Usage,
}

/// What comes next for who wants to hold.
pub(super) enum Step {
    /// That is the answer.
    Done(Result<Held, HoldError>),
    /// So much is to be drawn first.
    Draw(Draw),
    /// Somebody else draws; by the number of that draw.
    Wait(Draw, u64),
    /// It is for the store.
    Store,
}

/// What is to be drawn.
pub(super) struct Draw {
    pub(super) key: MeterKey,
    /// For which of the charges.
    pub(super) charge: usize,
    /// What is lacking.
    pub(super) need: Amount,
}

impl Local {
    /// Lets expire what is due.
    pub(super) fn advance(&mut self, now: Timestamp, most: usize) {
        if self.ledger.next_due().is_some_and(|due| due <= now) {
            self.ledger.expire(now, most);
            self.note_closed();
        }
    }

    /// Holds, if what is leased is enough.
    pub(super) fn step(&mut self, hold: &Hold, now: Timestamp) -> Step {
        let mut charges = Vec::with_capacity(hold.charges.len());
        for (index, charge) in hold.charges.iter().enumerate() {
            let key = charge.key();
            if !self.pools.contains_key(&key) {
                if self.pools.len() >= MOST_POOLS {
                    return Step::Store;
                }
                self.pools.insert(key.clone(), Pool::new(charge, now));
            }
            self.roll(&key, now);
            let Self { ledger, pools, returns, .. } = self;
            let Some(pool) = pools.get_mut(&key) else { return Step::Store };
            pool.adopt(&charge.limit);
            // What is over is not to be had beside what is drawn next, however late the next tick is. What was drawn for one
            // that needs more than a lease stays: it comes again for that.
            if pool.is_over(now) {
                let turned = pool.turn(pool.spent(ledger), Which::Over, now);
                returns.extend(turned.into_iter().map(|one| (one.id, one)));
            }
            let Some(wanted) = with_earlier(&hold.charges, index) else { return Step::Store };
            let need = wanted.less(pool.spendable(pool.spent(ledger), now));
            if !need.is_zero() {
                let draw = Draw { key, charge: index, need };
                if pool.drawing {
                    return Step::Wait(draw, pool.drawn.0);
                }
                pool.drawing = true;
                return Step::Draw(draw);
            }
            charges.push(pool.here(charge.amount));
        }
        Step::Done(self.hold(hold, charges, now))
    }

    fn hold(&mut self, hold: &Hold, charges: Vec<Charge>, now: Timestamp) -> Result<Held, HoldError> {
        let done = held(&mut self.ledger, Hold { charges, ..hold.clone() }, now)?;
        drop(self.ledger.take_changes());
        let standing = |charge: &Charge| {
            let pool = self.pools.get_mut(&charge.key());
            let standing = pool.and_then(|pool| {
                pool.touched = now;
                pool.standing
            });
            let (cap, none) = (charge.limit.cap_at(now), Amount::ZERO);
            standing.unwrap_or(Standing { cap, used: none, held: none, resets_at: None })
        };
        let standings = hold.charges.iter().map(standing).collect();
        Ok(Held { standings, alerts: self.take_alerts(), ..done })
    }

    pub(super) fn note_alerts(&mut self, alerts: Vec<Alert>) {
        self.alerts.extend(alerts);
    }

    pub(super) fn take_alerts(&mut self) -> Vec<Alert> {
        std::mem::take(&mut self.alerts)
    }

    /// What the store is to hold as a lease, `most` at most where that is said.
    pub(super) fn wanted(&mut self, draw: &Draw, most: Option<Amount>, names: &Names, now: Timestamp) -> Option<Hold> {
        let pool = self.pools.get(&draw.key)?;
        let size = pool.draw(draw.need);
        let charges = vec![pool.of_the_store(most.map_or(size, |most| size.min(most)))];
        let spending = Arc::new(spending(pool));
        Some(Hold {
            id: names(now),
            spending,
            charges,
            ttl_ms: 2 * pool.lasts_ms(),
            idempotency: None,
            most_open: None,
        })
    }

    /// Takes in what the store holds as a lease.
    pub(super) fn leased(&mut self, key: &MeterKey, hold: &Hold, held: Held, now: Timestamp) {
        self.alerts.extend(held.alerts);
        let Some(pool) = self.pools.get_mut(key) else { return };
        let Some(charge) = hold.charges.first() else { return };
        let ends = later(now, pool.lasts_ms());
        pool.add(Lease { id: hold.id, amount: charge.amount, ends, extend_at: ends });
        pool.standing = held.standings.first().copied();
    }

    /// Notes where a meter stands that has no room; what remains of it.
    pub(super) fn refused(&mut self, key: &MeterKey, standing: Standing, alerts: Vec<Alert>) -> Amount {
        self.alerts.extend(alerts);
        if let Some(pool) = self.pools.get_mut(key) {
            pool.standing = Some(standing);
        }
        standing.remaining()
    }

    /// Ends a draw, for those who wait for it.
    #[must_use]
    pub(super) fn drawn(&mut self, key: &MeterKey, how: Drawn) -> Vec<Waker> {
        let Some(pool) = self.pools.get_mut(key) else { return Vec::new() };
        pool.drawing = false;
        pool.drawn = (pool.drawn.0.wrapping_add(1), how);
        std::mem::take(&mut pool.waiting)
    }

    /// How the draw of that number ended, if it did.
    pub(super) fn waited(&mut self, key: &MeterKey, number: u64, waker: &Waker) -> Option<Drawn> {
        let Some(pool) = self.pools.get_mut(key) else { return Some(Drawn::Lease) };
        if pool.drawing && pool.drawn.0 == number {
            pool.waiting.push(waker.clone());
            return None;
        }
        Some(pool.drawn.1.clone())
    }

    /// What is lacking of each charge beyond what is leased.
    pub(super) fn lacking(&self, charges: &[Charge], now: Timestamp) -> Vec<Charge> {
        let lacking = |(index, charge): (usize, &Charge)| {
            let wanted = with_earlier(charges, index).unwrap_or(Amount::MAX);
            Charge { amount: wanted.less(self.spendable(charge, now)), ..charge.clone() }
        };
        charges.iter().enumerate().map(lacking).collect()
    }

    /// What has room on the leases of the node has room.
    pub(super) fn mend(&self, looks: &mut [Look], charges: &[Charge], now: Timestamp) {
        for (index, look) in looks.iter_mut().enumerate().filter(|(_, look)| look.lack.is_some()) {
            let (Some(charge), Some(wanted)) = (charges.get(index), with_earlier(charges, index)) else { continue };
            if wanted <= self.spendable(charge, now) {
                look.lack = None;
            }
        }
    }

    fn spendable(&self, charge: &Charge, now: Timestamp) -> Amount {
        let pool = self.pools.get(&charge.key());
        pool.map_or(Amount::ZERO, |pool| pool.spendable(pool.spent(&self.ledger), now))
    }

    /// Whether any of the charges has leases here.
    pub(super) fn has_leases(&self, charges: &[Charge]) -> bool {
        charges.iter().any(|charge| self.pools.get(&charge.key()).is_some_and(|pool| !pool.is_idle()))
    }

    /// Closes a reservation or changes it otherwise, and says what has to be charged to the store before that is
    /// answered; `None` where it was not made here.
    pub(super) fn close<T>(
        &mut self,
        id: ReservationId,
        names: &Names,
        now: Timestamp,
        work: impl FnOnce(&mut Ledger) -> Result<T, LedgerError>,
    ) -> Option<(Result<T, LedgerError>, Vec<ReservationId>)> {
        let keys: Vec<MeterKey> =
            self.ledger.reservation(id)?.parts.iter().filter_map(|part| self.pool_of(part)).collect();
        keys.iter().for_each(|key| self.roll(key, now));
        let Self { ledger, pools, .. } = self;
        let before: Vec<_> = keys.iter().map(|key| pools.get(key).map(|pool| pool.spent(ledger))).collect();
        let done = work(ledger);
        self.note_closed();
        for (key, before) in keys.iter().zip(before) {
            let Self { ledger, pools, returns, owed, .. } = self;
            let (Some(pool), Some(before)) = (pools.get_mut(key), before) else { continue };
            pool.touched = now;
            pool.keep_lost(before, ledger);
            let spent = pool.spent(ledger);
            let beyond = pool.owed(spent);
            if !beyond.is_zero() {
                pool.charge(beyond);
                let one = owe(key, pool, beyond, names(now));
                owed.insert(one.hold.id, one);
            }
            let turned = pool.turn(spent, Which::Due, now);
            returns.extend(turned.into_iter().map(|one| (one.id, one)));
        }
        let owed = self.owed.iter().filter(|(_, one)| keys.contains(&one.key)).map(|(id, _)| *id).collect();
        Some((done, owed))
    }

    /// The pool that a part was served from, if it is of its period.
    fn pool_of(&self, part: &Part) -> Option<MeterKey> {
        let key = meter(&part.meter);
        self.pools.get(&key).is_some_and(|pool| pool.key() == part.meter).then_some(key)
    }

    fn roll(&mut self, key: &MeterKey, now: Timestamp) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        if let Some((old, returns)) = pool.roll(&self.ledger, now) {
            self.ledger.forget_meter(&old);
            self.returns.extend(returns.into_iter().map(|one| (one.id, one)));
        }
    }

    /// Notes which reservations were closed, and forgets the oldest of those.
    fn note_closed(&mut self) {
        let changed = self.ledger.take_changes().reservations;
        self.closed.extend(changed.iter().filter(|one| one.state != State::Open).map(|one| one.id));
        while self.closed.len() > MOST_CLOSED {
            let Some(id) = self.closed.pop_front() else { break };
            if self.ledger.is_taken(id) {
                drop(self.ledger.forget(id));
            }
        }
    }

    /// Leases of `charges` that can go back do; their names.
    pub(super) fn give_back(&mut self, charges: &[Charge], now: Timestamp) -> Vec<ReservationId> {
        let mut ids = Vec::new();
        for charge in charges {
            let Some(pool) = self.pools.get_mut(&charge.key()) else { continue };
            let returns = pool.turn(pool.spent(&self.ledger), Which::All, now);
            ids.extend(returns.iter().map(|one| one.id));
            self.returns.extend(returns.into_iter().map(|one| (one.id, one)));
        }
        ids
    }

    /// All leases go back, and what is open is charged as held: the node stops.
    pub(super) fn give_back_all(&mut self) {
        for pool in self.pools.values_mut() {
            let returns = pool.finish(pool.spent(&self.ledger));
            self.returns.extend(returns.into_iter().map(|one| (one.id, one)));
        }
    }

    /// Looks at the next pools: leases that go back are noted; the names of those that the store is to hold for longer,
    /// and for how long.
    pub(super) fn turn(&mut self, now: Timestamp) -> Vec<(ReservationId, i64)> {
        let from = self.looked.take().map_or(Bound::Unbounded, Bound::Excluded);
        let keys: Vec<MeterKey> =
            self.pools.range((from, Bound::Unbounded)).take(TURN_AT_ONCE).map(|(key, _)| key.clone()).collect();
        self.looked = keys.last().filter(|_| keys.len() == TURN_AT_ONCE).cloned();
        let mut extended = Vec::new();
        for key in keys {
            self.roll(&key, now);
            let Self { ledger, pools, returns, .. } = self;
            let Some(pool) = pools.get_mut(&key) else { continue };
            let turned = pool.turn(pool.spent(ledger), Which::Due, now);
            returns.extend(turned.into_iter().map(|one| (one.id, one)));
            let lasts_ms = 2 * pool.lasts_ms();
            extended.extend(pool.extend(now).into_iter().map(|id| (id, lasts_ms)));
            // By then nothing is known that was served from it.
            if pool.is_idle() && later(pool.touched, 2 * MEMORY_MS) <= now {
                ledger.forget_meter(&pool.key());
                pools.remove(&key);
            }
        }
        extended
    }

    /// How many meters have or had leases.
    pub(super) fn pools_count(&self) -> usize {
        self.pools.len()
    }
}

/// The room that a charge needs, including the earlier charges on the same meter.
fn with_earlier(charges: &[Charge], index: usize) -> Option<Amount> {
    let charge = charges.get(index)?;
    let same = |other: &&Charge| other.subject == charge.subject && other.limit.series == charge.limit.series;
    let mut earlier = charges.iter().take(index).filter(same);
    earlier.try_fold(charge.room_needed(), |sum, other| sum.plus(other.room_needed()))
}

/// A reservation as it is told: on the meters of the store.
pub(super) fn told(mut reservation: Reservation) -> Reservation {
    reservation.parts.iter_mut().for_each(|part| part.meter = meter(&part.meter));
    reservation
}

/// For whom the store holds a lease.
fn spending(pool: &Pool) -> Spending {
    let named = EntityUid::trusted("Lease", pool.limit_id().clone());
    Spending {
        principal: named.clone(),
        resource: named,
        permitted: Box::default(),
        price: None,
        if_unknown: Box::default(),
    }
}

fn owe(key: &MeterKey, pool: &Pool, amount: Amount, id: ReservationId) -> Owed {
    let charge = pool.of_the_store(amount);
    let usage = usage(charge.limit.unit(), amount);
    let spending = Arc::new(spending(pool));
    let hold =
        Hold { id, spending, charges: vec![charge], ttl_ms: pool.lasts_ms(), idempotency: None, most_open: None };
    Owed { key: key.clone(), hold, usage }
}

/// The usage that comes to `amount` of `unit`.
pub(super) fn usage(unit: Unit, amount: Amount) -> Usage {
    let number = amount.get();
    let none = Usage { requests: 1, ..Usage::default() };
    match unit {
        Unit::Usd => Usage { usd: Some(amount), ..none },
        Unit::Tokens | Unit::InputTokens => Usage { input_tokens: number, ..none },
        Unit::OutputTokens => Usage { output_tokens: number, ..none },
        Unit::Requests => Usage { requests: number, ..none },
        Unit::Places => none,
    }
}
