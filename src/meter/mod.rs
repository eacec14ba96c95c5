//! The arithmetic of spending: limits, meters, and the ledger that holds, settles and expires on many of them at once.
//! Pure: the instant is handed in, and nothing is read or written.

pub mod answer;
mod book;
pub mod budget;
pub mod changes;
#[cfg(test)]
mod fixtures;
pub mod ledger;
#[expect(clippy::module_inception, reason = "a meter is what the arithmetic is about")]
pub mod meter;
mod meters;
pub mod price;
pub mod rate;
pub mod reservation;
pub mod rolling;

pub use crate::model::limit::{
    Durability, Lease, Limit, Measure, Mode, OnExpiry, OnMissingUsage, OnStoreError, Override, Unpriced,
};
pub use answer::{Alert, Cause, Closed, Held, Hold, LedgerError, Refused, Shortfall};
pub use budget::Budget;
pub use changes::{Changes, Entry};
pub use ledger::{DEFAULT_MOST_OPEN, DEFAULT_MOST_OPEN_OF_PRINCIPAL, Ledger, lack};
pub use meter::{Lack, Meter, Places, Standing};
pub use price::{Price, PriceError, Rates, Tier, Usage};
pub use rate::Rate;
pub use reservation::{
    Charge, DEFAULT_TTL_MS, Idempotency, MAX_TTL_MS, MEMORY_MS, MeterKey, Part, Reservation, ReservationId,
    ReservationIdError, Spending, State,
};
pub use rolling::Rolling;
