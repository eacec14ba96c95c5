//! What the shared store keeps: many nodes on one Redis, one that is killed, one that comes back with less, one that is
//! away.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollgate::edge::store::{EvictionCheck, Redis, RedisError, RedisOptions, Secret};
use tollgate::gate::{CloseError, HoldError, Meters, StoreError};
use tollgate::meter::{Limit, Measure};
use tollgate::model::Unit;

use crate::redis_server::Server;
use crate::{amount, at, charge, daily, hold, id, limit, tokens, wait};

fn standing(store: &Redis, limit: &std::sync::Arc<Limit>, now: i64) -> Result<(u64, u64), StoreError> {
    wait(store.look(&[charge(limit, "a", 1)], at(now))).map(|looks| {
        let standing = looks[0].standing;
        (standing.used.get(), standing.held.get())
    })
}

fn is_lost<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    match result {
        Err(StoreError::Lost(how)) => assert!(how.contains("generation") && how.contains("remove"), "{how}"),
        other => panic!("{other:?}"),
    }
}

/// How often scripts were called, by the server's own count.
fn calls(server: &Server) -> (u64, u64) {
    let told = server.ask("INFO commandstats");
    let count = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    };
    (count("evalsha"), count("eval"))
}

/// For what comes, on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn redis_is_asked_once_a_move() {
    let Some(server) = Server::start(&[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let store = server.store(directory.path(), "tollgate");
    let limits: Vec<_> = (0..5).map(|number| daily(&format!("limit {number}"), 1_000_000)).collect();
    let charges: Vec<_> = limits.iter().map(|limit| charge(limit, "a", 2)).collect();
    let once = |what: &str, number: u128, work: &dyn Fn()| {
        let before = calls(&server);
        work();
        let after = calls(&server);
        assert_eq!(after.0 - before.0, 1, "{what} {number}");
        // Only the first time, when the script was not there yet.
        assert_eq!(after.1 - before.1, u64::from(number == 0) * (after.1 - before.1), "{what} {number}");
    };
    for number in 0..3 {
        let (a, b, c) = (number * 10, number * 10 + 1, number * 10 + 2);
        once("hold", number, &|| drop(wait(store.hold(hold(a, &charges), at(0))).unwrap()));
        once("look", number, &|| drop(wait(store.look(&charges, at(0))).unwrap()));
        once("extend", number, &|| assert_eq!(wait(store.extend(id(a), 70_000, at(0))), Ok(at(70_000))));
        once("settle", number, &|| drop(wait(store.settle(id(a), tokens(1), at(0))).unwrap()));
        once("record", number, &|| drop(wait(store.record(hold(b, &charges), tokens(2), at(0))).unwrap()));
        once("find", number, &|| drop(wait(store.reservation(id(a), at(0))).unwrap().unwrap()));
        once("hold", 1, &|| drop(wait(store.hold(hold(c, &charges), at(0))).unwrap()));
        once("release", 1, &|| drop(wait(store.release(id(c), at(0))).unwrap()));
    }
}

#[test]
fn redis_caps_hold_for_four_nodes() {
    const NODES: usize = 4;
    const CAP: u64 = 1000;
    let Some(server) = Server::start(&[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let stores: Vec<Redis> =
        (0..NODES).map(|node| server.store(&directory.path().join(node.to_string()), "tollgate")).collect();
    let limits = [daily("wide", CAP + 100), daily("narrow", CAP)];
    let granted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..64_usize {
            let (store, limits, granted) = (&stores[thread % NODES], &limits, &granted);
            scope.spawn(move || {
                for call in 0..40_usize {
                    let number = (thread * 1000 + call) as u128;
                    let charges = [charge(&limits[0], "a", 1), charge(&limits[1], "a", 1)];
                    match wait(store.hold(hold(number, &charges), at(0))) {
                        Ok(_) => drop(granted.fetch_add(1, Ordering::Relaxed)),
                        Err(HoldError::Refused(_)) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(granted.load(Ordering::Relaxed), CAP);
    for store in &stores {
        assert_eq!(standing(store, &limits[0], 1), Ok((0, CAP)));
        assert_eq!(standing(store, &limits[1], 1), Ok((0, CAP)));
    }
}

#[test]
fn redis_that_comes_back_empty_gives_no_fresh_budget() {
    let Some(mut server) = Server::start(&[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("1"), directory.path().join("2"));
    let limit = daily("day", 10);
    let one = [charge(&limit, "a", 10)];
    let store = server.store(&first, "tollgate");
    wait(store.hold(hold(1, &one), at(0))).unwrap();
    server.kill();
    server.begin();
    for _ in 0..20 {
        match wait(store.hold(hold(2, &one), at(1))) {
            Err(HoldError::Store(StoreError::Lost(_))) => break,
            Err(HoldError::Store(StoreError::Away(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    is_lost(standing(&store, &limit, 2));
    drop(store);
    let again = server.store(&first, "tollgate");
    is_lost(wait(again.check()));
    assert!(matches!(wait(again.hold(hold(3, &one), at(3))), Err(HoldError::Store(StoreError::Lost(_)))));
    // What an operator says: go on with what it has.
    server.ask("DEL {tollgate}:generation");
    std::fs::remove_file(first.join("meters-redis.json")).unwrap();
    let until = Instant::now() + PATIENCE;
    while wait(again.check()).is_err() {
        again.tick(at(4));
        assert!(Instant::now() < until, "it is not let in");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(standing(&again, &limit, 5), Ok((0, 0)));
    // A node that never saw it joins.
    assert_eq!(standing(&server.store(&second, "tollgate"), &limit, 5), Ok((0, 0)));
}

#[test]
fn redis_from_an_old_copy_gives_no_fresh_budget() {
    let Some(mut server) = Server::start(&["--dbfilename", "dump.rdb"]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let limit = daily("day", 10);
    let store = server.store(&directory.path().join("1"), "tollgate");
    let other = server.store(&directory.path().join("2"), "tollgate");
    wait(store.hold(hold(1, &[charge(&limit, "a", 2)]), at(0))).unwrap();
    assert_eq!(standing(&other, &limit, 0), Ok((0, 2)));
    assert!(server.ask("SAVE").starts_with("+OK"));
    for number in 2..5 {
        wait(store.hold(hold(number, &[charge(&limit, "a", 2)]), at(1))).unwrap();
    }
    drop(store);
    server.kill();
    server.begin();
    let store = server.store(&directory.path().join("1"), "tollgate");
    is_lost(wait(store.look(&[], at(2))).map(drop));
    // One that saw less is told by the one that saw more.
    let mut told = wait(other.look(&[], at(2))).map(drop);
    if matches!(told, Err(StoreError::Away(_))) {
        told = wait(other.look(&[], at(2))).map(drop);
    }
    is_lost(told);
    is_lost(wait(server.store(&directory.path().join("3"), "tollgate").check()));
}

/// One that saw less goes on first, beyond what the other saw.
#[test]
fn redis_from_an_old_copy_is_found_out_however_far_others_went_on() {
    let Some(mut server) = Server::start(&["--dbfilename", "dump.rdb"]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let limit = daily("day", 1000);
    let [one, other] = ["1", "2"].map(|name| server.store(&directory.path().join(name), "tollgate"));
    let take = |store: &Redis, number| {
        // The first one finds that its connection was cut.
        for _ in 0..5 {
            match wait(store.hold(hold(number, &[charge(&limit, "a", 2)]), at(0))) {
                Err(HoldError::Store(StoreError::Away(_))) => {}
                told => return told,
            }
        }
        panic!("it stays away")
    };
    take(&one, 1).unwrap();
    take(&other, 2).unwrap();
    // Twice without a loss: nobody minds.
    for number in [3, 4] {
        assert!(server.ask("SAVE").starts_with("+OK"));
        server.kill();
        server.begin();
        take(&other, 10 * number).unwrap();
        take(&other, 10 * number + 1).unwrap();
        take(&one, 10 * number + 2).unwrap();
    }
    assert!(server.ask("SAVE").starts_with("+OK"));
    for number in 50..53 {
        take(&one, number).unwrap();
    }
    server.kill();
    server.begin();
    for number in 60..80 {
        take(&other, number).unwrap();
    }
    assert!(matches!(take(&one, 90), Err(HoldError::Store(StoreError::Lost(_)))));
    // Now it knows as well.
    assert!(matches!(take(&other, 91), Err(HoldError::Store(StoreError::Lost(_)))));
}

#[test]
fn redis_with_a_log_goes_on() {
    let Some(mut server) = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let limit = daily("day", 10);
    let store = server.store(directory.path(), "tollgate");
    wait(store.hold(hold(1, &[charge(&limit, "a", 3)]), at(0))).unwrap();
    wait(store.hold(hold(2, &[charge(&limit, "a", 4)]), at(0))).unwrap();
    wait(store.settle(id(2), tokens(2), at(1))).unwrap();
    server.kill();
    let away = wait(store.hold(hold(3, &[charge(&limit, "a", 1)]), at(2)));
    assert!(matches!(away, Err(HoldError::Store(StoreError::Away(_)))), "{away:?}");
    server.begin();
    let until = Instant::now() + PATIENCE;
    let found = loop {
        match standing(&store, &limit, 3) {
            Ok(found) => break found,
            Err(StoreError::Away(_)) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(found, (2, 3));
    wait(store.settle(id(1), tokens(3), at(4))).unwrap();
    assert_eq!(standing(&store, &limit, 5), Ok((5, 0)));
}

#[test]
fn redis_that_is_away_is_told_in_time() {
    let Some(server) = Server::start(&[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut options = server.options(directory.path(), "tollgate");
    options.timeout = Duration::from_secs(1);
    let store = Redis::open(&options).unwrap();
    let limit = daily("day", 10);
    let one = [charge(&limit, "a", 4)];
    // Connected first: that has the time of one command too.
    let until = Instant::now() + PATIENCE;
    while wait(store.look(&one, at(0))).is_err() {
        assert!(Instant::now() < until, "it is not connected to");
    }
    wait(store.hold(hold(1, &one), at(0))).unwrap();
    server.signal("STOP");
    let began = Instant::now();
    let away = wait(store.hold(hold(2, &one), at(1)));
    let took = began.elapsed();
    server.signal("CONT");
    assert!(matches!(away, Err(HoldError::Store(StoreError::Away(_)))), "{away:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    // It was made after all; since nobody was told, it is given back.
    let until = Instant::now() + PATIENCE;
    while standing(&store, &limit, 2) != Ok((0, 4)) {
        store.tick(at(2));
        assert!(Instant::now() < until, "{:?}", standing(&store, &limit, 2));
        std::thread::sleep(Duration::from_millis(20));
    }
    let none = RedisOptions {
        timeout: Duration::from_secs(1),
        ..RedisOptions::new("redis://127.0.0.1:1", directory.path().join("x"))
    };
    let began = Instant::now();
    let nobody = wait(Redis::open(&none).unwrap().look(&one, at(0)));
    assert!(matches!(nobody, Err(StoreError::Away(_))), "{nobody:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn redis_counts_exactly_beyond_what_a_double_can() {
    let Some(server) = Server::start(&[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let store = server.store(directory.path(), "tollgate");
    let mut number = 0;
    for around in [1_u64 << 53, 1 << 62, 999_999_999_999_999, 10_000_000_000_000_000] {
        for cap in around - 2..=around + 2 {
            let limit = daily(&format!("to {cap}"), cap);
            let mut take = |amount: u64| {
                number += 1;
                wait(store.hold(hold(number, &[charge(&limit, "a", amount)]), at(0)))
            };
            take(cap - 3).unwrap();
            take(1).unwrap();
            assert!(matches!(take(3), Err(HoldError::Refused(_))), "{cap}");
            take(2).unwrap();
            assert!(matches!(take(1), Err(HoldError::Refused(_))), "{cap}");
            assert_eq!(standing(&store, &limit, 1), Ok((0, cap)));
        }
    }
    let limit =
        limit("fast", Measure::Rate { unit: Unit::Tokens, amount: amount(1 << 62), every_ms: 86_400_000 }, 1 << 62);
    wait(store.record(hold(9000, &[charge(&limit, "a", 1 << 62)]), tokens(0), at(0))).unwrap();
    assert!(matches!(wait(store.hold(hold(9001, &[charge(&limit, "a", 1)]), at(0))), Err(HoldError::Refused(_))));
    // In a millisecond 53,375,995,583.65 flow out.
    wait(store.hold(hold(9002, &[charge(&limit, "a", 53_375_995_583)]), at(1))).unwrap();
    assert!(matches!(wait(store.hold(hold(9003, &[charge(&limit, "a", 1)]), at(1))), Err(HoldError::Refused(_))));
    let much = tokens(u64::MAX);
    assert!(matches!(wait(store.settle(id(9002), much, at(2))), Err(CloseError::Ledger(_))));
}

fn is_unfit(store: &Redis, why: &str) {
    let refused = wait(store.check());
    assert!(matches!(&refused, Err(StoreError::Away(how)) if how.contains(why)), "{refused:?}");
    let held = wait(store.hold(hold(99, &[charge(&daily("day", 10), "a", 1)]), at(0)));
    assert!(matches!(&held, Err(HoldError::Store(StoreError::Away(how))) if how.contains(why)), "{held:?}");
}

#[test]
fn redis_that_would_drop_keys_is_refused() {
    for arguments in [&["--maxmemory", "100mb"][..], &[]] {
        let all = [arguments, &["--maxmemory-policy", "volatile-lru"]].concat();
        let Some(server) = Server::start(&all) else { return };
        let directory = tempfile::tempdir().unwrap();
        is_unfit(&server.store(directory.path(), "tollgate"), "noeviction");
    }
}

#[test]
fn redis_is_looked_at_again_and_again() {
    let Some(server) = Server::start(&[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let store = server.store(directory.path(), "tollgate");
    let one = |number| wait(store.hold(hold(number, &[charge(&daily("day", 100), "a", 1)]), at(0))).map(drop);
    wait(store.check()).unwrap();
    one(1).unwrap();
    server.ask("CONFIG SET maxmemory-policy allkeys-lru");
    is_unfit(&store, "noeviction");
    server.ask("CONFIG SET maxmemory-policy noeviction");
    wait(store.check()).unwrap();
    one(2).unwrap();
    // Also where nobody asks: what lets reservations expire looks too.
    server.ask("CONFIG SET maxmemory-policy allkeys-lru");
    let until = Instant::now() + PATIENCE;
    while one(3).is_ok_and(|()| wait(store.release(id(3), at(0))).is_ok()) {
        assert!(Instant::now() < until, "nobody looks");
        store.tick(at(0));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn redis_that_dropped_keys_has_lost_state_for_every_node() {
    let Some(server) = Server::start(&[]) else { return };
    let directories = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let stores = [0, 1].map(|node| server.store(directories[node].path(), "tollgate"));
    for store in &stores {
        wait(store.check()).unwrap();
    }
    server.ask("CONFIG SET maxmemory-policy volatile-lru");
    server.ask("CONFIG SET maxmemory 30mb");
    let until = Instant::now() + PATIENCE;
    let evicted = || !server.ask("INFO stats").contains("evicted_keys:0");
    for number in 0.. {
        if evicted() {
            break;
        }
        assert!(Instant::now() < until, "nothing was dropped");
        server.ask(&format!("SETRANGE filler{number} 8000000 x"));
        server.ask(&format!("EXPIRE filler{number} 100000"));
    }
    server.ask("CONFIG SET maxmemory 0");
    server.ask("CONFIG SET maxmemory-policy noeviction");
    let dropped = wait(stores[0].check());
    assert!(matches!(&dropped, Err(StoreError::Lost(how)) if how.contains("evicted_keys")), "{dropped:?}");
    is_lost(standing(&stores[0], &daily("day", 10), 0));
    // Another node, one that never saw the Redis before, and the first one after a restart are told.
    is_lost(standing(&stores[1], &daily("day", 10), 0));
    is_lost(wait(server.store(directories[2].path(), "tollgate").check()));
    drop(stores);
    let first = server.store(directories[0].path(), "tollgate");
    is_lost(wait(first.check()));
    // An operator lets in what is there.
    server.ask("DEL {tollgate}:generation");
    std::fs::remove_file(directories[0].path().join("meters-redis.json")).unwrap();
    let until = Instant::now() + PATIENCE;
    while let Err(error) = wait(first.check()) {
        assert!(Instant::now() < until, "{error}");
        first.tick(at(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    wait(server.store(directories[3].path(), "tollgate").check()).unwrap();
}

#[test]
fn redis_that_tells_nobody_what_it_drops_is_confirmed_by_the_operator() {
    let Some(server) = Server::start(&[]) else { return };
    server.ask("ACL SETUSER meters on >secret ~* &* +@all -info -config");
    let directory = tempfile::tempdir().unwrap();
    let options = |check| {
        let mut options = server.options(directory.path(), "tollgate");
        options.url = Secret::new(format!("redis://meters:secret@127.0.0.1:{}", server.port));
        options.eviction = check;
        options
    };
    is_unfit(&Redis::open(&options(EvictionCheck::Checked)).unwrap(), "meters.redis.eviction");
    let confirmed = Redis::open(&options(EvictionCheck::CheckedElsewhere)).unwrap();
    wait(confirmed.check()).unwrap();
    wait(confirmed.hold(hold(1, &[charge(&daily("day", 10), "a", 1)]), at(0))).unwrap();
    // Where CONFIG alone may be read, that is enough to know; and what is known counts, whatever the operator says.
    server.ask("ACL SETUSER meters +config|get");
    wait(Redis::open(&options(EvictionCheck::Checked)).unwrap().check()).unwrap();
    server.ask("CONFIG SET maxmemory-policy allkeys-lru");
    is_unfit(&Redis::open(&options(EvictionCheck::CheckedElsewhere)).unwrap(), "noeviction");
}

#[test]
fn redis_secrets_are_not_shown() {
    let options = RedisOptions::new("redis://:hunter2@127.0.0.1:6379", "x");
    assert!(!format!("{options:?}").contains("hunter2"));
    let wrong = RedisOptions::new("reddis://:hunter2@127.0.0.1", tempfile::tempdir().unwrap().path());
    let error = Redis::open(&wrong).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

#[test]
fn redis_of_another_prefix_or_damaged_memory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("meters-redis.json");
    let open = |path: &Path| Redis::open(&RedisOptions::new("redis://127.0.0.1:1", path)).unwrap_err();
    std::fs::write(&file, "{").unwrap();
    assert!(matches!(open(directory.path()), RedisError::Damaged { .. }));
    std::fs::write(&file, r#"{"prefix":"other","epoch":"e","sequence":1}"#).unwrap();
    assert!(matches!(open(directory.path()), RedisError::OtherPrefix { .. }));
}
