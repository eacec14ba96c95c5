//! What of Tollgate's own tokens must last: one suite, which each store passes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::Timestamp;
use tollgate::edge::store::{Pepper, RedisTokens, TokenFile};
use tollgate::gate::{Family, KeptKey, MOST_FAMILIES, MOST_USED, RefreshDigest, Refreshed, StoreError, TokenStore};

use crate::redis_server::Server;

type Store = Box<dyn TokenStore>;

const DAY: i64 = 24 * 60 * 60 * 1000;

/// Far from now on both sides: a Redis forgets by its own clock.
fn at(millis: i64) -> Timestamp {
    static BEGAN: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap()
    });
    Timestamp::from_millis(*BEGAN + millis)
}

fn key(kid: &str, made_at: i64) -> KeptKey {
    KeptKey { kid: kid.into(), pkcs8: format!("private key of {kid}").into_bytes().into(), made_at: at(made_at) }
}

fn names(store: &dyn TokenStore) -> Vec<String> {
    store.signing_keys().iter().map(|key| key.kid.to_string()).collect()
}

fn token(number: u8) -> RefreshDigest {
    RefreshDigest([number; 32])
}

fn family(id: &str, ends_at: Option<i64>) -> Family {
    let principal = format!("User::\"{id}\"").into();
    Family { id: id.into(), principal, identity: format!("{{\"of\":\"{id}\"}}"), ends_at: ends_at.map(at) }
}

/// Runs every case on a store of its own; `again` opens what the case left.
fn check(make: impl Fn(&str) -> Store, again: impl Fn(Store, &str) -> Store) {
    let reopen = |store: Store, name: &str| again(store, name);
    keys_of(&make, &reopen);
    refreshes(&make, &reopen);
    ends(&make);
    races(&make);
    bounds(&make);
}

/// A principal has so many families at most, and a family so many tokens that were used.
fn bounds(make: &impl Fn(&str) -> Store) {
    let store = make("bounds");
    let digest = |number: usize| {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        RefreshDigest(digest)
    };
    let of = |number: usize| Family { id: format!("f{number}").into(), ..family("of one", None) };
    let other = Family { id: "other".into(), ..family("another", None) };
    store.begin(&other, &token(255), at(DAY), at(0)).unwrap();
    for number in 0..MOST_FAMILIES {
        store.begin(&of(number), &digest(number), at(DAY + i64::try_from(number).unwrap()), at(0)).unwrap();
    }
    // The first was used since, the second was not.
    let next = digest(1_000_000);
    assert!(matches!(store.replace(&digest(0), &next, at(2 * DAY), at(1)).unwrap(), Refreshed::Replaced(_)));
    store.begin(&of(MOST_FAMILIES), &digest(MOST_FAMILIES), at(2 * DAY), at(1)).unwrap();
    assert_eq!(store.family(&digest(1)).unwrap(), None);
    assert_eq!(store.replace(&digest(1), &digest(2_000_000), at(DAY), at(1)).unwrap(), Refreshed::Unknown);
    for known in [&next, &digest(2), &digest(MOST_FAMILIES)] {
        assert_eq!(store.family(known).unwrap().unwrap().principal, of(0).principal);
    }
    assert_eq!(store.family(&token(255)).unwrap(), Some(other));
    // Of one family.
    let mut used = digest(2);
    for number in 0..MOST_USED + 10 {
        let next = digest(3_000_000 + number);
        let now = at(2 + i64::try_from(number).unwrap());
        assert!(matches!(store.replace(&used, &next, at(2 * DAY), now).unwrap(), Refreshed::Replaced(_)));
        used = next;
    }
    assert_eq!(store.replace(&digest(2), &digest(4_000_000), at(DAY), at(500)).unwrap(), Refreshed::Unknown);
    let late = digest(3_000_000 + 10);
    assert_eq!(store.replace(&late, &digest(4_000_000), at(DAY), at(500)).unwrap(), Refreshed::Revoked);
    // What is revoked stays known, also when there are too many.
    for number in 0..MOST_FAMILIES + 1 {
        let id = number + 10_000;
        store.begin(&of(id), &digest(id), at(2 * DAY), at(600)).unwrap();
    }
    assert_eq!(store.replace(&used, &digest(4_000_000), at(DAY), at(601)).unwrap(), Refreshed::Revoked);
    // Of what is revoked, so many are known too.
    for number in 0..MOST_FAMILIES {
        let (id, now) = (number + 20_000, at(700 + i64::try_from(number).unwrap()));
        store.begin(&of(id), &digest(id), at(2 * DAY), now).unwrap();
        store.replace(&digest(id), &digest(id + 1_000_000), at(2 * DAY), now).unwrap();
        assert_eq!(store.replace(&digest(id), &digest(9), at(DAY), now).unwrap(), Refreshed::Revoked);
    }
    assert_eq!(store.replace(&used, &digest(4_000_000), at(DAY), at(9_000)).unwrap(), Refreshed::Unknown);
    assert!(store.is_revoked("f20001"));
}

