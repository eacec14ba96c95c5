//! An identity provider, a delegate or a store that is away: nobody can say that a credential is wrong, so nobody says it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::issuer::FakeIssuer;
use crate::support::{Answer, Server, Setup, secret};
use crate::tokens::{Signer, now, set};

const GOOD: &str = "a-fixed-token-0123456789abcdef-01";
const PLAIN: &str = "another-fixed-token-0123456789-02";
const OTHER: &str = "an-opaque-token-0123456789";

/// Where nobody listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn server(loopback: &str, provider: &str) -> Server {
    secret(GOOD);
    secret(PLAIN);
    let temp = tempfile::TempDir::new().unwrap();
    std::fs::write(temp.path().join("secret"), "secret-of-a-client").unwrap();
    let config = format!(
        "identity:
  loopback: {loopback}
  failures: {{ source_burst: 2, source_every_ms: 3600000 }}
  providers:
    - static: {{ tokens: [{{ token: {GOOD}, principal: 'User::\"alice\"', roles: ['tollgate:gateway'] }}, {{ token: {PLAIN}, principal: 'User::\"bob\"' }}] }}
    - {provider}
"
    );
    Setup::new().config(&config).start_in(temp)
}

/// Each kind of provider that asks others, of which nobody is there, with a credential of its form.
fn providers() -> Vec<(&'static str, String, String)> {
    let at = nowhere();
    let jwt =
        Signer::p256("one").token(&json!({"iss": "https://idp.example", "aud": "t", "sub": "u", "exp": now() + 600}));
    vec![
        (
            "introspection",
            format!(
                "introspection: {{ url: 'http://{at}/', client_id: t, client_secret_file: secret, issuer: 'https://idp' }}"
            ),
            OTHER.to_owned(),
        ),
        ("delegated", format!("delegated: {{ url: 'http://{at}/' }}"), OTHER.to_owned()),
        (
            "jwt",
            format!(
                "jwt: {{ issuers: [{{ issuer: 'https://idp.example', audiences: [t], jwks_url: 'http://{at}/' }}] }}"
            ),
            jwt,
        ),
    ]
}

fn question(token: &str) -> String {
    let token = secret(token);
    json!({"credential": {"bearer": token}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\"",
           "context": {"ip": "192.0.2.7"}})
    .to_string()
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.head.lines().find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn retry_after(answer: &Answer) -> Option<u64> {
    header(answer, "retry-after")?.parse().ok()
}

#[test]
fn a_provider_that_is_away_says_so_wherever_it_is_asked() {
    for (kind, provider, token) in providers() {
        let server = server("open", &provider);
        let mut client = server.connect();
        let answer = client.post("/is_authorized", &question(&token));
        let told = answer.json();
        assert_eq!(
            (answer.status, &told["code"], &told["principal"]),
            (200, &json!("provider_unavailable"), &Value::Null),
            "{kind}: {told}"
        );
        assert!(told["retry_after_seconds"].as_u64().is_some_and(|seconds| seconds > 0), "{kind}: {told}");
        assert_eq!(retry_after(&answer), None, "a 200 is no refusal to a client that reads headers");
        let answer = client.post("/is_authorized?status=map", &question(&token));
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("provider_unavailable")), "{kind}");
        assert!(retry_after(&answer).is_some_and(|seconds| seconds > 0), "{kind}: {answer:?}");
        // Lists, batches, and what others delegate to this server.
        let list = question(&token).replace(
            "\"resource\":\"Model::\\\"openai-main/gpt-4o\\\"\"",
            "\"candidates\":[\"Model::\\\"openai-main/gpt-4o\\\"\"]",
        );
        let told = client.post("/is_authorized", &list).json();
        assert_eq!(
            (&told["code"], &told["candidates"][0]["code"]),
            (&json!("provider_unavailable"), &json!("provider_unavailable")),
            "{kind}: {told}"
        );
        let batch = format!("{{\"requests\": [{}]}}", question(&token));
        assert_eq!(
            client.post("/is_authorized/batch", &batch).json()["responses"][0]["code"],
            "provider_unavailable",
            "{kind}"
        );
        for authorize in [false, true] {
            let body = json!({"api_key": token, "request": {"path": "/v1/models"}, "authorize": authorize}).to_string();
            let answer = client.post("/v1/auth/validate", &body);
            assert!(
                answer.is_error(503, "provider_unavailable", "") && retry_after(&answer).is_some(),
                "{kind}: {answer:?}"
            );
        }
        // It is no guess, however often it happens: from that address what is good is taken.
        for _ in 0..10 {
            assert_eq!(
                client.post("/is_authorized", &question(&token)).json()["code"],
                "provider_unavailable",
                "{kind}"
            );
        }
        assert_eq!(client.post("/is_authorized", &question(GOOD)).json()["code"], "permitted", "{kind}");
        let metrics = server.get("/metrics").body;
        let counted = metrics
            .lines()
            .find(|line| line.starts_with("tollgate_decisions_total") && line.contains("\"provider_unavailable\""));
        assert!(counted.is_some_and(|line| !line.ends_with(" 0")), "{kind}: {metrics}");
    }
}

