//! The current snapshot, swapped whole, and the report of the last load.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::problem::Problem;
use super::snapshot::Snapshot;
use crate::model::Timestamp;

/// What became of the loads so far.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// When the active snapshot was loaded.
    pub loaded_at: Option<Timestamp>,
    /// Warnings and notes of the active snapshot.
    pub warnings: Arc<[Problem]>,
    /// The newest load, if it failed: since then the files on disk are not what decides.
    pub failure: Option<Failure>,
    /// How many loads succeeded.
    pub loads: u64,
    /// How many failed.
    pub failures: u64,
}

/// A load that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// The revision that did not load, where there was one.
    pub revision: Option<Arc<str>>,
    /// Why.
    pub problems: Arc<[Problem]>,
}

/// The snapshot that decides now. Reading it never waits.
#[derive(Debug, Default)]
pub struct Live {
    current: ArcSwapOption<Snapshot>,
    report: ArcSwap<Report>,
}

impl Live {
    /// The snapshot that decides now; `None` before the first.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// The report of the last load.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }

    /// Puts `snapshot` in charge. Returns the one before.
    pub fn publish(&self, snapshot: Arc<Snapshot>, warnings: Vec<Problem>, now: Timestamp) -> Option<Arc<Snapshot>> {
        let before = self.current.swap(Some(snapshot));
        let last = self.report.load();
        self.report.store(Arc::new(Report {
            loaded_at: Some(now),
            warnings: warnings.into(),
            failure: None,
            loads: last.loads + 1,
            failures: last.failures,
        }));
        before
    }

    /// Notes a load that failed; the snapshot in charge stays.
    pub fn fail(&self, problems: Vec<Problem>, revision: Option<Arc<str>>, now: Timestamp) {
        let last = self.report.load();
        self.report.store(Arc::new(Report {
            failure: Some(Failure { at: now, revision, problems: problems.into() }),
            failures: last.failures + 1,
            ..Report::clone(&last)
        }));
    }
}