fn keys_of(make: &impl Fn(&str) -> Store, again: &impl Fn(Store, &str) -> Store) {
    let store = make("keys");
    assert_eq!(names(&*store), Vec::<String>::new());
    let before = store.changes().unwrap();
    store.keep_key(key("a", 0), at(-100), at(-1000)).unwrap();
    assert_ne!(store.changes().unwrap(), before);
    assert_eq!(&**store.signing_keys()[0].pkcs8, b"private key of a");
    assert_eq!(store.signing_keys()[0].made_at, at(0));
    // Somebody else was quicker.
    store.keep_key(key("late", 50), at(-50), at(-1000)).unwrap();
    store.keep_key(key("late", 50), at(0), at(-1000)).unwrap();
    assert_eq!(names(&*store), ["a"]);
    store.keep_key(key("b", 100), at(1), at(-1000)).unwrap();
    store.keep_key(key("c", 200), at(101), at(-1000)).unwrap();
    assert_eq!(names(&*store), ["c", "b", "a"]);
    // `a` has had a successor for long enough; `b`, however old, signed until a moment ago.
    store.keep_key(key("d", 300), at(201), at(150)).unwrap();
    assert_eq!(names(&*store), ["d", "c", "b"]);
    let store = again(store, "keys");
    assert_eq!(names(&*store), ["d", "c", "b"]);
    assert_eq!(&**store.signing_keys()[0].pkcs8, b"private key of d");
}

fn refreshes(make: &impl Fn(&str) -> Store, again: &impl Fn(Store, &str) -> Store) {
    let store = make("refreshes");
    let (one, two) = (family("one", None), family("two", None));
    store.begin(&one, &token(1), at(DAY), at(0)).unwrap();
    store.begin(&two, &token(101), at(DAY), at(0)).unwrap();
    assert_eq!(store.replace(&token(1), &token(2), at(DAY + 1), at(1)).unwrap(), Refreshed::Replaced(one.clone()));
    assert_eq!(store.replace(&token(2), &token(3), at(DAY + 2), at(2)).unwrap(), Refreshed::Replaced(one));
    assert_eq!(store.replace(&token(9), &token(10), at(DAY + 2), at(2)).unwrap(), Refreshed::Unknown);
    assert!(!store.is_revoked("one"));
    let store = again(store, "refreshes");
    // The first is used again, in another process.
    let before = store.changes().unwrap();
    assert_eq!(store.replace(&token(1), &token(4), at(DAY + 3), at(3)).unwrap(), Refreshed::Revoked);
    assert!(store.is_revoked("one"));
    assert_ne!(store.changes().unwrap(), before);
    for revoked in [1, 2, 3] {
        assert_eq!(store.replace(&token(revoked), &token(5), at(DAY), at(4)).unwrap(), Refreshed::Revoked);
    }
    assert_eq!(store.replace(&token(4), &token(5), at(DAY), at(4)).unwrap(), Refreshed::Unknown);
    let store = again(store, "refreshes");
    assert!(store.is_revoked("one") && !store.is_revoked("two"));
    assert_eq!(store.replace(&token(3), &token(5), at(DAY), at(4)).unwrap(), Refreshed::Revoked);
    assert_eq!(store.replace(&token(101), &token(102), at(DAY), at(4)).unwrap(), Refreshed::Replaced(two));
}

