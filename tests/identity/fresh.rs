//! Keys of issuers while they change: how soon that holds, and that keys which are well do not grow stale.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::issuer::FakeIssuer;
use crate::support::{Client, DEADLINE, Server, Setup};
use crate::tokens::{Signer, now, set};

const ISSUER: &str = "https://idp.example.com";

fn server(temp: tempfile::TempDir, settings: &str) -> Server {
    let config = format!(
        "identity:
  failures: {{ enabled: false }}
  providers:
    - jwt: {{ issuers: [{{ issuer: '{ISSUER}', audiences: [tollgate], claims: {{ user: sub }}, {settings} }}] }}
"
    );
    let server = Setup::new().config(&config).start_in(temp);
    server.until("the keys are read", |server| server.log().contains("in use"));
    server
}

fn token(signer: &Signer) -> String {
    signer.token(&json!({"iss": ISSUER, "aud": "tollgate", "sub": "alice", "exp": now() + 600}))
}

fn permits(client: &mut Client, token: &str) -> bool {
    let question =
        json!({"credential": {"bearer": token}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""});
    client.post("/is_authorized", &question.to_string()).json()["decision"] == "permit"
}

/// A key that is taken out of a file decides no longer, also for a token that was proved before, and however long the
/// other pauses are.
#[test]
fn a_key_that_is_taken_out_of_a_file_ends_within_seconds() {
    let temp = tempfile::TempDir::new().unwrap();
    let (before, after) = (Signer::p256("one"), Signer::p256("two"));
    let path = temp.path().join("keys.json");
    std::fs::write(&path, set([&before])).unwrap();
    let server = server(temp, "jwks_file: keys.json");
    let (mut client, old, new) = (server.connect(), token(&before), token(&after));
    assert!(permits(&mut client, &old) && !permits(&mut client, &new));
    std::fs::write(&path, set([&after])).unwrap();
    let began = Instant::now();
    while permits(&mut client, &old) {
        assert!(began.elapsed() < DEADLINE, "the key goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(permits(&mut client, &new));
}

/// While the issuer answers, its keys are looked at again before they are too old to decide.
#[test]
fn keys_of_an_issuer_that_is_well_never_grow_stale() {
    let signer = Signer::p256("one");
    let keys: Value = serde_json::from_str(&set([&signer])).unwrap();
    let issuer = FakeIssuer::start(move |_, _| (200, keys.clone()));
    let settings = format!("jwks_url: '{}/keys', max_stale_ms: 8000", issuer.url);
    let server = server(tempfile::TempDir::new().unwrap(), &settings);
    let mut client = server.connect();
    let token = token(&signer);
    while issuer.asked("/keys").len() < 4 {
        assert!(permits(&mut client, &token), "after {} looks", issuer.asked("/keys").len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An issuer that puts a new key under an old name is looked at again, as it is for a new name.
#[test]
fn a_key_of_the_same_name_is_looked_for_again() {
    let (before, after) = (Signer::p256("one"), Signer::p256("one"));
    let keys = [&before, &after].map(|signer| serde_json::from_str::<Value>(&set([signer])).unwrap());
    let replaced = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&replaced);
    let issuer = FakeIssuer::start(move |_, _| (200, keys[usize::from(seen.load(Ordering::SeqCst))].clone()));
    let settings = format!("jwks_url: '{}/keys', unknown_key_pause_ms: 100", issuer.url);
    let server = server(tempfile::TempDir::new().unwrap(), &settings);
    let (mut client, old, new) = (server.connect(), token(&before), token(&after));
    assert!(permits(&mut client, &old) && !permits(&mut client, &new));
    replaced.store(true, Ordering::SeqCst);
    let began = Instant::now();
    while !permits(&mut client, &new) {
        assert!(began.elapsed() < DEADLINE, "the new key is never looked for");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!permits(&mut client, &old));
}
