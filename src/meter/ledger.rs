//! The ledger: holds on many meters at once or on none, settles, gives back, lets expire, each exactly once.
//!
//! It does what it is told at the instant it is told, and notes what changed, so that a store can write just that.

use std::sync::Arc;

pub use super::answer::{Alert, Cause, Closed, Held, Hold, LedgerError, Refused, Shortfall};
use super::book::Book;
use super::changes::{Changed, Changes};
use super::meter::{Lack, Meter, Standing};
use super::meters::Meters;
use super::price::Usage;
use super::reservation::{Charge, Idempotency, MEMORY_MS, MeterKey, Part, Reservation, ReservationId, State};
use crate::model::limit::OnExpiry;
use crate::model::{Amount, Timestamp, Unit};

/// How many reservations may be open at a time where nobody says otherwise: at about half a kilobyte each, 2 GB.
pub const DEFAULT_MOST_OPEN: usize = 4_000_000;

/// The default maximum number of open reservations of one principal.
pub const DEFAULT_MOST_OPEN_OF_PRINCIPAL: usize = 10_000;

/// Meters, and what is held on them.
#[derive(Debug, Clone)]
pub struct Ledger {
    meters: Meters,
    book: Book,
    changed: Changed,
    most_open: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::with_most_open(DEFAULT_MOST_OPEN)
    }
}

impl Ledger {
    /// One that lets so many reservations be open at a time.
    #[must_use]
    pub fn with_most_open(most_open: usize) -> Self {
        Self { meters: Meters::default(), book: Book::default(), changed: Changed::default(), most_open }
    }

    /// One of whose changes nobody asks for more than what was spent: [`Ledger::take_changes`] has nothing else.
    #[must_use]
    pub fn unwritten() -> Self {
        let changed = Changed { unasked: true, ..Changed::default() };
        Self { meters: Meters::unasked(), changed, ..Self::default() }
    }

