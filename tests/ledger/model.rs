//! The ledger once more, as plainly as it can be said: lists of all that happened on each meter, and every sum taken over
//! them when it is asked for. Nothing is kept up to date, nothing is rounded but where the contract says so.

use std::collections::BTreeMap;

use tollgate::Timestamp;
use tollgate::meter::{Charge, Limit, MEMORY_MS, Measure, MeterKey, Mode, OnExpiry, ReservationId, State, Usage};
use tollgate::model::{Amount, Every, Period, Unit, Window};

pub const MOST: i128 = i64::MAX as i128;
const SLICES: i64 = 64;

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub logs: BTreeMap<MeterKey, Log>,
    pub made: BTreeMap<ReservationId, Made>,
}

/// All that happened on one meter.
#[derive(Debug, Clone)]
pub struct Log {
    pub limit: Limit,
    /// The latest instant at which something happened: time does not run backwards.
    pub clock: i64,
    /// Windows of a budget, as they were opened, with what was carried into each.
    pub windows: Vec<(Window, i128)>,
    /// What flows out of a rate, and from when.
    pub flows: Vec<(i64, i128)>,
    pub items: Vec<Item>,
    /// What came into a rate, and went out of it by correction.
    pub poured: Vec<(i64, i128)>,
    /// The highest cap that something was granted under in the current window, and what came beyond what was granted.
    pub peak: i128,
    pub excess: i128,
    pub told: u8,
    /// When it was seen last that the rate is another.
    pub changed_at: i64,
}

/// A part of a reservation.
#[derive(Debug, Clone)]
pub struct Item {
    pub id: ReservationId,
    pub part: usize,
    pub asked: i128,
    pub held: i128,
    pub charged: i128,
    /// When it came into the meter: when held, and where only the end tells how much it was, at its end.
    pub at: i64,
    pub window: usize,
    /// What was charged when the rest had left a rolling window.
    pub late: Option<(i64, i128)>,
}

#[derive(Debug, Clone)]
pub struct Made {
    pub parts: Vec<(MeterKey, Unit, i128, OnExpiry)>,
    pub charged: Vec<i128>,
    pub state: State,
    pub due: i64,
    /// Whether the ledger has it; else its store.
    pub known: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stands {
    pub cap: i128,
    pub used: i128,
    pub held: i128,
}

pub fn number(amount: Amount) -> i128 {
    i128::from(amount.get())
}

pub fn cap_at(limit: &Limit, now: i64) -> i128 {
    number(limit.cap_at(Timestamp::from_millis(now)))
}

impl Log {
    pub fn new(limit: &Limit, now: i64) -> Self {
        let (windows, flows, items, poured) = Default::default();
        let limit_now = limit.clone();
        let (peak, excess, told, changed_at) = (0, 0, 0, now);
        let mut log =
            Log { limit: limit_now, clock: now, windows, flows, items, poured, peak, excess, told, changed_at };
        log.touch(limit, now);
        log
    }

    /// Something happens at `now`, under `limit`.
    pub fn touch(&mut self, limit: &Limit, now: i64) {
        let before = self.clock;
        self.clock = before.max(now);
        self.limit = limit.clone();
        match &limit.measure {
            Measure::Budget { period: Period::Calendar { every, zone }, carry_over_percent, .. } => {
                let over = |window: &Window| window.end.is_some_and(|end| now >= end.as_millis());
                if self.windows.last().is_none_or(|(window, _)| over(window)) {
                    let window = every.window(zone, Timestamp::from_millis(now));
                    let carried = self.carried_into(window, *every, i128::from(*carry_over_percent));
                    self.windows.push((window, carried));
                    (self.peak, self.excess, self.told) = (0, 0, 0);
                }
            }
            Measure::Rate { amount, .. } => {
                let flow = number(*amount);
                let last = self.flows.last().map(|(_, flow)| *flow);
                // Nobody knows when it changed: what the limit says now is taken since then.
                if last != Some(flow) {
                    self.flows.push((before, flow));
                    self.changed_at = self.clock;
                }
            }
            _ => {}
        }
    }

