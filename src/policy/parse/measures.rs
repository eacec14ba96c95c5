//! How much of what over which time: the budget, rate or concurrency of a limit, and what it is for a while instead.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use crate::meter::{Measure, Override};
use crate::model::{Amount, Every, Period, Unit};
use crate::policy::problem::{ProblemCode, nearest};
use crate::policy::yaml::Node;

use super::amounts;
use super::fields::{Fields, Findings, listed, shortened};

// The keys of each; `schema/rules.schema.json` has the same.
pub(super) const MEASURES: &[&str] = &["budget", "rate", "concurrency"];
pub(super) const BUDGET: &[&str] =
    &["usd", "tokens", "input_tokens", "output_tokens", "every", "timezone", "starts_on", "rolling", "carry_over"];
pub(super) const RATE: &[&str] = &["requests", "tokens", "input_tokens", "output_tokens", "every", "burst"];
pub(super) const OVERRIDE: &[&str] =
    &["usd", "tokens", "input_tokens", "output_tokens", "requests", "burst", "concurrency", "from", "until"];

/// What a budget can be of.
const BUDGET_UNITS: &[Unit] = &[Unit::Usd, Unit::Tokens, Unit::InputTokens, Unit::OutputTokens];
/// What a rate can be of.
const RATE_UNITS: &[Unit] = &[Unit::Requests, Unit::Tokens, Unit::InputTokens, Unit::OutputTokens];
const EVERY: &[&str] = &["hour", "day", "week", "month", "quarter", "year", "total"];
const RATE_EVERY: &[&str] = &["second", "minute", "hour", "day"];
const WEEKDAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Monday),
    ("tuesday", Weekday::Tuesday),
    ("wednesday", Weekday::Wednesday),
    ("thursday", Weekday::Thursday),
    ("friday", Weekday::Friday),
    ("saturday", Weekday::Saturday),
    ("sunday", Weekday::Sunday),
];
/// Most overrides of a limit.
const MOST_OVERRIDES: usize = 100;
/// Most requests that a limit lets through at a time.
const MOST_PLACES: u64 = 1_000_000_000;
const NONE_AT_ALL: &str = "to let nothing through, write a rule with `effect: forbid`";

/// What is counted and how, and the cap.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) measure: Measure,
    pub(super) cap: Amount,
}

/// The one of `budget`, `rate` and `concurrency` that a limit says.
pub(super) fn measure(fields: &Fields) -> Option<Measured> {
    let findings = fields.findings;
    let mut said = MEASURES.iter().filter_map(|name| fields.entry(name));
    let Some((first, _)) = said.next() else {
        if !MEASURES.iter().any(|name| fields.is_meant(name)) {
            let help = "add one of `budget: { usd: 500, every: month }`, `rate: { requests: 60, every: minute }`, `concurrency: 8`";
            findings.error(ProblemCode::LimitMeasure, fields.place, "the limit does not say how much").help(help);
        }
        return None;
    };
    for (other, _) in said {
        let message = format!("a limit has one of {}, and this one has `{}` already", listed(MEASURES), first.text);
        let help = "make it a limit of its own: every limit that applies must have room";
        findings.error(ProblemCode::LimitMeasure, other.place, message).help(help);
    }
    let node = fields.get(&first.text)?;
    match first.text.as_str() {
        "budget" => budget(node, findings),
        "rate" => rate(node, findings),
        _ => Some(Measured { measure: Measure::Concurrency, cap: places(node, "concurrency", findings)? }),
    }
}

fn places(node: &Node, field: &str, findings: &Findings) -> Option<Amount> {
    if is_none(node, field, findings) {
        return None;
    }
    amounts::whole(node, field, 1..=MOST_PLACES, findings).and_then(Amount::new)
}

/// An amount that may not be none.
fn at_least_one(node: &Node, field: &str, findings: &Findings) -> Option<Amount> {
    if is_none(node, field, findings) {
        return None;
    }
    amounts::whole(node, field, 1..=amounts::MOST_COUNTED, findings).and_then(Amount::new)
}

/// Whether it is 0, which is a problem.
fn is_none(node: &Node, field: &str, findings: &Findings) -> bool {
    let is_none = amounts::plain(node) == Some("0");
    if is_none {
        findings.error(ProblemCode::InvalidValue, node.place, format!("`{field}` is 1 at least")).help(NONE_AT_ALL);
    }
    is_none
}

/// The one of `units` that is said, and how much of it.
fn of_one_unit<'a>(fields: &Fields<'a>, what: &str, units: &[Unit]) -> Option<(Unit, &'a Node)> {
    let names = || listed(&units.iter().map(|unit| unit.as_str()).collect::<Vec<_>>());
    let mut said = units.iter().filter_map(|unit| Some((*unit, fields.entry(unit.as_str())?)));
    let Some((unit, (first, _))) = said.next() else {
        if !units.iter().any(|unit| fields.is_meant(unit.as_str())) {
            let message = format!("{what} does not say how much");
            fields
                .findings
                .error(ProblemCode::LimitMeasure, fields.place, message)
                .help(format!("add one of {}", names()));
        }
        return None;
    };
    for (_, (other, _)) in said {
        let message = format!("{what} has one of {}, and this one has `{}` already", names(), first.text);
        let help = "make it a limit of its own: every limit that applies must have room";
        fields.findings.error(ProblemCode::LimitMeasure, other.place, message).help(help);
    }
    Some((unit, fields.get(unit.as_str())?))
}

