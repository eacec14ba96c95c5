//! The arithmetic of spending: limits, meters, and the ledger that holds, settles and expires on many of them at once.
//! Pure: the instant is handed in, and nothing is read or written.

pub mod ledger;
pub mod limit;
#[expect(clippy::module_inception, reason = "a meter is what the arithmetic is about")]
pub mod meter;
pub mod price;
pub mod reservation;

pub use ledger::{Alert, Changes, Closed, Entry, Held, Hold, Ledger, LedgerError, Refused, Shortfall};
pub use limit::{Durability, Limit, Measure, Mode, OnExpiry, OnStoreError, Override, Unpriced};
pub use meter::{Lack, Meter, Standing};
pub use price::{Price, PriceError, Rates, Tier, Usage};
pub use reservation::{
    Charge, DEFAULT_TTL_MS, Idempotency, MAX_TTL_MS, MEMORY_MS, MeterKey, Part, Reservation, ReservationId,
    ReservationIdError, Spending, State,
};