    fn carried_into(&self, window: Window, every: Every, percent: i128) -> i128 {
        let Some((last, carried)) = self.windows.last() else { return 0 };
        let Some(end) = last.end.filter(|_| every != Every::Total) else { return 0 };
        let cap = cap_at(&self.limit, window.start.max(end).as_millis() - 1);
        let taken = if window.start <= end { self.used() + self.held() - carried } else { 0 };
        (cap - taken.max(0)).max(0) * percent / 100
    }

    fn slice(&self, instant: i64) -> i64 {
        match &self.limit.measure {
            Measure::Budget { period: Period::Rolling(length), .. } => instant.div_euclid((length - 1) / SLICES + 1),
            _ => 0,
        }
    }

    pub fn every(&self) -> i128 {
        if let Measure::Rate { every_ms, .. } = self.limit.measure { i128::from(every_ms) } else { 1 }
    }

    pub fn is_certain(&self) -> bool {
        matches!(self.limit.measure, Measure::Rate { unit: Unit::Requests, .. })
    }

    fn is_current(&self, instant: i64) -> bool {
        self.slice(instant) + SLICES >= self.slice(self.clock)
    }

    fn in_window(&self, item: &Item) -> bool {
        item.window + 1 == self.windows.len()
    }

    pub fn used(&self) -> i128 {
        match &self.limit.measure {
            Measure::Budget { period: Period::Calendar { .. }, .. } => {
                self.items.iter().filter(|item| self.in_window(item)).map(|item| item.charged).sum()
            }
            Measure::Budget { .. } => {
                let charged = self.items.iter().map(|item| (item.at, item.charged));
                let late = self.items.iter().filter_map(|item| item.late);
                charged.chain(late).filter(|(at, _)| self.is_current(*at)).map(|(_, amount)| amount).sum()
            }
            Measure::Rate { .. } => (self.level() + self.every() - 1) / self.every(),
            Measure::Concurrency => 0,
        }
    }

    pub fn held(&self) -> i128 {
        let counts = |item: &&Item| self.windows.is_empty() || self.in_window(item);
        let held = self.items.iter().filter(counts).map(|item| item.held).sum();
        if self.is_certain() { 0 } else { held }
    }

    /// How much is in a rate's bucket, in `every_ms`-ths: all that came, less what flowed while there was something.
    pub fn level(&self) -> i128 {
        let (mut level, mut at) = (0_i128, self.flows[0].0);
        for (instant, poured) in self.poured.iter().copied().chain([(self.clock, 0)]) {
            level = (level - self.flown(at, instant)).max(0) + poured;
            at = instant;
        }
        level
    }

    pub fn flown(&self, from: i64, until: i64) -> i128 {
        let ends = self.flows.iter().skip(1).map(|(from, _)| *from).chain([i64::MAX]);
        let flows = self.flows.iter().zip(ends);
        flows.map(|((begins, flow), ends)| flow * i128::from((until.min(ends) - from.max(*begins)).max(0))).sum()
    }

    pub fn cap(&self, now: i64) -> i128 {
        (cap_at(&self.limit, now) + self.windows.last().map_or(0, |(_, carried)| *carried)).min(MOST)
    }

    pub fn stands(&self, now: i64) -> Stands {
        Stands { cap: self.cap(now), used: self.used(), held: self.held() }
    }

    fn fits(&self, amount: i128, now: i64) -> bool {
        let beyond_counting = self.used() + self.held() + amount > MOST;
        if self.limit.mode == Mode::Warn {
            return !beyond_counting;
        }
        if matches!(self.limit.measure, Measure::Rate { .. }) {
            return self.level() + (self.held() + amount) * self.every() <= self.cap(now) * self.every();
        }
        self.used() + self.held() + amount <= self.cap(now)
    }

