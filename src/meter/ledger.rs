//! The ledger: holds on many meters at once or on none, settles, gives back, lets expire, each exactly once.
//!
//! It does what it is told at the instant it is told, and notes what changed, so that a store can write just that.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::limit::OnExpiry;
use super::meter::{Lack, Meter, Standing};
use super::price::Usage;
use super::reservation::{Charge, Idempotency, MEMORY_MS, MeterKey, Part, Reservation, ReservationId, Spending, State};
use crate::model::{Amount, Timestamp, Unit};

/// Meters, and what is held on them.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    meters: HashMap<MeterKey, Meter, RandomState>,
    reservations: HashMap<ReservationId, Reservation, RandomState>,
    due: BTreeSet<(Timestamp, ReservationId)>,
    keys: HashMap<SmolStr, ReservationId, RandomState>,
    changed: Changed,
}

#[derive(Debug, Clone, Default)]
struct Changed {
    meters: HashSet<MeterKey, RandomState>,
    reservations: HashSet<ReservationId, RandomState>,
    forgotten: Vec<ReservationId>,
    entries: Vec<Entry>,
}

/// What changed since it was last taken: the state to be in, not the way there, so writing it twice does no harm.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Meters as they are.
    pub meters: Vec<(MeterKey, Meter)>,
    /// Reservations as they are.
    pub reservations: Vec<Reservation>,
    /// Reservations that need not be known any longer.
    pub forgotten: Vec<ReservationId>,
    /// What was spent.
    pub entries: Vec<Entry>,
}

impl Changes {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meters.is_empty() && self.reservations.is_empty() && self.forgotten.is_empty() && self.entries.is_empty()
    }
}

/// What was spent, for the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// For whom and what.
    pub spending: Arc<Spending>,
    /// What was used; nothing where nobody told.
    pub usage: Option<Usage>,
    /// Limit, unit, what is charged now and what was before.
    pub limits: Vec<(SmolStr, Unit, Amount, Amount)>,
}

/// What is to be held.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Its name.
    pub id: ReservationId,
    /// For whom and what.
    pub spending: Arc<Spending>,
    /// On which meters; each at most once.
    pub charges: Vec<Charge>,
    /// How long, in milliseconds.
    pub ttl_ms: i64,
    /// The key its client chose, with the digest of its request.
    pub idempotency: Option<(SmolStr, [u8; 32])>,
}

/// What is held now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// When it expires.
    pub expires_at: Timestamp,
    /// Where each meter stands now, in the order of the charges.
    pub standings: Vec<Standing>,
    /// Percents that were crossed.
    pub alerts: Vec<Alert>,
}

/// A percent of a limit that was crossed for the first time in its period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The limit.
    pub limit: SmolStr,
    /// Whose meter.
    pub subject: Option<SmolStr>,
    /// Which percent.
    pub percent: u8,
    /// What is counted.
    pub unit: Unit,
    /// Where the meter stands.
    pub standing: Standing,
}

/// A meter that has no room, by the place of its charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// Which of the charges.
    pub charge: usize,
    /// Where the meter stands.
    pub standing: Standing,
    /// When there is room again.
    pub lack: Lack,
}

/// Why nothing is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Every meter that has no room.
    pub shortfalls: Vec<Shortfall>,
    /// Percents that calls crossed by using more than they had held.
    pub alerts: Vec<Alert>,
}

/// What became of a reservation that was closed, now or before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// As it is now.
    pub reservation: Reservation,
    /// Percents that were crossed.
    pub alerts: Vec<Alert>,
}

/// Why a reservation cannot be closed or extended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// No reservation of this name, or it is long over.
    #[error("no such reservation is known")]
    Unknown,
    /// It was closed otherwise before.
    #[error("the reservation was closed otherwise before")]
    Closed(State),
    /// Money is counted, and nobody knows how much it was.
    #[error("what it cost is not known")]
    CostUnknown,
    /// Beyond what can be counted.
    #[error("the amount is beyond what can be counted")]
    Overflow,
}