    /// Where the meters of `charges` stand, without touching them.
    #[must_use]
    pub fn standings<'a>(&self, charges: impl IntoIterator<Item = &'a Charge>, now: Timestamp) -> Vec<Standing> {
        charges.into_iter().map(|charge| self.at(charge, now).standing(&charge.limit, now)).collect()
    }

    /// Where the meters of `charges` stand and whether the amounts fit, without touching them. A limit that does not refuse
    /// has room for all that can be counted.
    #[must_use]
    pub fn look(&self, charges: &[Charge], now: Timestamp) -> Vec<(Standing, Option<Lack>)> {
        charges.iter().enumerate().map(|(index, charge)| self.look_at(charges, index, charge, now)).collect()
    }

    fn look_at(&self, all: &[Charge], index: usize, charge: &Charge, now: Timestamp) -> (Standing, Option<Lack>) {
        let meter = self.at(charge, now);
        let lack = lack(all, index, &meter, now);
        (meter.standing(&charge.limit, now), lack)
    }

    /// Which of `charges` have no room, without touching a meter.
    #[must_use]
    pub fn shortfalls(&self, charges: &[Charge], now: Timestamp) -> Vec<Shortfall> {
        let short = |(index, charge): (usize, &Charge)| {
            let meter = self.at(charge, now);
            let lack = lack(charges, index, &meter, now)?;
            Some(Shortfall { charge: index, standing: meter.standing(&charge.limit, now), lack })
        };
        charges.iter().enumerate().filter_map(short).collect()
    }

    /// The meter of a charge as it is at `now`.
    fn at(&self, charge: &Charge, now: Timestamp) -> Meter {
        match self.meters.of(charge) {
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
        if let Some(cause) = self.keeps_from_holding(&hold) {
            return Err(Refused { cause: Some(cause), ..Refused::default() });
        }
        let shortfalls = self.shortfalls(&hold.charges, now);
        if !shortfalls.is_empty() {
            let short = shortfalls.iter().filter_map(|short| hold.charges.get(short.charge));
            let alerts = self.warn(short, now);
            return Err(Refused { cause: None, shortfalls, alerts });
        }
        let mut parts = Vec::with_capacity(hold.charges.len());
        let (mut standings, mut alerts) = (Vec::with_capacity(hold.charges.len()), Vec::new());
        for charge in &hold.charges {
            self.touch(charge, now, |meter| {
                // INVARIANT: what could not be counted was a shortfall.
                let mark = meter.hold(charge.amount).unwrap_or_default();
                parts.push(part(charge, charge.amount, Amount::ZERO, mark));
                alerts.extend(alert(meter, charge, now));
                standings.push(meter.standing(&charge.limit, now));
            });
        }
        let expires_at = after(now, hold.ttl_ms);
        self.keep(reservation(hold, parts, State::Open, now, expires_at));
        Ok(Held { expires_at, standings, alerts })
    }

    fn keeps_from_holding(&self, hold: &Hold) -> Option<Cause> {
        if self.book.get(hold.id).is_some() {
            return Some(Cause::NameTaken);
        }
        if self.book.open() >= self.most_open {
            return Some(Cause::TooManyOpen);
        }
        let is_one_too_many = |most: usize| self.book.open_of(&hold.spending.principal) >= most;
        hold.most_open.is_some_and(is_one_too_many).then_some(Cause::TooManyOfPrincipal)
    }

    /// Charges what was spent without a reservation: in full, whatever there is room for.
    ///
    /// # Errors
    /// Where amounts are beyond what can be counted, or its name is known; then nothing is charged.
    pub fn record(&mut self, hold: Hold, usage: Usage, now: Timestamp) -> Result<Closed, LedgerError> {
        if let Some(known) = self.book.get(hold.id) {
            return Err(LedgerError::Closed(known.state));
        }
        let counts = |(index, charge): (usize, &Charge)| {
            with_earlier(&hold.charges, index, |charge| charge.amount)
                .is_some_and(|amount| self.at(charge, now).has_space(amount))
        };
        if !hold.charges.iter().enumerate().all(counts) {
            return Err(LedgerError::Overflow);
        }
        let (mut parts, mut alerts) = (Vec::with_capacity(hold.charges.len()), Vec::new());
        for charge in &hold.charges {
            let charged = if charge.limit.unit() == Unit::Places { Amount::ZERO } else { charge.amount };
            self.touch(charge, now, |meter| {
                let mark = meter.hold(charge.amount).unwrap_or_default();
                let mark = meter.close(mark, charge.amount, charged, now);
                parts.push(part(charge, Amount::ZERO, charged, mark));
                alerts.extend(alert(meter, charge, now));
            });
        }
        let reservation = reservation(hold, parts, State::Settled(usage), now, after(now, MEMORY_MS));
        self.changed.note(&reservation, Some(usage), |_| Amount::ZERO, now);
        self.keep(reservation.clone());
        Ok(Closed { reservation, alerts })
    }

    /// Charges what a request used, and gives back the rest of what it held. The same again changes nothing; what was
    /// charged when nobody settled in time is corrected.
    ///
    /// # Errors
    /// Where it is unknown, was settled with another usage or released before, or its amounts are beyond what can be
    /// counted; then nothing is charged.
    pub fn settle(&mut self, id: ReservationId, usage: Usage, now: Timestamp) -> Result<Closed, LedgerError> {
        let reservation = self.book.get(id).ok_or(LedgerError::Unknown)?;
        match reservation.state {
            State::Settled(before) if before == usage => {
                return Ok(Closed { reservation: reservation.clone(), alerts: Vec::new() });
            }
            State::Settled(_) | State::UsageUnknown | State::Released => {
                return Err(LedgerError::Closed(reservation.state));
            }
            State::Open | State::Expired => {}
        }
        // What was left out is told before what cannot be counted, in whatever order the limits stand.
        if usage.usd.is_none() && reservation.parts.iter().any(|part| part.unit == Unit::Usd) {
            return Err(LedgerError::CostUnknown);
        }
        let charged: Result<Vec<Amount>, LedgerError> =
            reservation.parts.iter().map(|part| charged(part, &usage)).collect();
        let charged = charged?;
        if !self.can_charge(reservation, &charged) {
            return Err(LedgerError::Overflow);
        }
        self.end(id, State::Settled(usage), |index, _| charged.get(index).copied().unwrap_or_default(), now);
        self.closed(id)
    }

    /// Charges each part of a reservation the amount for unknown usage. Repeating the call changes nothing.
    ///
    /// # Errors
    /// Returns the errors of [`Ledger::settle`], and one if `charged` does not have an amount for each part.
    pub fn settle_unknown(
        &mut self,
        id: ReservationId,
        charged: &[Amount],
        now: Timestamp,
    ) -> Result<Closed, LedgerError> {
        let reservation = self.book.get(id).ok_or(LedgerError::Unknown)?;
        match reservation.state {
            State::UsageUnknown => return self.closed(id),
            State::Settled(_) | State::Released => return Err(LedgerError::Closed(reservation.state)),
            State::Open | State::Expired => {}
        }
        let of = |(part, charged): (&Part, &Amount)| if part.unit == Unit::Places { Amount::ZERO } else { *charged };
        let all = charged.len() == reservation.parts.len();
        let charged: Vec<Amount> = reservation.parts.iter().zip(charged).map(of).collect();
        if !all || !self.can_charge(reservation, &charged) {
            return Err(LedgerError::Overflow);
        }
        self.end(id, State::UsageUnknown, |index, _| charged.get(index).copied().unwrap_or_default(), now);
        self.closed(id)
    }

    /// Gives back what a request held. The same again changes nothing; what was charged when nobody settled in time is
    /// given back too.
    ///
    /// # Errors
    /// Where it is unknown, or was settled before.
    pub fn release(&mut self, id: ReservationId, now: Timestamp) -> Result<Closed, LedgerError> {
        match self.book.get(id).ok_or(LedgerError::Unknown)?.state {
            State::Released => {}
            state @ (State::Settled(_) | State::UsageUnknown) => return Err(LedgerError::Closed(state)),
            State::Open | State::Expired => self.end(id, State::Released, |_, _| Amount::ZERO, now),
        }
        self.closed(id)
    }

    /// Lets it live until `ttl_ms` from now, if that is longer than it would.
    ///
    /// # Errors
    /// Where it is unknown, or over.
    pub fn extend(&mut self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Result<Timestamp, LedgerError> {
        let Reservation { state, due_at, .. } = *self.book.get(id).ok_or(LedgerError::Unknown)?;
        if state != State::Open {
            return Err(LedgerError::Closed(state));
        }
        let until = after(now, ttl_ms);
        if until > due_at {
            self.book.change(id, |reservation| reservation.due_at = until);
            self.changed.changed(id);
        }
        Ok(until.max(due_at))
    }

    /// Closes what nobody settled in time, and forgets what is long over: `most` of them at once. Returns how many.
    pub fn expire(&mut self, now: Timestamp, most: usize) -> usize {
        let mut done = 0;
        while done < most
            && let Some((due_at, id)) = self.book.first_due()
            && due_at <= now
        {
            done += 1;
            if self.book.get(id).is_some_and(|reservation| reservation.state == State::Open) {
                self.end(id, State::Expired, |_, part| at_expiry(part), now);
            } else {
                drop(self.book.remove(id));
                self.changed.forgot(id);
            }
        }
        done
    }

    /// Forgets meters that tell nothing any longer, looking at about `most` of them, others each time; best after
    /// [`Ledger::expire`]. Returns how many. Of a call that is open for more than a day and held nothing of a meter that
    /// nobody else touched since, that meter may then not count what it used.
    pub fn sweep(&mut self, now: Timestamp, most: usize) -> usize {
        let blank = self.meters.sweep(now, most);
        let count = blank.len();
        if !self.changed.unasked {
            self.changed.blank.extend(blank);
        }
        count
    }

    /// When the next reservation is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.book.first_due().map(|(due_at, _)| due_at)
    }

    /// Ends an open or expired reservation.
    fn end(&mut self, id: ReservationId, state: State, charge: impl Fn(usize, &Part) -> Amount, now: Timestamp) {
        let Self { meters, book, changed, .. } = self;
        book.change(id, |reservation| {
            let was_open = reservation.state == State::Open;
            let mut before = Vec::with_capacity(reservation.parts.len());
            for (index, part) in reservation.parts.iter_mut().enumerate() {
                let charged = charge(index, part);
                meters.change(&part.meter, |meter| {
                    if was_open {
                        part.mark = meter.close(part.mark, part.held, charged, now);
                    } else {
                        meter.recharge(part.mark, part.charged, charged, now);
                    }
                });
                before.push(std::mem::replace(&mut part.charged, charged));
            }
            reservation.state = state;
            reservation.due_at = after(now, MEMORY_MS);
            let usage = if let State::Settled(usage) = state { Some(usage) } else { None };
            changed.note(reservation, usage, |index| before.get(index).copied().unwrap_or_default(), now);
            changed.changed(id);
        });
    }

    fn closed(&self, id: ReservationId) -> Result<Closed, LedgerError> {
        let reservation = self.book.get(id).ok_or(LedgerError::Unknown)?.clone();
        Ok(Closed { reservation, alerts: Vec::new() })
    }

    /// Whether every meter can count what a reservation is charged instead of what counts of it now.
    fn can_charge(&self, reservation: &Reservation, charged: &[Amount]) -> bool {
        let now_counted = |part: &Part| if reservation.state == State::Open { part.held } else { part.charged };
        reservation.parts.iter().all(|part| {
            let Some(meter) = self.meters.get(&part.meter) else { return true };
            let same = reservation.parts.iter().zip(charged).filter(|(other, _)| other.meter == part.meter);
            let sums = same.into_iter().try_fold((Amount::ZERO, Amount::ZERO), |(before, after), (other, charged)| {
                Some((before.plus(now_counted(other))?, after.plus(*charged)?))
            });
            sums.is_some_and(|(before, after)| meter.can_count(part.mark, before, after))
        })
    }

    /// The percents that meters of `charges` have reached and nobody was told of, as after a call that used more than it
    /// had held; from now on somebody was.
    pub fn warn<'a>(&mut self, charges: impl IntoIterator<Item = &'a Charge>, now: Timestamp) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for charge in charges {
            if charge.limit.warn_at.is_empty() || self.meters.of(charge).is_none() {
                continue;
            }
            // Where there is none to tell, the meter stays as a store has it.
            let mut meter = self.at(charge, now);
            if let Some(alert) = alert(&mut meter, charge, now) {
                alerts.push(alert);
                self.touch(charge, now, |touched| *touched = meter);
            }
        }
        alerts
    }

    /// Changes the meter of a charge as it is at `now`.
    fn touch(&mut self, charge: &Charge, now: Timestamp, with: impl FnOnce(&mut Meter)) {
        self.meters.change_of(charge, now, |meter| {
            meter.advance(&charge.limit, now);
            with(meter);
        });
    }

    fn keep(&mut self, reservation: Reservation) {
        self.changed.changed(reservation.id);
        self.book.insert(reservation);
    }

    /// Takes in a reservation that a store had kept.
    pub fn recall(&mut self, reservation: Reservation) {
        self.book.insert(reservation);
    }

    /// Takes in a meter that a store had kept.
    pub fn restore(&mut self, key: MeterKey, meter: Meter) {
        self.meters.restore(key, meter);
    }

    /// Lets go of a reservation: its store keeps it, or it is long over.
    // INVARIANT: its changes were taken before; what is not here any longer is not among the next ones.
    pub fn forget(&mut self, id: ReservationId) -> Option<Reservation> {
        self.book.remove(id)
    }

    /// Lets go of a meter, whatever it says: who kept it needs it no longer. What is held on it is charged nowhere then.
    pub fn forget_meter(&mut self, key: &MeterKey) {
        self.meters.forget(key);
    }

    /// Whether a reservation is closed, and as it was when changes were last taken.
    #[must_use]
    pub fn is_taken(&self, id: ReservationId) -> bool {
        let closed = self.book.get(id).is_some_and(|found| found.state != State::Open);
        closed && !self.changed.reservations.contains(&id)
    }

    /// A reservation that is known here.
    #[must_use]
    pub fn reservation(&self, id: ReservationId) -> Option<&Reservation> {
        self.book.get(id)
    }

    /// The reservation whose client named it so.
    #[must_use]
    pub fn named(&self, key: &str) -> Option<&Reservation> {
        self.book.named(key)
    }

    /// Keeps what was answered, for when the same is asked again; not of what was given back before anyone was told of it,
    /// whose key may name another. Whether it may be told.
    #[must_use]
    pub fn answered(&mut self, id: ReservationId, answer: Arc<[u8]>) -> bool {
        if self.book.get(id).is_some_and(Reservation::leaves_its_key) {
            return false;
        }
        let keep = |reservation: &mut Reservation| {
            if let Some(idempotency) = &mut reservation.idempotency {
                idempotency.answer = Some(answer);
            }
        };
        if self.book.change(id, keep).is_some() {
            self.changed.changed(id);
        }
        true
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

    /// A part of the meters, so that whoever looks through all of them can let others in between; `None` behind the last
    /// part.
    #[must_use]
    pub fn meters_in(&self, part: usize) -> Option<impl Iterator<Item = (&MeterKey, &Meter)>> {
        self.meters.in_table(part)
    }

    /// How many meters there are.
    #[must_use]
    pub fn meters_count(&self) -> usize {
        self.meters.len()
    }

    /// Every reservation that is known here.
    pub fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.book.iter()
    }

    /// How many reservations are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.book.open()
    }

    /// What changed since this was last asked.
    #[must_use]
    pub fn take_changes(&mut self) -> Changes {
        self.changed.take(&mut self.meters, &self.book)
    }
}

