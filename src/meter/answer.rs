//! What a ledger is asked to hold, and what it answers.

use std::sync::Arc;

use smol_str::SmolStr;

use super::meter::{Lack, Standing};
use super::reservation::{Charge, Reservation, ReservationId, Spending, State};
use crate::model::{Timestamp, Unit};

/// What is to be held.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Its name.
    pub id: ReservationId,
    /// For whom and what.
    pub spending: Arc<Spending>,
    /// On which meters; each at most once.
    pub charges: Vec<Charge>,
    /// How long, in milliseconds.
    pub ttl_ms: i64,
    /// The key its client chose, with the digest of its request.
    pub idempotency: Option<(SmolStr, [u8; 32])>,
    /// The maximum number of open reservations of the principal, including this one; `None` means no maximum.
    pub most_open: Option<usize>,
}

/// What is held now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// When it expires.
    pub expires_at: Timestamp,
    /// Where each meter stands now, in the order of the charges.
    pub standings: Vec<Standing>,
    /// Percents that were crossed.
    pub alerts: Vec<Alert>,
}

/// A percent of a limit that was crossed for the first time in its period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The limit.
    pub limit: SmolStr,
    /// Whose meter.
    pub subject: Option<SmolStr>,
    /// Which percent.
    pub percent: u8,
    /// What is counted.
    pub unit: Unit,
    /// Where the meter stands.
    pub standing: Standing,
}

/// A meter that has no room, by the place of its charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// Which of the charges.
    pub charge: usize,
    /// Where the meter stands.
    pub standing: Standing,
    /// When there is room again.
    pub lack: Lack,
}

/// Why nothing is held: a meter has no room, if no other cause is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refused {
    /// What else keeps it from being held.
    pub cause: Option<Cause>,
    /// Every meter that has no room.
    pub shortfalls: Vec<Shortfall>,
    /// Percents that were crossed and nobody was told of.
    pub alerts: Vec<Alert>,
}

/// Why nothing is held, whatever room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// As many reservations as may be are open.
    #[error("too many reservations are open")]
    TooManyOpen,
    /// The principal has as many reservations open as it may.
    #[error("the principal has too many open reservations")]
    TooManyOfPrincipal,
    /// A reservation of this name is known.
    #[error("a reservation of this name is known")]
    NameTaken,
}

/// What became of a reservation that was closed, now or before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// As it is now.
    pub reservation: Reservation,
    /// Percents that were crossed.
    pub alerts: Vec<Alert>,
}

/// Why a reservation cannot be closed or extended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// No reservation of this name, or it is long over.
    #[error("no such reservation is known")]
    Unknown,
    /// It was closed otherwise before.
    #[error("the reservation was closed otherwise before")]
    Closed(State),
    /// Money is counted, and nobody knows how much it was.
    #[error("what it cost is not known")]
    CostUnknown,
    /// Beyond what can be counted.
    #[error("the amount is beyond what can be counted")]
    Overflow,
}
