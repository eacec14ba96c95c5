//! The ids of decisions, and the decision log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Engine;
use crate::edge::random;
use crate::gate::{DecisionId, DecisionLog, DecisionLogStatus, DecisionRecord};
use crate::model::hex;

/// What gives decisions their ids, and where their records go.
pub(super) struct Recording {
    log: Option<Arc<dyn DecisionLog>>,
    process: Box<str>,
    decisions: AtomicU64,
}

impl Recording {
    pub(super) fn new(log: Option<Arc<dyn DecisionLog>>) -> Self {
        Self { log, process: process(), decisions: AtomicU64::new(0) }
    }
}

impl Engine {
    /// The id of the next decision.
    pub(crate) fn next_decision(&self) -> DecisionId<'_> {
        self.decision_id(self.inner.recording.decisions.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The id of the decision with this number.
    pub(crate) fn decision_id(&self, number: u64) -> DecisionId<'_> {
        DecisionId { process: &self.inner.recording.process, number }
    }

    /// Records a decision if there is a decision log. Every interface calls this once for each decision, before it
    /// answers.
    pub(crate) fn record(&self, record: &DecisionRecord<'_>) {
        if let Some(log) = &self.inner.recording.log {
            log.record(record);
        }
    }

    /// What became of records of decisions; `None` without a decision log.
    #[must_use]
    pub fn decision_log_status(&self) -> Option<DecisionLogStatus> {
        self.inner.recording.log.as_ref().map(|log| log.status())
    }
}

/// What begins the ids of this process' decisions: a number that no other process has, as far as chance goes.
fn process() -> Box<str> {
    hex::encode(&random::bytes::<8>()).into()
}
