//! What every store of meters keeps to, and what those that last keep through crashes and damage.

#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it sets up a world of its own, and fails by panicking"
)]

mod books;
mod contract;
mod embedded;
mod embedded_log;
mod fallback;
mod leases;
mod passwords;
mod redis;
mod redis_like_memory;
mod redis_server;
mod tokens;

use std::sync::Arc;

use tollgate::gate::Later;
use tollgate::meter::{
    Charge, Durability, Hold, Limit, Measure, Mode, OnExpiry, OnMissingUsage, OnStoreError, ReservationId, Spending,
    Unpriced, Usage,
};
use tollgate::model::{Amount, Every, Period, Timestamp, Unit};

/// 2026-03-10T12:00:00Z.
pub const NOON: i64 = 1_773_144_000_000;

pub fn at(millis_after_noon: i64) -> Timestamp {
    Timestamp::from_millis(NOON + millis_after_noon)
}

pub fn wait<T: Unpin>(later: Later<T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(later)
}

pub fn amount(number: u64) -> Amount {
    Amount::new(number).unwrap()
}

pub fn limit(id: &str, measure: Measure, cap: u64) -> Arc<Limit> {
    Arc::new(Limit {
        id: id.into(),
        series: format!("{id}|{measure:?}").into(),
        measure,
        cap: amount(cap),
        overrides: Box::default(),
        warn_at: Box::default(),
        mode: Mode::Enforce,
        on_expiry: OnExpiry::Charge,
        on_store_error: OnStoreError::Forbid,
        durability: Durability::Sync,
        unpriced: Unpriced::Forbid,
        on_missing_usage: OnMissingUsage::ChargeHold,
        lease: None,
    })
}

pub fn daily(id: &str, cap: u64) -> Arc<Limit> {
    let period = Period::Calendar { every: Every::Day, zone: jiff::tz::TimeZone::UTC };
    limit(id, Measure::Budget { unit: Unit::Tokens, period, carry_over_percent: 0 }, cap)
}

pub fn charge(limit: &Arc<Limit>, subject: &str, number: u64) -> Charge {
    Charge { limit: Arc::clone(limit), subject: Some(subject.into()), amount: amount(number) }
}

pub fn id(number: u128) -> ReservationId {
    ReservationId::new(at(0), number)
}

pub fn hold(number: u128, charges: &[Charge]) -> Hold {
    let spending = Spending {
        principal: "User::\"alice\"".parse().unwrap(),
        resource: "Model::\"openai-main/gpt-4o\"".parse().unwrap(),
        permitted: Box::default(),
        price: None,
        if_unknown: Box::default(),
    };
    Hold {
        id: id(number),
        spending: Arc::new(spending),
        charges: charges.to_vec(),
        ttl_ms: 60_000,
        idempotency: None,
        most_open: None,
    }
}

pub fn tokens(number: u64) -> Usage {
    Usage { requests: 1, input_tokens: number, ..Usage::default() }
}
