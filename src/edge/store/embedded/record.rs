//! What a record of the log says: the rows that changed, as the tables will have them.

use super::super::rows;
use crate::meter::{Changes, Entry, Reservation, State};
use crate::model::Amount;

/// A row, as it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row<'a> {
    /// A meter; without a state where it need not be known any longer.
    Meter { series: &'a str, subject: &'a str, state: Option<&'a str> },
    /// A reservation.
    Reservation(&'a [u8; 16], ReservationRow<'a>),
    /// What was used, to be added to the books.
    Used { day: i64, principal: &'a str, resource: &'a str, sums: [i64; 4] },
    /// What a limit counted, to be added to the books.
    Counted { day: i64, principal: &'a str, resource: &'a str, limit: &'a str, unit: &'a str, amount: i64 },
}

/// A client's key: itself, the digest of its request, and what was answered.
pub(super) type KeyRow<'a> = (&'a str, &'a [u8; 32], Option<&'a [u8]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReservationRow<'a> {
    pub(super) is_open: bool,
    pub(super) created_at: i64,
    pub(super) due_at: i64,
    pub(super) body: &'a str,
    /// The key, the digest of its request, and what was answered.
    pub(super) key: Option<KeyRow<'a>>,
}

const METER: u8 = 1;
const BLANK_METER: u8 = 2;
const OPEN: u8 = 3;
const CLOSED: u8 = 4;
const USED: u8 = 5;
const COUNTED: u8 = 6;

/// Writes what changed.
pub(super) fn write(out: &mut Vec<u8>, changes: &Changes) {
    for (key, meter) in &changes.meters {
        out.push(METER);
        text(out, &key.series);
        text(out, rows::subject(key));
        text(out, &rows::meter_text(meter));
    }
    for key in &changes.blank {
        out.push(BLANK_METER);
        text(out, &key.series);
        text(out, rows::subject(key));
    }
    for one in &changes.reservations {
        reservation(out, one);
    }
    for one in &changes.entries {
        entry(out, one);
    }
}

fn reservation(out: &mut Vec<u8>, one: &Reservation) {
    out.push(if one.state == State::Open { OPEN } else { CLOSED });
    out.extend(one.id.to_bytes());
    number(out, one.created_at.as_millis());
    number(out, one.due_at.as_millis());
    text(out, &rows::reservation_text(one));
    out.push(one.idempotency.is_some().into());
    if let Some(idempotency) = &one.idempotency {
        text(out, &idempotency.key);
        out.extend(idempotency.digest);
        out.push(idempotency.answer.is_some().into());
        if let Some(answer) = &idempotency.answer {
            bytes(out, answer);
        }
    }
}

fn entry(out: &mut Vec<u8>, entry: &Entry) {
    let (principal, resource) = (entry.spending.principal.to_string(), entry.spending.resource.to_string());
    let mut begin = |tag| {
        out.push(tag);
        number(out, entry.day());
        text(out, &principal);
        text(out, &resource);
    };
    let fitting = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    if let Some(usage) = entry.usage {
        begin(USED);
        number(out, fitting(usage.requests));
        number(out, fitting(usage.input_tokens));
        number(out, fitting(usage.output_tokens));
        number(out, usage.usd.map_or(0, Amount::get_signed));
    }
    for (limit, unit, charged, before) in &entry.limits {
        out.push(COUNTED);
        number(out, entry.day());
        text(out, &principal);
        text(out, &resource);
        text(out, limit);
        text(out, unit.as_str());
        number(out, charged.get_signed() - before.get_signed());
    }
}

fn number(out: &mut Vec<u8>, number: i64) {
    out.extend(number.to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    bytes(out, text.as_bytes());
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // INVARIANT: a record is shorter than 4 GiB, which whoever appends it checks.
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(bytes);
}

/// Reads what [`write`] wrote; nothing behind what is not so.
pub(super) struct Rows<'a> {
    rest: &'a [u8],
    is_damaged: bool,
}

impl<'a> Rows<'a> {
    pub(super) const fn new(says: &'a [u8]) -> Self {
        Self { rest: says, is_damaged: false }
    }

    /// Whether there was something that is no row.
    pub(super) const fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn number(&mut self) -> Option<i64> {
        self.array().map(|bytes| i64::from_le_bytes(*bytes))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = u32::from_le_bytes(*self.array()?);
        self.take(usize::try_from(count).ok()?)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn is_there(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn row(&mut self) -> Option<Row<'a>> {
        Some(match self.byte()? {
            METER => Row::Meter { series: self.text()?, subject: self.text()?, state: Some(self.text()?) },
            BLANK_METER => Row::Meter { series: self.text()?, subject: self.text()?, state: None },
            tag @ (OPEN | CLOSED) => Row::Reservation(self.array()?, self.reservation(tag == OPEN)?),
            USED => Row::Used {
                day: self.number()?,
                principal: self.text()?,
                resource: self.text()?,
                sums: [self.number()?, self.number()?, self.number()?, self.number()?],
            },
            COUNTED => Row::Counted {
                day: self.number()?,
                principal: self.text()?,
                resource: self.text()?,
                limit: self.text()?,
                unit: self.text()?,
                amount: self.number()?,
            },
            _ => return None,
        })
    }

    fn reservation(&mut self, is_open: bool) -> Option<ReservationRow<'a>> {
        let (created_at, due_at, body) = (self.number()?, self.number()?, self.text()?);
        let key = if self.is_there()? {
            let (key, digest) = (self.text()?, self.array()?);
            let answer = if self.is_there()? { Some(self.bytes()?) } else { None };
            Some((key, digest, answer))
        } else {
            None
        };
        Some(ReservationRow { is_open, created_at, due_at, body, key })
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let row = self.row();
        if row.is_none() {
            self.is_damaged = true;
            self.rest = &[];
        }
        row
    }
}
