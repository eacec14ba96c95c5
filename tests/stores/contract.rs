//! The suite: one list of promises, checked on each store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tollgate::edge::store::{Embedded, Memory};
use tollgate::gate::{CloseError, HoldError, Meters};
use tollgate::meter::{Hold, LedgerError, Limit, Measure, Mode, Spending, State};
use tollgate::model::{Period, Unit};

use crate::leases::Leased;
use crate::redis_server::Server;
use crate::{amount, at, charge, daily, hold, id, limit, tokens, wait};

type Promise = (&'static str, fn(&dyn Meters));

/// What is not promised of leases: what that gives back is their node's.
const CORRECTED: &str = "what was charged at its end can be corrected for a day";

const PROMISES: &[Promise] = &[
    ("every charge is held, or none", all_or_none),
    ("a look changes nothing", looks),
    ("what is settled is charged, the rest given back, once", settles),
    ("a hold of nothing is refused where a limit is full", nothing_needs_room),
    ("an unknown usage is charged what is stated, once", settles_the_unknown),
    ("what is released is given back, once", releases),
    ("what nobody settles is charged at its end", expires),
    (CORRECTED, corrects),
    ("an extension lasts", extends),
    ("what was answered can be answered again", answers),
    ("a principal has no more open reservations than it may", few_of_one),
    ("a key names one thing, unless nobody was told of it", keys),
    ("spending without a reservation counts in full", records),
    ("unknown reservations are told", unknown),
    ("what is reached by using more than was held is told once", warns),
    ("caps hold whoever asks at once", races),
];

fn check(name: &str, make: impl Fn() -> Arc<dyn Meters>) {
    check_but(name, &[], make);
}

fn check_but(name: &str, not: &[&str], make: impl Fn() -> Arc<dyn Meters>) {
    for (promise, holds) in PROMISES.iter().filter(|(promise, _)| !not.contains(promise)) {
        println!("{name}: {promise}");
        holds(&*make());
    }
}

#[test]
fn memory_keeps_every_promise() {
    check("memory", || Arc::new(Memory::default()));
}

#[test]
fn embedded_keeps_every_promise() {
    let directory = tempfile::tempdir().unwrap();
    let number = AtomicU64::new(0);
    check("embedded", || {
        let directory = directory.path().join(number.fetch_add(1, Ordering::Relaxed).to_string());
        Arc::new(Embedded::open(&directory, at(0)).unwrap())
    });
}

#[test]
fn redis_keeps_every_promise() {
    let Some(server) = Server::start(&[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let number = AtomicU64::new(0);
    check("redis", || {
        let name = format!("promise{}", number.fetch_add(1, Ordering::Relaxed));
        Arc::new(server.store(&directory.path().join(&name), &name))
    });
}

#[test]
fn leases_of_memory_keep_every_promise() {
    check_but("leases of memory", &[CORRECTED], || Arc::new(Leased::of(Arc::new(Memory::default()))));
}

#[test]
fn leases_of_redis_keep_every_promise() {
    let Some(server) = Server::start(&[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let number = AtomicU64::new(0);
    check_but("leases of redis", &[CORRECTED], || {
        let name = format!("leased{}", number.fetch_add(1, Ordering::Relaxed));
        Arc::new(Leased::of(Arc::new(server.store(&directory.path().join(&name), &name))))
    });
}

/// Where a meter stands, once a node has told all that it has to tell.
fn standing(store: &dyn Meters, limit: &Arc<tollgate::meter::Limit>, subject: &str, now: i64) -> (u64, u64) {
    store.tick(at(now));
    let looks = wait(store.look(&[charge(limit, subject, 1)], at(now))).unwrap();
    (looks[0].standing.used.get(), looks[0].standing.held.get())
}

fn all_or_none(store: &dyn Meters) {
    let (wide, narrow) = (daily("wide", 100), daily("narrow", 10));
    let both = |number| [charge(&wide, "a", number), charge(&narrow, "a", number)];
    let held = wait(store.hold(hold(1, &both(6)), at(0))).unwrap();
    assert_eq!(held.expires_at, at(60_000));
    assert_eq!(held.standings.iter().map(|one| one.held.get()).collect::<Vec<_>>(), [6, 6]);
    let Err(HoldError::Refused(refused)) = wait(store.hold(hold(2, &both(5)), at(1))) else {
        panic!("it was held");
    };
    assert_eq!(refused.shortfalls.iter().map(|short| short.charge).collect::<Vec<_>>(), [1]);
    assert_eq!(refused.shortfalls[0].lack.retry_at, Some(at(12 * 3_600_000)));
    assert_eq!(standing(store, &wide, "a", 2), (0, 6));
    assert_eq!(standing(store, &narrow, "b", 2), (0, 0));
    wait(store.hold(hold(3, &both(4)), at(3))).unwrap();
    assert_eq!(standing(store, &narrow, "a", 4), (0, 10));
}

fn looks(store: &dyn Meters) {
    let limit = daily("day", 10);
    for _ in 0..3 {
        let looks = wait(store.look(&[charge(&limit, "a", 10), charge(&limit, "b", 11)], at(0))).unwrap();
        assert!(looks[0].lack.is_none() && looks[1].lack.is_some());
        assert_eq!(looks[0].standing.taken().get(), 0);
    }
}

fn settles(store: &dyn Meters) {
    let limit = daily("day", 10);
    wait(store.hold(hold(1, &[charge(&limit, "a", 8)]), at(0))).unwrap();
    let first = wait(store.settle(id(1), tokens(3), at(1))).unwrap();
    assert_eq!(first.reservation.state, State::Settled(tokens(3)));
    assert_eq!(standing(store, &limit, "a", 2), (3, 0));
    let again = wait(store.settle(id(1), tokens(3), at(3))).unwrap();
    assert_eq!(again.reservation, first.reservation);
    let other = wait(store.settle(id(1), tokens(4), at(4)));
    assert_eq!(other, Err(CloseError::Ledger(LedgerError::Closed(State::Settled(tokens(3))))));
    assert!(wait(store.release(id(1), at(5))).is_err());
    assert_eq!(standing(store, &limit, "a", 6), (3, 0));
    wait(store.hold(hold(2, &[charge(&limit, "a", 7)]), at(7))).unwrap();
    wait(store.settle(id(2), tokens(9), at(8))).unwrap();
    assert_eq!(standing(store, &limit, "a", 9), (12, 0));
}

fn nothing_needs_room(store: &dyn Meters) {
    let rate = |unit| Measure::Rate { unit, amount: amount(10), every_ms: 3_600_000 };
    let limits = [
        daily("day", 10),
        limit("pace", rate(Unit::Requests), 10),
        limit("tokens", rate(Unit::Tokens), 10),
        limit(
            "rolling",
            Measure::Budget { unit: Unit::Tokens, period: Period::Rolling(86_400_000), carry_over_percent: 0 },
            10,
        ),
    ];
    for (number, limit) in (0_u128..).map(|number| number * 1000).zip(&limits) {
        let nothing = [charge(limit, "a", 0)];
        wait(store.hold(hold(number, &nothing), at(0))).unwrap();
        wait(store.hold(hold(number + 1, &[charge(limit, "a", 10)]), at(0))).unwrap();
        for again in 2..102 {
            let refused = wait(store.hold(hold(number + again, &nothing), at(0)));
            assert!(matches!(refused, Err(HoldError::Refused(_))), "{}: {refused:?}", limit.id);
        }
        assert!(wait(store.look(&[charge(limit, "a", 1)], at(0))).unwrap()[0].lack.is_some());
        // A limit that only warns refuses nothing.
        let warns = Arc::new(Limit { mode: Mode::Warn, ..(**limit).clone() });
        wait(store.hold(hold(number + 200, &[charge(&warns, "a", 0)]), at(0))).unwrap();
    }
}

fn settles_the_unknown(store: &dyn Meters) {
    let (limit, other) = (daily("day", 10), daily("other", 10));
    let both = [charge(&limit, "a", 8), charge(&other, "a", 8)];
    wait(store.hold(hold(1, &both), at(0))).unwrap();
    let stated = [amount(5), amount(0)];
    let first = wait(store.settle_unknown(id(1), &stated, at(1))).unwrap();
    assert_eq!(first.reservation.state, State::UsageUnknown);
    assert_eq!(wait(store.reservation(id(1), at(1))).unwrap().unwrap().state, State::UsageUnknown);
    assert_eq!(wait(store.settle_unknown(id(1), &stated, at(2))).unwrap().reservation, first.reservation);
    let closed = Err(CloseError::Ledger(LedgerError::Closed(State::UsageUnknown)));
    assert_eq!(wait(store.settle(id(1), tokens(3), at(3))), closed);
    assert_eq!(wait(store.release(id(1), at(4))), closed);
    assert_eq!((standing(store, &limit, "a", 5), standing(store, &other, "a", 5)), ((5, 0), (0, 0)));
}

fn releases(store: &dyn Meters) {
    let places = limit("places", Measure::Concurrency, 1);
    let one = [charge(&places, "a", 1)];
    wait(store.hold(hold(1, &one), at(0))).unwrap();
    assert!(wait(store.hold(hold(2, &one), at(0))).is_err());
    for _ in 0..2 {
        let closed = wait(store.release(id(1), at(1))).unwrap();
        assert_eq!(closed.reservation.state, State::Released);
    }
    wait(store.hold(hold(3, &one), at(2))).unwrap();
    assert!(wait(store.hold(hold(4, &one), at(2))).is_err());
    assert!(wait(store.settle(id(1), tokens(1), at(3))).is_err());
}

fn expires(store: &dyn Meters) {
    let limit = daily("day", 10);
    wait(store.hold(hold(1, &[charge(&limit, "a", 8)]), at(0))).unwrap();
    store.tick(at(59_999));
    assert_eq!(standing(store, &limit, "a", 59_999), (0, 8));
    store.tick(at(60_000));
    assert_eq!(standing(store, &limit, "a", 60_000), (8, 0));
    assert!(wait(store.extend(id(1), 60_000, at(60_001))).is_err());
}

fn corrects(store: &dyn Meters) {
    let limit = daily("day", 10);
    wait(store.hold(hold(1, &[charge(&limit, "a", 8)]), at(0))).unwrap();
    store.tick(at(60_000));
    for _ in 0..2 {
        wait(store.settle(id(1), tokens(2), at(70_000))).unwrap();
        assert_eq!(standing(store, &limit, "a", 70_001), (2, 0));
    }
}

fn extends(store: &dyn Meters) {
    let limit = daily("day", 10);
    wait(store.hold(hold(1, &[charge(&limit, "a", 8)]), at(0))).unwrap();
    assert_eq!(wait(store.extend(id(1), 120_000, at(10_000))).unwrap(), at(130_000));
    assert_eq!(wait(store.extend(id(1), 1_000, at(20_000))).unwrap(), at(130_000));
    store.tick(at(129_999));
    assert_eq!(standing(store, &limit, "a", 129_999), (0, 8));
    store.tick(at(130_000));
    assert_eq!(standing(store, &limit, "a", 130_000), (8, 0));
}

fn answers(store: &dyn Meters) {
    let limit = daily("day", 10);
    let mut named = hold(1, &[charge(&limit, "a", 8)]);
    named.idempotency = Some(("retry-7".into(), [7; 32]));
    wait(store.hold(named, at(0))).unwrap();
    wait(store.answered(id(1), Arc::from(*b"{}"))).unwrap();
    let found = wait(store.named("retry-7", at(2))).unwrap().unwrap();
    let idempotency = found.idempotency.unwrap();
    assert_eq!((found.id, idempotency.digest, idempotency.answer.as_deref()), (id(1), [7; 32], Some(&b"{}"[..])));
    wait(store.settle(id(1), tokens(1), at(1))).unwrap();
    assert_eq!(wait(store.named("retry-7", at(2))).unwrap().unwrap().id, id(1));
    assert!(wait(store.named("retry-8", at(2))).unwrap().is_none());
    assert_eq!(wait(store.reservation(id(1), at(2))).unwrap().unwrap().state, State::Settled(tokens(1)));
}

fn few_of_one(store: &dyn Meters) {
    let limit = daily("day", 100);
    let of = |number, who: &str| {
        let mut hold = hold(number, &[charge(&limit, "a", 1)]);
        let spending = Spending { principal: who.parse().unwrap(), ..(*hold.spending).clone() };
        (hold.spending, hold.most_open) = (Arc::new(spending), Some(2));
        hold
    };
    let (alice, bob) = ("User::\"alice\"", "User::\"bob 1\"");
    let held = |number, who, now| wait(store.hold(of(number, who), at(now)));
    for number in [1, 2] {
        held(number, alice, 0).unwrap();
        held(10 + number, bob, 0).unwrap();
    }
    assert_eq!([held(3, alice, 1), held(13, bob, 1)], [Err(HoldError::TooManyOpen), Err(HoldError::TooManyOpen)]);
    wait(store.settle(id(1), tokens(1), at(2))).unwrap();
    wait(store.settle(id(1), tokens(1), at(2))).unwrap();
    held(4, alice, 3).unwrap();
    assert_eq!(held(5, alice, 3), Err(HoldError::TooManyOpen));
    wait(store.release(id(11), at(3))).unwrap();
    held(14, bob, 3).unwrap();
    // What expires is open no longer.
    for number in [6, 7] {
        held(number, alice, 70_000).unwrap();
    }
    assert_eq!(held(8, alice, 70_000), Err(HoldError::TooManyOpen));
    // Spending that was not held is over.
    wait(store.record(of(20, alice), tokens(1), at(70_000))).unwrap();
}

fn keys(store: &dyn Meters) {
    let limit = daily("day", 100);
    let named = |number, key: &str| Hold {
        idempotency: Some((key.into(), [7; 32])),
        ..hold(number, &[charge(&limit, "a", 8)])
    };
    wait(store.hold(named(1, "k"), at(0))).unwrap();
    wait(store.answered(id(1), Arc::from(*b"{}"))).unwrap();
    wait(store.settle(id(1), tokens(1), at(1))).unwrap();
    // Also once it is over, and for whoever looked before it was there.
    assert_eq!(wait(store.hold(named(2, "k"), at(2))), Err(HoldError::KeyTaken));
    wait(store.record(named(3, "u"), tokens(8), at(3))).unwrap();
    let Err(CloseError::KeyTaken(found)) = wait(store.record(named(4, "u"), tokens(8), at(4))) else {
        panic!("it was noted twice");
    };
    assert_eq!(found.id, id(3));
    wait(store.hold(named(5, "lost"), at(5))).unwrap();
    assert_eq!(wait(store.hold(named(6, "lost"), at(5))), Err(HoldError::KeyTaken));
    wait(store.release(id(5), at(6))).unwrap();
    // Too late: it holds nothing any more, and its key is another's.
    assert!(wait(store.answered(id(5), Arc::from(*b"{}"))).is_err());
    wait(store.hold(named(7, "lost"), at(7))).unwrap();
    wait(store.answered(id(7), Arc::from(*b"{}"))).unwrap();
    assert_eq!(wait(store.named("lost", at(8))).unwrap().unwrap().id, id(7));
    assert_eq!(standing(store, &limit, "a", 9), (9, 8));
}

fn records(store: &dyn Meters) {
    let limit = daily("day", 10);
    let closed = wait(store.record(hold(1, &[charge(&limit, "a", 25)]), tokens(25), at(0))).unwrap();
    assert_eq!(closed.reservation.parts[0].charged, amount(25));
    assert_eq!(standing(store, &limit, "a", 1), (25, 0));
}

fn warns(store: &dyn Meters) {
    let mut day = (*daily("day", 100)).clone();
    day.warn_at = Box::new([50, 80]);
    let (day, plain) = (Arc::new(day), daily("plain", 10));
    let both = [charge(&day, "a", 0), charge(&plain, "a", 0), charge(&day, "b", 0)];
    let told = |now| {
        let alerts = wait(store.warn(&both, at(now))).unwrap();
        alerts.iter().map(|alert| (alert.subject.clone().unwrap(), alert.percent)).collect::<Vec<_>>()
    };
    wait(store.hold(hold(1, &[charge(&day, "a", 10), charge(&plain, "a", 10)]), at(0))).unwrap();
    assert_eq!(told(1), []);
    wait(store.settle(id(1), tokens(55), at(2))).unwrap();
    assert_eq!(told(3), [("a".into(), 50)]);
    assert_eq!(told(4), []);
    let held = wait(store.hold(hold(2, &[charge(&day, "a", 20)]), at(5))).unwrap();
    assert!(held.alerts.is_empty());
    wait(store.settle(id(2), tokens(30), at(6))).unwrap();
    assert_eq!(told(7), [("a".into(), 80)]);
    assert_eq!(standing(store, &day, "a", 8), (85, 0));
    // The next period tells again.
    wait(store.hold(hold(3, &[charge(&day, "a", 10)]), at(86_400_000))).unwrap();
    wait(store.settle(id(3), tokens(50), at(86_400_000))).unwrap();
    assert_eq!(told(86_400_001), [("a".into(), 50)]);
}

fn unknown(store: &dyn Meters) {
    let unknown = Err(CloseError::Ledger(LedgerError::Unknown));
    assert_eq!(wait(store.settle(id(9), tokens(1), at(0))), unknown);
    assert_eq!(wait(store.release(id(9), at(0))), unknown);
    assert!(wait(store.extend(id(9), 1000, at(0))).is_err());
    assert_eq!(wait(store.reservation(id(9), at(2))), Ok(None));
}

fn races(store: &dyn Meters) {
    const THREADS: u64 = 8;
    const EACH: u64 = 200;
    let limits = [daily("one", 500), daily("two", 300)];
    let granted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (granted, limits) = (&granted, &limits);
            scope.spawn(move || {
                for call in 0..EACH {
                    let number = u128::from(thread * EACH + call);
                    let charges = [charge(&limits[0], "a", 1), charge(&limits[1], "a", 1)];
                    if wait(store.hold(hold(number, &charges), at(0))).is_ok() {
                        granted.fetch_add(1, Ordering::Relaxed);
                        wait(store.settle(id(number), tokens(1), at(1))).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(granted.load(Ordering::Relaxed), 300);
    // By then a lease that nobody could spend, since the other limit was full, has gone back.
    assert_eq!(standing(store, &limits[0], "a", 3_700_000), (300, 0));
    assert_eq!(standing(store, &limits[1], "a", 3_700_000), (300, 0));
}
