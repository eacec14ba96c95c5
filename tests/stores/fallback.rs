//! What is let through while a store fails: at most each limit's allowance, and it is charged when the store is back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tollgate::edge::store::{Fallback, Memory};
use tollgate::gate::{CloseError, HoldError, Later, Look, Meters, StoreError};
use tollgate::meter::{
    Alert, Charge, Closed, Held, Hold, Limit, Measure, OnStoreError, Reservation, ReservationId, State, Usage,
};
use tollgate::model::{Amount, Timestamp, Unit};

use crate::{amount, at, charge, daily, hold, id, limit, tokens, wait};

/// A store that can be switched off.
#[derive(Default)]
struct Fails {
    store: Memory,
    off: AtomicBool,
    recorded: Mutex<Vec<ReservationId>>,
}

impl Fails {
    fn or<T>(&self, work: impl FnOnce(&Memory) -> Later<T>, failed: impl FnOnce(StoreError) -> T) -> Later<T> {
        if self.off.load(Ordering::SeqCst) {
            Later::ready(failed(StoreError::Away("off".into())))
        } else {
            work(&self.store)
        }
    }
}

impl Meters for Fails {
    fn look(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Look>, StoreError>> {
        self.or(|store| store.look(charges, now), Err)
    }
    fn hold(&self, hold: Hold, now: Timestamp) -> Later<Result<Held, HoldError>> {
        self.or(|store| store.hold(hold, now), |error| Err(error.into()))
    }
    fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.recorded.lock().unwrap().push(hold.id);
        self.or(|store| store.record(hold, usage, now), |error| Err(error.into()))
    }
    fn settle(&self, id: ReservationId, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.or(|store| store.settle(id, usage, now), |error| Err(error.into()))
    }
    fn settle_unknown(
        &self,
        id: ReservationId,
        charged: &[Amount],
        now: Timestamp,
    ) -> Later<Result<Closed, CloseError>> {
        self.or(|store| store.settle_unknown(id, charged, now), |error| Err(error.into()))
    }
    fn release(&self, id: ReservationId, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.or(|store| store.release(id, now), |error| Err(error.into()))
    }
    fn warn(&self, charges: &[Charge], now: Timestamp) -> Later<Result<Vec<Alert>, StoreError>> {
        self.or(|store| store.warn(charges, now), Err)
    }
    fn extend(&self, id: ReservationId, ttl_ms: i64, now: Timestamp) -> Later<Result<Timestamp, CloseError>> {
        self.or(|store| store.extend(id, ttl_ms, now), |error| Err(error.into()))
    }
    fn reservation(&self, id: ReservationId, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        self.or(|store| store.reservation(id, now), Err)
    }
    fn named(&self, key: &str, now: Timestamp) -> Later<Result<Option<Reservation>, StoreError>> {
        self.or(|store| store.named(key, now), Err)
    }
    fn answered(&self, id: ReservationId, answer: Arc<[u8]>) -> Later<Result<(), StoreError>> {
        self.or(|store| store.answered(id, answer), Err)
    }
    fn tick(&self, now: Timestamp) {
        self.store.tick(now);
    }
}

fn permitting(limit: &Arc<Limit>, allowance: u64) -> Arc<Limit> {
    let mut limit = (**limit).clone();
    limit.on_store_error = OnStoreError::Permit(amount(allowance));
    Arc::new(limit)
}

fn nodes() -> (Arc<Fails>, [Fallback; 2]) {
    let store = Arc::new(Fails::default());
    let node = || Fallback::new(Arc::clone(&store) as Arc<dyn Meters>);
    let nodes = [node(), node()];
    (store, nodes)
}

