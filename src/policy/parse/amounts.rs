//! Amounts, counts, percents, durations and zones: what limits and prices are written in. Exact; no float is on the way.

use jiff::tz::{TimeZone, db};

use crate::model::amount::decimal_rounded_up;
use crate::model::{Amount, AmountError, Unit};
use crate::policy::problem::{ProblemCode, nearest};
use crate::policy::yaml::{Kind, Node, Scalar, Style};

use super::fields::{Findings, describe, shortened};

/// Most tokens, requests or places that a limit counts: far above any use, far below where arithmetic ends.
pub(super) const MOST_COUNTED: u64 = 1_000_000_000_000_000;
/// Longest duration.
const MOST_MS: u64 = 366 * 86_400_000;

/// An amount of `unit`: dollars as a decimal, anything else as a whole number.
pub(super) fn amount(node: &Node, field: &str, unit: Unit, findings: &Findings) -> Option<Amount> {
    if unit != Unit::Usd {
        return whole(node, field, 0..=MOST_COUNTED, findings).and_then(Amount::new);
    }
    let form = "write US dollars, without a sign for them: `12.50`";
    let (what, help) = match number_text(node).map_or(Err(AmountError::Form), Amount::from_usd) {
        Ok(amount) => return Some(amount),
        Err(AmountError::Form) => ("is a decimal number", form),
        Err(AmountError::Negative) => ("must not be negative", "0 is the least: then nothing may be spent"),
        Err(AmountError::TooFine) => ("has 9 decimals at most", "money is counted in nano-dollars; round it"),
        Err(AmountError::TooLarge) => ("is out of all proportion", "9 billion US dollars is the most"),
    };
    let message = format!("`{field}` {what}, found {}", shown(node));
    findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
    None
}

/// A price of `places` decimals, in units of the last.
pub(super) fn price(node: &Node, field: &str, places: usize, most_usd: u64, findings: &Findings) -> Option<u64> {
    let of = if places == 6 { "US dollars per million tokens" } else { "US dollars each" };
    let read = number_text(node).map_or(Err(AmountError::Form), |text| decimal_rounded_up(text, places));
    let one_usd = 10_u64.pow(u32::try_from(places).unwrap_or(0));
    let read = read.and_then(|read| if read.0 / one_usd > most_usd { Err(AmountError::TooLarge) } else { Ok(read) });
    let (what, help) = match read {
        Ok((price, false)) => return Some(price),
        Ok((price, true)) => {
            let message = format!("the price `{field}` has more than {places} decimals and is rounded up");
            let (whole, rest) = (price / one_usd, price % one_usd);
            let kept = format!("{whole}.{rest:0places$}");
            let help = format!("write `{}`; it is {of}", kept.trim_end_matches('0').trim_end_matches('.'));
            findings.warning(ProblemCode::PriceRounded, node.place, message).help(help);
            return Some(price);
        }
        Err(AmountError::Form) => ("is a decimal number".to_owned(), format!("write {of}: `0.10`")),
        Err(AmountError::Negative) => ("must not be negative".to_owned(), "write 0 for what costs nothing".to_owned()),
        Err(AmountError::TooFine | AmountError::TooLarge) => {
            ("is out of all proportion".to_owned(), format!("it is {of}"))
        }
    };
    let message = format!("the price `{field}` {what}, found {}", shown(node));
    findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
    None
}

/// A whole number of `range`.
pub(super) fn whole(
    node: &Node,
    field: &str,
    range: std::ops::RangeInclusive<u64>,
    findings: &Findings,
) -> Option<u64> {
    let plain = plain(node).unwrap_or_default();
    let digits = !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = plain.len() > 1 && plain.starts_with('0');
    if digits && !leading_zero {
        if let Some(number) = plain.parse().ok().filter(|number| range.contains(number)) {
            return Some(number);
        }
        let message = format!("`{field}` is {} to {}, found `{}`", range.start(), range.end(), shortened(plain));
        findings.error(ProblemCode::InvalidValue, node.place, message).help("write a number in that range");
        return None;
    }
    let example = if *range.end() <= 100 { 15 } else { 100_000 };
    let least = if *range.start() == 0 { "0 or more" } else { "1 or more" };
    let message = format!("`{field}` is a whole number, {least}, found {}", shown(node));
    findings.error(ProblemCode::InvalidValue, node.place, message).help(format!("write digits only: `{example}`"));
    None
}

/// `30d`, `90s`: in milliseconds.
pub(super) fn duration(node: &Node, field: &str, findings: &Findings) -> Option<u64> {
    let text = findings.scalar(node, "a duration")?.text.as_str();
    let help = "write a whole number and `s`, `m`, `h`, `d` or `w`: `90s`, `12h`, `30d`";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).unwrap_or_default();
    let unit_ms = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => 0,
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    if unit_ms == 0 || !digits {
        let message = format!("`{field}` is a duration, found `{}`", shortened(text));
        findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
        return None;
    }
    let length = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    let length = length.filter(|length| *length <= MOST_MS);
    if length.is_none() {
        let message = format!("`{field}` is 366 days at most, found `{}`", shortened(text));
        findings.error(ProblemCode::InvalidValue, node.place, message).help(help);
    }
    length
}

/// A zone by its name in the IANA database, written as it stands there.
pub(super) fn zone(node: &Node, findings: &Findings) -> Option<TimeZone> {
    let text = findings.scalar(node, "the name of a time zone")?.text.as_str();
    if text == "UTC" {
        return Some(TimeZone::UTC);
    }
    if let Some(zone) = TimeZone::get(text).ok().filter(|zone| zone.iana_name() == Some(text)) {
        return Some(zone);
    }
    let message = format!("no time zone is called `{}`", shortened(text));
    let near = near_zone(text).map(|near| format!("did you mean `{near}`?"));
    let help = near.unwrap_or_else(|| {
        "write a name of the IANA database, such as `Europe/Berlin` or `UTC`; an offset would not know summer time"
            .to_owned()
    });
    findings.error(ProblemCode::UnknownTimeZone, node.place, message).help(help);
    None
}

/// The zone that was probably meant: by its city, or nearly written so.
fn near_zone(text: &str) -> Option<String> {
    let names: Vec<String> = db().available().map(|name| name.as_str().to_owned()).collect();
    let city = |name: &&String| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(text));
    let near = || nearest(text, names.iter().map(String::as_str)).map(str::to_owned);
    let cities = || names.iter().map(|name| name.rsplit('/').next().unwrap_or_default());
    let near_city = || {
        let city = nearest(text, cities().filter(|city| city.len() > 3))?;
        names.iter().find(|name| name.rsplit('/').next() == Some(city)).cloned()
    };
    names.iter().find(city).cloned().or_else(near).or_else(near_city)
}

/// The text of a number: plain, or in quotes as some tools write decimals.
fn number_text(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar(Scalar { text, style: Style::Plain | Style::Quoted, .. }) => Some(text),
        _ => None,
    }
}

/// The text of a scalar without quotes.
pub(super) fn plain(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar(Scalar { text, style: Style::Plain, .. }) => Some(text),
        _ => None,
    }
}

/// A value as a message shows it.
pub(super) fn shown(node: &Node) -> String {
    plain(node).map_or_else(|| describe(node).to_owned(), |text| format!("`{}`", shortened(text)))
}
