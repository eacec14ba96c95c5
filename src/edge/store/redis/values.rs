//! What stands in the values and arguments: meters, charges and reservations, as the scripts read and write them. Numbers
//! are doubles where all of a value's amounts are exact as such; else its first letter is a small one, and its amounts are
//! decimals.

use std::collections::VecDeque;
use std::sync::Arc;

use smol_str::SmolStr;

use super::super::rows;
use crate::meter::{
    Budget, Charge, Hold, Idempotency, Measure, Meter, MeterKey, OnExpiry, Part, Places, Rate, Reservation, Rolling,
    State, Usage,
};
use crate::model::hex;
use crate::model::{Amount, Every, Period, Timestamp, Unit, Window};

/// The first number that a double does not tell from all others.
const EXACT: u64 = 1 << 53;

/// A value that is not as it was written.
#[derive(Debug, thiserror::Error)]
#[error("a value in Redis is not as it was written: {0}")]
pub(super) struct ValueError(pub(super) &'static str);

/// A unit, as a letter.
const fn unit_letter(unit: Unit) -> u8 {
    match unit {
        Unit::Usd => b'u',
        Unit::Tokens => b't',
        Unit::InputTokens => b'i',
        Unit::OutputTokens => b'o',
        Unit::Requests => b'q',
        Unit::Places => b'p',
    }
}

fn unit_of(letter: u8) -> Option<Unit> {
    let all = [Unit::Usd, Unit::Tokens, Unit::InputTokens, Unit::OutputTokens, Unit::Requests, Unit::Places];
    all.into_iter().find(|unit| unit_letter(*unit) == letter)
}

/// Without what ends a text.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte >= 0x20 && byte != 0x7F && byte != b'%';
    if text.bytes().all(plain) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| if c.is_ascii_control() || c == '%' { format!("%{:02x}", u32::from(c)) } else { c.into() })
        .collect()
}

fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        out.push(char::from(u8::from_str_radix(code, 16).ok()?));
        out.push_str(rest);
    }
    Some(out)
}

/// Writes what Lua's `struct` reads.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn byte(&mut self, byte: u8) -> &mut Self {
        self.bytes(&[byte])
    }

    /// A text and its end.
    // INVARIANT: what is written so was escaped, or has no byte that is zero.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes()).byte(0)
    }

    pub(super) fn count(&mut self, count: usize) -> &mut Self {
        self.bytes(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes())
    }

    /// A number that was looked at: it is below [`EXACT`], or nobody counts on its last digits.
    #[expect(clippy::cast_precision_loss, reason = "it was looked at")]
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.bytes(&(number as f64).to_le_bytes())
    }

    #[expect(clippy::cast_precision_loss, reason = "instants are clamped to what a double has")]
    pub(super) fn signed(&mut self, number: i64) -> &mut Self {
        self.bytes(&(number as f64).to_le_bytes())
    }

    fn amount(&mut self, amount: u64, exact: bool) -> &mut Self {
        if exact { self.number(amount) } else { self.text(&amount.to_string()) }
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Reads what Lua's `struct` wrote.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (text, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.get(1..)?;
        std::str::from_utf8(text).ok()
    }

    fn count(&mut self) -> Option<usize> {
        self.bytes().map(u16::from_le_bytes).map(usize::from)
    }

    fn double(&mut self) -> Option<f64> {
        self.bytes().map(f64::from_le_bytes)
    }

    /// A whole number; what is beyond is the farthest there is.
    #[expect(clippy::cast_possible_truncation, reason = "scripts write whole numbers, and the farthest is meant")]
    fn signed(&mut self) -> Option<i64> {
        self.double().map(|number| number as i64)
    }

    fn instant(&mut self) -> Option<Timestamp> {
        self.signed().map(Timestamp::from_millis)
    }

    fn whole(&mut self, exact: bool) -> Option<u128> {
        if exact { u128::try_from(self.signed()?).ok() } else { self.text()?.parse().ok() }
    }

    fn amount(&mut self, exact: bool) -> Option<Amount> {
        Amount::new(u64::try_from(self.whole(exact)?).ok()?)
    }
}

