//! Limits, subjects and instants to try a ledger with, and how they change.

use std::sync::Arc;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use tollgate::Timestamp;
use tollgate::meter::{
    Charge, Durability, Hold, Limit, Measure, Mode, OnExpiry, OnMissingUsage, OnStoreError, Override, ReservationId,
    Spending, Unpriced, Usage,
};
use tollgate::model::{Amount, Every, Period, Unit};

use crate::tape::Tape;

/// Nights on which clocks change, days that most years lack, edges of months and years, and before 1970.
pub const INSTANTS: &[&str] = &[
    "2026-03-28T23:30:00Z",
    "2026-10-24T21:59:59.999Z",
    "2026-03-08T06:59:00Z",
    "2018-11-04T02:59:59Z",
    "2026-04-04T14:59:00Z",
    "2011-12-30T09:59:59Z",
    "2010-11-07T02:29:59Z",
    "2028-02-28T23:59:59.999Z",
    "2027-12-31T22:59:00Z",
    "2026-01-30T12:00:00Z",
    "1969-12-31T23:59:59.500Z",
];

const ZONES: &[&str] = &[
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/St_Johns",
    "Asia/Kolkata",
];

/// A place of the bundle, with what may stand in it: each measure is a series of its own.
pub struct Slot {
    measures: Vec<Measure>,
    series: Vec<Arc<str>>,
    pub limit: Arc<Limit>,
    pub present: bool,
}

pub struct World {
    pub slots: Vec<Slot>,
    spending: Arc<Spending>,
}

pub fn amount(tape: &mut Tape) -> Amount {
    let most = Amount::MAX.get();
    let number = match tape.below(400) {
        0 => *tape.pick(&[most, most - 1, most / 2, most / 2 + 1]),
        1..120 => 1,
        120..140 => 0,
        _ => tape.below(60) as u64,
    };
    Amount::new(number).unwrap()
}

fn cap(tape: &mut Tape) -> Amount {
    let number = if tape.chance(2) { Amount::MAX.get() } else { tape.below(250) as u64 };
    Amount::new(number).unwrap()
}

fn measure(tape: &mut Tape) -> Measure {
    let money = *tape.pick(&[Unit::Usd, Unit::Tokens, Unit::InputTokens, Unit::OutputTokens]);
    let carry_over_percent = *tape.pick(&[0, 0, 0, 30, 100]);
    match tape.below(10) {
        0..5 => {
            let day = *tape.pick(&[1, 15, 29, 30, 31]);
            let every = *tape.pick(&[
                Every::Hour,
                Every::Hour,
                Every::Day,
                Every::Day,
                Every::Week(Weekday::Monday),
                Every::Week(Weekday::Sunday),
                Every::Month(day),
                Every::Month(day),
                Every::Quarter,
                Every::Year,
                Every::Total,
            ]);
            let zone = TimeZone::get(*tape.pick(ZONES)).unwrap();
            Measure::Budget { unit: money, period: Period::Calendar { every, zone }, carry_over_percent }
        }
        5..7 => {
            let length = *tape.pick(&[1, 63, 64, 65, 60_000, 3_600_000, 86_400_000]);
            Measure::Budget { unit: money, period: Period::Rolling(length), carry_over_percent: 0 }
        }
        7..9 => {
            let unit = *tape.pick(&[Unit::Requests, Unit::Requests, Unit::Tokens]);
            let every_ms = *tape.pick(&[1, 7, 1000, 60_000, 86_400_000]);
            Measure::Rate { unit, amount: flow(tape), every_ms }
        }
        _ => Measure::Concurrency,
    }
}

fn flow(tape: &mut Tape) -> Amount {
    Amount::new(1 + tape.below(100) as u64).unwrap()
}

impl Slot {
    fn new(tape: &mut Tape, number: usize) -> Self {
        let measures: Vec<Measure> = (0..2).map(|_| measure(tape)).collect();
        let series: Vec<Arc<str>> = (0..2).map(|other| format!("l{number}:{other}").into()).collect();
        let limit = Limit {
            id: format!("l{number}").into(),
            series: Arc::clone(&series[0]),
            measure: measures[0].clone(),
            cap: cap(tape),
            overrides: Box::new([]),
            warn_at: Box::new([]),
            mode: Mode::Enforce,
            on_expiry: OnExpiry::Charge,
            on_store_error: OnStoreError::Forbid,
            durability: Durability::Sync,
            unpriced: Unpriced::Forbid,
            on_missing_usage: OnMissingUsage::ChargeHold,
            lease: None,
        };
        let mut slot = Self { measures, series, limit: limit.into(), present: true };
        (0..3).for_each(|_| slot.change(tape, 0));
        slot
    }

