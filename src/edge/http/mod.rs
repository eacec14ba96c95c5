//! HTTP: what gateways send, and what they read. Wire types live here and nowhere else.
//!
//! A request is turned into the core's words while it is parsed (`wire`), decided on the thread that read it (a
//! decision takes microseconds), and written from borrowed data (`answer`). Nothing else allocates on that way: the
//! routes are a fixed table, errors are one table, and metrics are atomics.

mod amounts;
mod app;
mod batch;
mod body;
mod books;
mod caller;
mod cedar_agent;
mod cors;
mod credential;
mod errors;
mod grammar;
mod guard;
mod health;
mod host;
mod is_authorized;
mod itself;
mod keys;
mod metrics;
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

pub(crate) use cors::MAX_ORIGINS;
pub use cors::{Origin, OriginError};
pub use host::HostName;
pub use keys::{KeyDesk, KeyDeskOptions};
pub use passwords::PasswordDesk;
pub use router::routes;
pub use server::{HttpOptions, Server, Stopped};
pub use tls::{ClientCertificates, Tls, TlsError, TlsOptions};
