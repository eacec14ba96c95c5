//! Reservations: what is held for one request on every limit that applies, and what became of it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use smol_str::SmolStr;

use super::price::{Price, Usage};
use crate::model::hex;
use crate::model::limit::{Limit, OnExpiry};
use crate::model::{Amount, EntityUid, Timestamp, Unit};

/// How long a reservation lives where nobody says otherwise, in milliseconds.
pub const DEFAULT_TTL_MS: i64 = 10 * 60 * 1000;
/// How long it may be told to live, and be extended by, in milliseconds.
pub const MAX_TTL_MS: i64 = 60 * 60 * 1000;
/// How long what became of a reservation is known after its end, and can be corrected, in milliseconds.
pub const MEMORY_MS: i64 = 24 * 60 * 60 * 1000;

/// The name of a reservation: ordered by time and not to be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId(u128);

impl ReservationId {
    /// Made at `now` with 80 bits of chance, as in a UUID of version 7 (RFC 9562, section 5.7).
    #[must_use]
    pub fn new(now: Timestamp, chance: u128) -> Self {
        let millis = u128::from(u64::try_from(now.as_millis()).unwrap_or(0) & 0xFFFF_FFFF_FFFF);
        Self((millis << 80) | (chance & ((1 << 80) - 1)))
    }

    /// As it is shown.
    #[must_use]
    pub fn to_text(self) -> SmolStr {
        let mut text = [b'r'; 34];
        let bytes = self.to_bytes();
        let digits = hex::digits(&bytes);
        for (place, digit) in text.iter_mut().skip(1).zip(std::iter::once(b'-').chain(digits)) {
            *place = digit;
        }
        SmolStr::new(std::str::from_utf8(&text).unwrap_or_default())
    }

    /// As bytes, in its order.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From [`ReservationId::to_bytes`].
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r-{:032x}", self.0)
    }
}

/// A text that names no reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reservation is named as the answer that held it named it: r- and 32 hexadecimal digits")]
pub struct ReservationIdError;

impl FromStr for ReservationId {
    type Err = ReservationIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("r-").filter(|digits| digits.len() == 32).ok_or(ReservationIdError)?;
        if !hex::is_lower(digits, 32) {
            return Err(ReservationIdError);
        }
        u128::from_str_radix(digits, 16).map(Self).map_err(|_| ReservationIdError)
    }
}

/// Names a meter: the series of a limit, and whose meter it is where there is one for each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeterKey {
    /// [`Limit::series`].
    pub series: Arc<str>,
    /// Whose; `None` for the one that all share.
    pub subject: Option<SmolStr>,
}

/// So much on one meter of one limit.
#[derive(Debug, Clone)]
pub struct Charge {
    /// The limit.
    pub limit: Arc<Limit>,
    /// Whose meter.
    pub subject: Option<SmolStr>,
    /// How much.
    pub amount: Amount,
}

impl Charge {
    /// The room that it needs on its meter. A limit that refuses must have room for the smallest amount even if nothing
    /// is held, so that a hold is refused wherever a check is.
    #[must_use]
    pub fn room_needed(&self) -> Amount {
        if self.limit.is_enforced() { self.amount.max(Amount::ONE) } else { self.amount }
    }

    /// The meter's name.
    #[must_use]
    pub fn key(&self) -> MeterKey {
        MeterKey { series: Arc::clone(&self.limit.series), subject: self.subject.clone() }
    }
}

/// The part of a reservation that is on one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The meter.
    pub meter: MeterKey,
    /// The id of the limit.
    pub limit: SmolStr,
    /// What is counted.
    pub unit: Unit,
    /// What was held.
    pub held: Amount,
    /// What was charged at the end.
    pub charged: Amount,
    /// Where in the meter's time it stands.
    pub mark: i64,
    /// What becomes of it when nobody settles.
    pub on_expiry: OnExpiry,
}

/// What became of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It holds until it expires.
    Open,
    /// It was settled, with this.
    Settled(Usage),
    /// The caller stated that the usage is unknown.
    UsageUnknown,
    /// It was given back.
    Released,
    /// Nobody settled it in time.
    Expired,
}

/// For whom and what something was spent: what usage is told by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spending {
    /// Who.
    pub principal: EntityUid,
    /// On which model or router.
    pub resource: EntityUid,
    /// What else it may turn out to be: the other candidates that were permitted.
    pub permitted: Box<[EntityUid]>,
    /// Its price when it was held; none where it has none.
    pub price: Option<Arc<Price>>,
    /// The charge of each part for a usage that the caller states as unknown, in the order of the parts. If empty, each
    /// is charged as held.
    pub if_unknown: Box<[Amount]>,
}

/// What makes a request sent again the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key that the client chose.
    pub key: SmolStr,
    /// A digest of the request's body.
    pub digest: [u8; 32],
    /// What was answered; nothing as long as nobody was.
    pub answer: Option<Arc<[u8]>>,
}

/// What is held for one request, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Its name.
    pub id: ReservationId,
    /// For whom and what.
    pub spending: Arc<Spending>,
    /// What was held, meter by meter.
    pub parts: Box<[Part]>,
    /// What becomes of it.
    pub state: State,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires; once it is closed, when it is forgotten.
    pub due_at: Timestamp,
    /// What its client named it.
    pub idempotency: Option<Idempotency>,
}

impl Reservation {
    /// The charge of each part for a usage that the caller states as unknown. A concurrency place is always released.
    #[must_use]
    pub fn charged_if_unknown(&self) -> Box<[Amount]> {
        let stated = |index: usize, part: &Part| self.spending.if_unknown.get(index).copied().unwrap_or(part.held);
        let charged = self.parts.iter().enumerate();
        charged
            .map(|(index, part)| if part.unit == Unit::Places { Amount::ZERO } else { stated(index, part) })
            .collect()
    }

    /// Whether its client's key may name another: it was given back since nobody could be told of it.
    #[must_use]
    pub fn leaves_its_key(&self) -> bool {
        let unanswered = self.idempotency.as_ref().is_some_and(|key| key.answer.is_none());
        unanswered && self.state == State::Released
    }
}
