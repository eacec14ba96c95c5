//! Opaque tokens, which another server is asked about: how it is asked, and what of its answers proves somebody.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::issuer::{Asked, FakeIssuer};
use crate::support::{Client, DEADLINE, Server, Setup, secret};

const SECRET: &str = "secret-of-an-introspecting-client";

/// A server that asks `issuer`, with `more` settings.
fn server(issuer: &FakeIssuer, more: &str) -> Server {
    let (setup, _secret) = setup(&issuer.url, more, SECRET);
    setup.start()
}

/// What is set up so, and the folder with the client's secret; the folder is to live as long as it is needed.
fn setup(url: &str, more: &str, client_secret: &str) -> (Setup, tempfile::TempDir) {
    let temp = tempfile::TempDir::new().unwrap();
    std::fs::write(temp.path().join("secret"), client_secret).unwrap();
    let config = format!(
        "identity:
  failures: {{ enabled: false }}
  providers:
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
        // Those beyond are refused at once, while three wait.
        let began = std::time::Instant::now();
        while asking.iter().filter(|asked| asked.is_finished()).count() < 9 {
            assert!(began.elapsed() < DEADLINE, "they all wait");
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