#[test]
fn a_callers_own_credential_is_not_wrong_either() {
    for (kind, provider, token) in providers() {
        let server = server("closed", &provider);
        let bearer = format!("Authorization: Bearer {}", secret(token));
        for _ in 0..10 {
            let answer = server.connect().request("GET", "/metrics", &[&bearer], b"");
            assert!(answer.is_error(503, "provider_unavailable", ""), "{kind}: {answer:?}");
            assert!(
                retry_after(&answer).is_some() && header(&answer, "www-authenticate").is_none(),
                "{kind}: {answer:?}"
            );
        }
        let good = format!("Authorization: Bearer {GOOD}");
        assert_eq!(server.connect().request("GET", "/metrics", &[&good], b"").status, 200, "{kind}");
    }
}

/// The same holds for a credential that a caller without the gateway role sends to check its own access.
#[test]
fn a_credential_in_a_question_about_oneself_is_not_wrong_either() {
    for (kind, provider, token) in providers() {
        let server = server("closed", &provider);
        let (plain, json) = (format!("Authorization: Bearer {PLAIN}"), "Content-Type: application/json");
        let ask = |token: &str| {
            let body = question(token);
            server.connect().request("POST", "/is_authorized", &[plain.as_str(), json], body.as_bytes())
        };
        let answer = ask(&token);
        assert!(answer.is_error(503, "provider_unavailable", ""), "{kind}: {answer:?}");
        assert!(retry_after(&answer).is_some(), "{kind}: {answer:?}");
        assert!(ask(GOOD).is_error(403, "forbidden", "credential"), "{kind}");
        assert_eq!(ask(PLAIN).status, 200, "{kind}");
    }
}

/// One that is passed over while it is away still leaves the question open where nobody else answers it.
#[test]
fn what_no_other_provider_knows_is_not_wrong_while_one_is_passed_over() {
    for (kind, provider, token) in providers() {
        let server = server("open", &format!("{{ on_error: pass, {provider} }}"));
        for _ in 0..5 {
            assert_eq!(
                server.post("/is_authorized", &question(&token)).json()["code"],
                "provider_unavailable",
                "{kind}"
            );
        }
        assert_eq!(server.post("/is_authorized", &question(GOOD)).json()["code"], "permitted", "{kind}");
    }
}

/// A key that nobody knows here may be the issuer's newest: while it cannot be asked, nobody can say.
#[test]
fn a_token_of_an_unknown_key_is_not_wrong_while_its_issuer_is_away() {
    let (known, newer) = (Signer::p256("known"), Signer::p256("newer"));
    let (keys, away) = (set([&known]), Arc::new(AtomicBool::new(false)));
    let is_away = Arc::clone(&away);
    let issuer = FakeIssuer::start(move |_, _| {
        if is_away.load(Ordering::SeqCst) { (502, json!({})) } else { (200, serde_json::from_str(&keys).unwrap()) }
    });
    let provider = format!(
        "jwt: {{ issuers: [{{ issuer: 'https://idp.example', audiences: [t], jwks_url: '{}/keys', unknown_key_pause_ms: 100, claims: {{ user: sub }} }}] }}",
        issuer.url
    );
    let server = server("open", &provider);
    let token = |signer: &Signer| {
        signer.token(&json!({"iss": "https://idp.example", "aud": "t", "sub": "alice", "exp": now() + 600}))
    };
    // From nowhere in particular: a token of an unknown key is a guess while the issuer answers.
    let question = |token: &str| {
        let token = secret(token);
        json!({"credential": {"bearer": token}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""})
            .to_string()
    };
    let code =
        |token: &str| server.post("/is_authorized", &question(token)).json()["code"].as_str().unwrap().to_owned();
    server.until("its keys are there", |_| code(&token(&known)) == "permitted");
    let of_newer = token(&newer);
    assert_eq!(code(&of_newer), "unauthenticated");
    away.store(true, Ordering::SeqCst);
    server.until("it is seen that the issuer is away", |_| code(&of_newer) == "provider_unavailable");
    // The keys that are known go on, and what they did not sign is wrong.
    assert_eq!(code(&token(&known)), "permitted");
    let mut forged = token(&known);
    forged.truncate(forged.len() - 4);
    assert_eq!(code(&forged), "unauthenticated");
    away.store(false, Ordering::SeqCst);
    server.until("it is seen that the issuer is back", |_| code(&of_newer) == "unauthenticated");
}
