//! What a script answered, in the words of the ledger.

use std::sync::Arc;

use ::redis::Value;

use super::super::given_back;
use super::values::{self, ValueError};
use crate::gate::{CloseError, HoldError, Look, StoreError};
use crate::meter::{Alert, Charge, Closed, Held, Hold, LedgerError, Meter, Refused, Reservation, Shortfall, lack};
use crate::model::Timestamp;

/// The mark of a generation whose state was lost because the Redis evicted keys.
pub(super) const EVICTED: &str = "evicted";
pub(super) const DROPPED_KEYS: &str = "another node saw that Redis evicted keys because it was full (evicted_keys \
                                       grew)";

/// A code, the sequence, and what else there is.
pub(super) struct Reply {
    code: String,
    pub(super) sequence: u64,
    rest: std::vec::IntoIter<Value>,
    /// What the quick way answered: meters, one after the other.
    quick: Option<Vec<u8>>,
}

impl From<ValueError> for StoreError {
    fn from(error: ValueError) -> Self {
        Self::Away(error.to_string().into())
    }
}

fn odd() -> StoreError {
    ValueError("an answer").into()
}

pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// Names and values, one after the other.
pub(super) fn pairs(value: Value) -> Option<Vec<(String, String)>> {
    let Value::Array(items) = value else { return None };
    let mut items = items.into_iter().map(text);
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let Some(name) = items.next() {
        pairs.push((name?, items.next().flatten()?));
    }
    Some(pairs)
}

fn texts_of(value: Option<Value>) -> Result<Vec<String>, StoreError> {
    let Some(Value::Array(items)) = value else { return Err(odd()) };
    items.into_iter().map(text).collect::<Option<_>>().ok_or_else(odd)
}

/// What is told of a generation: its epoch, its sequence, and what was seen of it that is lost.
pub(super) fn hello(value: Value) -> Result<(String, u64, String), StoreError> {
    let mut told = texts_of(Some(value))?.into_iter();
    let (Some(epoch), Some(sequence), Some(lost)) = (told.next(), told.next(), told.next()) else {
        return Err(odd());
    };
    Ok((epoch, sequence.parse().map_err(|_| odd())?, lost))
}

fn state(value: &Value) -> Result<Option<Meter>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(values::meter(bytes)?),
        _ => Err(odd()),
    }
}

impl Reply {
    pub(super) fn read(value: Value) -> Result<Self, StoreError> {
        let items = match value {
            Value::Array(items) => items,
            Value::BulkString(bytes) => return Self::read_quick(bytes).ok_or_else(odd),
            _ => return Err(odd()),
        };
        let mut rest = items.into_iter();
        let code = rest.next().and_then(text).ok_or_else(odd)?;
        let sequence = rest.next().and_then(text).and_then(|text| text.parse().ok()).ok_or_else(odd)?;
        Ok(Self { code, sequence, rest, quick: None })
    }

    /// What is answered quickly is one text, and nobody is to be told of a percent.
    fn read_quick(bytes: Vec<u8>) -> Option<Self> {
        let (is_held, sequence) = values::quick_head(&bytes)?;
        let code = if is_held { "OK" } else { "SHORT" };
        Some(Self { code: code.to_owned(), sequence, rest: Vec::new().into_iter(), quick: Some(bytes) })
    }

    /// What was answered to holds that were asked together; `None` for those that have to be asked alone.
    pub(super) fn read_each(value: Value, count: usize) -> Result<Vec<Option<Self>>, StoreError> {
        let Value::Array(items) = value else { return Err(odd()) };
        if items.is_empty() {
            return Ok((0..count).map(|_| None).collect());
        }
        let read = |item| match item {
            Value::BulkString(bytes) if bytes.is_empty() => Some(None),
            Value::BulkString(bytes) => Self::read_quick(bytes).map(Some),
            _ => None,
        };
        let each: Option<Vec<_>> = items.into_iter().map(read).collect();
        each.filter(|each| each.len() == count).ok_or_else(odd)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.code == "LOST"
    }

