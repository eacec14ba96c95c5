//! What leases promise beyond what every store does: who holds what where, and what comes back when.

use std::sync::{Arc, Mutex};

use tollgate::edge::store::background::Background;
use tollgate::edge::store::{Leases, Memory, Work};
use tollgate::gate::{Books, CloseError, HoldError, Later, Look, Meters, StoreError};
use tollgate::meter::{
    Alert, Charge, Closed, Held, Hold, Lease, LedgerError, Limit, Measure, OnExpiry, Reservation, ReservationId, State,
    Usage,
};
use tollgate::model::{Amount, Period, Timestamp, Unit};

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

/// A node on a store for the contract: whatever can be is held on leases of one, which last, since nobody ticks.
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
        let lease = Some(Lease { size: amount(1), lasts_ms: 3_600_000 });
        hold.charges.iter_mut().for_each(|charge| charge.limit = Arc::new(Limit { lease, ..(*charge.limit).clone() }));
        self.0.hold(hold, now)
    }
    fn record(&self, hold: Hold, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.0.record(hold, usage, now)
    }
    fn settle(&self, id: ReservationId, usage: Usage, now: Timestamp) -> Later<Result<Closed, CloseError>> {
        self.0.settle(id, usage, now)
    }
    fn settle_unknown(
        &self,
        id: ReservationId,
        charged: &[Amount],
        now: Timestamp,
    ) -> Later<Result<Closed, CloseError>> {
        self.0.settle_unknown(id, charged, now)
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

fn store() -> Arc<dyn Meters> {
    Arc::new(Memory::default())
}

/// Used, held.
fn standing(store: &Arc<dyn Meters>, limit: &Arc<Limit>, now: i64) -> (u64, u64) {
    let standing = wait(store.look(&[charge(limit, "a", 0)], at(now))).unwrap()[0].standing;
    (standing.used.get(), standing.held.get())
}

fn refused(done: Result<Held, HoldError>) -> bool {
    match done {
        Ok(_) => false,
        Err(HoldError::Refused(refused)) => !refused.shortfalls.is_empty(),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_lease_is_held_on_the_store_and_spent_without_it() {
    let (store, limit) = (store(), leased(&daily("day", 100), 10));
    let nodes = [node(&store, 1), node(&store, 2)];
    let one = |number| [charge(&limit, "a", number)];
    assert!(!refused(wait(nodes[0].hold(hold(1, &one(2)), at(0)))));
    assert_eq!(standing(&store, &limit, 0), (0, 10));
    for number in 2..6 {
        assert!(!refused(wait(nodes[0].hold(hold(number, &one(2)), at(1)))));
    }
    assert_eq!(standing(&store, &limit, 1), (0, 10), "the store was not asked");
    // The other node has what is not leased, and is told of what the store holds.
    assert!(!refused(wait(nodes[1].hold(hold(10, &one(90)), at(2)))));
    let look = wait(nodes[1].look(&one(1), at(3))).unwrap()[0];
    assert_eq!((look.standing.held.get(), look.lack.is_some()), (100, true));
    assert!(refused(wait(nodes[1].hold(hold(11, &one(1)), at(3)))));
    assert!(refused(wait(nodes[0].hold(hold(12, &one(1)), at(3)))));
    // What a call gives back is spent again, where it was leased.
    wait(nodes[0].settle(id(1), tokens(1), at(4))).unwrap();
    assert!(wait(nodes[0].look(&one(1), at(5))).unwrap()[0].lack.is_none(), "there is room on a lease");
    assert!(!refused(wait(nodes[0].hold(hold(13, &one(1)), at(5)))));
}

#[test]
fn a_lease_goes_back_when_it_is_over() {
    let (store, limit) = (store(), leased(&daily("day", 100), 10));
    let node = node(&store, 1);
    let one = |number| [charge(&limit, "a", number)];
    wait(node.hold(hold(1, &one(4)), at(0))).unwrap();
    wait(node.settle(id(1), tokens(3), at(1))).unwrap();
    node.tick(at(9_999));
    assert_eq!(standing(&store, &limit, 9_999), (0, 10));
    node.tick(at(10_000));
    assert_eq!(standing(&store, &limit, 10_000), (3, 0));
    // What is open keeps a lease until it is closed.
    wait(node.hold(hold(2, &one(4)), at(11_000))).unwrap();
    node.tick(at(30_000));
    assert_eq!(standing(&store, &limit, 30_000), (3, 10));
    wait(node.settle(id(2), tokens(4), at(31_000))).unwrap();
    node.tick(at(31_001));
    assert_eq!(standing(&store, &limit, 31_001), (7, 0));
    // The same again is answered as before, and changes nothing.
    assert!(wait(node.settle(id(2), tokens(4), at(32_000))).is_ok());
    let other = wait(node.settle(id(2), tokens(5), at(32_000)));
    assert_eq!(other, Err(CloseError::Ledger(LedgerError::Closed(State::Settled(tokens(4))))));
    assert_eq!(standing(&store, &limit, 32_001), (7, 0));
}

#[test]
fn leases_of_a_node_that_ends_are_charged_and_those_of_one_that_stops_go_back() {
    let (store, day) = (store(), daily("day", 100));
    let limit = leased(&Limit { on_expiry: OnExpiry::Release, ..(*day).clone() }, 10);
    let one = |number| [charge(&limit, "a", number)];
    let (ends, stops) = (node(&store, 1), node(&store, 2));
    wait(ends.hold(hold(1, &one(2)), at(0))).unwrap();
    drop(ends);
    wait(stops.hold(hold(2, &one(2)), at(0))).unwrap();
    wait(stops.hold(hold(3, &one(3)), at(0))).unwrap();
    wait(stops.settle(id(2), tokens(1), at(1))).unwrap();
    pollster::block_on(stops.give_back(at(2)));
    assert_eq!(standing(&store, &limit, 3), (1 + 3, 10), "what is open is charged as held");
    assert_eq!(standing(&store, &limit, 20_000), (1 + 3 + 10, 0), "nobody knows what was spent");
}

#[test]
fn the_last_of_a_meter_is_leased_in_small_parts() {
    let (store, limit) = (store(), leased(&daily("day", 100), 40));
    let nodes = [node(&store, 1), node(&store, 2)];
    let mut granted = 0;
    for number in 0..200 {
        let one = [charge(&limit, "a", 1)];
        granted += usize::from(!refused(wait(nodes[number % 2].hold(hold(number as u128, &one), at(0)))));
    }
    assert_eq!(granted, 100, "each of them spends what it leased");
    assert_eq!(standing(&store, &limit, 1), (0, 100));
}

#[test]
fn what_calls_use_beyond_their_holds_is_charged_before_it_is_acknowledged() {
    let (store, limit) = (store(), leased(&daily("day", 100), 10));
    let node = node(&store, 1);
    wait(node.hold(hold(1, &[charge(&limit, "a", 10)]), at(0))).unwrap();
    wait(node.settle(id(1), tokens(95), at(1))).unwrap();
    assert_eq!(standing(&store, &limit, 2), (85, 10));
    drop(node);
    assert_eq!(standing(&store, &limit, 20_000), (95, 0));
}

#[test]
fn a_request_with_a_key_is_held_on_the_store_and_has_the_room_that_its_node_leased() {
    let (store, limit) = (store(), leased(&daily("day", 10), 8));
    let nodes = [node(&store, 1), node(&store, 2)];
    wait(nodes[0].hold(hold(1, &[charge(&limit, "a", 1)]), at(0))).unwrap();
    wait(nodes[0].settle(id(1), tokens(1), at(1))).unwrap();
    let keyed = |number| Hold { idempotency: Some(("k".into(), [7; 32])), ..hold(number, &[charge(&limit, "a", 9)]) };
    assert!(refused(wait(nodes[1].hold(keyed(2), at(1)))));
    assert!(!refused(wait(nodes[0].hold(keyed(3), at(2)))));
    assert_eq!(standing(&store, &limit, 2), (1, 9));
    // Any node can settle it.
    wait(nodes[1].settle(id(3), tokens(9), at(3))).unwrap();
    assert_eq!(standing(&store, &limit, 4), (10, 0));
}

#[test]
fn all_limits_are_held_or_none_whatever_is_leased() {
    let (store, wide, narrow) = (store(), leased(&daily("wide", 100), 10), leased(&daily("narrow", 5), 1));
    let node = node(&store, 1);
    let both = |number| [charge(&wide, "a", number), charge(&narrow, "a", number)];
    assert!(!refused(wait(node.hold(hold(1, &both(3)), at(0)))));
    assert!(refused(wait(node.hold(hold(2, &both(3)), at(1)))));
    wait(node.release(id(1), at(2))).unwrap();
    node.tick(at(10_000));
    assert_eq!((standing(&store, &wide, 10_000), standing(&store, &narrow, 10_000)), ((0, 0), (0, 0)));
    // A limit without leases beside one with them: the store holds both.
    let mixed = [charge(&wide, "a", 2), charge(&daily("plain", 5), "a", 2)];
    wait(node.hold(hold(3, &mixed), at(10_001))).unwrap();
    assert_eq!(standing(&store, &wide, 10_001), (0, 2));
}

#[test]
fn a_period_that_is_over_takes_its_leases_along() {
    let (store, limit) = (store(), leased(&daily("day", 10), 10));
    let node = node(&store, 1);
    let midnight = 12 * 3_600_000;
    wait(node.hold(hold(1, &[charge(&limit, "a", 1)]), at(midnight - 10))).unwrap();
    // Not one of the nine that were leased in the old period.
    wait(node.hold(hold(2, &[charge(&limit, "a", 9)]), at(midnight))).unwrap();
    assert_eq!(standing(&store, &limit, midnight), (0, 10));
    wait(node.settle(id(1), tokens(10), at(midnight + 1))).unwrap();
    assert_eq!(standing(&store, &limit, midnight + 1), (0, 10), "the old one is over");
}

#[test]
fn requests_of_a_rate_are_not_hoarded() {
    let measure = Measure::Rate { unit: Unit::Requests, amount: amount(60), every_ms: 60_000 };
    let (store, limit) = (store(), leased(&limit("rate", measure, 10), 8));
    let node = node(&store, 1);
    let one = |number: u128, now| refused(wait(node.hold(hold(number, &[charge(&limit, "a", 1)]), at(now))));
    assert!(!one(1, 0));
    // Its lease is over and all has flown back: the burst, and not what was leased besides.
    assert_eq!((100..130).filter(|number| !one(*number, 60_000)).count(), 10);
    // What is released was leased, and comes to nobody.
    wait(node.release(id(100), at(60_001))).unwrap();
    assert!(one(200, 60_001));
}

#[test]
fn who_gives_up_before_the_first_step_keeps_nobody_waiting() {
    let (store, limit) = (store(), leased(&daily("day", 100), 10));
    let node = node(&store, 1);
    // It would draw first; nobody ever asks it to.
    drop(node.hold(hold(1, &[charge(&limit, "a", 1)]), at(0)));
    let mut waits = node.hold(hold(2, &[charge(&limit, "a", 1)]), at(1));
    let once = std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut waits).poll(cx)));
    match pollster::block_on(once) {
        std::task::Poll::Ready(done) => assert!(!refused(done)),
        std::task::Poll::Pending => panic!("it waits for a draw that nobody makes"),
    }
}