fn budget(node: &Node, findings: &Findings) -> Option<Measured> {
    let fields = Fields::of(node, "a budget", BUDGET, findings)?;
    let amount = of_one_unit(&fields, "the budget", BUDGET_UNITS)
        .and_then(|(unit, node)| Some((unit, amounts::amount(node, unit.as_str(), unit, findings)?)));
    let period = period(&fields);
    let carry_over = fields.get("carry_over").and_then(|node| amounts::whole(node, "carry_over", 0..=100, findings));
    let (unit, cap) = amount?;
    let carry_over_percent = carry_over.and_then(|percent| u8::try_from(percent).ok()).unwrap_or(0);
    Some(Measured { measure: Measure::Budget { unit, period: period?, carry_over_percent }, cap })
}

fn period(fields: &Fields) -> Option<Period> {
    let findings = fields.findings;
    if let Some((key, _)) = fields.entry("rolling") {
        if fields.has("every") {
            let message = "`rolling` stands instead of `every`, not beside it";
            let help = "keep `every` for a period of the calendar, or `rolling` for the last so many days";
            findings.error(ProblemCode::InvalidValue, key.place, message).help(help);
        }
        refuse(fields, &["timezone", "starts_on", "carry_over"], "a rolling window has no beginning in the calendar");
        let length = amounts::duration(fields.get("rolling")?, "rolling", findings)?;
        return i64::try_from(length).ok().map(Period::Rolling);
    }
    if !fields.is_meant("every") {
        let help = format!("add `every:`, one of {}, or `rolling: 30d`", listed(EVERY));
        findings.error(ProblemCode::MissingField, fields.place, "a budget needs `every` or `rolling`").help(help);
    }
    let zone = fields.get("timezone").map(|node| amounts::zone(node, findings));
    let every = calendar(fields)?;
    let zone = zone.unwrap_or(Some(TimeZone::UTC))?;
    if every == Every::Total {
        refuse(fields, &["timezone", "starts_on", "carry_over"], "`every: total` never begins anew");
    }
    Some(Period::Calendar { every, zone })
}

/// Reports keys that mean nothing where they stand.
fn refuse(fields: &Fields, keys: &[&str], why: &str) {
    for (key, _) in keys.iter().filter_map(|key| fields.entry(key)) {
        let message = format!("`{}` means nothing here: {why}", key.text);
        fields.findings.error(ProblemCode::InvalidValue, key.place, message).help(format!("remove `{}`", key.text));
    }
}

fn calendar(fields: &Fields) -> Option<Every> {
    let findings = fields.findings;
    let node = fields.get("every")?;
    let text = findings.scalar(node, "a period")?.text.as_str();
    let every = match text {
        "week" => return weekday(fields).map(Every::Week),
        "month" => return day_of_month(fields).map(Every::Month),
        "hour" => Every::Hour,
        "day" => Every::Day,
        "quarter" => Every::Quarter,
        "year" => Every::Year,
        "total" => Every::Total,
        _ => {
            let help = match text {
                "second" | "minute" => {
                    "a budget's shortest period is an hour; use a `rate`, or `rolling: 60s`".to_owned()
                }
                _ if text.starts_with(|first: char| first.is_ascii_digit()) => {
                    format!("for the last so much time write `rolling: {}` instead", shortened(text))
                }
                _ => near_period(text, EVERY),
            };
            let message = format!("no period is called `{}`", shortened(text));
            findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
            return None;
        }
    };
    if every != Every::Total {
        refuse(fields, &["starts_on"], "only weeks and months begin on a day of choice");
    }
    Some(every)
}

fn near_period(text: &str, known: &[&str]) -> String {
    let meant = match text {
        "secondly" => Some("second"),
        "minutely" => Some("minute"),
        "hourly" => Some("hour"),
        "daily" => Some("day"),
        "weekly" => Some("week"),
        "monthly" => Some("month"),
        "quarterly" => Some("quarter"),
        "yearly" | "annually" | "annual" => Some("year"),
        "never" | "lifetime" | "forever" | "once" => Some("total"),
        _ => nearest(text, known.iter().copied()),
    };
    let meant = meant.filter(|meant| known.contains(meant)).map(|meant| format!("did you mean `{meant}`? "));
    format!("{}it is one of {}", meant.unwrap_or_default(), listed(known))
}

