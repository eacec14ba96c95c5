//! HTTP: what gateways send, and what they read. Wire types live here and nowhere else.
//!
//! A request is parsed into a type of `wire` and checked there, decided on the thread that read it (a
//! decision takes microseconds), and written from borrowed data (`answer`). Nothing else allocates on that way: the
//! request is answered in front of axum (`router`), errors are one table, and metrics are atomics.

mod answers;
mod app;
mod batch;
mod body;
mod books;
mod caller;
mod cedar_agent;
mod cors;
mod durations;
mod errors;
mod extract;
mod guard;
mod health;
mod host;
mod is_authorized;
mod keys;
mod metrics;
mod observe;
mod openapi;
mod operations;
mod options;
mod pace;
mod passwords;
mod query;
mod refusals;
mod request_body;
mod router;
mod routes;
mod run;
mod seats;
mod server;
mod services;
mod spending;
mod standing;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod validate;
mod wire;

pub(crate) use cors::MAX_ORIGINS;
pub use cors::{Origin, OriginError};
pub use host::HostName;
pub use observe::ServerObserver;
pub use options::HttpOptions;
pub use routes::routes;
pub use server::{Server, Stopped};
pub use services::{KeyService, KeyServiceOptions, PasswordService, Services};
pub use tls::{ClientCertificates, Tls, TlsError, TlsOptions};
