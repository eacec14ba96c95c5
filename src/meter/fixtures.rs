//! Limits and holds for the tests of this folder.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::*;
use crate::model::{Amount, Every, Period, Timestamp, Unit};

pub fn amount(number: u64) -> Amount {
    Amount::new(number).unwrap()
}

pub fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

pub fn ms(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub fn limit(id: &str, measure: Measure, cap: u64) -> Limit {
    Limit {
        id: id.into(),
        series: id.into(),
        measure,
        cap: amount(cap),
        overrides: Box::new([]),
        warn_at: Box::new([]),
        mode: Mode::Enforce,
        on_expiry: OnExpiry::Charge,
        on_store_error: OnStoreError::Forbid,
        durability: Durability::Sync,
        unpriced: Unpriced::Forbid,
        on_missing_usage: OnMissingUsage::ChargeHold,
        lease: None,
    }
}

pub fn budget(id: &str, every: Every, cap: u64) -> Limit {
    let period = Period::Calendar { every, zone: TimeZone::UTC };
    limit(id, Measure::Budget { unit: Unit::Tokens, period, carry_over_percent: 0 }, cap)
}

pub fn carrying(id: &str, every: Every, cap: u64, percent: u8) -> Limit {
    let period = Period::Calendar { every, zone: TimeZone::UTC };
    limit(id, Measure::Budget { unit: Unit::Tokens, period, carry_over_percent: percent }, cap)
}

pub fn rolling(id: &str, length_ms: i64, cap: u64) -> Limit {
    let period = Period::Rolling(length_ms);
    limit(id, Measure::Budget { unit: Unit::Tokens, period, carry_over_percent: 0 }, cap)
}

pub fn rate(id: &str, unit: Unit, per_ms: (u64, u64), burst: u64) -> Limit {
    limit(id, Measure::Rate { unit, amount: amount(per_ms.0), every_ms: per_ms.1 }, burst)
}

pub fn places(id: &str, cap: u64) -> Limit {
    limit(id, Measure::Concurrency, cap)
}

pub fn charge(limit: &Limit, number: u64) -> Charge {
    Charge { limit: Arc::new(limit.clone()), subject: None, amount: amount(number) }
}

pub fn id(number: u8) -> ReservationId {
    ReservationId::from_bytes([number; 16])
}

pub fn hold(number: u8, charges: Vec<Charge>) -> Hold {
    let spending = Arc::new(Spending {
        principal: "User::\"alice\"".parse().unwrap(),
        resource: "Model::\"openai-main/gpt-4o\"".parse().unwrap(),
        permitted: Box::default(),
        price: None,
        if_unknown: Box::default(),
    });
    Hold { id: id(number), spending, charges, ttl_ms: DEFAULT_TTL_MS, idempotency: None, most_open: None }
}

/// `number` input tokens, or requests.
pub fn used(number: u64) -> Usage {
    Usage { requests: number, input_tokens: number, ..Usage::default() }
}

/// What is used and held of a limit.
pub fn stands(ledger: &Ledger, limit: &Limit, now: Timestamp) -> (u64, u64) {
    let standing = ledger.standings([&charge(limit, 0)], now)[0];
    (standing.used.get(), standing.held.get())
}