fn weekday(fields: &Fields) -> Option<Weekday> {
    let Some(node) = fields.get("starts_on") else { return Some(Weekday::Monday) };
    let text = fields.findings.scalar(node, "a day of the week")?.text.as_str();
    let day = WEEKDAYS.iter().find(|(name, _)| *name == text).map(|(_, day)| *day);
    if day.is_none() {
        let near = nearest(text, WEEKDAYS.iter().map(|(name, _)| *name)).map(|near| format!("did you mean `{near}`?"));
        let help = near.unwrap_or_else(|| "a week begins on a day from `monday` to `sunday`".to_owned());
        let message = format!("no day of the week is called `{}`", shortened(text));
        fields.findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
    }
    day
}

fn day_of_month(fields: &Fields) -> Option<i8> {
    let Some(node) = fields.get("starts_on") else { return Some(1) };
    amounts::whole(node, "starts_on", 1..=31, fields.findings).and_then(|day| i8::try_from(day).ok())
}

fn rate(node: &Node, findings: &Findings) -> Option<Measured> {
    let fields = Fields::of(node, "a rate", RATE, findings)?;
    let amount = of_one_unit(&fields, "the rate", RATE_UNITS)
        .and_then(|(unit, node)| Some((unit, at_least_one(node, unit.as_str(), findings)?)));
    let every_ms = fields.required("every").and_then(|node| rate_every(node, findings));
    let burst = fields.get("burst").map(|node| at_least_one(node, "burst", findings));
    let (unit, amount) = amount?;
    let cap = burst.unwrap_or(Some(amount))?;
    Some(Measured { measure: Measure::Rate { unit, amount, every_ms: every_ms? }, cap })
}

fn rate_every(node: &Node, findings: &Findings) -> Option<u64> {
    let text = findings.scalar(node, "a time")?.text.as_str();
    match text {
        "second" => Some(1_000),
        "minute" => Some(60_000),
        "hour" => Some(3_600_000),
        "day" => Some(86_400_000),
        _ if text.starts_with(|first: char| first.is_ascii_digit()) => amounts::duration(node, "every", findings),
        _ => {
            let help = match text {
                "week" | "month" | "quarter" | "year" => {
                    "a rate flows back evenly; for a period of the calendar use a `budget`".to_owned()
                }
                _ => format!("{}, or a duration such as `10s`", near_period(text, RATE_EVERY)),
            };
            let message = format!("a rate has no `every: {}`", shortened(text));
            findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
            None
        }
    }
}

/// `overrides`, in the order of the file. `measured` is `None` where it could not be read.
pub(super) fn overrides(fields: &Fields, measured: Option<&Measured>) -> Box<[Override]> {
    let findings = fields.findings;
    let Some(list) = fields.get("overrides").and_then(|node| findings.list(node, "overrides", "overrides")) else {
        return Box::default();
    };
    if let Some(node) = list.get(MOST_OVERRIDES) {
        let message = format!("a limit has {MOST_OVERRIDES} overrides at most");
        findings.error(ProblemCode::InvalidValue, node.place, message).help("remove those that are over");
    }
    list.iter().take(MOST_OVERRIDES).filter_map(|node| one_override(node, measured, findings)).collect()
}

fn one_override(node: &Node, measured: Option<&Measured>, findings: &Findings) -> Option<Override> {
    let fields = Fields::of(node, "an override", OVERRIDE, findings)?;
    let from = fields.instant("from");
    let until = fields.required("until").and_then(|_| fields.instant("until"));
    if let (Some(from), Some(until), Some((key, _))) = (from, until, fields.entry("until"))
        && until <= from
    {
        let message = "the override ends before it begins";
        findings.error(ProblemCode::InvalidValue, key.place, message).help("put `until` after `from`");
    }
    let (cap, flow) = override_cap(&fields, measured?)?;
    Some(Override { cap, flow, from, until: until? })
}

/// The other cap, in the unit of the limit; of a rate what flows back too.
fn override_cap(fields: &Fields, measured: &Measured) -> Option<(Amount, Option<Amount>)> {
    let findings = fields.findings;
    let (name, is_rate) = match &measured.measure {
        Measure::Concurrency => ("concurrency", false),
        Measure::Rate { unit, .. } => (unit.as_str(), true),
        Measure::Budget { unit, .. } => (unit.as_str(), false),
    };
    let amounts_said = OVERRIDE.iter().filter(|key| !matches!(**key, "from" | "until"));
    let others = amounts_said.filter(|key| **key != name && (**key != "burst" || !is_rate));
    let mut misplaced = false;
    for (key, _) in others.filter_map(|key| fields.entry(key)) {
        misplaced = true;
        let message = format!("the limit counts `{name}`, not `{}`", key.text);
        findings.error(ProblemCode::InvalidValue, key.place, message).help(format!("write `{name}:`"));
    }
    let node = if misplaced { fields.get(name)? } else { fields.required(name)? };
    match &measured.measure {
        Measure::Concurrency => Some((places(node, name, findings)?, None)),
        Measure::Budget { unit, .. } => Some((amounts::amount(node, name, *unit, findings)?, None)),
        Measure::Rate { .. } => {
            let flow = at_least_one(node, name, findings);
            let burst = fields.get("burst").map(|node| at_least_one(node, "burst", findings));
            let flow = flow?;
            Some((burst.unwrap_or(Some(flow))?, Some(flow)))
        }
    }
}
