//! Passwords that are kept beside keys: one suite, which each store passes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate::Timestamp;
use tollgate::edge::store::{KeyFile, RedisKeys};
use tollgate::gate::{KeyWrite, Keys, KeysOf, PasswordWrite, Passwords, StoreError};
use tollgate::model::{EntityUid, KeyRecord, PasswordHash, PasswordRecord};

use crate::redis_server::Server;

trait Both: Keys + Passwords {}
impl<S: Keys + Passwords> Both for S {}
type Store = Box<dyn Both>;

fn user(name: &str) -> EntityUid {
    EntityUid::new("User", name).unwrap()
}

fn password(name: &str, passes: u32) -> PasswordRecord {
    let hash = format!("$argon2id$v=19$m=19456,t={passes},p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA");
    let hash = PasswordHash::parse(&hash).unwrap();
    PasswordRecord { principal: user(name), hash, changed_at: Timestamp::from_millis(1_000) }
}

fn set(store: &dyn Both, password: PasswordRecord) {
    pollster::block_on(Passwords::write(store, PasswordWrite::Set(password))).unwrap();
}

fn remove(store: &dyn Both, name: &str) {
    pollster::block_on(Passwords::write(store, PasswordWrite::Remove(user(name)))).unwrap();
}

fn find(store: &dyn Both, name: &str) -> Option<PasswordRecord> {
    Passwords::find(store, &user(name)).unwrap().map(Arc::unwrap_or_clone)
}

fn key(id: &str) -> KeyRecord {
    KeyRecord {
        id: id.into(),
        owner: user("alice"),
        hash: [7; 32],
        version: 1,
        created_at: Timestamp::from_millis(1_000),
        expires_at: None,
        used_at: 0.into(),
        more: None,
    }
}

fn make(store: &dyn Both, write: KeyWrite) {
    pollster::block_on(Keys::write(store, write)).unwrap();
}

fn costs(store: &dyn Both) -> Vec<String> {
    store.decoys().iter().map(|nobody| nobody.cost().to_owned()).collect()
}

/// What every store promises; `again` closes one and opens it once more.
fn check(store: Store, again: impl Fn(Store) -> Store) {
    assert_eq!(find(&*store, "alice"), None);
    set(&*store, password("alice", 2));
    set(&*store, password("a \"b\"\\/é\u{1F511}", 3));
    set(&*store, password("gone", 4));
    assert_eq!(costs(&*store).len(), 3);
    remove(&*store, "gone");
    remove(&*store, "never there");
    // None of them is a key: the first is still to be made.
    let page = |store: &dyn Both| store.page(&KeysOf { most: 100, ..KeysOf::default() }).len();
    assert_eq!((Keys::count(&*store), page(&*store)), (0, 0));
    assert!(Keys::find(&*store, "User::\"alice\"").unwrap().is_none());
    make(&*store, KeyWrite::MakeFirst(key("first")));
    set(&*store, password("alice", 5));
    let store = again(store);
    assert_eq!(find(&*store, "alice"), Some(password("alice", 5)));
    assert_eq!(find(&*store, "a \"b\"\\/é\u{1F511}"), Some(password("a \"b\"\\/é\u{1F511}", 3)));
    assert_eq!(find(&*store, "gone"), None);
    assert_eq!(costs(&*store), ["$argon2id$v=19$m=19456,t=3,p=1", "$argon2id$v=19$m=19456,t=5,p=1"]);
    assert_eq!((Keys::count(&*store), page(&*store)), (1, 1));
    // Nor is a password gone with its user's key.
    make(&*store, KeyWrite::Remove { id: "first".into(), version: 1 });
    assert!(find(&*store, "alice").is_some() && Keys::count(&*store) == 0);
    assert!(!format!("{:?}", find(&*store, "alice")).contains("argon2id"));
}

#[test]
fn a_file_keeps_every_promise() {
    let directory = tempfile::tempdir().unwrap();
    let open = || -> Store { Box::new(KeyFile::open(directory.path(), None).unwrap()) };
    check(open(), |store| {
        drop(store);
        open()
    });
}