/// What a quick answer begins with: whether it was held, and the sequence.
pub(super) fn quick_head(answer: &[u8]) -> Option<(bool, u64)> {
    let mut fields = Fields(answer);
    let is_held = match fields.byte()? {
        b'H' => true,
        b'S' => false,
        _ => return None,
    };
    Some((is_held, u64::try_from(fields.signed()?).ok()?))
}

/// The meters of a quick answer, `count` of them one after the other behind the sequence; `None` for one that is not there.
pub(super) fn quick_meters(answer: &[u8], count: usize) -> Result<Vec<Option<Meter>>, ValueError> {
    let mut fields = Fields(answer.get(9..).unwrap_or_default());
    let read: Option<_> = (0..count).map(|_| read_meter(&mut fields)).collect();
    read.filter(|_| fields.0.is_empty()).ok_or(ValueError("a meter"))
}

/// A meter; `None` where there is none.
pub(super) fn meter(value: &[u8]) -> Result<Option<Meter>, ValueError> {
    let mut fields = Fields(value);
    let read = if value.is_empty() { Some(None) } else { read_meter(&mut fields) };
    read.filter(|_| fields.0.is_empty()).ok_or(ValueError("a meter"))
}

#[expect(clippy::option_option, reason = "one that is not as it was written, and one that is not there")]
fn read_meter(fields: &mut Fields<'_>) -> Option<Option<Meter>> {
    let letter = fields.byte()?;
    let exact = letter.is_ascii_uppercase();
    let read = match letter.to_ascii_uppercase() {
        b'-' => return Some(None),
        b'B' => budget(fields, exact),
        b'R' => rate(fields, exact),
        b'W' => rolling(fields, exact),
        b'P' => fields.amount(exact).map(|held| Meter::Places(Places { held })),
        _ => None,
    };
    read.map(Some)
}

fn budget(fields: &mut Fields<'_>, exact: bool) -> Option<Meter> {
    let (start, end) = (fields.instant()?, fields.double()?);
    #[expect(clippy::cast_possible_truncation, reason = "it is an instant that was written so")]
    let end = end.is_finite().then(|| Timestamp::from_millis(end as i64));
    Some(Meter::Budget(Budget {
        window: Window { start, end },
        used: fields.amount(exact)?,
        held: fields.amount(exact)?,
        carried: fields.amount(exact)?,
        warned: fields.byte()?,
        carries: fields.byte()? == 1,
    }))
}

fn rate(fields: &mut Fields<'_>, exact: bool) -> Option<Meter> {
    let (level, held) = (fields.whole(exact)?, fields.amount(exact)?);
    let (at, since) = (fields.instant()?, fields.instant()?);
    let amount = fields.amount(exact)?;
    let every_ms = u64::try_from(fields.signed()?).ok().filter(|every| *every > 0)?;
    Some(Meter::Rate(Rate { level, at, amount, every_ms, since, held, certain: fields.byte()? == 1 }))
}

fn rolling(fields: &mut Fields<'_>, exact: bool) -> Option<Meter> {
    let slice_ms = fields.signed().filter(|length| *length > 0)?;
    let (current, held) = (fields.signed()?, fields.amount(exact)?);
    let warned = (fields.byte()?, fields.signed()?);
    let count = fields.count()?;
    let slice = |_| Some((fields.signed()?, fields.amount(exact)?));
    let used = (0..count).map(slice).collect::<Option<VecDeque<_>>>()?;
    Some(Meter::Rolling(Rolling { slice_ms, current, used, held, warned }))
}

/// Flags for `lua/quick/hold.lua`: whether the quick way may be tried, whether there is a name, whether a limit has
/// percents to tell, whether the open reservations of the principal are counted.
pub(super) fn flags(hold: &Hold) -> u8 {
    let quick = are_on_meters_of_their_own(&hold.charges);
    let tells = hold.charges.iter().any(|charge| !charge.limit.warn_at.is_empty());
    let counts = hold.most_open.is_some();
    u8::from(quick) | u8::from(hold.idempotency.is_some()) << 1 | u8::from(tells) << 2 | u8::from(counts) << 3
}

