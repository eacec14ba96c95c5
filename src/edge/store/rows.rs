//! What stands in the rows: meters and reservations as JSON that people can read, times in milliseconds since 1970,
//! money in nano-dollars.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::meter::{
    Budget, Idempotency, Meter, MeterKey, OnExpiry, Part, Places, Price, Rate, Rates, Reservation, ReservationId,
    Rolling, Spending, State, Tier, Usage,
};
use crate::model::{Amount, EntityUid, Timestamp, Unit, Window};

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("`{0}` is out of range")]
    Range(&'static str),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum MeterRow {
    Budget { start: i64, end: Option<i64>, used: u64, held: u64, carried: u64, warned: u8, carries: bool },
    Rolling { slice_ms: i64, current: i64, used: Vec<(i64, u64)>, held: u64, warned: u8, warned_in: i64 },
    Rate { level_high: u64, level_low: u64, at: i64, since: i64, amount: u64, every_ms: u64, held: u64, certain: bool },
    Places { held: u64 },
}

pub(super) fn meter_text(meter: &Meter) -> String {
    let row = match meter {
        Meter::Budget(budget) => MeterRow::Budget {
            start: budget.window.start.as_millis(),
            end: budget.window.end.map(Timestamp::as_millis),
            used: budget.used.get(),
            held: budget.held.get(),
            carried: budget.carried.get(),
            warned: budget.warned,
            carries: budget.carries,
        },
        Meter::Rolling(rolling) => MeterRow::Rolling {
            slice_ms: rolling.slice_ms,
            current: rolling.current,
            used: rolling.used.iter().map(|(number, amount)| (*number, amount.get())).collect(),
            held: rolling.held.get(),
            warned: rolling.warned.0,
            warned_in: rolling.warned.1,
        },
        Meter::Rate(rate) => MeterRow::Rate {
            level_high: u64::try_from(rate.level >> 64).unwrap_or(u64::MAX),
            level_low: u64::try_from(rate.level & u128::from(u64::MAX)).unwrap_or(u64::MAX),
            at: rate.at.as_millis(),
            since: rate.since.as_millis(),
            amount: rate.amount.get(),
            every_ms: rate.every_ms,
            held: rate.held.get(),
            certain: rate.certain,
        },
        Meter::Places(places) => MeterRow::Places { held: places.held.get() },
    };
    json(&row)
}

