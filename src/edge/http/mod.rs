//! HTTP: what gateways send, and what they read. Wire types live here and nowhere else.
//!
//! A request is parsed into a type of `wire` and checked there, decided on the thread that read it (a
//! decision takes microseconds), and written from borrowed data (`answer`). Nothing else allocates on that way: the
//! routes are a fixed table, errors are one table, and metrics are atomics.

mod app;
mod batch;
mod body;
mod books;
mod caller;
mod cedar_agent;
mod errors;
mod guard;
mod health;
mod host;
mod is_authorized;
mod itself;
mod keys;
mod metrics;
mod openapi;
mod operations;
mod pace;
mod passwords;
mod query;
mod refusals;
mod router;
mod seats;
mod server;
mod spending;
mod standing;
mod tls;
mod tokens;
mod validate;
mod wire;

pub use host::HostName;
pub use keys::{KeyDesk, KeyDeskOptions};
pub use passwords::PasswordDesk;
pub use router::routes;
pub use server::{HttpOptions, Server, Stopped};
pub use tls::{ClientCertificates, Tls, TlsError, TlsOptions};
