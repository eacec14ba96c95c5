//! Which limits can bind someone, as `check --principal` tells it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::output::{number, shown};
use crate::meter::{Measure, Mode};
use crate::model::{EntityUid, Every, Period, Unit};
use crate::policy::Snapshot;
use crate::policy::limits::BoundLimit;

/// The limits that can bind `principal`, in the order of the bundle.
///
/// # Errors
/// A type that the bundle does not have.
pub(super) fn of<'a>(snapshot: &'a Snapshot, principal: &EntityUid) -> Result<Vec<&'a BoundLimit>, String> {
    let subject = snapshot.subject(principal);
    let subject = subject.ok_or_else(|| format!("no entity type is called `{}`", principal.kind()))?;
    Ok(snapshot.limits_of(&subject))
}

/// For people: one limit a line.
pub(super) fn text(limits: &[&BoundLimit], principal: &EntityUid) -> String {
    let principal = shown(&principal.to_string());
    if limits.is_empty() {
        return format!("no limit can bind {principal}\n");
    }
    let rows: Vec<[String; 4]> = limits.iter().map(|bound| row(bound)).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let (first, second, third) = (width(0), width(1), width(2));
    let mut text = format!("{} can bind {principal}:\n", number(rows.len(), "limit"));
    for [id, amount, each, place] in &rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {id:first$}  {amount:second$}  {each:third$}  {place}");
    }
    text
}

fn row(bound: &BoundLimit) -> [String; 4] {
    let each = bound.each.as_ref().map_or_else(|| "shared by all".to_owned(), |each| format!("each {each}"));
    let mode = if bound.limit.mode == Mode::Warn { " (only told)" } else { "" };
    let id = shown(&bound.limit.id);
    [id, format!("{}{mode}", amount(bound)), shown(&each), format!("{}:{}", shown(&bound.file), bound.line)]
}

/// How much, in words.
fn amount(bound: &BoundLimit) -> String {
    let unit = bound.limit.unit();
    let cap = unit.show(bound.limit.cap);
    let unit = unit.as_str().replace('_', " ");
    match &bound.limit.measure {
        Measure::Budget { period, .. } => format!("{cap} {unit} {}", period_text(period)),
        Measure::Rate { unit: of, amount, every_ms } => {
            let amount = of.show(*amount);
            format!("{amount} {unit} every {}, {cap} at once", length(*every_ms))
        }
        Measure::Concurrency => format!("{cap} at a time"),
    }
}

fn period_text(period: &Period) -> String {
    match period {
        Period::Rolling(length_ms) => format!("in {}", length(u64::try_from(*length_ms).unwrap_or(0))),
        Period::Calendar { every: Every::Total, .. } => "in total".to_owned(),
        Period::Calendar { every, zone } => {
            format!("every {} ({})", every_name(*every), zone.iana_name().unwrap_or("UTC"))
        }
    }
}

const fn every_name(every: Every) -> &'static str {
    match every {
        Every::Hour => "hour",
        Every::Day => "day",
        Every::Week(_) => "week",
        Every::Month(_) => "month",
        Every::Quarter => "quarter",
        Every::Year => "year",
        Every::Total => "total",
    }
}

/// A duration in the largest unit that it is a whole number of.
fn length(length_ms: u64) -> String {
    let units = [("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1_000)];
    let fits = units.into_iter().find(|(_, unit_ms)| length_ms > 0 && length_ms.is_multiple_of(*unit_ms));
    match fits {
        Some((unit, unit_ms)) if length_ms == unit_ms => unit.to_owned(),
        Some((unit, unit_ms)) => format!("{} {unit}s", length_ms / unit_ms),
        None => format!("{length_ms} ms"),
    }
}

/// For programs.
pub(super) fn json(limits: &[&BoundLimit]) -> Value {
    limits.iter().map(|bound| one(bound)).collect()
}

fn one(bound: &BoundLimit) -> Value {
    let limit = &bound.limit;
    let unit: Unit = limit.unit();
    let measure = match &limit.measure {
        Measure::Budget { period: Period::Rolling(length_ms), .. } => json!({ "rolling_seconds": length_ms / 1000 }),
        Measure::Budget { period: Period::Calendar { every, zone }, .. } => {
            json!({ "every": every_name(*every), "timezone": zone.iana_name() })
        }
        Measure::Rate { unit, amount, every_ms } => {
            json!({ "amount": unit.show(*amount).to_string(), "every_seconds": every_ms / 1000 })
        }
        Measure::Concurrency => json!({}),
    };
    let kind = match &limit.measure {
        Measure::Budget { .. } => "budget",
        Measure::Rate { .. } => "rate",
        Measure::Concurrency => "concurrency",
    };
    let each = bound.each.as_ref().map(ToString::to_string);
    let mode = if limit.mode == Mode::Warn { "warn" } else { "enforce" };
    let mut value = json!({
        "id": limit.id.as_str(), "each": each, "kind": kind, "unit": unit.as_str(),
        "limit": unit.show(limit.cap).to_string(), "mode": mode, "file": &*bound.file, "line": bound.line,
    });
    if let (Some(value), Value::Object(measure)) = (value.as_object_mut(), measure) {
        value.extend(measure);
    }
    value
}
