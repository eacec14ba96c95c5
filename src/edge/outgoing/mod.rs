//! What Tollgate itself asks others over HTTP: a server of its own, and whoever wants to be told of alerts.

mod address;
mod client;
mod fetch;
mod secret;
mod webhook;

pub use address::{Address, AddressError};
pub use client::{Client, ClientError, Outgoing, Reply};
pub use fetch::Fetcher;
pub use secret::{MIN_SECRET_BYTES, Secret, SecretError};
pub use webhook::{Counts, Outbox, Webhook, WebhookOptions};