/// How many reservations may be open.
#[derive(Clone, Copy)]
pub(super) struct MostOpen {
    pub(super) in_all: usize,
    pub(super) of_principal: Option<usize>,
}

/// Charges as `lua/charges.lua` reads them. Nothing is quick where doubles are not exact.
pub(super) fn charges(charges: &[Charge], flags: u8, most: MostOpen, now: Timestamp) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(24 + 64 * charges.len()));
    // Without a maximum for the principal, its open reservations are not counted.
    out.count(charges.len()).number(most.in_all as u64).byte(flags).number(most.of_principal.unwrap_or(0) as u64);
    let mut exact = true;
    for charge in charges {
        exact &= write_charge(&mut out, charge, now);
    }
    if let Some(flags) = out.0.get_mut(FLAGS).filter(|_| !exact) {
        *flags &= !1;
    }
    out.take()
}

/// Where the flags stand.
const FLAGS: usize = 10;
/// Beyond so many charges nothing is quick.
const MOST_QUICK: usize = 64;

fn are_on_meters_of_their_own(charges: &[Charge]) -> bool {
    let same = |one: &Charge, other: &Charge| one.subject == other.subject && one.limit.series == other.limit.series;
    let mut each = charges.iter().enumerate();
    charges.len() <= MOST_QUICK && each.all(|(at, one)| !charges.iter().skip(at + 1).any(|other| same(one, other)))
}

const fn is_plain(amount: u64) -> bool {
    amount < EXACT
}

/// What a script needs to know of a measure: a letter, three numbers and two flags. The window is the node's to compute:
/// no script knows calendars. Whether doubles are exact for it.
fn write_charge(out: &mut Writer, charge: &Charge, now: Timestamp) -> bool {
    let limit = &charge.limit;
    let cap = limit.cap_at(now);
    let amounts = |others: &[u64]| others.iter().chain(&[charge.amount.get(), cap.get()]).all(|one| is_plain(*one));
    let head = |out: &mut Writer, kind: u8, exact: bool| {
        out.byte(if exact { kind } else { kind.to_ascii_lowercase() });
        out.byte(unit_letter(limit.unit()));
        out.byte(u8::from(limit.on_expiry == OnExpiry::Release)).byte(u8::from(limit.is_enforced()));
        out.amount(charge.amount.get(), exact).amount(cap.get(), exact);
    };
    let exact = match &limit.measure {
        Measure::Budget { period: Period::Calendar { every, zone }, carry_over_percent, .. } => {
            let window = every.window(zone, now);
            let just_before = Timestamp::from_millis(window.start.as_millis().saturating_sub(1));
            let before = limit.cap_at(just_before).get();
            let exact = amounts(&[before]);
            head(out, b'B', exact);
            instant(out, Some(window.start), exact);
            instant(out, window.end, exact);
            out.amount(before, exact).byte(*carry_over_percent.min(&100)).byte(u8::from(*every == Every::Total));
            exact
        }
        Measure::Budget { period: Period::Rolling(length), .. } => {
            let exact = amounts(&[]);
            head(out, b'W', exact);
            let slice = u64::try_from(crate::meter::rolling::slice_ms(*length)).unwrap_or(1);
            out.amount(slice, exact).amount(0, exact).amount(0, exact).byte(0).byte(0);
            exact
        }
        Measure::Rate { unit, amount, every_ms } => {
            let exact = amounts(&[amount.get()]);
            head(out, b'R', exact);
            out.amount(amount.get(), exact).amount(*every_ms, exact).amount(0, exact);
            out.byte(0).byte(u8::from(*unit == Unit::Requests));
            exact
        }
        Measure::Concurrency => {
            let exact = amounts(&[]);
            head(out, b'P', exact);
            out.amount(0, exact).amount(0, exact).amount(0, exact).byte(0).byte(0);
            exact
        }
    };
    for percent in limit.warn_at.iter().rev() {
        out.byte(*percent);
    }
    out.byte(0);
    exact
}