    fn take(&mut self, id: ReservationId, part: usize, amount: i128, granted_until: Option<i128>) {
        match granted_until {
            Some(cap) => self.peak = self.peak.max(cap),
            None => self.excess += amount,
        }
        if self.is_certain() {
            self.poured.push((self.clock, amount * self.every()));
        }
        let (at, window) = (self.clock, self.windows.len().saturating_sub(1));
        self.items.push(Item { id, part, asked: amount, held: amount, charged: 0, at, window, late: None });
    }

    /// Charges a part, whether it is held or was charged before.
    fn charge(&mut self, id: ReservationId, part: usize, before: State, charged: i128, now: i64) {
        if self.windows.is_empty() {
            self.clock = self.clock.max(now);
        }
        let was_open = before == State::Open;
        let Some(index) = self.items.iter().position(|item| (item.id, item.part) == (id, part)) else { return };
        let Item { held, charged: had, at, .. } = self.items[index].clone();
        let had = if was_open && self.is_certain() { held } else { had };
        if matches!(self.limit.measure, Measure::Rate { .. }) && (self.is_certain() || !was_open) {
            self.correct(at, had, charged);
        } else if self.flows.is_empty() {
            let granted = if was_open { held } else { had };
            self.excess += if self.in_window(&self.items[index]) { (charged - granted).max(0) } else { 0 };
        } else {
            self.poured.push((self.clock, charged * self.every()));
        }
        let gone = !was_open && !self.is_current(at);
        let clock = self.clock;
        let stays = self.is_certain() || !self.windows.is_empty();
        let item = &mut self.items[index];
        item.held = 0;
        if was_open && !stays {
            item.at = clock;
        }
        if gone {
            item.late = Some((clock, (charged - had).max(0)));
        } else {
            item.charged = charged;
        }
    }

    /// Of what flowed out since it came, and of what came while the rate was another, nothing goes back.
    fn correct(&mut self, at: i64, before: i128, after: i128) {
        let back = before * self.every() - (after * self.every()).max(self.flown(at, self.clock));
        let poured = match after >= before {
            true => (after - before) * self.every(),
            false if at >= self.changed_at => -back.max(0).min(self.level()),
            false => 0,
        };
        self.poured.push((self.clock, poured));
    }
}

impl Model {
    /// The log of a charge's meter, as if something happened now.
    pub fn log(&self, charge: &Charge, now: i64) -> Log {
        match self.logs.get(&charge.key()) {
            Some(log) => {
                let mut log = log.clone();
                log.touch(&charge.limit, now);
                log
            }
            None => Log::new(&charge.limit, now),
        }
    }

    pub fn touch(&mut self, charge: &Charge, now: i64) -> &mut Log {
        let log = self.log(charge, now);
        let place = self.logs.entry(charge.key()).insert_entry(log);
        place.into_mut()
    }

    /// Which charges do not fit.
    pub fn shortfalls(&self, charges: &[Charge], now: i64) -> Vec<usize> {
        let short = |index: &usize| {
            let key = charges[*index].key();
            let same = charges[..=*index].iter().filter(|other| other.key() == key);
            // A limit that refuses has room for the least there can be, also for a hold of nothing.
            let least = |other: &Charge| i128::from(other.limit.mode == Mode::Enforce);
            let amount = same.map(|other| number(other.amount).max(least(other))).sum();
            !self.log(&charges[*index], now).fits(amount, now)
        };
        (0..charges.len()).filter(short).collect()
    }

    /// Whether all that is charged can be counted.
    pub fn counts(&self, charges: &[Charge], now: i64) -> bool {
        let warned = |charge: &Charge| {
            let limit = Limit { mode: Mode::Warn, ..(*charge.limit).clone() };
            Charge { limit: limit.into(), ..charge.clone() }
        };
        self.shortfalls(&charges.iter().map(warned).collect::<Vec<_>>(), now).is_empty()
    }

