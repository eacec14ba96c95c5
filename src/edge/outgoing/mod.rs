//! What Tollgate itself asks others over HTTP: a server of its own, and whoever wants to be told of alerts.

mod address;
mod client;
mod connect;
mod fetch;
mod proxy;
#[cfg(feature = "server")]
mod secret;
#[cfg(feature = "server")]
mod webhook;

pub use address::{Address, AddressError};
pub use client::{Client, ClientError, ClientOptions, ClientTls, Outgoing, ProxyFailure, Reply};
pub use fetch::Fetcher;
pub use proxy::{Proxy, ProxyError};
#[cfg(feature = "server")]
pub use secret::{MIN_SECRET_BYTES, Secret, SecretError};
#[cfg(feature = "server")]
pub use webhook::{BeginAttempt, Counts, EndAttempt, Outbox, Webhook, WebhookOptions};
