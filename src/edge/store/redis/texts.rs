//! What stands in the values: meters and reservations, as the scripts write them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::rows;
use crate::meter::{
    Budget, Hold, Idempotency, Meter, OnExpiry, Part, Places, Rate, Reservation, ReservationId, Rolling, State, Usage,
};
use crate::model::{Amount, Timestamp, Unit, Window};

/// A value that is not as it was written.
#[derive(Debug, thiserror::Error)]
#[error("a value in Redis is not as it was written: {0}")]
pub(super) struct TextError(pub(super) &'static str);

/// A unit, as a letter.
pub(super) const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Usd => "u",
        Unit::Tokens => "t",
        Unit::InputTokens => "i",
        Unit::OutputTokens => "o",
        Unit::Requests => "q",
        Unit::Places => "p",
    }
}

/// Without what ends a line.
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

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The state of what was settled with this.
pub(super) fn settled(usage: &Usage) -> String {
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

pub(super) fn state(text: &str) -> Result<State, TextError> {
    let wrong = TextError("a state");
    match text {
        "O" => Ok(State::Open),
        "R" => Ok(State::Released),
        "X" => Ok(State::Expired),
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
        usd => Some(Usage { usd: Some(amount(usd)?), ..usage }),
    }
}

fn amount(text: &str) -> Option<Amount> {
    Amount::new(text.parse().ok()?)
}

fn instant(text: &str) -> Option<Timestamp> {
    Some(Timestamp::from_millis(text.parse().ok()?))
}

/// A meter; `None` where there is none.
pub(super) fn meter(text: &str) -> Result<Option<Meter>, TextError> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut fields = text.split(' ');
    let read = match fields.next() {
        Some("B") => budget(&mut fields),
        Some("W") => rolling(&mut fields),
        Some("R") => rate(&mut fields),
        Some("P") => fields.next().and_then(amount).map(|held| Meter::Places(Places { held })),
        _ => None,
    };
    read.map(Some).ok_or(TextError("a meter"))
}

fn budget<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Option<Meter> {
    let start = instant(fields.next()?)?;
    let end = match fields.next()? {
        "-" => None,
        end => Some(instant(end)?),
    };
    Some(Meter::Budget(Budget {
        window: Window { start, end },
        used: amount(fields.next()?)?,
        held: amount(fields.next()?)?,
        carried: amount(fields.next()?)?,
        warned: fields.next()?.parse().ok()?,
        carries: fields.next()? == "1",
    }))
}

fn rolling<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Option<Meter> {
    let slice_ms = fields.next()?.parse().ok().filter(|length| *length > 0)?;
    let current = fields.next()?.parse().ok()?;
    let held = amount(fields.next()?)?;
    let warned = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let slice = |text: &str| {
        let (number, used) = text.split_once(':')?;
        Some((number.parse().ok()?, amount(used)?))
    };
    let used = fields.map(slice).collect::<Option<VecDeque<_>>>()?;
    Some(Meter::Rolling(Rolling { slice_ms, current, used, held, warned }))
}

fn rate<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Option<Meter> {
    Some(Meter::Rate(Rate {
        level: fields.next()?.parse().ok()?,
        at: instant(fields.next()?)?,
        since: instant(fields.next()?)?,
        amount: amount(fields.next()?)?,
        every_ms: fields.next()?.parse().ok().filter(|every| *every > 0)?,
        held: amount(fields.next()?)?,
        certain: fields.next()? == "1",
    }))
}

/// What only nodes read of a reservation.
pub(super) fn body(hold: &Hold, now: Timestamp) -> String {
    let part = |charge: &crate::meter::Charge| Part {
        meter: charge.key(),
        limit: charge.limit.id.clone(),
        unit: charge.limit.unit(),
        held: Amount::ZERO,
        charged: Amount::ZERO,
        mark: 0,
        on_expiry: charge.limit.on_expiry,
    };
    rows::reservation_text(&Reservation {
        id: hold.id,
        spending: Arc::clone(&hold.spending),
        parts: hold.charges.iter().map(part).collect(),
        state: State::Open,
        created_at: now,
        due_at: now,
        idempotency: None,
    })
}

/// A reservation as a script tells it.
pub(super) fn reservation(id: &str, text: &str, answer: Option<Arc<[u8]>>) -> Result<Reservation, TextError> {
    read_reservation(id, text, answer).ok_or(TextError("a reservation"))
}

fn read_reservation(id: &str, text: &str, answer: Option<Arc<[u8]>>) -> Option<Reservation> {
    let id: ReservationId = id.parse().ok()?;
    let (lines, body) = text.split_once("\n\n")?;
    let mut lines = lines.split('\n');
    let mut head = lines.next()?.splitn(5, ' ');
    let (state_text, due, created) = (head.next()?, instant(head.next()?)?, instant(head.next()?)?);
    let (digest, name) = (head.next()?, head.next()?);
    let idempotency = match digest {
        "-" => None,
        digest => Some(Idempotency { key: unescaped(name)?.into(), digest: unhex(digest)?, answer }),
    };
    let mut reservation = rows::reservation(id, due, body, idempotency).ok()?;
    for part in &mut reservation.parts {
        let mut fields = lines.next()?.splitn(6, ' ');
        let (_unit, release) = (fields.next()?, fields.next()?);
        (part.held, part.charged) = (amount(fields.next()?)?, amount(fields.next()?)?);
        part.mark = fields.next()?.parse().ok()?;
        part.on_expiry = if release == "1" { OnExpiry::Release } else { OnExpiry::Charge };
    }
    reservation.state = state(state_text).ok()?;
    reservation.created_at = created;
    Some(reservation)
}
