//! What every request shares.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::answer::Id;
use super::body::BodyLimits;
use super::metrics::Metrics;
use crate::engine::Engine;

/// The server's state: an engine, and what is counted.
pub(super) struct App {
    pub(super) engine: Engine,
    pub(super) metrics: Metrics,
    pub(super) body: BodyLimits,
    /// Most requests of a batch.
    pub(super) batch: usize,
    pub(super) reload_timeout: Duration,
    /// How many explanations are worked out at once; they take milliseconds where decisions take microseconds.
    pub(super) explaining: Semaphore,
    /// The beginning of every decision's name.
    process: String,
    decisions: AtomicU64,
}

impl App {
    pub(super) fn new(engine: Engine, body: BodyLimits, batch: usize, reload_timeout: Duration) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            engine,
            metrics: Metrics::default(),
            body,
            batch,
            reload_timeout,
            explaining: Semaphore::new(workers),
            process: format!("{:016x}", random()),
            decisions: AtomicU64::new(0),
        }
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