    /// The epoch that it is by now, where nothing is lost and nothing was done.
    pub(super) fn epoch(&self) -> Result<Option<&str>, StoreError> {
        if self.code != "EPOCH" {
            return Ok(None);
        }
        match self.rest.as_slice().first() {
            Some(Value::BulkString(epoch)) => std::str::from_utf8(epoch).map(Some).map_err(|_| odd()),
            _ => Err(odd()),
        }
    }

    /// How it shows that something is lost.
    pub(super) fn lost(mut self, seen: u64) -> String {
        let same = self.next_text().unwrap_or_default();
        let most = self.next_text().unwrap_or_default();
        let here = self.next_text().unwrap_or_default();
        if here.is_empty() {
            return "Redis came back empty".to_owned();
        }
        if same.is_empty() {
            return "Redis was begun anew: its generation is not the one that was seen".to_owned();
        }
        if self.sequence < seen {
            return format!("Redis came back at {}, and its generation was seen at {seen}", self.sequence);
        }
        if most == EVICTED {
            return DROPPED_KEYS.to_owned();
        }
        if most != seen.to_string() {
            return format!("Redis came back with less: another node saw its generation at {most}");
        }
        format!("Redis came back with less than was seen at {seen}, and its generation has gone on since")
    }

    fn next_text(&mut self) -> Result<String, StoreError> {
        self.rest.next().and_then(text).ok_or_else(odd)
    }

    /// The meters of `charges`, brought to `now`.
    fn meters(&mut self, charges: &[Charge], now: Timestamp) -> Result<Vec<Meter>, StoreError> {
        let states = match (&self.quick, self.rest.next()) {
            (Some(bytes), _) => values::quick_meters(bytes, charges.len())?,
            (None, Some(Value::Array(items))) => items.iter().map(state).collect::<Result<_, _>>()?,
            _ => return Err(odd()),
        };
        if states.len() != charges.len() {
            return Err(odd());
        }
        let meter = |(state, charge): (Option<Meter>, &Charge)| {
            let mut meter = state.unwrap_or_else(|| Meter::new(&charge.limit, now));
            meter.advance(&charge.limit, now);
            meter
        };
        Ok(states.into_iter().zip(charges).map(meter).collect())
    }

    pub(super) fn looks(mut self, charges: &[Charge], now: Timestamp) -> Result<Vec<Look>, StoreError> {
        let meters = self.meters(charges, now)?;
        let look = |(index, (meter, charge)): (usize, (&Meter, &Charge))| Look {
            standing: meter.standing(&charge.limit, now),
            lack: lack(charges, index, meter, now),
        };
        Ok(meters.iter().zip(charges).enumerate().map(look).collect())
    }

    pub(super) fn held(mut self, hold: &Hold, expires_at: Timestamp, now: Timestamp) -> Result<Held, HoldError> {
        let charges = &hold.charges;
        match self.code.as_str() {
            "OK" => {
                let meters = self.meters(charges, now)?;
                let standings = meters.iter().zip(charges).map(|(meter, charge)| meter.standing(&charge.limit, now));
                let alerts = self.alerts(charges, &meters, now)?;
                Ok(Held { expires_at, standings: standings.collect(), alerts })
            }
            "SHORT" => {
                let meters = self.meters(charges, now)?;
                let short = |(index, meter): (usize, &Meter)| {
                    let lack = lack(charges, index, meter, now)?;
                    let standing = meter.standing(&charges.get(index)?.limit, now);
                    Some(Shortfall { charge: index, standing, lack })
                };
                let shortfalls = meters.iter().enumerate().filter_map(short).collect();
                let alerts = self.alerts(charges, &meters, now)?;
                Err(HoldError::Refused(Refused { cause: None, shortfalls, alerts }))
            }
            "NAMED" | "KNOWN" => Err(HoldError::KeyTaken),
            "MANY" => Err(HoldError::TooManyOpen),
            "FULL" => Err(StoreError::Full.into()),
            _ => Err(odd().into()),
        }
    }