impl Ledger {
    /// Where the meters of `charges` stand, without touching them.
    #[must_use]
    pub fn standings<'a>(&self, charges: impl IntoIterator<Item = &'a Charge>, now: Timestamp) -> Vec<Standing> {
        charges.into_iter().map(|charge| self.at(charge, now).standing(&charge.limit, now)).collect()
    }

    /// Which of `charges` have no room, without touching a meter.
    #[must_use]
    pub fn shortfalls(&self, charges: &[Charge], now: Timestamp) -> Vec<Shortfall> {
        let room = |(index, charge): (usize, &Charge)| {
            let meter = self.at(charge, now);
            let mut earlier = charges.iter().take(index).filter(|other| same_meter(other, charge));
            let amount = earlier.try_fold(charge.amount, |sum, other| sum.plus(other.amount)).unwrap_or(Amount::MAX);
            let lack = meter.room(&charge.limit, amount, now).err()?;
            Some(Shortfall { charge: index, standing: meter.standing(&charge.limit, now), lack })
        };
        charges.iter().enumerate().filter(|(_, charge)| charge.limit.is_enforced()).filter_map(room).collect()
    }

    fn at(&self, charge: &Charge, now: Timestamp) -> Meter {
        match self.meters.get(&charge.key()) {
            Some(meter) => {
                let mut meter = meter.clone();
                meter.advance(&charge.limit, now);
                meter
            }
            None => Meter::new(&charge.limit, now),
        }
    }

    /// Holds every charge, or none.
    ///
    /// # Errors
    /// With every meter that has no room.
    pub fn hold(&mut self, hold: Hold, now: Timestamp) -> Result<Held, Refused> {
        let shortfalls = self.shortfalls(&hold.charges, now);
        if !shortfalls.is_empty() {
            let alerts = self.overdue_alerts(&hold.charges, &shortfalls, now);
            return Err(Refused { shortfalls, alerts });
        }
        let mut parts = Vec::with_capacity(hold.charges.len());
        let (mut standings, mut alerts) = (Vec::with_capacity(hold.charges.len()), Vec::new());
        for (index, charge) in hold.charges.iter().enumerate() {
            let meter = self.meter(charge, now);
            let Some(mark) = meter.hold(charge.amount) else {
                let standing = meter.standing(&charge.limit, now);
                self.undo(&parts, now);
                let shortfalls = vec![Shortfall { charge: index, standing, lack: Lack { retry_at: None } }];
                return Err(Refused { shortfalls, alerts: Vec::new() });
            };
            standings.push(meter.standing(&charge.limit, now));
            alerts.extend(alert(meter, charge, now));
            parts.push(part(charge, charge.amount, Amount::ZERO, mark));
        }
        let expires_at = after(now, hold.ttl_ms);
        let idempotency = hold.idempotency.map(|(key, digest)| Idempotency { key, digest, answer: None });
        self.keep(Reservation {
            id: hold.id,
            spending: hold.spending,
            parts: parts.into(),
            state: State::Open,
            created_at: now,
            due_at: expires_at,
            idempotency,
        });
        Ok(Held { expires_at, standings, alerts })
    }

    /// Charges what was spent without a reservation: in full, whatever there is room for.
    ///
    /// # Errors
    /// Where amounts are beyond what can be counted; then nothing is charged.
    pub fn record(&mut self, hold: Hold, usage: Usage, now: Timestamp) -> Result<Closed, LedgerError> {
        let mut parts = Vec::with_capacity(hold.charges.len());
        let mut alerts = Vec::new();
        for charge in &hold.charges {
            let meter = self.meter(charge, now);
            let Some(mark) = meter.hold(charge.amount) else {
                self.undo(&parts, now);
                return Err(LedgerError::Overflow);
            };
            let charged = if charge.limit.unit() == Unit::Places { Amount::ZERO } else { charge.amount };
            let mark = meter.close(mark, charge.amount, charged, now);
            alerts.extend(alert(meter, charge, now));
            parts.push(part(charge, Amount::ZERO, charged, mark));
        }
        let idempotency = hold.idempotency.map(|(key, digest)| Idempotency { key, digest, answer: None });
        let reservation = Reservation {
            id: hold.id,
            spending: hold.spending,
            parts: parts.into(),
            state: State::Settled(usage),
            created_at: now,
            due_at: after(now, MEMORY_MS),
            idempotency,
        };
        self.note(&reservation, Some(usage), &[], now);
        self.keep(reservation.clone());
        Ok(Closed { reservation, alerts })
    }

    /// Charges what a request used, and gives back the rest of what it held. The same again changes nothing; what was
    /// charged when nobody settled in time is corrected.
    ///
    /// # Errors
    /// Where it is unknown, or was settled with another usage or released before.
    pub fn settle(&mut self, id: ReservationId, usage: Usage, now: Timestamp) -> Result<Closed, LedgerError> {
        let reservation = self.reservations.get(&id).ok_or(LedgerError::Unknown)?;
        match reservation.state {
            State::Settled(before) if before == usage => {
                return Ok(Closed { reservation: reservation.clone(), alerts: Vec::new() });
            }
            State::Settled(_) | State::Released => return Err(LedgerError::Closed(reservation.state)),
            State::Open | State::Expired => {}
        }
        let charged: Result<Vec<Amount>, LedgerError> =
            reservation.parts.iter().map(|part| charged(part, &usage)).collect();
        self.end(id, State::Settled(usage), &charged?, now)
    }

    /// Gives back what a request held. The same again changes nothing; what was charged when nobody settled in time is
    /// given back too.
    ///
    /// # Errors
    /// Where it is unknown, or was settled before.
    pub fn release(&mut self, id: ReservationId, now: Timestamp) -> Result<Closed, LedgerError> {
        let reservation = self.reservations.get(&id).ok_or(LedgerError::Unknown)?;
        match reservation.state {
            State::Released => return Ok(Closed { reservation: reservation.clone(), alerts: Vec::new() }),
            State::Settled(_) => return Err(LedgerError::Closed(reservation.state)),
            State::Open | State::Expired => {}
        }
        let nothing = vec![Amount::ZERO; reservation.parts.len()];
        self.end(id, State::Released, &nothing, now)
    }

    /// Lets it live until `ttl_ms` from now, if that is longer than it would.
    ///
    /// # Errors
    /// Where it is unknown, or over.
    pub fn extend(&mut self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Result<Timestamp, LedgerError> {
        let reservation = self.reservations.get_mut(&id).ok_or(LedgerError::Unknown)?;
        if reservation.state != State::Open {
            return Err(LedgerError::Closed(reservation.state));
        }
        let until = after(now, ttl_ms);
        if until > reservation.due_at {
            self.due.remove(&(reservation.due_at, id));
            self.due.insert((until, id));
            reservation.due_at = until;
            self.changed.reservations.insert(id);
        }
        Ok(reservation.due_at)
    }

    /// Closes what nobody settled in time, and forgets what is long over: `most` of them at once. Returns how many.
    pub fn expire(&mut self, now: Timestamp, most: usize) -> usize {
        let mut done = 0;
        while done < most
            && let Some((due_at, id)) = self.due.first().copied()
            && due_at <= now
        {
            done += 1;
            let Some(reservation) = self.reservations.get(&id) else {
                self.due.remove(&(due_at, id));
                continue;
            };
            if reservation.state == State::Open {
                let charged: Vec<Amount> = reservation.parts.iter().map(at_expiry).collect();
                let _closed = self.end(id, State::Expired, &charged, now);
            } else {
                self.forget(id);
                self.changed.forgotten.push(id);
            }
        }
        done
    }

    /// When the next reservation is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due_at, _)| *due_at)
    }

    /// Ends an open or expired reservation.
    fn end(
        &mut self,
        id: ReservationId,
        state: State,
        charged: &[Amount],
        now: Timestamp,
    ) -> Result<Closed, LedgerError> {
        let mut reservation = self.reservations.remove(&id).ok_or(LedgerError::Unknown)?;
        let was_open = reservation.state == State::Open;
        let before: Vec<Amount> = reservation.parts.iter().map(|part| part.charged).collect();
        for (part, charged) in reservation.parts.iter_mut().zip(charged) {
            if let Some(meter) = self.meters.get_mut(&part.meter) {
                if was_open {
                    part.mark = meter.close(part.mark, part.held, *charged, now);
                } else {
                    meter.recharge(part.mark, part.charged, *charged, now);
                }
                self.changed.meters.insert(part.meter.clone());
            }
            part.charged = *charged;
        }
        self.due.remove(&(reservation.due_at, id));
        reservation.state = state;
        reservation.due_at = after(now, MEMORY_MS);
        let usage = if let State::Settled(usage) = state { Some(usage) } else { None };
        self.note(&reservation, usage, &before, now);
        self.keep(reservation.clone());
        Ok(Closed { reservation, alerts: Vec::new() })
    }

    fn note(&mut self, reservation: &Reservation, usage: Option<Usage>, charged_before: &[Amount], now: Timestamp) {
        let before_of = |index: usize| charged_before.get(index).copied().unwrap_or(Amount::ZERO);
        let parts = reservation.parts.iter().enumerate();
        let limits = parts.map(|(index, part)| (part.limit.clone(), part.unit, part.charged, before_of(index)));
        let limits = limits.filter(|(_, _, charged, before)| charged != before).collect::<Vec<_>>();
        if usage.is_some() || !limits.is_empty() {
            let spending = Arc::clone(&reservation.spending);
            self.changed.entries.push(Entry { at: now, spending, usage, limits });
        }
    }

    fn overdue_alerts(&mut self, charges: &[Charge], shortfalls: &[Shortfall], now: Timestamp) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for charge in shortfalls.iter().filter_map(|short| charges.get(short.charge)) {
            let key = charge.key();
            if let Some(meter) = self.meters.get_mut(&key).filter(|_| !charge.limit.warn_at.is_empty()) {
                meter.advance(&charge.limit, now);
                if let Some(alert) = alert(meter, charge, now) {
                    alerts.push(alert);
                    self.changed.meters.insert(key);
                }
            }
        }
        alerts
    }

    /// The meter of a charge, at `now`.
    fn meter(&mut self, charge: &Charge, now: Timestamp) -> &mut Meter {
        let key = charge.key();
        self.changed.meters.insert(key.clone());
        let meter = self.meters.entry(key).or_insert_with(|| Meter::new(&charge.limit, now));
        meter.advance(&charge.limit, now);
        meter
    }

    fn undo(&mut self, parts: &[Part], now: Timestamp) {
        for part in parts {
            if let Some(meter) = self.meters.get_mut(&part.meter) {
                let mark = meter.close(part.mark, part.held, Amount::ZERO, now);
                meter.recharge(mark, part.charged, Amount::ZERO, now);
            }
        }
    }

    fn keep(&mut self, reservation: Reservation) {
        self.changed.reservations.insert(reservation.id);
        self.recall(reservation);
    }

    /// Takes in a reservation that a store had kept.
    pub fn recall(&mut self, reservation: Reservation) {
        let id = reservation.id;
        self.due.insert((reservation.due_at, id));
        if let Some(idempotency) = &reservation.idempotency {
            self.keys.insert(idempotency.key.clone(), id);
        }
        self.reservations.insert(id, reservation);
    }

    /// Takes in a meter that a store had kept.
    pub fn restore(&mut self, key: MeterKey, meter: Meter) {
        self.meters.insert(key, meter);
    }

    /// Lets go of a reservation: its store keeps it, or it is long over.
    pub fn forget(&mut self, id: ReservationId) -> Option<Reservation> {
        let reservation = self.reservations.remove(&id)?;
        self.due.remove(&(reservation.due_at, id));
        if let Some(idempotency) = &reservation.idempotency {
            self.keys.remove(&idempotency.key);
        }
        Some(reservation)
    }

    /// A reservation that is known here.
    #[must_use]
    pub fn reservation(&self, id: ReservationId) -> Option<&Reservation> {
        self.reservations.get(&id)
    }

    /// The reservation whose client named it so.
    #[must_use]
    pub fn named(&self, key: &str) -> Option<&Reservation> {
        self.reservations.get(self.keys.get(key)?)
    }

    /// Keeps what was answered, for when the same is asked again.
    pub fn answered(&mut self, id: ReservationId, answer: Arc<[u8]>) {
        if let Some(idempotency) = self.reservations.get_mut(&id).and_then(|found| found.idempotency.as_mut()) {
            idempotency.answer = Some(answer);
            self.changed.reservations.insert(id);
        }
    }

    /// A meter as it was last left.
    #[must_use]
    pub fn peek(&self, key: &MeterKey) -> Option<&Meter> {
        self.meters.get(key)
    }

    /// Every meter, as it was last left.
    pub fn meters(&self) -> impl Iterator<Item = (&MeterKey, &Meter)> {
        self.meters.iter()
    }

    /// Every reservation that is known here.
    pub fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.reservations.values()
    }

    /// What changed since this was last asked.
    #[must_use]
    pub fn take_changes(&mut self) -> Changes {
        let changed = std::mem::take(&mut self.changed);
        let meters = changed.meters.into_iter().filter_map(|key| {
            let meter = self.meters.get(&key)?.clone();
            Some((key, meter))
        });
        let reservations = changed.reservations.iter().filter_map(|id| self.reservations.get(id)).cloned();
        Changes {
            meters: meters.collect(),
            reservations: reservations.collect(),
            forgotten: changed.forgotten,
            entries: changed.entries,
        }
    }
}