#[test]
fn what_was_drawn_for_more_than_a_lease_stays_until_it_is_held() {
    let (store, limit) = (store(), leased(&daily("day", 100), 1));
    let node = node(&store, 1);
    let lasting = |number, amount| Hold { ttl_ms: 600_000, ..hold(number, &[charge(&limit, "a", amount)]) };
    wait(node.hold(lasting(1, 11), at(0))).unwrap();
    // The first lease is over and still open: what is drawn beside it is for the second, all of it and once.
    wait(node.hold(lasting(2, 2), at(15_000))).unwrap();
    assert_eq!(standing(&store, &limit, 15_001), (0, 13));
}

#[test]
fn what_is_given_back_late_is_not_let_through_in_another_window() {
    let rolling = Measure::Budget { unit: Unit::Tokens, period: Period::Rolling(9_000), carry_over_percent: 0 };
    let (store, limit) = (store(), leased(&Limit { measure: rolling, ..(*daily("rolling", 1)).clone() }, 1));
    let node = node(&store, 1);
    let lasting = |number, ttl_ms| Hold { ttl_ms, ..hold(number, &[charge(&limit, "a", 1)]) };
    // It expires, is charged as held, and then told to have used nothing.
    wait(node.hold(lasting(1, 1_000), at(0))).unwrap();
    node.tick(at(1_000));
    wait(node.settle(id(1), tokens(0), at(2_000))).unwrap();
    // By then the store's charge has flown out: there is room for one, and for no other.
    wait(node.hold(lasting(2, 60_000), at(15_000))).unwrap();
    assert!(refused(wait(node.hold(lasting(3, 60_000), at(15_001)))), "it is let through beside the other");
    assert_eq!(standing(&store, &limit, 15_002).1, 1, "the store knows of the one that is open");
}
