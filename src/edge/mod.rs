//! The world: the only code that touches sockets, files, databases and the clock.

pub mod clock;
pub mod files;
#[cfg(feature = "server")]
pub mod http;
