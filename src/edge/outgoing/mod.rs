//! Requests that Tollgate sends over HTTP: to a server of Tollgate, to identity providers, and to webhooks.

mod address;
#[cfg(feature = "server")]
mod alert;
#[cfg(feature = "server")]
mod checkpoint;
mod client;
mod connect;
mod fetch;
#[cfg(feature = "server")]
mod outbox;
mod proxy;
#[cfg(feature = "server")]
mod secret;
#[cfg(feature = "server")]
mod webhook;

pub use address::{Address, AddressError};
pub use client::{Client, ClientError, ClientOptions, ClientTls, Outgoing, ProxyFailure, Reply};
pub use fetch::Fetcher;
#[cfg(feature = "server")]
pub use outbox::{Delivery, Outbox};
pub use proxy::{Proxy, ProxyError};
#[cfg(feature = "server")]
pub use secret::{MIN_SECRET_BYTES, Secret, SecretError};
#[cfg(feature = "server")]
pub use webhook::{BeginAttempt, EndAttempt, Webhook, WebhookEvent, WebhookOptions};
