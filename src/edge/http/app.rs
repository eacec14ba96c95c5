//! What every request shares.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::sync::Semaphore;

use super::body::BodyLimits;
use super::cors::Origin;
use super::host::HostName;
use super::keys::KeyDesk;
use super::metrics::Metrics;
use super::passwords::PasswordDesk;
use super::refusals::RefusalLog;
use super::server::HttpOptions;
use super::wire::Silence;
use crate::edge::identity::CredentialHeaders;
use crate::edge::outgoing::Outbox;
use crate::edge::telemetry;
use crate::engine::Engine;
use crate::gate::{ClientKey, DecisionId, RouteMap, Tokens};
use crate::meter::Alert;
use crate::model::{Facts, Refusal};
use crate::policy::Snapshot;

/// The server's state: an engine, and what is counted.
pub(super) struct App {
    pub(super) engine: Engine,
    pub(super) metrics: Metrics,
    refusals: RefusalLog,
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
    /// Where keys are managed, where they are kept.
    pub(super) keys: OnceLock<KeyDesk>,
    /// Where passwords are set, where they are kept.
    pub(super) passwords: OnceLock<PasswordDesk>,
    /// What becomes of alerts, where they are sent.
    pub(super) outbox: OnceLock<Arc<Outbox>>,
    /// What hands out tokens of Tollgate's own, where that is wished for.
    pub(super) tokens: OnceLock<Arc<dyn Tokens>>,
    pub(super) body: BodyLimits,
    /// Most requests of a batch.
    pub(super) batch: usize,
    /// What becomes of a question that says nothing about `reserve`.
    pub(super) silence: Silence,
    pub(super) reload_timeout: Duration,
    /// What a caller that looks at the status alone is told of a budget that has no room.
    pub(super) budget_status: StatusCode,
    /// How many explanations are worked out at once; they take milliseconds where decisions take microseconds.
    pub(super) explaining: Semaphore,
    /// Whose turn it is to read the books.
    pub(super) reading_books: Semaphore,
    started: Instant,
}

/// How long after a start keys are also looked up under the unscoped name that earlier versions used. A reservation
/// lives for an hour unless it is extended, and is remembered for a day after its end.
const UNSCOPED_KEYS_FOR: Duration = Duration::from_hours(48);

impl App {
    pub(super) fn new(engine: Engine, body: BodyLimits, options: &HttpOptions) -> Self {
        let budget_status =
            u16::try_from(options.budget_status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            engine,
            metrics: Metrics::default(),
            refusals: RefusalLog::default(),
            open: options.open,
            checks_host: options.checks_host,
            hosts: options.hosts.clone(),
            origins: options.origins.clone(),
            routes: options.routes.clone(),
            validate_authorizes: options.validate_authorizes,
            credential_headers: options.credential_headers.clone(),
            keys: OnceLock::new(),
            passwords: OnceLock::new(),
            outbox: OnceLock::new(),
            tokens: OnceLock::new(),
            body,
            batch: options.batch,
            silence: if options.reserves { Silence::Reserves } else { Silence::Checks },
            reload_timeout: options.reload_timeout,
            budget_status: budget_status.unwrap_or(StatusCode::FORBIDDEN),
            explaining: Semaphore::new(workers),
            reading_books: Semaphore::new(1),
            started: Instant::now(),
        }
    }

    /// The key under which a client's key is looked up. The unscoped name that earlier versions used is included only
    /// while such a key may still be stored.
    pub(super) fn as_known(&self, key: &ClientKey) -> ClientKey {
        let unscoped_digest = key.unscoped_digest.filter(|_| self.started.elapsed() < UNSCOPED_KEYS_FOR);
        ClientKey { unscoped_digest, ..key.clone() }
    }

    /// Tells that percents of limits were crossed.
    pub(super) fn alert(&self, alerts: &[Alert], snapshot: &Snapshot, facts: &Facts) {
        self.engine.warn(alerts, snapshot, facts);
        for alert in alerts {
            // People write the limits of keys in any number; they are one label.
            let label = if alert.limit.starts_with("key:") { "key".into() } else { alert.limit.clone() };
            self.metrics.warned(&label, alert.percent);
        }
    }

    /// Tells that a credential proved nobody.
    pub(super) fn refused(&self, refusal: &Refusal, source: Option<IpAddr>) {
        self.metrics.refused(refusal.reason);
        self.refusals.tell(refusal, source, Instant::now());
    }

    /// The id of the next decision, which `revision` is to make. From here on the log names both.
    pub(super) fn next_id(&self, revision: &str) -> DecisionId<'_> {
        let id = self.engine.next_decision();
        telemetry::decision(id, revision);
        id
    }
}
