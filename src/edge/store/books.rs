//! The books in memory: as many rows as there is room for, the oldest days forgotten first.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::Mutex;
use smol_str::{SmolStr, ToSmolStr};

use crate::gate::{Books, BooksPage, BooksWish, Collector, Row, StoreError, Sum};
use crate::meter::Entry;
use crate::model::{Amount, Unit};

/// Most rows of what was used, and of what limits counted: at some 200 bytes each, 40 MB together.
pub const MOST_ROWS: usize = 100_000;
/// How many rows are read at once, while those who book wait.
const READ_AT_ONCE: usize = 512;

/// A day, who, and what was used.
type UsageKey = (i64, SmolStr, SmolStr);
/// A day, the limit and its unit, who, and what was used.
type ChargeKey = (i64, SmolStr, Unit, SmolStr, SmolStr);

/// What was spent, in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryBooks {
    /// Requests, input tokens, output tokens, nano-dollars.
    usage: Mutex<BTreeMap<UsageKey, [i128; 4]>>,
    charges: Mutex<BTreeMap<ChargeKey, i128>>,
}

impl MemoryBooks {
    /// Adds to the books.
    pub(super) fn note(&self, entries: &[Entry]) {
        for entry in entries {
            let (principal, resource) = (entry.spending.principal.to_smolstr(), entry.spending.resource.to_smolstr());
            if let Some(usage) = entry.usage {
                let numbers = [usage.requests, usage.input_tokens, usage.output_tokens];
                let [requests, input, output] = numbers.map(i128::from);
                let more = [requests, input, output, i128::from(usage.usd.map_or(0, Amount::get))];
                let mut rows = self.usage.lock();
                let sums = rows.entry((entry.day(), principal.clone(), resource.clone())).or_default();
                for (sum, more) in sums.iter_mut().zip(more) {
                    *sum = sum.saturating_add(more);
                }
                keep_within(&mut rows);
            }
            if entry.limits.is_empty() {
                continue;
            }
            let mut rows = self.charges.lock();
            for (limit, unit, charged, before) in &entry.limits {
                let key = (entry.day(), limit.clone(), *unit, principal.clone(), resource.clone());
                let more = i128::from(charged.get()) - i128::from(before.get());
                let sum = rows.entry(key).or_default();
                *sum = sum.saturating_add(more);
            }
            keep_within(&mut rows);
        }
    }
}

fn keep_within<K: Ord, V>(rows: &mut BTreeMap<K, V>) {
    while rows.len() > MOST_ROWS {
        rows.pop_first();
    }
}

impl Books for MemoryBooks {
    fn report(&self, wish: &BooksWish) -> Result<BooksPage, StoreError> {
        let mut collector = Collector::new(wish);
        if wish.is_of_limits() {
            each(
                &self.charges,
                (wish.from, SmolStr::default(), Unit::Usd, SmolStr::default(), SmolStr::default()),
                |key, sum| {
                    let (day, limit, unit, principal, resource) = key;
                    let (limit, spent) = (Some((limit.as_str(), *unit)), Sum::Counted(*sum));
                    collector.take(&Row { day: *day, principal, resource, limit, spent });
                    *day <= wish.to
                },
            );
        } else {
            each(&self.usage, (wish.from, SmolStr::default(), SmolStr::default()), |key, sums| {
                let ((day, principal, resource), [requests, input_tokens, output_tokens, nano_usd]) = (key, *sums);
                let spent = Sum::Used { requests, input_tokens, output_tokens, nano_usd };
                collector.take(&Row { day: *day, principal, resource, limit: None, spent });
                *day <= wish.to
            });
        }
        Ok(collector.page())
    }
}

/// Hands over the rows from `from` on until `with` has had enough, some at a time, so that nobody waits for long.
fn each<K: Ord + Clone, V: Clone>(rows: &Mutex<BTreeMap<K, V>>, from: K, mut with: impl FnMut(&K, &V) -> bool) {
    let mut from = Bound::Included(from);
    loop {
        let some: Vec<(K, V)> = {
            let rows = rows.lock();
            let range = rows.range((from, Bound::Unbounded)).take(READ_AT_ONCE);
            range.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let Some((last, _)) = some.last() else { return };
        from = Bound::Excluded(last.clone());
        if !some.iter().all(|(key, value)| with(key, value)) {
            return;
        }
    }
}
