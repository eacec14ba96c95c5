//! Opaque tokens, which another server is asked about: how it is asked, and what of its answers proves somebody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::issuer::{Asked, FakeIssuer};
use crate::support::{Client, DEADLINE, Server, Setup, secret};
use crate::tokens::now;

const SECRET: &str = "secret-of-an-introspecting-client";

/// A server that asks `issuer`, with `more` settings.
fn server(issuer: &FakeIssuer, more: &str) -> Server {
    let (setup, _secret) = setup(&issuer.url, more);
    setup.start()
}

/// What is set up so, and the folder with the client's secret; the folder is to live as long as it is needed.
fn setup(url: &str, more: &str) -> (Setup, tempfile::TempDir) {
    setup_with(url, more, "")
}

/// The same, with `beside` the providers.
fn setup_with(url: &str, more: &str, beside: &str) -> (Setup, tempfile::TempDir) {
    let temp = tempfile::TempDir::new().unwrap();
    std::fs::write(temp.path().join("secret"), secret(SECRET)).unwrap();
    let config = format!(
        "identity:
  failures: {{ enabled: false }}
{beside}  providers:
    - introspection: {{ url: '{url}/introspect', client_id: tollgate, client_secret_file: {}, issuer: 'https://idp'{more} }}
",
        temp.path().join("secret").display()
    );
    (Setup::new().config(&config), temp)
}

fn ask(client: &mut Client, token: &str) -> Value {
    let question = json!({
        "credential": { "bearer": secret(token) },
        "action": "chat",
        "resource": "Model::\"openai-main/gpt-4o\"",
    });
    client.post("/is_authorized", &question.to_string()).json()
}

fn active(_: &Asked, _: usize) -> (u16, Value) {
    (200, json!({ "active": true, "sub": "alice", "username": "alice" }))
}

/// Somebody who guesses with many connections opens no more than `at_once` to the issuer.
#[test]
fn no_more_than_at_once_are_asked_about_at_a_time() {
    let (out, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (gate, seen) = (Arc::new(Mutex::new(())), Arc::clone(&most));
    let held = gate.lock().unwrap();
    let waits = Arc::clone(&gate);
    let issuer = FakeIssuer::start(move |asked, before| {
        seen.fetch_max(out.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        drop(waits.lock().unwrap());
        out.fetch_sub(1, Ordering::SeqCst);
        active(asked, before)
    });
    let server = server(&issuer, ", at_once: 3, timeout_ms: 30000, claims: { user: username }");
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..12)
            .map(|number| {
                let mut client = server.connect();
                scope.spawn(move || ask(&mut client, &format!("opaque-token-of-number-{number}")))
            })
            .collect();
        // Those beyond are refused at once, while three wait: at the issuer, where they may come after the refusals.
        let began = std::time::Instant::now();
        while asking.iter().filter(|asked| asked.is_finished()).count() < 9 || most.load(Ordering::SeqCst) < 3 {
            assert!(began.elapsed() < DEADLINE, "they all wait, or fewer than three are let through");
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(held);
        let answers: Vec<Value> = asking.into_iter().map(|asked| asked.join().unwrap()).collect();
        let permits = answers.iter().filter(|answer| answer["decision"] == "permit").count();
        assert_eq!((permits, most.load(Ordering::SeqCst)), (3, 3), "{answers:?}");
    });
    let metrics = server.get("/metrics").body;
    let refused = "tollgate_authentication_failures_total{reason=\"provider_unavailable\"} 9";
    assert!(metrics.contains(refused), "{metrics}");
    assert_eq!(ask(&mut server.connect(), "opaque-token-of-one-more")["decision"], "permit", "places come back");
}

/// A token ends when its issuer says so, whatever is remembered of it.
#[test]
fn what_a_token_proves_ends_with_the_token_and_not_with_what_is_remembered() {
    let ends_at = now() + 600;
    let issuer = FakeIssuer::start(move |asked, before| match asked.form("token").as_deref() {
        Some("opaque-token-that-says-its-end") => (200, json!({ "active": true, "sub": "alice", "exp": ends_at })),
        _ => active(asked, before),
    });
    for remember_ms in [0, 30_000] {
        let more = format!(", remember_ms: {remember_ms}, claims: {{ user: sub }}");
        let (setup, _secret) = setup_with(&issuer.url, &more, "  tokens: {}\n");
        let server = setup.start();
        let mut client = server.connect();
        for (token, life) in [("opaque-token-that-says-its-end", 600), ("opaque-token-that-does-not-say-it", 300)] {
            for _ in 0..20 {
                assert_eq!(ask(&mut client, token)["decision"], "permit", "{token} for {remember_ms}");
            }
            // What is exchanged for it ends with it too.
            let headers = [&*format!("Authorization: Bearer {token}"), "Content-Type: application/json"];
            let issued = client.request("POST", "/v1/token", &headers, b"").json();
            for name in ["access_token", "refresh_token"] {
                issued[name].as_str().map(secret);
            }
            let seconds = issued["expires_in"].as_i64().unwrap();
            assert!((life - 60..=life).contains(&seconds), "{token} for {remember_ms}: {issued}");
        }
    }
}
