//! What every request shares.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderName;
use tokio::sync::Semaphore;

use super::answer::Id;
use super::body::BodyLimits;
use super::keys::KeyDesk;
use super::metrics::Metrics;
use super::server::HttpOptions;
use super::wire::Silence;
use crate::edge::outgoing::Outbox;
use crate::engine::Engine;
use crate::gate::Tokens;
use crate::meter::Alert;
use crate::model::{Facts, Refusal};
use crate::policy::Snapshot;

/// The server's state: an engine, and what is counted.
pub(super) struct App {
    pub(super) engine: Engine,
    pub(super) metrics: Metrics,
    /// Whether whoever reaches the server may ask.
    pub(super) open: bool,
    /// Headers that hold a caller's key, besides `Authorization`.
    pub(super) key_headers: Box<[HeaderName]>,
    /// Where keys are managed, where they are kept.
    pub(super) keys: OnceLock<KeyDesk>,
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
    /// The beginning of every decision's name.
    process: String,
    decisions: AtomicU64,
}

impl App {
    pub(super) fn new(engine: Engine, body: BodyLimits, options: &HttpOptions) -> Self {
        let budget_status =
            u16::try_from(options.budget_status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            engine,
            metrics: Metrics::default(),
            open: options.open,
            key_headers: options.key_headers.clone(),
            keys: OnceLock::new(),
            outbox: OnceLock::new(),
            tokens: OnceLock::new(),
            body,
            batch: options.batch,
            silence: if options.reserves { Silence::Reserves } else { Silence::Checks },
            reload_timeout: options.reload_timeout,
            budget_status: budget_status.unwrap_or(StatusCode::FORBIDDEN),
            explaining: Semaphore::new(workers),
            reading_books: Semaphore::new(1),
            process: format!("{:016x}", random()),
            decisions: AtomicU64::new(0),
        }
    }

    /// Tells that percents of limits were crossed.
    pub(super) fn alert(&self, alerts: &[Alert], snapshot: &Snapshot, facts: &Facts) {
        self.engine.warn(alerts, snapshot, facts);
        for alert in alerts {
            // People write the limits of keys in any number; they are one label.
            let label = if alert.limit.starts_with("key:") { "key".into() } else { alert.limit.clone() };
            self.metrics.warned(&label, alert.percent);
            let meter = alert.subject.as_ref().map(|subject| format!(" of {subject}")).unwrap_or_default();
            let (unit, standing) = (alert.unit, &alert.standing);
            let (taken, cap) = (unit.show(standing.taken()), unit.show(standing.cap));
            let text = format!(
                "warning: limit {}{meter} has reached {} %: {taken} of {cap} {} used or held",
                alert.limit,
                alert.percent,
                unit.as_str()
            );
            // That nobody reads it is no reason to stop.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// Tells that a credential proved nobody.
    pub(super) fn refused(&self, refusal: &Refusal, source: Option<IpAddr>) {
        self.metrics.refused(refusal.reason);
        let from = source.map(|address| format!(" from {address}")).unwrap_or_default();
        let about = refusal.about.as_ref().map(|about| format!(" ({})", about.escape_debug())).unwrap_or_default();
        // That nobody reads it is no reason to stop.
        let _ = writeln!(std::io::stderr().lock(), "refused a credential{from}: {}{about}", refusal.reason.as_str());
    }

    /// A name for the next decision.
    pub(super) fn next_id(&self) -> Id<'_> {
        Id { process: &self.process, number: self.decisions.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

/// A number that no other process has, as far as chance goes.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // Where the system has no random numbers, ids are still unique in the process.
    let _filled = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
