//! Operations of stores.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::gauge::Gauge;
use smol_str::SmolStr;

use super::families::{Families, Kind, gauge_of};
use super::histogram::{LazyHistogram, REQUEST};
use super::queues::InFlight;
use crate::gate::{Books, CloseError, HoldError, Later, Look, Meters, StoreError, SubjectsOf};
use crate::meter::{Alert, Charge, Closed, Held, Hold, Reservation, ReservationId, Usage};
use crate::model::{Amount, Timestamp};

/// An operation of a store of meters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Look,
    Hold,
    Record,
    Settle,
    SettleUnknown,
    Release,
    Warn,
    Extend,
    Find,
    KeepAnswer,
    ListSubjects,
}

const OPERATIONS: [(Operation, &str); 11] = [
    (Operation::Look, "look"),
    (Operation::Hold, "hold"),
    (Operation::Record, "record"),
    (Operation::Settle, "settle"),
    (Operation::SettleUnknown, "settle_unknown"),
    (Operation::Release, "release"),
    (Operation::Warn, "warn"),
    (Operation::Extend, "extend"),
    (Operation::Find, "find"),
    (Operation::KeepAnswer, "keep_answer"),
    (Operation::ListSubjects, "list_subjects"),
];

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    /// The store answered, and its answer is no: a limit has no room, a reservation is unknown, it is full.
    Refused,
    /// The store did not answer, or could not write.
    Unavailable,
}

const OUTCOMES: [(Outcome, &str); 3] =
    [(Outcome::Ok, "ok"), (Outcome::Refused, "refused"), (Outcome::Unavailable, "unavailable")];

/// The errors of a store, as outcomes.
trait Failure {
    fn outcome(&self) -> Outcome;
}

impl Failure for StoreError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::NotWritten(_) | Self::Away(_) | Self::Lost(_) => Outcome::Unavailable,
            Self::Full => Outcome::Refused,
        }
    }
}

impl Failure for HoldError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(_) | Self::TooManyOpen | Self::KeyTaken => Outcome::Refused,
            Self::Store(error) => error.outcome(),
        }
    }
}

impl Failure for CloseError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Ledger(_) | Self::KeyTaken(_) => Outcome::Refused,
            Self::Store(error) => error.outcome(),
        }
    }
}

/// The metrics of stores.
#[derive(Debug, Default)]
pub(super) struct Stores {
    all: Mutex<Vec<Arc<StoreMetrics>>>,
}

#[derive(Debug)]
struct StoreMetrics {
    store: &'static str,
    durations: [[LazyHistogram; OUTCOMES.len()]; OPERATIONS.len()],
    in_flight: Gauge,
}

impl StoreMetrics {
    fn histogram(&self, operation: Operation, outcome: Outcome) -> Option<&LazyHistogram> {
        let operation = OPERATIONS.iter().position(|(known, _)| *known == operation)?;
        let outcome = OUTCOMES.iter().position(|(known, _)| *known == outcome)?;
        self.durations.get(operation)?.get(outcome)
    }

    fn ended<T, E: Failure>(&self, operation: Operation, result: &Result<T, E>, took: Duration) {
        let outcome = result.as_ref().err().map_or(Outcome::Ok, Failure::outcome);
        if let Some(histogram) = self.histogram(operation, outcome) {
            histogram.observe(&REQUEST, took);
        }
    }
}

impl Stores {
    pub(super) fn meters(&self, store: &'static str, meters: Arc<dyn Meters>) -> Arc<dyn Meters> {
        let metrics = Arc::new(StoreMetrics { store, durations: Default::default(), in_flight: Gauge::default() });
        self.all.lock().push(Arc::clone(&metrics));
        Arc::new(MeasuredMeters { meters, metrics })
    }
}

