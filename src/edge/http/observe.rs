//! Observation of the decision service by the server: its metrics, and the log of refused credentials.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::refusals::RefusalLog;
use crate::edge::telemetry::metrics::{DecisionMade, Metrics};
use crate::gate::{Decided, DecisionRecord, Notice, Observer};
use crate::model::Refusal;

/// The observer of a server, which hands the events of the decision service to its metrics and logs. Must be used on a
/// thread of the tokio runtime.
#[derive(Debug)]
pub struct ServerObserver {
    metrics: Arc<Metrics>,
    refusals: RefusalLog,
}

impl ServerObserver {
    /// An observer that counts in `metrics`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, refusals: RefusalLog::default() }
    }
}

impl Observer for ServerObserver {
    fn decided(&self, record: &DecisionRecord<'_>, elapsed: Duration) {
        let rules = match record.decided {
            Decided::One(_, decision) => &decision.rules[..],
            Decided::Candidates(_, decision) => decision.deciding().map_or(&[][..], |deciding| &deciding.rules),
            Decided::Refused(_) => &[],
        };
        self.metrics.decided(&DecisionMade { via: record.via, code: record.code(), rules, took: elapsed });
    }

    fn credential_refused(&self, refusal: &Refusal, source: Option<IpAddr>) {
        self.metrics.refused(refusal.reason);
        self.refusals.tell(refusal, source, Instant::now());
    }

    fn limit_reached(&self, notice: &Notice) {
        // Keys bring any number of limits, which are counted under one label.
        let limit = &notice.alert.limit;
        let label = if limit.starts_with("key:") { "key".into() } else { limit.clone() };
        self.metrics.warned(&label, notice.alert.percent);
    }

    fn panicked(&self) {
        self.metrics.panicked();
    }
}