/// An instant; where there is none, one that never comes.
fn instant(out: &mut Writer, at: Option<Timestamp>, exact: bool) {
    match (at, exact) {
        (Some(at), true) => out.signed(at.as_millis()),
        (Some(at), false) => out.text(&at.as_millis().to_string()),
        (None, true) => out.bytes(&f64::INFINITY.to_le_bytes()),
        (None, false) => out.text("1e999"),
    };
}

/// The state of what was settled with this.
fn settled(usage: &Usage) -> String {
    let usd = usage.usd.map_or_else(|| "-".to_owned(), |usd| usd.get().to_string());
    format!(
        "S:{},{},{},{},{},{},{},{usd}",
        usage.requests,
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.images,
    )
}

pub(super) fn state(text: &str) -> Result<State, ValueError> {
    let wrong = ValueError("a state");
    match text {
        "O" => Ok(State::Open),
        "R" => Ok(State::Released),
        "X" => Ok(State::Expired),
        "N" => Ok(State::UsageUnknown),
        _ => usage(text).map(State::Settled).ok_or(wrong),
    }
}

fn usage(text: &str) -> Option<Usage> {
    let mut fields = text.strip_prefix("S:")?.split(',');
    let mut number = || fields.next()?.parse::<u64>().ok();
    let usage = Usage {
        requests: number()?,
        input_tokens: number()?,
        output_tokens: number()?,
        cached_input_tokens: number()?,
        cache_write_tokens: number()?,
        reasoning_tokens: number()?,
        images: number()?,
        usd: None,
    };
    match fields.next()? {
        "-" => Some(usage),
        usd => Some(Usage { usd: Some(Amount::new(usd.parse().ok()?)?), ..usage }),
    }
}

/// What becomes of a reservation, as `lua/close.lua` reads it: settled with this, or in the state that is said.
pub(super) fn closing(state: &str, used: Option<&Usage>) -> Vec<u8> {
    const UNITS: [Unit; 5] = [Unit::Usd, Unit::Tokens, Unit::InputTokens, Unit::OutputTokens, Unit::Requests];
    let amount_of = |unit: Unit| match used {
        None => Ok(0),
        Some(usage) if unit == Unit::Usd => usage.usd.map(Amount::get).ok_or(-1),
        Some(usage) => usage.of(unit).map(Amount::get).ok_or(-2),
    };
    let amounts = UNITS.map(amount_of);
    let exact = amounts.iter().all(|amount| amount.is_err() || amount.is_ok_and(is_plain));
    let mut out = Writer::default();
    out.byte(if exact { b'U' } else { b'u' });
    out.text(&used.map_or_else(|| state.to_owned(), settled));
    for amount in amounts {
        match amount {
            Ok(amount) => out.amount(amount, exact),
            Err(why) if exact => out.signed(why),
            Err(why) => out.text(&why.to_string()),
        };
    }
    out.take()
}

/// The end of a reservation whose usage is unknown: its state, and the charge of each part.
pub(super) fn closing_unknown(charged: &[Amount]) -> Vec<u8> {
    let exact = charged.iter().all(|amount| is_plain(amount.get()));
    let mut out = Writer::default();
    out.byte(if exact { b'P' } else { b'p' }).text("N").count(charged.len());
    for amount in charged {
        out.amount(amount.get(), exact);
    }
    out.take()
}

