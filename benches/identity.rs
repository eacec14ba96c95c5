//! What a credential costs: an API key to a decision beside the decision alone, and a million keys in memory.
//!
//! `cargo bench --bench identity`; `TOLLGATE_KEYS` says how many keys (a million where nothing is said).

#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "it measures, and fails by panicking"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Instant;

use tollgate::edge::identity::{KeyOptions, KeyProvider};
use tollgate::edge::store::KeyFile;
use tollgate::gate::{Credential, KeyWrite, Keys, Presented};
use tollgate::model::{KeyRecord, KeyText, SecretText, key_text};
use tollgate::{Bundle, Engine, Request, SourceFile, Timestamp};

const BUNDLE: &str = "
teams: [{ id: research }, { id: ops }]
users: [{ id: alice, teams: [research, ops] }]
provider_accounts: [{ id: oa, provider: openai, models: [a, b] }]
authz_rules:
  - { id: one, teams: [research], models: ['oa/*'], actions: [chat] }
  - { id: two, teams: [ops], models: [oa/b] }
  - { id: three, effect: forbid, users: [eve], models: '*' }
";

fn main() {
    let count = std::env::var("TOLLGATE_KEYS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000_usize);
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), count);
    let before = resident();
    let began = Instant::now();
    let keys: Arc<dyn Keys> = Arc::new(KeyFile::open(directory.path(), None).unwrap());
    println!(
        "{count} keys loaded in {:.2} s, {} MB resident",
        began.elapsed().as_secs_f64(),
        (resident() - before) >> 20
    );
    assert_eq!(keys.count(), count);
    decide(keys, count);
}

fn text(number: usize) -> SecretText {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    key_text(&format!("{number:012}"), secret).unwrap()
}

/// Writes the keys below the store, which commits each by itself.
fn fill(directory: &std::path::Path, count: usize) {
    let store = KeyFile::open(directory, None).unwrap();
    let record = |number: usize| {
        let text = text(number);
        let key = KeyText::parse(text.expose()).unwrap();
        KeyRecord {
            id: key.id.into(),
            owner: r#"User::"alice""#.parse().unwrap(),
            hash: store.hash(&key),
            version: 1,
            created_at: Timestamp::from_millis(1_700_000_000_000),
            expires_at: None,
            used_at: AtomicI64::new(0),
            more: None,
        }
    };
    let first = record(0);
    pollster::block_on(store.write(KeyWrite::Make(first))).unwrap();
    let records: Vec<(String, String)> =
        (1..count).map(record).map(|key| (key.id.to_string(), tollgate::model::key_hash_text(&key.hash))).collect();
    drop(store);
    let mut database = rusqlite::Connection::open(directory.join("keys.db")).unwrap();
    let transaction = database.transaction().unwrap();
    for (id, hash) in records {
        let body = format!(r#"{{"owner":"User::\"alice\"","hash":"{hash}","version":1,"created_at":1700000000000}}"#);
        transaction.execute("INSERT INTO keys VALUES (?1, ?2)", [id, body]).unwrap();
    }
    transaction.commit().unwrap();
}

fn decide(keys: Arc<dyn Keys>, count: usize) {
    let provider = Arc::new(KeyProvider::new(Some(keys), KeyOptions::default()));
    let file = SourceFile::new("a.yaml", BUNDLE.as_bytes()).unwrap();
    let bundle = Bundle::new(vec![file]);
    let engine = Engine::builder().bundle(bundle).authenticator(provider).build().unwrap();
    let model: tollgate::EntityUid = r#"Model::"oa/a""#.parse().unwrap();
    // A thousand keys in use, as a gateway has them.
    let texts: Vec<SecretText> = (0..1000).map(|number| text(number * (count / 1000).max(1))).collect();
    let presented: Vec<Presented> = texts.iter().map(|text| Presented::new(Credential::ApiKey(text.clone()))).collect();
    let alice = Request::new(r#"User::"alice""#.parse().unwrap(), "chat", model.clone());
    let rounds = 200;
    let (mut alone, mut whole, mut proved) = (f64::MAX, f64::MAX, f64::MAX);
    // The best of a few turns: the machine does other things too.
    for _ in 0..15 {
        alone = alone.min(time(rounds * 1000, || {
            assert!(black_box(engine.is_authorized(black_box(&alice))).unwrap().is_permit());
        }));
        let mut next = presented.iter().cycle();
        proved = proved.min(time(rounds * 1000, || {
            black_box(engine.authenticate(next.next().unwrap())).unwrap();
        }));
        let mut next = presented.iter().cycle();
        whole = whole.min(time(rounds * 1000, || {
            let identity = engine.authenticate(next.next().unwrap()).unwrap();
            let request = Request::proved(identity, "chat", model.clone());
            assert!(black_box(engine.is_authorized(&request)).unwrap().is_permit());
        }));
    }
    println!("decision alone           {alone:8.0} ns");
    println!("key to identity          {proved:8.0} ns");
    println!("key to decision          {whole:8.0} ns   {:.2} times the decision alone", whole / alone);
}

/// Nanoseconds a call.
fn time(calls: u32, mut call: impl FnMut()) -> f64 {
    let began = Instant::now();
    for _ in 0..calls {
        call();
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

/// Bytes of memory of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