#[test]
fn fallback_lets_through_an_allowance_a_node_and_charges_it_later() {
    let (store, nodes) = nodes();
    let limit = permitting(&daily("day", 1000), 30);
    let one = |number| [charge(&limit, "a", number)];
    wait(nodes[0].hold(hold(1, &one(500)), at(0))).unwrap();
    store.off.store(true, Ordering::SeqCst);
    let node_of = |number: u128| &nodes[usize::from(!number.is_multiple_of(4))];
    let mut granted: Vec<u128> = Vec::new();
    for number in (100..160).step_by(2) {
        let node = node_of(number);
        match wait(node.hold(hold(number, &one(4)), at(1))) {
            Ok(_) => granted.push(number),
            Err(HoldError::Refused(refused)) => assert_eq!(refused.shortfalls.len(), 1),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(granted.len(), 14, "seven times 4 on each node");
    let look = wait(nodes[0].look(&one(3), at(2))).unwrap();
    assert_eq!((look[0].standing.held.get(), look[0].lack.is_some()), (28, true));
    for number in &granted[..4] {
        let node = node_of(*number);
        let closed = wait(node.settle(id(*number), tokens(2), at(2))).unwrap();
        assert_eq!(closed.reservation.state, State::Settled(tokens(2)));
    }
    for number in &granted[4..6] {
        let node = node_of(*number);
        wait(node.release(id(*number), at(2))).unwrap();
    }
    store.off.store(false, Ordering::SeqCst);
    // The others expire, and are charged as held.
    let until = Instant::now() + Duration::from_secs(60);
    let expected = 500 + 4 * 2 + 8 * 4;
    loop {
        nodes.iter().for_each(|node| node.tick(at(70_000)));
        let standing = wait(nodes[1].look(&one(1), at(70_000))).unwrap()[0].standing;
        if (standing.used.get(), standing.held.get()) == (expected, 0) {
            break;
        }
        assert!(Instant::now() < until, "{standing:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..5 {
        nodes.iter().for_each(|node| node.tick(at(71_000)));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(wait(nodes[1].look(&one(1), at(71_000))).unwrap()[0].standing.used.get(), expected);
    assert_eq!(store.recorded.lock().unwrap().len(), 12);
    // The same again is answered as before, and changes nothing.
    assert!(wait(nodes[0].settle(id(granted[0]), tokens(2), at(72_000))).is_ok());
    assert!(wait(nodes[0].settle(id(granted[0]), tokens(3), at(72_000))).is_err());
    assert!(wait(nodes[0].settle(id(granted[8]), tokens(3), at(72_000))).is_err());
    assert_eq!(wait(nodes[1].look(&one(1), at(72_000))).unwrap()[0].standing.used.get(), expected);
}

#[test]
fn fallback_forbids_where_one_limit_does() {
    let (store, nodes) = nodes();
    let charges = [charge(&permitting(&daily("soft", 100), 30), "a", 1), charge(&daily("hard", 100), "a", 1)];
    store.off.store(true, Ordering::SeqCst);
    assert!(matches!(wait(nodes[0].hold(hold(1, &charges), at(0))), Err(HoldError::Store(StoreError::Away(_)))));
    assert!(matches!(wait(nodes[0].look(&charges, at(0))), Err(StoreError::Away(_))));
    assert!(wait(nodes[0].hold(hold(2, &charges[..1]), at(0))).is_ok());
}

#[test]
fn fallback_bounds_rates_and_places_too() {
    let (store, nodes) = nodes();
    store.off.store(true, Ordering::SeqCst);
    let rate = limit("rate", Measure::Rate { unit: Unit::Requests, amount: amount(1000), every_ms: 60_000 }, 1000);
    let rate = permitting(&rate, 5);
    let places = permitting(&limit("places", Measure::Concurrency, 10), 2);
    let granted = |limit: &Arc<Limit>, from: u128, now: i64| {
        (from..from + 20)
            .filter(|number| wait(nodes[0].hold(hold(*number, &[charge(limit, "a", 1)]), at(now))).is_ok())
            .count()
    };
    assert_eq!(granted(&rate, 0, 0), 5);
    assert_eq!(granted(&rate, 100, 12_000), 1);
    assert_eq!(granted(&places, 200, 0), 2);
}
