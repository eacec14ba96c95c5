//! The arithmetic of spending: limits, meters, and the ledger that holds, settles and expires on many of them at once.
//! Pure: the instant is handed in, and nothing is read or written.

pub mod limit;
pub mod price;

pub use limit::{Durability, Limit, Measure, Mode, OnExpiry, OnStoreError, Override, Unpriced};
pub use price::{Price, PriceError, Rates, Tier, Usage};
