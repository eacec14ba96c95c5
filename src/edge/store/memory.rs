//! Meters in memory alone: what is held and used is forgotten with the process.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use smol_str::SmolStr;

use super::books::MemoryBooks;
use super::{EXPIRE_AT_ONCE, SWEEP_AT_ONCE, answered, gather_subjects, held, looks, recorded};
use crate::gate::{Books, CloseError, HoldError, Later, Look, Meters, StoreError, SubjectsOf};
use crate::meter::{Alert, Charge, Closed, Held, Hold, Ledger, Reservation, ReservationId, Usage};
use crate::model::{Amount, Timestamp};

/// Meters in memory.
#[derive(Debug)]
pub struct Memory {
    ledger: Mutex<Ledger>,
    books: Arc<MemoryBooks>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { ledger: Mutex::new(Ledger::unwritten()), books: Arc::default() }
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    fn at(&self, now: Timestamp) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.lock();
        ledger.expire(now, EXPIRE_AT_ONCE);
        ledger
    }

    fn change<T>(&self, now: Timestamp, work: impl FnOnce(&mut Ledger) -> T) -> Later<T> {
        let mut ledger = self.at(now);
        let done = work(&mut ledger);
        let changes = ledger.take_changes();
        drop(ledger);
        // Of what changed, only what was spent is kept a second time.
        self.books.note(&changes.entries);
        Later::ready(done)
    }
}

impl Meters for Memory {
    fn look(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Look>, StoreError>> {
        Later::ready(Ok(looks(&self.at(now), charges, now)))
    }

    fn hold(&self, hold: Hold, now: Timestamp) -> Later<Result<Held, HoldError>> {
        self.change(now, |ledger| held(ledger, hold, now))
    }

    fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.change(now, |ledger| recorded(ledger, hold, usage, now))
    }

    fn settle(&self, id: ReservationId, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.change(now, |ledger| ledger.settle(id, usage, now).map_err(CloseError::from))
    }

    fn settle_unknown(
        &self,
        id: ReservationId,
        charged: &[Amount],
        now: Timestamp,
    ) -> Later<Result<Closed, CloseError>> {
        self.change(now, |ledger| ledger.settle_unknown(id, charged, now).map_err(CloseError::from))
    }

    fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.change(now, |ledger| ledger.release(id, now).map_err(CloseError::from))
    }

    fn warn(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Alert>, StoreError>> {
        self.change(now, |ledger| Ok(ledger.warn(charges, now)))
    }

    fn extend(&self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Later<Result<Timestamp, CloseError>> {
        self.change(now, |ledger| ledger.extend(id, ttl_ms, now).map_err(CloseError::from))
    }

    fn reservation(&self, id: ReservationId, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        Later::ready(Ok(self.at(now).reservation(id).cloned()))
    }

    fn named(&self, key: &str, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        Later::ready(Ok(self.at(now).named(key).cloned()))
    }

    fn answered(&self, id: ReservationId, answer: Arc<[u8]>) -> Later<Result<(), StoreError>> {
        Later::ready(answered(&mut self.lock(), id, answer))
    }

    fn subjects(&self, of: &SubjectsOf) -> Later<Result<Vec<SmolStr>, StoreError>> {
        let (mut found, mut part) = (BTreeSet::new(), 0);
        while gather_subjects(&self.lock(), part, of, &mut found) {
            part += 1;
        }
        Later::ready(Ok(found.into_iter().collect()))
    }

    fn books(&self) -> Option<Arc<dyn Books>> {
        Some(Arc::clone(&self.books) as Arc<dyn Books>)
    }

    fn tick(&self, now: Timestamp) {
        let mut ledger = self.at(now);
        ledger.sweep(now, SWEEP_AT_ONCE);
        let changes = ledger.take_changes();
        drop(ledger);
        self.books.note(&changes.entries);
    }
}
