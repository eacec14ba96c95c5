//! Queues and pools that have a bound, read when the metrics are scraped.

use std::fmt;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::gauge::Gauge;

use super::families::{Families, Kind, gauge_of};

/// The unit of a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Entries of a queue.
    Entries,
    /// Bytes of a queue.
    Bytes,
    /// Permits of a pool.
    Permits,
}

/// A queue or pool, and how much of it may be in use.
pub struct Bound {
    /// The name, a label.
    pub name: &'static str,
    /// The unit of both numbers.
    pub unit: Unit,
    /// How much may be in use.
    pub limit: usize,
    /// Reads how much is.
    pub used: Box<dyn Fn() -> usize + Send + Sync>,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All bounds.
#[derive(Debug, Default)]
pub(super) struct Queues {
    all: Mutex<Vec<Bound>>,
}

impl Queues {
    pub(super) fn add(&self, bound: Bound) {
        self.all.lock().push(bound);
    }
}

/// The names of two families with the same label: how much is in use, and how much may be.
struct Pair {
    unit: Unit,
    label: &'static str,
    used: (&'static str, &'static str),
    limit: (&'static str, &'static str),
}

const PAIRS: [Pair; 3] = [
    Pair {
        unit: Unit::Entries,
        label: "queue",
        used: ("tollgate_queue_length", "Entries of a queue."),
        limit: ("tollgate_queue_limit", "Most entries that a queue takes."),
    },
    Pair {
        unit: Unit::Bytes,
        label: "queue",
        used: ("tollgate_queue_bytes", "Bytes in a queue."),
        limit: ("tollgate_queue_limit_bytes", "Most bytes that a queue takes."),
    },
    Pair {
        unit: Unit::Permits,
        label: "pool",
        used: ("tollgate_pool_in_use", "Permits of a pool that are in use."),
        limit: ("tollgate_pool_limit", "Permits that a pool has."),
    },
];

impl Collector for Queues {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families::new(encoder);
        let count = |number: usize| gauge_of(u64::try_from(number).unwrap_or(u64::MAX));
        let all = self.all.lock();
        for pair in &PAIRS {
            let of_unit = || all.iter().filter(|bound| bound.unit == pair.unit);
            let mut family = out.family(Kind::Gauge, pair.used.0, pair.used.1)?;
            for bound in of_unit() {
                family.gauge(&[(pair.label, bound.name)], count((bound.used)()))?;
            }
            let mut family = out.family(Kind::Gauge, pair.limit.0, pair.limit.1)?;
            for bound in of_unit() {
                family.gauge(&[(pair.label, bound.name)], count(bound.limit))?;
            }
        }
        Ok(())
    }
}

/// One of the things in flight that a gauge counts, until it is dropped: a task that is cancelled counts as ended.
#[derive(Debug)]
pub(super) struct InFlight(Gauge);

impl InFlight {
    pub(super) fn begin(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
