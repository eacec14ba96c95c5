//! The keys that Tollgate made: all of them in memory, and in a file or a Redis that outlives the process.

#[cfg(feature = "sqlite")]
mod file;
mod pepper;
mod rows;
mod table;

#[cfg(feature = "sqlite")]
pub use file::{KeyFile, KeyFileError};
pub use pepper::{Pepper, PepperError};
#[cfg(feature = "redis")]
pub(super) use rows::{read, write};
pub use table::MAX_KEYS;
#[cfg(feature = "redis")]
pub(super) use table::Table;
