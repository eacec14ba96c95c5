//! A histogram of durations. An observation is two atomic additions.
//!
//! The histogram of prometheus-client takes a lock for every observation, and threads that decide would meet at it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in nanoseconds, without the last bucket, which takes everything above.
pub(super) type Bounds = [u64; 14];

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;

/// For decisions: from microseconds, where rules alone decide, to the timeouts of stores and providers.
pub(super) const DECISION: Bounds = [
    2 * US,
    5 * US,
    10 * US,
    25 * US,
    50 * US,
    100 * US,
    250 * US,
    500 * US,
    MS,
    5 * MS,
    25 * MS,
    100 * MS,
    500 * MS,
    2_500 * MS,
];
/// For HTTP requests and operations of stores.
pub(super) const REQUEST: Bounds = [
    50 * US,
    100 * US,
    250 * US,
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    S,
    5 * S,
];
/// For requests to other servers.
pub(super) const OUTGOING: Bounds = [
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    S,
    2_500 * MS,
    5 * S,
    10 * S,
    30 * S,
];

/// A histogram.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static Bounds,
    buckets: [AtomicU64; 15],
    sum_nanos: AtomicU64,
}

/// The state of a histogram: its buckets with their own counts, not cumulated.
pub(super) struct Read {
    pub(super) sum: f64,
    pub(super) count: u64,
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    pub(super) fn new(bounds: &'static Bounds) -> Self {
        Self { bounds, buckets: Default::default(), sum_nanos: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = self.bounds.iter().position(|bound| nanos <= *bound).unwrap_or(self.bounds.len());
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        if nanos > 0 {
            self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Reads the buckets. The count is their sum, so that both agree while other threads observe.
    pub(super) fn read(&self) -> Read {
        let bounds = self.bounds.iter().map(|nanos| seconds(*nanos)).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Read { sum: seconds(self.sum_nanos.load(Ordering::Relaxed)), count, buckets }
    }
}

/// Divided, not multiplied by a factor, so that bounds are written as `0.00025` and not with a rounding error.
#[expect(clippy::cast_precision_loss, reason = "a sum of 104 days is exact, and a longer one to a relative 1e-16")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// A histogram that is made when something is first observed: most combinations of labels never occur.
#[derive(Debug, Default)]
pub(super) struct LazyHistogram(OnceLock<Box<Histogram>>);

impl LazyHistogram {
    pub(super) fn observe(&self, bounds: &'static Bounds, took: Duration) {
        self.get_or_make(bounds).observe(took);
    }

    pub(super) fn get_or_make(&self, bounds: &'static Bounds) -> &Histogram {
        self.0.get_or_init(|| Box::new(Histogram::new(bounds)))
    }

    pub(super) fn get(&self) -> Option<&Histogram> {
        self.0.get().map(|histogram| &**histogram)
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_is_not_below_it() {
        let histogram = Histogram::new(&DECISION);
        for nanos in [0, 2_000, 2_001, 2_500_000_000, 2_500_000_001] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        histogram.observe(Duration::MAX);
        let read = histogram.read();
        let filled: Vec<_> = read.buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.000_002, 2), (0.000_005, 1), (2.5, 1), (f64::INFINITY, 2)]);
        assert_eq!(read.count, 6);
    }

    #[test]
    fn bounds_ascend() {
        for bounds in [DECISION, REQUEST, OUTGOING] {
            assert!(bounds.is_sorted_by(|one, next| one < next));
        }
    }
}
