//! What leases promise beyond what every store does: who holds what where, and what comes back when.

use std::sync::{Arc, Mutex};

use tollgate::edge::store::background::Background;
use tollgate::edge::store::{Leases, Memory, Work};
use tollgate::gate::{Books, CloseError, HoldError, Later, Look, Meters, StoreError};
use tollgate::meter::{
    Alert, Charge, Closed, Held, Hold, Lease, LedgerError, Limit, Measure, OnExpiry, Reservation, ReservationId, State,
    Usage,
};
use tollgate::model::{Timestamp, Unit};

use crate::{amount, at, charge, daily, hold, id, limit, tokens, wait};

/// Does at once what nobody waits for.
fn at_once() -> Background {
    Arc::new(pollster::block_on::<Work>)
}

fn node(store: &Arc<dyn Meters>, number: u128) -> Leases {
    let next = Mutex::new(number << 64);
    let names = move |now| {
        let mut next = next.lock().unwrap();
        *next += 1;
        ReservationId::new(now, *next)
    };
    Leases::with(Arc::clone(store), Box::new(names), at_once())
}

fn leased(limit: &Limit, size: u64) -> Arc<Limit> {
    Arc::new(Limit { lease: Some(Lease { size: amount(size), lasts_ms: 10_000 }), ..limit.clone() })
}

/// A node on a store for the contract: whatever can be is held on leases of one.
pub struct Leased(Leases);

impl Leased {
    pub fn of(store: Arc<dyn Meters>) -> Self {
        Self(node(&store, 1))
    }
}

impl Meters for Leased {
    fn look(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Look>, StoreError>> {
        self.0.look(charges, now)
    }
    fn hold(&self, mut hold: Hold, now: Timestamp) -> Later<Result<Held, HoldError>> {
        hold.charges.iter_mut().for_each(|charge| charge.limit = leased(&charge.limit, 1));
        self.0.hold(hold, now)
    }
    fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.0.record(hold, usage, now)
    }
    fn settle(&self, id: ReservationId, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.0.settle(id, usage, now)
    }
    fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.0.release(id, now)
    }
    fn warn(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Alert>, StoreError>> {
        self.0.warn(charges, now)
    }
    fn extend(&self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Later<Result<Timestamp, CloseError>> {
        self.0.extend(id, ttl_ms, now)
    }
    fn reservation(&self, id: ReservationId, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        self.0.reservation(id, now)
    }
    fn named(&self, key: &str, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        self.0.named(key, now)
    }
    fn answered(&self, id: ReservationId, answer: Arc<[u8]>) -> Later<Result<(), StoreError>> {
        self.0.answered(id, answer)
    }
    fn books(&self) -> Option<Arc<dyn Books>> {
        self.0.books()
    }
    fn tick(&self, now: Timestamp) {
        self.0.tick(now);
    }
}
