//! The world: the only code that touches sockets, files, databases and the clock.

#![allow(clippy::disallowed_methods, reason = "the world: this is where files and the clock are read")]

#[cfg(feature = "tower")]
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "lists are answered by the server alone"))]
pub(crate) mod answer;
pub mod clock;
#[cfg(unix)]
pub mod decision_log;
pub mod files;
#[cfg(feature = "server")]
pub mod http;
pub mod identity;
#[cfg(feature = "client")]
pub mod outgoing;
pub mod random;
pub mod store;
#[cfg(feature = "server")]
pub mod telemetry;
