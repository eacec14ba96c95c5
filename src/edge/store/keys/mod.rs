//! The keys that Tollgate made, and the passwords that were set beside them: all of them in memory, and in a file or a Redis that outlives the process.

#[cfg(feature = "sqlite")]
mod file;
mod passwords;
mod pepper;
mod rows;
mod table;

#[cfg(feature = "sqlite")]
pub use file::{KeyFile, KeyFileError};
#[cfg(feature = "redis")]
pub(super) use passwords::PasswordTable;
pub use pepper::{Pepper, PepperError};
#[cfg(feature = "redis")]
pub(super) use rows::{read, read_password, write, write_password};
pub use table::MAX_KEYS;
#[cfg(feature = "redis")]
pub(super) use table::Table;