pub(super) fn meter(text: &str) -> Result<Meter, RowError> {
    Ok(match serde_json::from_str(text)? {
        MeterRow::Budget { start, end, used, held, carried, warned, carries } => Meter::Budget(Budget {
            window: Window { start: Timestamp::from_millis(start), end: end.map(Timestamp::from_millis) },
            used: amount(used)?,
            held: amount(held)?,
            carried: amount(carried)?,
            warned,
            carries,
        }),
        MeterRow::Rolling { slice_ms, current, used, held, warned, warned_in } => Meter::Rolling(Rolling {
            slice_ms: if slice_ms > 0 { slice_ms } else { return Err(RowError::Range("slice_ms")) },
            current,
            used: used
                .into_iter()
                .map(|(number, used)| Ok((number, amount(used)?)))
                .collect::<Result<VecDeque<_>, RowError>>()?,
            held: amount(held)?,
            warned: (warned, warned_in),
        }),
        MeterRow::Rate { level_high, level_low, at, since, amount: every, every_ms, held, certain } => {
            Meter::Rate(Rate {
                level: (u128::from(level_high) << 64) | u128::from(level_low),
                at: Timestamp::from_millis(at),
                since: Timestamp::from_millis(since),
                amount: amount(every)?,
                every_ms,
                held: amount(held)?,
                certain,
            })
        }
        MeterRow::Places { held } => Meter::Places(Places { held: amount(held)? }),
    })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReservationRow {
    principal: String,
    resource: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    permitted: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<PriceRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    if_unknown: Vec<u64>,
    state: StateRow,
    created_at: i64,
    parts: Vec<PartRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StateRow {
    Open,
    Settled(UsageRow),
    UsageUnknown,
    Released,
    Expired,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartRow {
    limit: String,
    series: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    unit: String,
    held: u64,
    charged: u64,
    mark: i64,
    release: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageRow {
    requests: u64,
    input: u64,
    output: u64,
    cached: u64,
    written: u64,
    reasoning: u64,
    images: u64,
    nano_usd: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceRow {
    rates: RatesRow,
    tiers: Vec<(u64, RatesRow)>,
    request: u64,
    image: u64,
}

/// Input, output, cached input, cache write, reasoning.
type RatesRow = (u64, u64, Option<u64>, Option<u64>, Option<u64>);

pub(super) fn reservation_text(reservation: &Reservation) -> String {
    let part = |part: &Part| PartRow {
        limit: part.limit.to_string(),
        series: part.meter.series.to_string(),
        subject: part.meter.subject.as_ref().map(ToString::to_string),
        unit: part.unit.as_str().to_owned(),
        held: part.held.get(),
        charged: part.charged.get(),
        mark: part.mark,
        release: part.on_expiry == OnExpiry::Release,
    };
    json(&ReservationRow {
        principal: reservation.spending.principal.to_string(),
        resource: reservation.spending.resource.to_string(),
        permitted: reservation.spending.permitted.iter().map(ToString::to_string).collect(),
        price: reservation.spending.price.as_deref().map(price_row),
        if_unknown: reservation.spending.if_unknown.iter().map(|amount| amount.get()).collect(),
        state: match &reservation.state {
            State::Open => StateRow::Open,
            State::Settled(usage) => StateRow::Settled(usage_row(usage)),
            State::UsageUnknown => StateRow::UsageUnknown,
            State::Released => StateRow::Released,
            State::Expired => StateRow::Expired,
        },
        created_at: reservation.created_at.as_millis(),
        parts: reservation.parts.iter().map(part).collect(),
    })
}

pub(super) fn reservation(
    id: ReservationId,
    due_at: Timestamp,
    text: &str,
    idempotency: Option<Idempotency>,
) -> Result<Reservation, RowError> {
    let row: ReservationRow = serde_json::from_str(text)?;
    let spending = Spending {
        principal: row.principal.parse().map_err(|_| RowError::Range("principal"))?,
        resource: row.resource.parse().map_err(|_| RowError::Range("resource"))?,
        permitted: permitted(&row.permitted)?,
        price: row.price.map(|row| Arc::new(price(row))),
        if_unknown: amounts(row.if_unknown)?,
    };
    let mut series = Series::default();
    let part = |row: PartRow| {
        Ok::<_, RowError>(Part {
            meter: series.key(&row.series, row.subject.as_deref().unwrap_or_default()),
            limit: row.limit.into(),
            unit: Unit::named(&row.unit).ok_or(RowError::Range("unit"))?,
            held: amount(row.held)?,
            charged: amount(row.charged)?,
            mark: row.mark,
            on_expiry: if row.release { OnExpiry::Release } else { OnExpiry::Charge },
        })
    };
    Ok(Reservation {
        id,
        spending: Arc::new(spending),
        parts: row.parts.into_iter().map(part).collect::<Result<_, _>>()?,
        state: match row.state {
            StateRow::Open => State::Open,
            StateRow::Settled(row) => State::Settled(usage(&row)?),
            StateRow::UsageUnknown => State::UsageUnknown,
            StateRow::Released => State::Released,
            StateRow::Expired => State::Expired,
        },
        created_at: Timestamp::from_millis(row.created_at),
        due_at,
        idempotency,
    })
}

/// What is known of a spending beside who and on what: nothing where there is nothing.
#[cfg(feature = "redis")]
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct BesideRow {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    permitted: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    price: Option<PriceRow>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    if_unknown: Vec<u64>,
}

#[cfg(feature = "redis")]
pub(super) fn beside(spending: &Spending) -> String {
    if spending.permitted.is_empty() && spending.price.is_none() && spending.if_unknown.is_empty() {
        return String::new();
    }
    let permitted = spending.permitted.iter().map(ToString::to_string).collect();
    let if_unknown = spending.if_unknown.iter().map(|amount| amount.get()).collect();
    json(&BesideRow { permitted, price: spending.price.as_deref().map(price_row), if_unknown })
}

/// A spending, of who and on what, and what [`beside`] wrote of it.
#[cfg(feature = "redis")]
pub(super) fn read_beside(principal: EntityUid, resource: EntityUid, text: &str) -> Result<Spending, RowError> {
    let row: BesideRow = if text.is_empty() { BesideRow::default() } else { serde_json::from_str(text)? };
    Ok(Spending {
        principal,
        resource,
        permitted: permitted(&row.permitted)?,
        price: row.price.map(|row| Arc::new(price(row))),
        if_unknown: amounts(row.if_unknown)?,
    })
}

fn permitted(uids: &[String]) -> Result<Box<[EntityUid]>, RowError> {
    uids.iter().map(|uid| uid.parse().map_err(|_| RowError::Range("permitted"))).collect()
}

pub(super) fn idempotency(
    key: Option<String>,
    digest: Option<[u8; 32]>,
    answer: Option<Arc<[u8]>>,
) -> Option<Idempotency> {
    Some(Idempotency { key: key?.into(), digest: digest?, answer })
}

/// Whose meter, as a column: empty for the one that all share, as no subject is.
pub(super) fn subject(key: &MeterKey) -> &str {
    key.subject.as_deref().unwrap_or_default()
}

/// One text for all meters of a series.
#[derive(Debug, Default)]
pub(super) struct Series(HashSet<Arc<str>>);

impl Series {
    pub(super) fn key(&mut self, series: &str, subject: &str) -> MeterKey {
        let series = match self.0.get(series) {
            Some(series) => Arc::clone(series),
            None => {
                let series: Arc<str> = series.into();
                self.0.insert(Arc::clone(&series));
                series
            }
        };
        MeterKey { series, subject: (!subject.is_empty()).then(|| SmolStr::new(subject)) }
    }
}

fn amounts(numbers: Vec<u64>) -> Result<Box<[Amount]>, RowError> {
    numbers.into_iter().map(amount).collect()
}

fn amount(number: u64) -> Result<Amount, RowError> {
    Amount::new(number).ok_or(RowError::Range("amount"))
}

fn usage_row(usage: &Usage) -> UsageRow {
    UsageRow {
        requests: usage.requests,
        input: usage.input_tokens,
        output: usage.output_tokens,
        cached: usage.cached_input_tokens,
        written: usage.cache_write_tokens,
        reasoning: usage.reasoning_tokens,
        images: usage.images,
        nano_usd: usage.usd.map(Amount::get),
    }
}

fn usage(row: &UsageRow) -> Result<Usage, RowError> {
    Ok(Usage {
        requests: row.requests,
        input_tokens: row.input,
        output_tokens: row.output,
        cached_input_tokens: row.cached,
        cache_write_tokens: row.written,
        reasoning_tokens: row.reasoning,
        images: row.images,
        usd: row.nano_usd.map(amount).transpose()?,
    })
}

fn price_row(price: &Price) -> PriceRow {
    let rates = |rates: &Rates| (rates.input, rates.output, rates.cached_input, rates.cache_write, rates.reasoning);
    PriceRow {
        rates: rates(&price.rates),
        tiers: price.tiers.iter().map(|tier| (tier.above, rates(&tier.rates))).collect(),
        request: price.request,
        image: price.image,
    }
}

fn price(row: PriceRow) -> Price {
    let rates = |(input, output, cached_input, cache_write, reasoning): RatesRow| Rates {
        input,
        output,
        cached_input,
        cache_write,
        reasoning,
    };
    let tier = |(above, row)| Tier { above, rates: rates(row) };
    Price {
        rates: rates(row.rates),
        tiers: row.tiers.into_iter().map(tier).collect(),
        request: row.request,
        image: row.image,
    }
}

/// Texts, numbers and lists of them always become JSON.
fn json(row: &impl Serialize) -> String {
    serde_json::to_string(row).unwrap_or_default()
}
