//! What tokens cost: a bare signature check, a token that is checked, one that was proved before, and a decision with it.
//!
//! `cargo bench --bench identity_jwt` prints the table that stands in BENCHMARKS.md.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench sets up a world of its own"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tollgate::edge::clock::SystemClock;
use tollgate::edge::identity::claims::{Mapping, Sources};
use tollgate::edge::identity::jose::Checks;
use tollgate::edge::identity::jwt::{IssuerSettings, JwtProvider, JwtSettings, KeySource};
use tollgate::edge::outgoing::Fetcher;
use tollgate::gate::{Authenticator, Clock, Credential, Fetch, Presented, Verdict};
use tollgate::model::SecretText;
use tollgate::{Bundle, Engine, SourceFile};

/// How long each figure is measured.
const FOR: Duration = Duration::from_secs(2);
const ISSUER: &str = "https://idp.example.com";
const BUNDLE: &str = "teams: [{ id: research }]\nauthz_rules: [{ id: all, teams: [research], models: \"*\" }]\n";

fn main() {
    // `cargo bench --no-run` and `cargo test --benches` only want it to compile and start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ed = Ed25519KeyPair::generate().unwrap();
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let point = ec.public_key().as_ref();
    let keys = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..]), "kid": "ec", "alg": "ES256", "use": "sig"},
        {"kty": "OKP", "crv": "Ed25519", "x": b64(ed.public_key().as_ref()), "kid": "ed", "alg": "EdDSA", "use": "sig"},
    ]});
    let temp = tempfile::TempDir::new().unwrap();
    let path = temp.path().join("keys.json");
    std::fs::write(&path, keys.to_string()).unwrap();
    let message = |alg: &str, kid: &str| {
        let now = SystemClock.now().as_millis() / 1000;
        let claims = json!({"iss": ISSUER, "aud": ["tollgate", "account"], "sub": "f3a0d0f4-5a3c-4c02-9a65-2f2f3f0c9c11", "iat": now,
            "exp": now + 3600, "jti": "a3f0e0d4", "azp": "chat-ui", "scope": "openid email profile", "email": "alice@example.com",
            "preferred_username": "alice", "groups": ["research", "eu", "gpu"], "realm_access": {"roles": ["analyst", "offline_access"]}});
        let header = json!({"alg": alg, "typ": "JWT", "kid": kid});
        format!("{}.{}", b64(header.to_string().as_bytes()), b64(claims.to_string().as_bytes()))
    };
    println!("| | bare signature | checked | of the bare | proved before |\n| --- | --- | --- | --- | --- |");
    for (name, kid) in [("ES256", "ec"), ("EdDSA", "ed")] {
        let message = message(name, kid);
        let signature = match name {
            "ES256" => ec.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
            _ => ed.sign(message.as_bytes()).as_ref().to_vec(),
        };
        let token = format!("{message}.{}", b64(&signature));
        let bare = each(|| match name {
            "ES256" => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message.as_bytes(), &signature).unwrap()
            }
            _ => UnparsedPublicKey::new(&ED25519, ed.public_key().as_ref())
                .verify(message.as_bytes(), &signature)
                .unwrap(),
        });
        let checked = proving(&path, 0, &token);
        let before = proving(&path, 10_000, &token);
        println!(
            "| {name}, {} bytes | {:.1} µs | {:.1} µs | {:.2} times | {:.2} µs |",
            token.len(),
            micros(bare),
            micros(checked),
            micros(checked) / micros(bare),
            micros(before),
        );
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// What one takes: the best of several runs, so that what else the machine does counts little.
fn each(mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    let mut best = Duration::MAX;
    while began.elapsed() < FOR {
        let start = Instant::now();
        for _ in 0..200 {
            work();
        }
        best = best.min(start.elapsed() / 200);
    }
    best
}

/// What it takes to prove `token`, with so many remembered.
fn proving(keys: &std::path::Path, remembered: usize, token: &str) -> Duration {
    let issuer = IssuerSettings {
        checks: Checks {
            issuer: ISSUER.into(),
            audiences: vec!["tollgate".into()],
            algorithms: None,
            types: vec!["jwt".into()],
            leeway_ms: 10_000,
            max_lifetime_ms: None,
            require: Vec::new(),
        },
        mapping: Mapping {
            user: Sources::claim("preferred_username"),
            teams: Sources::claim("groups"),
            ..Mapping::default()
        },
        keys: KeySource::Files(vec![keys.to_owned()]),
        refresh: Duration::from_secs(3600),
        unknown_key_pause: Duration::from_secs(30),
        max_stale: None,
    };
    let settings = JwtSettings { issuers: vec![issuer], max_token_bytes: 8192, remembered };
    let provider = JwtProvider::new("jwt", settings, false);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (fetch, clock): (Arc<dyn Fetch>, Arc<dyn Clock>) = (Arc::new(Fetcher::default()), Arc::new(SystemClock));
    for follower in provider.followers(&fetch, &clock) {
        runtime.spawn(follower);
    }
    let file = SourceFile::new("bundle.yaml", BUNDLE.as_bytes()).unwrap();
    let engine = Engine::builder().bundle(Bundle::new(vec![file])).build().unwrap();
    let snapshot = engine.snapshot().unwrap();
    let presented = Presented::new(Credential::Bearer(SecretText::new(token)));
    let now = SystemClock.now();
    let proved = || pollster::block_on(provider.authenticate(&presented, &snapshot, now));
    let began = Instant::now();
    while !matches!(proved(), Verdict::Proved(_)) {
        assert!(began.elapsed() < Duration::from_secs(30), "the keys are not read: {:?}", proved());
        std::thread::sleep(Duration::from_millis(10));
    }
    each(|| assert!(matches!(black_box(proved()), Verdict::Proved(_))))
}