impl Ledger {
    /// Notes again what could not be written.
    pub fn put_back(&mut self, changes: Changes) {
        for (key, _) in &changes.meters {
            // One that was forgotten meanwhile is among the blank.
            let _noted = self.meters.change(key, |_| ());
        }
        self.changed.reservations.extend(changes.reservations.iter().map(|reservation| reservation.id));
        self.changed.forgotten.extend(changes.forgotten);
        self.changed.blank.extend(changes.blank);
        let newer = std::mem::replace(&mut self.changed.entries, changes.entries);
        self.changed.entries.extend(newer);
    }
}

/// What there is no room for on the meter of one of `charges`, beside what the earlier ones take of it; after
/// [`Meter::advance`]. A limit that does not refuse has room for all that can be counted.
#[must_use]
pub fn lack(charges: &[Charge], index: usize, meter: &Meter, now: Timestamp) -> Option<Lack> {
    let charge = charges.get(index)?;
    match with_earlier(charges, index, Charge::room_needed) {
        Some(amount) if charge.limit.is_enforced() => meter.room(&charge.limit, amount, now).err(),
        Some(amount) if meter.has_space(amount) => None,
        _ => Some(Lack { retry_at: None }),
    }
}

/// The amount of a charge with those of the earlier ones on the same meter; `None` beyond what can be counted.
fn with_earlier(charges: &[Charge], index: usize, amount: impl Fn(&Charge) -> Amount) -> Option<Amount> {
    let (charge, earlier) = (charges.get(index)?, charges.iter().take(index));
    // What sets them apart is looked at first.
    let same = |other: &&Charge| other.limit.series == charge.limit.series && other.subject == charge.subject;
    earlier.filter(same).try_fold(amount(charge), |sum, other| sum.plus(amount(other)))
}

fn after(now: Timestamp, millis: i64) -> Timestamp {
    Timestamp::from_millis(now.as_millis().saturating_add(millis))
}

fn reservation(hold: Hold, parts: Vec<Part>, state: State, now: Timestamp, due_at: Timestamp) -> Reservation {
    let idempotency = hold.idempotency.map(|(key, digest)| Idempotency { key, digest, answer: None });
    let Hold { id, spending, .. } = hold;
    Reservation { id, spending, parts: parts.into(), state, created_at: now, due_at, idempotency }
}

fn part(charge: &Charge, held: Amount, charged: Amount, mark: i64) -> Part {
    let (limit, unit) = (charge.limit.id.clone(), charge.limit.unit());
    Part { meter: charge.key(), limit, unit, held, charged, mark, on_expiry: charge.limit.on_expiry }
}

/// What a usage, whose cost is known where money is counted, comes to on the meter of a part.
fn charged(part: &Part, usage: &Usage) -> Result<Amount, LedgerError> {
    match part.unit {
        Unit::Places => Ok(Amount::ZERO),
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

#[cfg(test)]
mod tests;
