//! Meters in memory alone: what is held and used is forgotten with the process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{EXPIRE_AT_ONCE, SWEEP_AT_ONCE, held, looks, recorded};
use crate::gate::{CloseError, HoldError, Later, Look, Meters, StoreError};
use crate::meter::{Charge, Closed, Held, Hold, Ledger, Reservation, ReservationId, Usage};
use crate::model::Timestamp;

/// Meters in memory.
#[derive(Debug, Default)]
pub struct Memory {
    ledger: Mutex<Ledger>,
}

impl Memory {
    fn at(&self, now: Timestamp) -> MutexGuard<'_, Ledger> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.expire(now, EXPIRE_AT_ONCE);
        ledger
    }

    fn change<T>(&self, now: Timestamp, work: impl FnOnce(&mut Ledger) -> T) -> Later<T> {
        let mut ledger = self.at(now);
        let done = work(&mut ledger);
        // Nobody writes them.
        drop(ledger.take_changes());
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

    fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.change(now, |ledger| ledger.release(id, now).map_err(CloseError::from))
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
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.answered(id, answer);
        Later::ready(Ok(()))
    }

    fn tick(&self, now: Timestamp) {
        let mut ledger = self.at(now);
        ledger.sweep(now, SWEEP_AT_ONCE);
        drop(ledger.take_changes());
    }
}