    pub fn hold(&mut self, id: ReservationId, charges: &[Charge], due: i64, now: i64) {
        for (index, charge) in charges.iter().enumerate() {
            let log = self.touch(charge, now);
            let cap = (log.limit.mode == Mode::Enforce).then(|| log.cap(now));
            log.take(id, index, number(charge.amount), cap);
        }
        let part = |charge: &Charge| (charge.key(), charge.limit.unit(), number(charge.amount), charge.limit.on_expiry);
        let (parts, charged) = (charges.iter().map(part).collect(), vec![0; charges.len()]);
        self.made.insert(id, Made { parts, charged, state: State::Open, due, known: true });
    }

    pub fn record(&mut self, id: ReservationId, charges: &[Charge], usage: Usage, now: i64) {
        let charged = charges.iter().map(|charge| match charge.limit.unit() {
            Unit::Places => 0,
            _ => number(charge.amount),
        });
        let charged: Vec<i128> = charged.collect();
        for (index, charge) in charges.iter().enumerate() {
            let log = self.touch(charge, now);
            log.take(id, index, number(charge.amount), None);
            log.charge(id, index, State::Open, charged[index], now);
        }
        let part = |charge: &Charge| (charge.key(), charge.limit.unit(), 0, charge.limit.on_expiry);
        let parts = charges.iter().map(part).collect();
        let made =
            Made { parts, charged, state: State::Settled(usage), due: now.saturating_add(MEMORY_MS), known: true };
        self.made.insert(id, made);
    }

    pub fn known(&self, id: ReservationId) -> Option<&Made> {
        self.made.get(&id).filter(|made| made.known)
    }

    pub fn end(&mut self, id: ReservationId, state: State, charged: Vec<i128>, now: i64) {
        let made = self.made.get_mut(&id).expect("it was made");
        for (index, (key, ..)) in made.parts.iter().enumerate() {
            if let Some(log) = self.logs.get_mut(key) {
                log.charge(id, index, made.state, charged[index], now);
            }
        }
        (made.state, made.charged, made.due) = (state, charged, now.saturating_add(MEMORY_MS));
    }

    /// Whom an expiry until `now` is about, in its order.
    pub fn due(&self, now: i64) -> Vec<ReservationId> {
        self.due_where(true, now)
    }

    /// The same of what only a store has; it is forgotten there.
    pub fn due_in_store(&mut self, now: i64) -> Vec<ReservationId> {
        let due = self.due_where(false, now);
        due.iter().for_each(|id| drop(self.made.remove(id)));
        due
    }

    fn due_where(&self, known: bool, now: i64) -> Vec<ReservationId> {
        let due = self.made.iter().filter(|(_, made)| made.known == known && made.due <= now);
        let mut due: Vec<(i64, ReservationId)> = due.map(|(id, made)| (made.due, *id)).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    pub fn expire(&mut self, id: ReservationId, now: i64) {
        let made = &self.made[&id];
        if made.state != State::Open {
            self.made.remove(&id);
            return;
        }
        let charged = made.parts.iter().map(|(_, unit, held, on_expiry)| match (unit, on_expiry) {
            (Unit::Places, _) | (_, OnExpiry::Release) => 0,
            (_, OnExpiry::Charge) => *held,
        });
        let charged = charged.collect();
        self.end(id, State::Expired, charged, now);
    }
}

/// What a usage comes to on a part; an error where nobody knows.
pub fn charged(unit: Unit, usage: &Usage) -> Option<i128> {
    match unit {
        Unit::Places => Some(0),
        Unit::Requests => Some(i128::from(usage.requests)),
        Unit::Usd => usage.usd.map(number),
        Unit::Tokens => Some(i128::from(usage.input_tokens) + i128::from(usage.output_tokens)),
        Unit::InputTokens => Some(i128::from(usage.input_tokens)),
        Unit::OutputTokens => Some(i128::from(usage.output_tokens)),
    }
}