#[test]
fn a_redis_keeps_every_promise() {
    let Some(server) = Server::start(&[]) else { return };
    let open = || -> Store { Box::new(redis(&server)) };
    check(open(), |store| {
        drop(store);
        open()
    });
}

fn redis(server: &Server) -> RedisKeys {
    let options = server.options(server.directory.path(), "passwords");
    RedisKeys::open(&options, None, Duration::from_secs(3)).unwrap()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What was written before there were passwords is read, and takes them from then on.
#[test]
fn a_file_from_before_there_were_passwords_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let open = || KeyFile::open(directory.path(), None).unwrap();
    let store = open();
    make(&store, KeyWrite::Make(key("old")));
    drop(store);
    let connection = rusqlite::Connection::open(directory.path().join("keys.db")).unwrap();
    connection.execute_batch("DROP TABLE passwords").unwrap();
    drop(connection);
    let store = open();
    assert_eq!((Keys::count(&store), find(&store, "alice")), (1, None));
    set(&store, password("alice", 2));
    drop(store);
    assert_eq!(find(&open(), "alice"), Some(password("alice", 2)));
}

#[test]
fn a_damaged_password_keeps_the_file_from_opening_and_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    drop(KeyFile::open(directory.path(), None).unwrap());
    for (id, body) in [
        ("User::\"alice\"", r#"{"hash":"hunter2","changed_at":1}"#),
        ("User::\"alice\"", r#"{"hash":"hunter2","changed_at":"hunter2"}"#),
        ("User::\"alice\"", "hunter2"),
        ("alice", r#"{"hash":"$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA","changed_at":1}"#),
    ] {
        let connection = rusqlite::Connection::open(directory.path().join("keys.db")).unwrap();
        connection.execute("INSERT OR REPLACE INTO passwords VALUES (?1, ?2)", [id, body]).unwrap();
        drop(connection);
        let told = KeyFile::open(directory.path(), None).unwrap_err().to_string();
        assert!(told.contains("is damaged") && !told.contains("hunter2") && !told.contains("c29t"), "{body}: {told}");
        let connection = rusqlite::Connection::open(directory.path().join("keys.db")).unwrap();
        connection.execute("DELETE FROM passwords", []).unwrap();
    }
    drop(KeyFile::open(directory.path(), None).unwrap());
}

/// Unknown names cost the same after a restart.
#[test]
fn decoys_are_chosen_alike_by_all_who_open_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let key = || Passwords::decoy_key(&KeyFile::open(directory.path(), None).unwrap());
    assert!(key().is_some() && key() == key());
    let other = tempfile::tempdir().unwrap();
    assert!(key() != Passwords::decoy_key(&KeyFile::open(other.path(), None).unwrap()));
}

#[test]
fn two_nodes_know_each_others_passwords() {
    let Some(mut server) = Server::start(&[]) else { return };
    let (one, two) = (redis(&server), redis(&server));
    assert!(Passwords::decoy_key(&one).is_some() && Passwords::decoy_key(&one) == Passwords::decoy_key(&two));
    set(&one, password("alice", 2));
    until("the other node knows it", || find(&two, "alice") == Some(password("alice", 2)));
    set(&two, password("alice", 3));
    pollster::block_on(Passwords::catch_up(&one).unwrap());
    assert_eq!(find(&one, "alice"), Some(password("alice", 3)), "who asks need not wait");
    remove(&one, "alice");
    make(&one, KeyWrite::Make(key("of-alice")));
    until("the other node knows that it is gone", || find(&two, "alice").is_none());
    until("and of the key", || Keys::count(&two) == 1);
    assert!(costs(&two).is_empty());
    // What is away, or came back with less, is not taken from memory.
    set(&one, password("bob", 2));
    server.kill();
    until("it is known to be away", || matches!(Passwords::find(&one, &user("bob")), Err(StoreError::Away(_))));
    assert!(pollster::block_on(Passwords::write(&one, PasswordWrite::Remove(user("bob")))).is_err());
    server.begin();
    until("it is known to have less", || matches!(Passwords::find(&one, &user("bob")), Err(StoreError::Lost(_))));
    assert_eq!(find(&redis(&server), "bob"), None);
}
