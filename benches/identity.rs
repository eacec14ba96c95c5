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
use std::process::Command;
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
provider_accounts: [{ id: oa, provider: openai, models: [a, b] }]
authz_rules:
  - { id: one, teams: [research], models: ['oa/*'], actions: [chat] }
  - { id: two, teams: [ops], models: [oa/b] }
  - { id: three, effect: forbid, users: [eve], models: '*' }
";

/// As many of each are at work as a gateway has.
const AT_WORK: usize = 1000;

/// Names the directory that a process is to fill.
const FILL: &str = "TOLLGATE_FILL";
const TURNS: usize = 41;
const CALLS: u32 = 50_000;

fn main() {
    let count = std::env::var("TOLLGATE_KEYS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000_usize);
    // By a process of its own: what that leaves behind would be taken for what the keys need.
    if let Some(directory) = std::env::var_os(FILL) {
        return fill(std::path::Path::new(&directory), count);
    }
    let directory = tempfile::tempdir().unwrap();
    let filled = Command::new(std::env::current_exe().unwrap()).env(FILL, directory.path()).status();
    assert!(filled.unwrap().success());
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

/// Whose a key is.
fn owner(number: usize) -> tollgate::EntityUid {
    format!(r#"User::"user-{}""#, number % AT_WORK).parse().unwrap()
}

/// Writes the keys below the store, which commits each by itself.
fn fill(directory: &std::path::Path, count: usize) {
    let store = KeyFile::open(directory, None).unwrap();
    let record = |number: usize| {
        let text = text(number);
        let key = KeyText::parse(text.expose()).unwrap();
        KeyRecord {
            id: key.id.into(),
            owner: owner(number),
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
    let records: Vec<(String, String, String)> = (1..count)
        .map(record)
        .map(|key| {
            let owner = key.owner.to_string().replace('"', "\\\"");
            (key.id.to_string(), owner, tollgate::model::key_hash_text(&key.hash))
        })
        .collect();
    drop(store);
    let mut database = rusqlite::Connection::open(directory.join("keys.db")).unwrap();
    let transaction = database.transaction().unwrap();
    for (id, owner, hash) in records {
        let body = format!(r#"{{"owner":"{owner}","hash":"{hash}","version":1,"created_at":1700000000000}}"#);
        transaction.execute("INSERT INTO keys VALUES (?1, ?2)", [id, body]).unwrap();
    }
    transaction.commit().unwrap();
}

fn decide(keys: Arc<dyn Keys>, count: usize) {
    let provider = Arc::new(KeyProvider::new(Some(keys), KeyOptions::default()));
    let users: String =
        (0..AT_WORK).map(|number| format!("  - {{ id: user-{number}, teams: [research, ops] }}\n")).collect();
    let files = [("a.yaml", BUNDLE.to_owned()), ("b.yaml", format!("users:\n{users}"))];
    let bundle = Bundle::new(files.map(|(name, text)| SourceFile::new(name, text.as_bytes()).unwrap()).into());
    let engine = Engine::builder().bundle(bundle).authenticator(provider).build().unwrap();
    let model: tollgate::EntityUid = r#"Model::"oa/a""#.parse().unwrap();
    let apart = (count / AT_WORK).max(1);
    let texts: Vec<SecretText> = (0..AT_WORK).map(|number| text(number * apart + number % apart)).collect();
    let presented: Vec<Presented> = texts.iter().map(|text| Presented::new(Credential::ApiKey(text.clone()))).collect();
    let users: Vec<tollgate::EntityUid> = (0..AT_WORK).map(owner).collect();
    // One after the other in every turn, and the middle of their ratios: the machine does other things too.
    let mut turns: Vec<[f64; 4]> = (0..TURNS)
        .map(|_| {
            let mut next = users.iter().cycle();
            let alone = time(|| {
                let request = Request::new(next.next().unwrap().clone(), "chat", model.clone());
                assert!(black_box(engine.is_authorized(black_box(&request))).unwrap().is_permit());
            });
            let mut next = presented.iter().cycle();
            let proved = time(|| {
                black_box(engine.authenticate(next.next().unwrap())).unwrap();
            });
            let mut next = presented.iter().cycle();
            let whole = time(|| {
                let ask = |identity| Request::proved(identity, "chat", model.clone());
                assert!(black_box(engine.authorize(next.next().unwrap(), ask)).unwrap().is_permit());
            });
            [alone, proved, whole, whole / alone]
        })
        .collect();
    let mut of = |at: usize| {
        turns.sort_by(|one, other| one[at].total_cmp(&other[at]));
        [turns[0][at], turns[TURNS / 2][at], turns[TURNS - 1][at]]
    };
    let [[_, alone, _], [_, proved, _], [_, whole, _], [least, ratio, most]] = [of(0), of(1), of(2), of(3)];
    println!("decision alone     {alone:6.0} ns");
    println!("key to identity    {proved:6.0} ns");
    println!(
        "key to decision    {whole:6.0} ns, {ratio:.2} times the decision alone ({least:.2} to {most:.2} in {TURNS} turns)"
    );
}

/// Nanoseconds a call.
fn time(mut call: impl FnMut()) -> f64 {
    let began = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

/// Bytes of memory of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