impl Ledger {
    /// Notes again what could not be written.
    pub fn put_back(&mut self, changes: Changes) {
        self.changed.meters.extend(changes.meters.into_iter().map(|(key, _)| key));
        self.changed.reservations.extend(changes.reservations.iter().map(|reservation| reservation.id));
        self.changed.forgotten.extend(changes.forgotten);
        let newer = std::mem::replace(&mut self.changed.entries, changes.entries);
        self.changed.entries.extend(newer);
    }
}

fn same_meter(one: &Charge, other: &Charge) -> bool {
    one.subject == other.subject && one.limit.series == other.limit.series
}

fn after(now: Timestamp, millis: i64) -> Timestamp {
    Timestamp::from_millis(now.as_millis().saturating_add(millis))
}

fn part(charge: &Charge, held: Amount, charged: Amount, mark: i64) -> Part {
    let (limit, unit) = (charge.limit.id.clone(), charge.limit.unit());
    Part { meter: charge.key(), limit, unit, held, charged, mark, on_expiry: charge.limit.on_expiry }
}

/// What a usage comes to on the meter of a part.
fn charged(part: &Part, usage: &Usage) -> Result<Amount, LedgerError> {
    match part.unit {
        Unit::Places => Ok(Amount::ZERO),
        // A request is one whatever it used, unless its caller tells how many it was.
        Unit::Requests if usage.requests == 0 => Ok(part.held),
        Unit::Usd => usage.usd.ok_or(LedgerError::CostUnknown),
        unit => usage.of(unit).ok_or(LedgerError::Overflow),
    }
}

fn at_expiry(part: &Part) -> Amount {
    match (part.unit, part.on_expiry) {
        (Unit::Places, _) | (_, OnExpiry::Release) => Amount::ZERO,
        (_, OnExpiry::Charge) => part.held,
    }
}

fn alert(meter: &mut Meter, charge: &Charge, now: Timestamp) -> Option<Alert> {
    let percent = meter.warn(&charge.limit, now)?;
    let standing = meter.standing(&charge.limit, now);
    let (limit, unit) = (charge.limit.id.clone(), charge.limit.unit());
    Some(Alert { limit, subject: charge.subject.clone(), percent, unit, standing })
}