    fn alerts(&mut self, charges: &[Charge], meters: &[Meter], now: Timestamp) -> Result<Vec<Alert>, StoreError> {
        if self.quick.is_some() {
            return Ok(Vec::new());
        }
        let percents = texts_of(self.rest.next())?;
        let alert = |(percent, (charge, meter)): (&String, (&Charge, &Meter))| {
            let percent = percent.parse().ok().filter(|percent| *percent > 0)?;
            let (limit, unit) = (charge.limit.id.clone(), charge.limit.unit());
            let standing = meter.standing(&charge.limit, now);
            Some(Alert { limit, subject: charge.subject.clone(), percent, unit, standing })
        };
        Ok(percents.iter().zip(charges.iter().zip(meters)).filter_map(alert).collect())
    }

    pub(super) fn recorded(mut self, hold: &Hold, prefix: &str, now: Timestamp) -> Result<Closed, CloseError> {
        match self.code.as_str() {
            "OK" => {
                let meters = self.meters(&hold.charges, now)?;
                let alerts = self.alerts(&hold.charges, &meters, now)?;
                let Some(Value::BulkString(value)) = self.rest.next() else { return Err(odd().into()) };
                let id = hold.id.to_string();
                let reservation = values::reservation(prefix, &id, &value, None).map_err(StoreError::from)?;
                Ok(Closed { reservation, alerts })
            }
            "NAMED" => Err(CloseError::KeyTaken(Box::new(self.reservation(prefix)?))),
            "KNOWN" => Err(LedgerError::Closed(self.state()?).into()),
            "SHORT" => Err(LedgerError::Overflow.into()),
            _ => Err(odd().into()),
        }
    }

    pub(super) fn closed(mut self, prefix: &str) -> Result<Closed, CloseError> {
        match self.code.as_str() {
            "OK" => Ok(Closed { reservation: self.reservation(prefix)?, alerts: Vec::new() }),
            "COST" => Err(LedgerError::CostUnknown.into()),
            "OVERFLOW" => Err(LedgerError::Overflow.into()),
            _ => Err(self.unknown_or_closed()),
        }
    }

    pub(super) fn warned(mut self, charges: &[Charge], now: Timestamp) -> Result<Vec<Alert>, StoreError> {
        let meters = self.meters(charges, now)?;
        self.alerts(charges, &meters, now)
    }

    pub(super) fn answered(self) -> Result<(), StoreError> {
        if self.code == "BACK" { Err(given_back()) } else { Ok(()) }
    }

    pub(super) fn extended(mut self) -> Result<Timestamp, CloseError> {
        match self.code.as_str() {
            "OK" => {
                let until = self.next_text()?.parse().map_err(|_| odd())?;
                Ok(Timestamp::from_millis(until))
            }
            _ => Err(self.unknown_or_closed()),
        }
    }

    /// How many were looked at whether they can be forgotten.
    pub(super) fn forgotten(mut self) -> Result<usize, StoreError> {
        let _meters = self.rest.next();
        self.next_text()?.parse().map_err(|_| odd())
    }

    pub(super) fn found(mut self, prefix: &str) -> Result<Option<Reservation>, StoreError> {
        match self.code.as_str() {
            "OK" => self.reservation(prefix).map(Some),
            "UNKNOWN" => Ok(None),
            _ => Err(odd()),
        }
    }

    fn unknown_or_closed(&mut self) -> CloseError {
        match self.code.as_str() {
            "UNKNOWN" => LedgerError::Unknown.into(),
            "CLOSED" => self.state().map_or_else(CloseError::from, |state| LedgerError::Closed(state).into()),
            _ => odd().into(),
        }
    }

    fn state(&mut self) -> Result<crate::meter::State, StoreError> {
        Ok(values::state(&self.next_text()?)?)
    }

    fn reservation(&mut self, prefix: &str) -> Result<Reservation, StoreError> {
        let id = self.next_text()?;
        let Some(Value::BulkString(value)) = self.rest.next() else { return Err(odd()) };
        let answer = match self.rest.next() {
            Some(Value::BulkString(bytes)) => Some(Arc::from(bytes)),
            _ => None,
        };
        Ok(values::reservation(prefix, &id, &value, answer)?)
    }
}
