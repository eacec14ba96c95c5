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

/// Only JSON is an answer of the endpoint: what stands before it may answer 200 with a page of its own.
#[test]
fn an_answer_that_is_not_json_says_nothing_of_the_token() {
    for (kind, code) in [
        ("application/json", "permitted"),
        ("Application/JSON; charset=utf-8", "permitted"),
        ("text/html", "provider_unavailable"),
        ("text/plain", "provider_unavailable"),
        ("application/jsonp", "provider_unavailable"),
        ("application/token-introspection+jwt", "provider_unavailable"),
    ] {
        let issuer = FakeIssuer::start_as(kind, active);
        let server = server(&issuer, ", claims: { user: username }");
        assert_eq!(ask(&mut server.connect(), "opaque-token-of-a-kind")["code"], code, "{kind}");
    }
}

/// A refresh token and an ID token are active too, and are for others. Servers say so in members of their own.
#[test]
fn a_token_of_another_kind_is_no_access_token() {
    let kinds = [
        (json!({}), true),
        (json!({"token_type": "Bearer"}), true),
        (json!({"token_type": "bearer", "typ": "Bearer"}), true),
        (json!({"token_type": "DPoP"}), true),
        (json!({"token_type": "access_token"}), true),
        (json!({"token_type": "Bearer", "token_use": "access_token"}), true),
        (json!({"typ": "at+jwt", "token_type": null}), true),
        (json!({"token_type": "refresh_token"}), false),
        (json!({"token_type": "Bearer", "typ": "Refresh"}), false),
        (json!({"typ": "Offline"}), false),
        (json!({"typ": "ID"}), false),
        (json!({"token_type": "id_token"}), false),
        (json!({"token_type": "Bearer", "token_use": "refresh_token"}), false),
        (json!({"token_use": "id"}), false),
        (json!({"token_type": "N_A"}), false),
        (json!({"token_type": ["Bearer"]}), false),
        (json!({"token_type": ""}), false),
    ];
    let answers = kinds.clone();
    let issuer = FakeIssuer::start(move |asked, _| {
        let number: usize = asked.form("token").unwrap().rsplit('-').next().unwrap().parse().unwrap();
        let mut answer = json!({"active": true, "username": "alice", "sub": "u-1"});
        answer.as_object_mut().unwrap().extend(answers[number].0.as_object().unwrap().clone());
        (200, answer)
    });
    let server = server(&issuer, ", claims: { user: username }");
    for (number, (kind, is_taken)) in kinds.iter().enumerate() {
        let told = ask(&mut server.connect(), &format!("opaque-token-of-kind-{number}"));
        let code = if *is_taken { "permitted" } else { "unauthenticated" };
        assert_eq!(told["code"], code, "{kind}: {told}");
        if !is_taken {
            let message = told["message"].as_str().unwrap();
            assert!(message.contains("not an access token") && message.contains("`t"), "{message}");
        }
    }
}

/// The end of a token may have a fraction here too, and messages name the claim and both issuers.
#[test]
fn what_an_endpoint_says_is_read_as_what_a_token_says() {
    let at = now();
    let answers = [
        (json!({"exp": at as f64 + 600.5}), "permitted", ""),
        (json!({"exp": at as f64 - 0.5}), "credential_expired", "`exp`"),
        (json!({"nbf": at as f64 + 600.5}), "unauthenticated", "`nbf`"),
        (json!({"exp": "soon"}), "unauthenticated", "`exp`"),
        (json!({"iss": "https://idp/"}), "unauthenticated", "`https://idp/`, and not `https://idp`"),
        (json!({"aud": "another"}), "permitted", ""),
        (json!({"hd": "evil.example"}), "unauthenticated", "`hd`"),
    ];
    let said = answers.clone();
    let issuer = FakeIssuer::start(move |asked, _| {
        let number: usize = asked.form("token").unwrap().rsplit('-').next().unwrap().parse().unwrap();
        let mut answer = json!({"active": true, "username": "alice", "sub": "u-1", "hd": "acme.example"});
        answer.as_object_mut().unwrap().extend(said[number].0.as_object().unwrap().clone());
        (200, answer)
    });
    let server = server(&issuer, ", claims: { user: username }, require: { hd: '*.example' }");
    for (number, (said, code, told)) in answers.iter().enumerate().take(6) {
        let answer = ask(&mut server.connect(), &format!("opaque-token-number-{number}"));
        assert_eq!(answer["code"], *code, "{said}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(told), "{said}: {answer}");
    }
    let server = self::server(&issuer, ", claims: { user: username }, require: { hd: acme.example }");
    assert_eq!(ask(&mut server.connect(), "opaque-token-number-0")["code"], "permitted");
    let answer = ask(&mut server.connect(), "opaque-token-number-6");
    assert!(answer["message"].as_str().unwrap().contains("`hd`"), "{answer}");
}
