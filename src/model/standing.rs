//! What an answer tells of limits: where those that apply stand, and what is held.

use std::fmt;

use smol_str::SmolStr;

use super::amount::{Amount, Unit};
use super::facts::Timestamp;

/// Where one meter of a limit stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitStanding {
    /// The limit's id.
    pub id: SmolStr,
    /// Whose meter; `None` where all share one.
    pub meter: Option<SmolStr>,
    /// What is counted.
    pub unit: Unit,
    /// How much there may be.
    pub limit: Amount,
    /// What was used.
    pub used: Amount,
    /// What is held for requests under way.
    pub held: Amount,
    /// When what is used counts no more.
    pub resets_at: Option<Timestamp>,
    /// The shortage, if that is why the request is forbidden.
    pub shortage: Option<Shortage>,
}

/// The amount that a limit lacks for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// The amount that the request needs; absent for a check, which needs the smallest amount.
    pub needed: Option<Amount>,
    /// Whether that is more than the limit ever has room for.
    pub never_fits: bool,
    /// When there will be room again, if that is known and no other request takes it.
    pub retry_at: Option<Timestamp>,
}

impl LimitStanding {
    /// What there is room for.
    #[must_use]
    pub fn remaining(&self) -> Amount {
        self.limit.less(self.used).less(self.held)
    }
}

impl fmt::Display for LimitStanding {
    /// `research-month of User::"alice": 498.20 of 500 usd used, 1.70 held, room again at 2026-12-01T00:00:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, unit, .. } = self;
        write!(f, "{id}")?;
        if let Some(meter) = &self.meter {
            write!(f, " of {meter}")?;
        }
        let (used, limit, held) = (unit.show(self.used), unit.show(self.limit), unit.show(self.held));
        write!(f, ": {used} of {limit} {} used, {held} held", unit.as_str())?;
        let Some(Shortage { needed, never_fits, retry_at }) = self.shortage else { return Ok(()) };
        match needed.map(|needed| unit.show(needed)) {
            Some(needed) if never_fits => {
                return write!(f, "; the request needs {needed}, which never fits: waiting does not help");
            }
            Some(needed) => write!(f, ", and the request needs {needed}")?,
            None => {}
        }
        match retry_at {
            // The end of another caller's request is unknown.
            Some(retry_at) if *unit != Unit::Places => write!(f, ", room again at {retry_at}"),
            _ => Ok(()),
        }
    }
}

/// What is held for a request that was permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// The name to settle, release or extend it by.
    pub id: SmolStr,
    /// When it expires.
    pub expires_at: Timestamp,
}
