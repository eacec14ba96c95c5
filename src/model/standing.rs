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
    /// Whether it is why the request is forbidden.
    pub short: bool,
}

impl LimitStanding {
    /// What there is room for.
    #[must_use]
    pub fn remaining(&self) -> Amount {
        self.limit.less(self.used).less(self.held)
    }
}

impl fmt::Display for LimitStanding {
    /// `research-month of User::"alice": 498.20 of 500 usd used, 1.70 held`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, unit, .. } = self;
        write!(f, "{id}")?;
        if let Some(meter) = &self.meter {
            write!(f, " of {meter}")?;
        }
        let (used, limit, held) = (unit.show(self.used), unit.show(self.limit), unit.show(self.held));
        write!(f, ": {used} of {limit} {} used, {held} held", unit.as_str())?;
        match self.resets_at {
            Some(resets_at) => write!(f, ", until {resets_at}"),
            None => Ok(()),
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
