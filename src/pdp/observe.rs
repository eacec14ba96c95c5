//! The record of each decision: its id, its log record, its metrics, and the alerts that it causes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::events;
use crate::edge::random;
use crate::gate::{DecisionId, DecisionLog, DecisionLogStatus, DecisionRecord, Notice, Observer};
use crate::meter::Alert;
use crate::model::{Facts, Timestamp};
use crate::policy::Snapshot;

/// The receiver of alerts.
pub(crate) type OnAlert = Arc<dyn Fn(&Notice) + Send + Sync>;

/// Everything that observes decisions.
pub(super) struct Observers {
    pub(super) log: Option<Arc<dyn DecisionLog>>,
    pub(super) observer: Option<Arc<dyn Observer>>,
    pub(super) on_alert: Option<OnAlert>,
    process: u64,
    decisions: AtomicU64,
}

impl Observers {
    pub(super) fn new(
        log: Option<Arc<dyn DecisionLog>>,
        observer: Option<Arc<dyn Observer>>,
        on_alert: Option<OnAlert>,
    ) -> Self {
        Self { log, observer, on_alert, process: process(), decisions: AtomicU64::new(0) }
    }

    /// The id of the next decision. From here on the log events of the request carry it, with the revision.
    pub(super) fn next_id(&self, revision: &str) -> DecisionId {
        let number = self.decisions.fetch_add(1, Ordering::Relaxed) + 1;
        let id = DecisionId { process: self.process, number };
        events::decision(id, revision);
        id
    }

    /// Starts the measurement of a call, if anything reads it.
    pub(super) fn start(&self) -> Stopwatch {
        Stopwatch(self.observer.is_some().then(now))
    }

    /// Records a decision. Each decision gets here exactly once, before it is answered.
    pub(super) fn decided(&self, record: &DecisionRecord<'_>, started: Stopwatch) {
        if let Some(observer) = &self.observer {
            observer.decided(record, started.elapsed());
        }
        if let Some(log) = &self.log {
            log.record(record);
        }
    }

    /// Reports the thresholds of limits that were reached.
    pub(super) fn alert(&self, alerts: &[Alert], snapshot: &Snapshot, facts: &Facts) {
        for alert in alerts {
            events::limit_reached(alert);
            if self.observer.is_none() && self.on_alert.is_none() {
                continue;
            }
            let notice = Notice { alert: alert.clone(), at: facts.now, revision: Arc::clone(snapshot.revision()) };
            if let Some(observer) = &self.observer {
                observer.limit_reached(&notice);
            }
            if let Some(on_alert) = &self.on_alert {
                on_alert(&notice);
            }
        }
    }

    pub(super) fn panicked(&self) {
        if let Some(observer) = &self.observer {
            observer.panicked();
        }
    }

    /// The state of the decision log; `None` without one.
    pub(super) fn log_status(&self) -> Option<DecisionLogStatus> {
        self.log.as_ref().map(|log| log.status())
    }
}

/// The start of a call, on the monotonic clock.
#[derive(Clone, Copy)]
pub(super) struct Stopwatch(Option<std::time::Instant>);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "it measures a duration for metrics; no decision depends on it")]
    fn elapsed(self) -> Duration {
        self.0.map(|started| started.elapsed()).unwrap_or_default()
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures a duration for metrics; no decision depends on it")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Whether `since` is at most `window_ms` before `now`.
pub(super) fn is_within(since: Timestamp, now: Timestamp, window_ms: i64) -> bool {
    now.as_millis().saturating_sub(since.as_millis()) < window_ms
}

/// The number that begins the ids of this process' decisions.
fn process() -> u64 {
    u64::from_le_bytes(random::bytes())
}