/// A reservation as `lua/hold.lua` takes it, before and behind what was charged of it: open or with what was used.
pub(super) fn reserving(hold: &Hold, used: Option<&Usage>, meters: &[String], at: (i64, i64)) -> (Vec<u8>, Vec<u8>) {
    let exact = hold.charges.iter().all(|charge| is_plain(charge.amount.get()));
    let (now, due) = at;
    let mut out = Writer(Vec::with_capacity(64));
    out.byte(if exact { b'E' } else { b'e' }).text(&used.map_or_else(|| "O".to_owned(), settled));
    out.signed(due).signed(now).count(hold.charges.len()).byte(u8::from(are_on_meters_of_their_own(&hold.charges)));
    let head = out.take();
    out = Writer(Vec::with_capacity(128 + 96 * hold.charges.len()));
    for (charge, key) in hold.charges.iter().zip(meters) {
        out.byte(unit_letter(charge.limit.unit())).byte(u8::from(charge.limit.on_expiry == OnExpiry::Release));
        out.amount(charge.amount.get(), exact).text(key);
    }
    match &hold.idempotency {
        Some((name, digest)) => out.text(&hex::encode(digest)).text(&escaped(name)),
        None => out.text("-").text(""),
    };
    for charge in &hold.charges {
        out.text(&escaped(&charge.limit.id));
    }
    out.text(&hold.spending.principal.to_string()).text(&hold.spending.resource.to_string());
    out.bytes(rows::beside(&hold.spending).as_bytes());
    (head, out.take())
}

/// A meter's key behind the prefix. With the length of the series, since either part may have a colon.
pub(super) fn push_meter(key: &mut String, charge: &Charge) {
    let series = escaped(&charge.limit.series);
    let subject = escaped(charge.subject.as_deref().unwrap_or_default());
    for part in ["m:", &series.len().to_string(), ":", &series, ":", &subject] {
        key.push_str(part);
    }
}

fn meter_key(prefix: &str, key: &str) -> Option<MeterKey> {
    let (length, rest) = key.strip_prefix(prefix)?.strip_prefix("m:")?.split_once(':')?;
    let (series, subject) = rest.split_at_checked(length.parse().ok()?)?;
    let subject = unescaped(subject.strip_prefix(':')?)?;
    Some(MeterKey { series: unescaped(series)?.into(), subject: (!subject.is_empty()).then(|| SmolStr::new(subject)) })
}

/// A reservation as a script tells it.
pub(super) fn reservation(
    prefix: &str,
    id: &str,
    value: &[u8],
    answer: Option<Arc<[u8]>>,
) -> Result<Reservation, ValueError> {
    read_reservation(prefix, id, value, answer).ok_or(ValueError("a reservation"))
}

fn read_reservation(prefix: &str, id: &str, value: &[u8], answer: Option<Arc<[u8]>>) -> Option<Reservation> {
    let mut fields = Fields(value);
    let exact = fields.byte()? == b'E';
    let state = state(fields.text()?).ok()?;
    let (due_at, created_at, count) = (fields.instant()?, fields.instant()?, fields.count()?);
    let _quick = fields.byte()?;
    let charged = |_| Some((fields.amount(exact)?, fields.signed()?));
    let charged = (0..count).map(charged).collect::<Option<Vec<_>>>()?;
    let part = |(charged, mark): (Amount, i64)| {
        let (unit, release) = (unit_of(fields.byte()?)?, fields.byte()? == 1);
        let (held, meter) = (fields.amount(exact)?, meter_key(prefix, fields.text()?)?);
        let on_expiry = if release { OnExpiry::Release } else { OnExpiry::Charge };
        Some(Part { meter, limit: SmolStr::default(), unit, held, charged, mark, on_expiry })
    };
    let mut parts = charged.into_iter().map(part).collect::<Option<Box<[_]>>>()?;
    let (digest, name) = (fields.text()?, fields.text()?);
    let idempotency = match digest {
        "-" => None,
        digest => Some(Idempotency { key: unescaped(name)?.into(), digest: hex::decode(digest)?, answer }),
    };
    for part in &mut parts {
        part.limit = unescaped(fields.text()?)?.into();
    }
    let (principal, resource) = (fields.text()?.parse().ok()?, fields.text()?.parse().ok()?);
    let spending = rows::read_beside(principal, resource, std::str::from_utf8(fields.0).ok()?).ok()?;
    let spending = Arc::new(spending);
    Some(Reservation { id: id.parse().ok()?, spending, parts, state, created_at, due_at, idempotency })
}