fn ends(make: &impl Fn(&str) -> Store) {
    let store = make("ends");
    store.begin(&family("ends", Some(DAY)), &token(1), at(1000), at(0)).unwrap();
    assert_eq!(store.replace(&token(1), &token(2), at(2000), at(1000)).unwrap(), Refreshed::Expired);
    let Refreshed::Replaced(known) = store.replace(&token(1), &token(2), at(2 * DAY), at(999)).unwrap() else {
        panic!("it was good")
    };
    assert_eq!(known, family("ends", Some(DAY)));
    // It ends with the credential, not when it usually would.
    assert_eq!(store.replace(&token(2), &token(3), at(3 * DAY), at(DAY)).unwrap(), Refreshed::Expired);
    assert!(!store.is_revoked("ends"));
    // Of one that was used, a second use is told for as long as the next is good.
    assert_eq!(store.replace(&token(1), &token(3), at(DAY), at(DAY - 1)).unwrap(), Refreshed::Revoked);
}

/// Of many that use one token, one gets the next, and all end.
fn races(make: &impl Fn(&str) -> Store) {
    let store = make("races");
    for round in 0..20 {
        let id = format!("race {round}");
        store.begin(&family(&id, None), &token(round), at(DAY), at(0)).unwrap();
        let tries = std::thread::scope(|scope| {
            let try_it = |next| store.replace(&token(round), &token(next), at(DAY), at(1)).unwrap();
            let nexts = (0..8).map(|next| 20 + 8 * round + next);
            let threads: Vec<_> = nexts.map(|next| scope.spawn(move || try_it(next))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let replaced = tries.iter().filter(|told| matches!(told, Refreshed::Replaced(_))).count();
        let revoked = tries.iter().filter(|told| **told == Refreshed::Revoked).count();
        assert_eq!((replaced, revoked), (1, 7));
        assert!(store.is_revoked(&id));
    }
}

#[test]
fn a_file_keeps_every_promise() {
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str| -> Store { Box::new(TokenFile::open(&directory.path().join(name)).unwrap()) };
    check(open, |store, name| {
        drop(store);
        open(name)
    });
}

#[test]
fn a_file_of_the_first_version_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(directory.path().join("tokens.db")).unwrap();
    let first = "
        CREATE TABLE signing_keys (kid TEXT NOT NULL PRIMARY KEY, pkcs8 BLOB NOT NULL, made_at INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE families (
            id TEXT NOT NULL PRIMARY KEY, identity TEXT NOT NULL, ends_at INTEGER, expires_at INTEGER NOT NULL, revoked_at INTEGER
        ) WITHOUT ROWID;
        CREATE TABLE refresh_tokens (
            digest BLOB NOT NULL PRIMARY KEY, family TEXT NOT NULL, expires_at INTEGER NOT NULL, used_at INTEGER
        ) WITHOUT ROWID;
        CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
        INSERT INTO families VALUES ('revoked', '{}', NULL, 9999999999999, 1);
        INSERT INTO families VALUES ('open', '{}', NULL, 9999999999999, NULL);
        INSERT INTO refresh_tokens VALUES (x'0909090909090909090909090909090909090909090909090909090909090909', 'open', 9999999999999, NULL);
        PRAGMA user_version = 1;";
    connection.execute_batch(first).unwrap();
    drop(connection);
    for number in 0..2 {
        let store = TokenFile::open(directory.path()).unwrap();
        assert!(store.is_revoked("revoked"));
        // It does not say by what it was proved, so that nobody could look that up.
        assert_eq!(store.family(&token(9)).unwrap(), None);
        store.begin(&family(&format!("f{number}"), None), &token(number), at(DAY), at(0)).unwrap();
    }
}

fn pepper(text: &str) -> Pepper {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{text:=<40}")).unwrap();
    Pepper::read(file.path()).unwrap()
}

fn open(server: &Server, name: &str, text: &str) -> RedisTokens {
    RedisTokens::open(&server.options(server.directory.path(), name), &pepper(text), Duration::from_secs(3)).unwrap()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_redis_keeps_every_promise() {
    let Some(server) = Server::start(&[]) else { return };
    let make = |name: &str| -> Store { Box::new(open(&server, name, "pepper")) };
    check(make, |store, name| {
        drop(store);
        make(name)
    });
}

#[test]
fn two_nodes_know_each_others_keys_and_revocations() {
    let Some(server) = Server::start(&[]) else { return };
    let (one, two) = (open(&server, "shared", "pepper"), open(&server, "shared", "pepper"));
    one.keep_key(key("of one", 0), at(-100), at(-1000)).unwrap();
    // The other has not heard of it, and makes none.
    two.keep_key(key("of two", 10), at(-90), at(-1000)).unwrap();
    assert_eq!((names(&one), names(&two)), (vec!["of one".to_owned()], vec!["of one".to_owned()]));
    one.begin(&family("f", None), &token(1), at(DAY), at(0)).unwrap();
    assert!(matches!(two.replace(&token(1), &token(2), at(DAY), at(1)).unwrap(), Refreshed::Replaced(_)));
    assert_eq!(one.replace(&token(1), &token(3), at(DAY), at(2)).unwrap(), Refreshed::Revoked);
    until("the other node knows the revocation", || two.is_revoked("f"));
    assert_eq!(two.replace(&token(2), &token(3), at(DAY), at(3)).unwrap(), Refreshed::Revoked);
}

#[test]
fn who_reads_the_redis_cannot_sign() {
    let Some(server) = Server::start(&[]) else { return };
    let store = open(&server, "sealed", "pepper");
    store.keep_key(key("one", 0), at(-100), at(-1000)).unwrap();
    let kept = server.ask("HGETALL {sealed}:tokens:keys");
    assert!(kept.contains("one") && !kept.contains("private key"), "{kept}");
    // A key in the place of another is none, nor is one that was changed; nobody signs with another pepper's.
    let other = open(&server, "sealed", "another pepper");
    let told = other.changes().unwrap_err();
    assert!(matches!(&told, StoreError::Lost(reason) if reason.contains("sealed with another pepper")), "{told:?}");
    let told = other.keep_key(key("two", 100), at(50), at(-1000)).unwrap_err();
    assert!(matches!(&told, StoreError::Lost(_)), "{told:?}");
    let text = kept.lines().rfind(|line| line.contains(' ')).unwrap().to_owned();
    server.ask(&format!("HSET {{moved}}:tokens:keys other \"{text}\""));
    server.ask("INCR {moved}:tokens:sequence");
    assert!(open(&server, "moved", "pepper").changes().is_err());
    assert_eq!(names(&store), ["one"]);
    // Whoever finds it out first, the reason is told from then on.
    server.ask("HSET {sealed}:tokens:keys forged \"1 AAAA\"");
    server.ask("INCR {sealed}:tokens:sequence");
    for told in [store.keep_key(key("two", 100), at(50), at(-1000)).map(|()| 0), store.changes()] {
        assert!(matches!(&told, Err(StoreError::Lost(reason)) if reason.contains("another pepper")), "{told:?}");
    }
}

#[test]
fn a_redis_that_is_away_or_came_back_with_less_proves_nobody() {
    let Some(mut server) = Server::start(&[]) else { return };
    let store = open(&server, "lost", "pepper");
    store.keep_key(key("one", 0), at(-100), at(-1000)).unwrap();
    store.begin(&family("f", None), &token(1), at(DAY), at(0)).unwrap();
    server.kill();
    until("it is known to be away", || matches!(store.changes(), Err(StoreError::Away(_))));
    assert!(store.begin(&family("g", None), &token(2), at(DAY), at(0)).is_err());
    server.begin();
    until("it is known to have less", || matches!(store.changes(), Err(StoreError::Lost(_))));
    assert!(matches!(store.replace(&token(1), &token(2), at(DAY), at(1)), Err(StoreError::Lost(_))));
    // What is restarted takes what is there.
    let store: Arc<dyn TokenStore> = Arc::new(open(&server, "lost", "pepper"));
    assert_eq!(store.replace(&token(1), &token(2), at(DAY), at(1)).unwrap(), Refreshed::Unknown);
    assert_eq!(names(&*store), Vec::<String>::new());
}
