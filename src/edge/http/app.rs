//! What every request shares.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::Semaphore;

use super::cors::Origin;
use super::durations::RouteDurations;
use super::host::HostName;
use super::options::{HttpOptions, Silence};
use super::request_body::BodyLimits;
use super::services::{KeyService, PasswordService, Services};
use crate::edge::identity::CredentialHeaders;
use crate::edge::outgoing::Outbox;
use crate::edge::telemetry::metrics::{Bound, Metrics, Unit};
use crate::engine::Engine;
use crate::gate::{Checkpoint, Notice, RouteMap, Tokens};
use crate::pdp::Pdp;

/// The server's state: its services, and the options that routes read.
pub(super) struct App {
    pub(super) engine: Engine,
    pub(super) metrics: Arc<Metrics>,
    /// The durations of requests, once the router knows its routes.
    pub(super) durations: OnceLock<RouteDurations>,
    /// Whether whoever reaches the server may ask.
    pub(super) open: bool,
    /// Whether that is so only where the `Host` is one of the loopback's or of `hosts`.
    pub(super) checks_host: bool,
    pub(super) hosts: Vec<HostName>,
    /// Origins whose pages may read answers.
    pub(super) origins: Vec<Origin>,
    /// What requests of gateways ask for.
    pub(super) routes: RouteMap,
    /// Whether every call of `/v1/auth/validate` is decided.
    pub(super) validate_authorizes: bool,
    /// Which headers hold a caller's credential.
    pub(super) credential_headers: CredentialHeaders,
    pub(super) keys: Option<KeyService>,
    pub(super) passwords: Option<PasswordService>,
    pub(super) outbox: Option<Arc<Outbox<Notice>>>,
    pub(super) checkpoints: Option<Arc<Outbox<Checkpoint>>>,
    pub(super) tokens: Option<Arc<dyn Tokens>>,
    pub(super) body: BodyLimits,
    /// Most requests of a batch.
    pub(super) batch: usize,
    /// What becomes of a question that says nothing about `reserve`.
    pub(super) silence: Silence,
    /// The body of `GET /openapi.json`, which the router makes.
    pub(super) description: OnceLock<Bytes>,
    pub(super) reload_timeout: Duration,
    /// What a caller that looks at the status alone is told of a budget that has no room.
    pub(super) budget_status: StatusCode,
    /// How many explanations are worked out at once; they take milliseconds where decisions take microseconds.
    pub(super) explaining: Arc<Semaphore>,
    /// Whose turn it is to read the books.
    pub(super) reading_books: Arc<Semaphore>,
}

impl App {
    pub(super) fn new(services: Services, options: &HttpOptions) -> Self {
        let Services { engine, metrics, keys, passwords, outbox, checkpoints, tokens } = services;
        let budget_status =
            u16::try_from(options.budget_status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            engine,
            durations: OnceLock::new(),
            open: options.open,
            checks_host: options.checks_host,
            hosts: options.hosts.clone(),
            origins: options.origins.clone(),
            routes: options.routes.clone(),
            validate_authorizes: options.validate_authorizes,
            credential_headers: options.credential_headers.clone(),
            keys,
            passwords,
            outbox,
            checkpoints,
            tokens,
            body: BodyLimits { bytes: options.body_bytes, timeout: options.body_timeout },
            batch: options.batch,
            description: OnceLock::new(),
            silence: if options.reserves { Silence::Reserves } else { Silence::Checks },
            reload_timeout: options.reload_timeout,
            budget_status: budget_status.unwrap_or(StatusCode::FORBIDDEN),
            explaining: pool(&metrics, "explanations", workers),
            reading_books: pool(&metrics, "usage_reports", 1),
            metrics,
        }
    }

    /// The decision service.
    pub(super) fn pdp(&self) -> &Pdp {
        self.engine.pdp()
    }
}

/// Permits for slow work, which metrics show.
fn pool(metrics: &Metrics, name: &'static str, limit: usize) -> Arc<Semaphore> {
    let permits = Arc::new(Semaphore::new(limit));
    let shared = Arc::clone(&permits);
    let used = Box::new(move || limit.saturating_sub(shared.available_permits()));
    metrics.bound(Bound { name, unit: Unit::Permits, limit, used });
    permits
}