    /// What a reload may change.
    fn change(&mut self, tape: &mut Tape, now: i64) {
        let mut limit = (*self.limit).clone();
        match tape.below(9) {
            0 | 1 => limit.cap = cap(tape),
            2 => {
                let mut near = || Timestamp::from_millis(now + (tape.below(8_000_000) as i64) - 2_000_000);
                let (from, until) = (near(), near());
                let from = tape.chance(50).then_some(from);
                limit.overrides = Box::new([Override { cap: cap(tape), flow: None, from, until }]);
            }
            3 => limit.warn_at = (*tape.pick(&[&[] as &[u8], &[50], &[50, 80, 100]])).into(),
            4 => limit.mode = if tape.chance(70) { Mode::Enforce } else { Mode::Warn },
            5 => limit.on_expiry = *tape.pick(&[OnExpiry::Charge, OnExpiry::Release]),
            6 => match &mut limit.measure {
                Measure::Rate { amount, .. } => *amount = flow(tape),
                Measure::Budget { carry_over_percent, period: Period::Calendar { .. }, .. } => {
                    *carry_over_percent = *tape.pick(&[0, 30, 100]);
                }
                _ => {}
            },
            7 => {
                let other = tape.below(self.measures.len());
                (limit.measure, limit.series) = (self.measures[other].clone(), Arc::clone(&self.series[other]));
            }
            _ => self.present = !self.present,
        }
        self.limit = limit.into();
    }
}

impl World {
    pub fn new(tape: &mut Tape) -> Self {
        let slots = (0..1 + tape.below(6)).map(|number| Slot::new(tape, number)).collect();
        let spending = Spending {
            principal: "User::\"alice\"".parse().unwrap(),
            resource: "Model::\"openai-main/gpt-4o\"".parse().unwrap(),
            permitted: Box::default(),
            price: None,
            if_unknown: Box::default(),
        };
        Self { slots, spending: spending.into() }
    }

    pub fn reload(&mut self, tape: &mut Tape, now: i64) {
        let slot = tape.below(self.slots.len());
        self.slots[slot].change(tape, now);
    }

    /// Charges on the limits that there are, sometimes twice on one meter.
    pub fn charges(&self, tape: &mut Tape) -> Vec<Charge> {
        let present: Vec<&Slot> = self.slots.iter().filter(|slot| slot.present).collect();
        let mut charges: Vec<Charge> = Vec::new();
        let count = if present.is_empty() { 0 } else { 1 + tape.below(5) };
        for _ in 0..count {
            let limit = Arc::clone(&tape.pick(&present).limit);
            let subject = tape.pick(&[None, Some("User::\"alice\""), Some("User::\"bob@corp.example\"")]);
            let charge = Charge { limit, subject: subject.map(Into::into), amount: amount(tape) };
            let twice = charges.iter().any(|other| other.key() == charge.key());
            if !twice || tape.chance(10) {
                charges.push(charge);
            }
        }
        charges
    }

    pub fn hold(&self, tape: &mut Tape, id: ReservationId) -> Hold {
        let charges = self.charges(tape);
        let ttl_ms = *tape.pick(&[0, 1, 1000, 60_000, 600_000, 3_600_000, 100_000_000]);
        let key = |tape: &mut Tape| (format!("key{}", tape.below(20)).into(), [7; 32]);
        let idempotency = tape.chance(20).then(|| key(tape));
        let most_open = tape.chance(10).then(|| tape.below(60));
        Hold { id, spending: Arc::clone(&self.spending), charges, ttl_ms, idempotency, most_open }
    }
}

pub fn usage(tape: &mut Tape) -> Usage {
    let usd = tape.chance(95).then(|| amount(tape));
    let (requests, input_tokens, output_tokens) =
        (*tape.pick(&[0, 0, 1, 1, 3]), amount(tape).get(), amount(tape).get());
    Usage { requests, input_tokens, output_tokens, usd, ..Usage::default() }
}