impl Collector for Stores {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families::new(encoder);
        let all = self.all.lock();
        let help = "Time that callers waited for an operation of a store; 0 if they did not have to wait.";
        let mut family = out.family(Kind::Histogram, "tollgate_store_operation_duration_seconds", help)?;
        for one in &*all {
            for ((_, operation), durations) in OPERATIONS.iter().zip(&one.durations) {
                for ((_, outcome), histogram) in OUTCOMES.iter().zip(durations) {
                    if let Some(histogram) = histogram.get() {
                        let labels = [("store", one.store), ("operation", *operation), ("outcome", *outcome)];
                        family.histogram(&labels, histogram)?;
                    }
                }
            }
        }
        let help = "Operations of a store that are waited for.";
        let mut family = out.family(Kind::Gauge, "tollgate_store_operations_in_flight", help)?;
        for one in &*all {
            let in_flight = u64::try_from(one.in_flight.get()).unwrap_or_default();
            family.gauge(&[("store", one.store)], gauge_of(in_flight))?;
        }
        Ok(())
    }
}

/// Measures the operations of a store of meters.
struct MeasuredMeters {
    meters: Arc<dyn Meters>,
    metrics: Arc<StoreMetrics>,
}

impl MeasuredMeters {
    /// Measures `later`. The clock is read only if there is something to wait for: a store in memory answers in less time
    /// than it takes to read the clock twice.
    fn measured<T, E>(&self, operation: Operation, later: Later<Result<T, E>>) -> Later<Result<T, E>>
    where
        T: Send + 'static,
        E: Failure + Send + 'static,
    {
        match later {
            Later::Ready(ready) => {
                if let Some(result) = &ready {
                    self.metrics.ended(operation, result, Duration::ZERO);
                }
                Later::Ready(ready)
            }
            Later::Pending(pending) => {
                let metrics = Arc::clone(&self.metrics);
                let (in_flight, began) = (InFlight::begin(&metrics.in_flight), Instant::now());
                Later::pending(async move {
                    let result = pending.await;
                    drop(in_flight);
                    metrics.ended(operation, &result, began.elapsed());
                    result
                })
            }
        }
    }
}

impl Meters for MeasuredMeters {
    fn look(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Look>, StoreError>> {
        self.measured(Operation::Look, self.meters.look(charges, now))
    }

    fn hold(&self, hold: Hold, now: Timestamp) -> Later<Result<Held, HoldError>> {
        self.measured(Operation::Hold, self.meters.hold(hold, now))
    }

    fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.measured(Operation::Record, self.meters.record(hold, usage, now))
    }

    fn settle(&self, id: ReservationId, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.measured(Operation::Settle, self.meters.settle(id, usage, now))
    }

    fn settle_unknown(
        &self,
        id: ReservationId,
        charged: &[Amount],
        now: Timestamp,
    ) -> Later<Result<Closed, CloseError>> {
        self.measured(Operation::SettleUnknown, self.meters.settle_unknown(id, charged, now))
    }

    fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.measured(Operation::Release, self.meters.release(id, now))
    }

    fn warn(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Alert>, StoreError>> {
        self.measured(Operation::Warn, self.meters.warn(charges, now))
    }

    fn extend(&self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Later<Result<Timestamp, CloseError>> {
        self.measured(Operation::Extend, self.meters.extend(id, ttl_ms, now))
    }

    fn reservation(&self, id: ReservationId, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        self.measured(Operation::Find, self.meters.reservation(id, now))
    }

    fn named(&self, key: &str, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        self.measured(Operation::Find, self.meters.named(key, now))
    }

    fn answered(&self, id: ReservationId, answer: Arc<[u8]>) -> Later<Result<(), StoreError>> {
        self.measured(Operation::KeepAnswer, self.meters.answered(id, answer))
    }

    fn subjects(&self, of: &SubjectsOf) -> Later<Result<Vec<SmolStr>, StoreError>> {
        self.measured(Operation::ListSubjects, self.meters.subjects(of))
    }

    fn books(&self) -> Option<Arc<dyn Books>> {
        self.meters.books()
    }

    fn tick(&self, now: Timestamp) {
        self.meters.tick(now);
    }

    fn is_away(&self) -> bool {
        self.meters.is_away()
    }
}
