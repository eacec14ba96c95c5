//! The layer that guards a service in process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::{Extension, Router, routing::any};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tollgate::edge::identity::{
    CredentialHeaders, DigestFile, DigestProvider, ForwardedProvider, Grants, Mapping, NameKind, StaticProvider,
    StaticSecret,
};
use tollgate::gate::{FailureLimits, Peer, Reserve};
use tollgate::model::{Identity, Network, SecretText};
use tollgate::{AuthorizeLayer, Bundle, Decision, Engine, EntityUid, Named, RouteMap, SourceFile};
use tower_service::Service;

use crate::support::secret;

const TOKEN: &str = "layer-token-0123456789";
const RULES: &str = "
users: [{ id: alice, team: research }]
teams: [{ id: research }]
authz_rules:
  - { users: [alice], models: [m/good, m/busy], actions: [chat] }
  - { users: [alice], models: [m/path], actions: [chat], when: 'context has path && context.path == \"/path\"' }
  - { services: [proxied], models: [m/good], actions: [chat] }
limits:
  - { id: places, models: [m/busy], concurrency: 1 }
";

fn engine() -> Engine {
    let principal = "User::\"alice\"".parse().unwrap();
    let secret = StaticSecret { token: SecretText::new(TOKEN), principal, roles: Vec::new() };
    let principal = "Service::\"proxied\"".parse().unwrap();
    let (teams, orgs, tags) = Default::default();
    let grants = Grants { principal, teams, orgs, roles: Box::default(), tags };
    let mapping = Mapping::new(NameKind::Spiffe, "spiffe://acme.example/proxied", &grants).unwrap();
    Engine::builder()
        .bundle(Bundle::new(vec![SourceFile::new("rules.yaml", RULES.as_bytes()).unwrap()]))
        .authenticator(Arc::new(StaticProvider::new(vec![secret]).unwrap()))
        .authenticator(Arc::new(ForwardedProvider::new([Network::parse("10.0.0.0/8").unwrap()], [mapping])))
        .build()
        .unwrap()
}

struct App {
    router: Router,
    reached: Arc<AtomicUsize>,
}

impl App {
    fn new(engine: Engine) -> Self {
        let model = |model: &str| format!("Model::\"m/{model}\"").parse::<EntityUid>().unwrap();
        let map = RouteMap::empty()
            .on("POST", "/good", "chat", model("good"))
            .on("POST", "/below/*", "chat", model("good"))
            .on("POST", "/bad", "chat", model("bad"))
            .on("POST", "/busy", "chat", model("busy"))
            .on("POST", "/path", "chat", model("path"))
            .on("POST", "/named", "chat", Named::Param("model".into()))
            .on("POST", "/odd", "fly", model("good"));
        let reached = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reached);
        let answer = move |Extension(identity): Extension<Arc<Identity>>, Extension(decision): Extension<Decision>| {
            count.fetch_add(1, Ordering::Relaxed);
            async move { format!("{} {}", identity.principal, decision.code.as_str()) }
        };
        let headers = CredentialHeaders { forwarded_certificates: true, ..CredentialHeaders::default() };
        let layer = AuthorizeLayer::new(engine, map).credential_headers(headers);
        Self { router: Router::new().fallback(any(answer)).layer(layer), reached }
    }

    fn ask(&self, request: Request<Body>) -> (u16, String, axum::http::HeaderMap) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut router = self.router.clone();
        runtime.block_on(async {
            let response = router.call(request).await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap(), headers)
        })
    }

    fn post(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String, axum::http::HeaderMap) {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(Body::empty()).unwrap())
    }
}

fn code(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    body["code"].as_str().or_else(|| body["error"]["code"].as_str()).unwrap().to_owned()
}

#[test]
fn only_what_is_permitted_reaches_the_service() {
    let (engine, bearer) = (engine(), format!("Bearer {TOKEN}"));
    let app = App::new(engine.clone());
    let proved = [("authorization", bearer.as_str())];
    for path in ["/good", "/below/a", "/below/a/b", "/busy", "/path"] {
        let (status, body, _) = app.post(path, &proved);
        assert_eq!((status, body.as_str()), (200, "User::\"alice\" permitted"), "{path}");
    }
    assert_eq!(app.post("/good", &[("x-api-key", TOKEN)]).0, 200);
    let reached = app.reached.load(Ordering::Relaxed);
    assert_eq!(reached, 6);

    let (status, body, headers) = app.post("/good", &[]);
    assert_eq!((status, code(&body).as_str()), (401, "unauthenticated"));
    assert_eq!(headers["www-authenticate"], "Bearer realm=\"tollgate\"");
    assert_eq!(headers["content-type"], "application/json");
    let decision: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&decision["decision"], &decision["resource"]["id"]), (&"forbid".into(), &"m/good".into()));
    for (path, headers, expected) in [
        ("/good", vec![("authorization", "Bearer nobody-knows-this")], (401, "unauthenticated")),
        ("/good", vec![("authorization", "Negotiate x")], (400, "invalid_request")),
        ("/good", vec![("authorization", &*bearer), ("x-api-key", TOKEN)], (400, "invalid_request")),
        ("/good", vec![("authorization", &*bearer), ("authorization", &*bearer)], (400, "invalid_request")),
        ("/good", vec![("x-forwarded-client-cert", "URI=spiffe://acme.example/proxied")], (401, "unauthenticated")),
        ("/bad", proved.to_vec(), (403, "no_rule_permits")),
        ("/odd", proved.to_vec(), (400, "invalid_request")),
        ("/unknown", proved.to_vec(), (403, "forbidden")),
        ("/below", proved.to_vec(), (403, "forbidden")),
        ("/below/", proved.to_vec(), (403, "forbidden")),
        ("/below/../bad", proved.to_vec(), (400, "invalid_request")),
        ("/below/%2e%2e/bad", proved.to_vec(), (400, "invalid_request")),
        ("/below//bad", proved.to_vec(), (400, "invalid_request")),
        ("/named?model=m/good", proved.to_vec(), (403, "forbidden")),
        ("/good/", proved.to_vec(), (403, "forbidden")),
        ("/good%2f", proved.to_vec(), (400, "invalid_request")),
        ("//good", proved.to_vec(), (400, "invalid_request")),
    ] {
        let (status, body, _) = app.post(path, &headers);
        assert_eq!((status, code(&body).as_str()), expected, "{path} {headers:?}");
    }
    let get = Request::get("/good").header("authorization", &bearer).body(Body::empty()).unwrap();
    assert_eq!(app.ask(get).0, StatusCode::FORBIDDEN.as_u16());

    let request =
        tollgate::Request::new("User::\"alice\"".parse().unwrap(), "chat", "Model::\"m/busy\"".parse().unwrap());
    let held = engine.reserve(&request, Reserve::default()).unwrap();
    assert!(held.is_permit());
    let (status, body, _) = app.post("/busy", &proved);
    assert_eq!((status, code(&body).as_str()), (429, "concurrency_exceeded"));
    assert_eq!(app.reached.load(Ordering::Relaxed), reached);
}

#[test]
fn the_other_end_is_what_the_service_says_it_is() {
    let app = App::new(engine());
    let from = |address: &str| {
        let request = Request::post("/good").header("x-forwarded-client-cert", "URI=spiffe://acme.example/proxied");
        let peer = Peer { address: address.parse().ok(), certificates: None };
        app.ask(request.header("x-forwarded-for", "10.0.0.1").extension(peer).body(Body::empty()).unwrap()).0
    };
    assert_eq!((from("10.1.2.3"), from("192.0.2.1"), from("")), (200, 401, 401));
}

/// A caller behind the layer is told of every form that a provider takes, as one of the server is.
#[test]
fn a_caller_is_told_of_each_form_and_proves_itself_by_digest() {
    let hash = |text: &str| -> String { Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect() };
    let kept = secret(hash("alice:tollgate:correct horse layer"));
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("digests");
    std::fs::write(&path, format!("alice:tollgate:{kept}\n")).unwrap();
    let provider = || {
        let file = DigestFile::open(&path, "tollgate").unwrap();
        Arc::new(DigestProvider::new("digest".to_owned(), file).unwrap())
    };
    let start = || {
        let bundle = Bundle::new(vec![SourceFile::new("rules.yaml", RULES.as_bytes()).unwrap()]);
        App::new(Engine::builder().bundle(bundle).authenticator(provider()).build().unwrap())
    };
    let app = start();
    let challenges = |headers: &axum::http::HeaderMap| -> Vec<String> {
        headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let nonce =
        |challenges: &[String]| challenges[1].split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let proof = |nonce: &str| {
        let response = hash(&format!("{kept}:{nonce}:00000001:c0ffee:auth:{}", hash("POST:/good")));
        format!(
            "Digest username=\"alice\", realm=\"tollgate\", nonce=\"{nonce}\", uri=\"/good\", algorithm=SHA-256, qop=auth, \
             nc=00000001, cnonce=\"c0ffee\", response=\"{response}\""
        )
    };
    let (status, _, headers) = app.post("/good", &[]);
    let told = challenges(&headers);
    assert_eq!((status, told.len(), &*told[0]), (401, 2, "Bearer realm=\"tollgate\""), "{told:?}");
    assert!(told[1].starts_with("Digest realm=\"tollgate\"") && !told[1].contains("stale"), "{told:?}");
    assert_eq!(app.post("/good", &[("authorization", &proof(&nonce(&told)))]).0, 200);
    // Right, but for a nonce of another process: to be tried again, without asking anybody for a password.
    let another = start();
    let (status, _, headers) = another.post("/good", &[("authorization", &proof(&nonce(&told)))]);
    let told = challenges(&headers);
    assert!(status == 401 && told[1].ends_with(", stale=true"), "{told:?}");
    assert_eq!(another.post("/good", &[("authorization", &proof(&nonce(&told)))]).0, 200);
}

/// Who fails too often is told when to come back.
#[test]
fn a_caller_that_guesses_is_told_when_to_come_back() {
    let limits = FailureLimits { source_burst: 1, source_every_ms: 3_600_000, ..FailureLimits::default() };
    let bundle = Bundle::new(vec![SourceFile::new("rules.yaml", RULES.as_bytes()).unwrap()]);
    let app = App::new(Engine::builder().bundle(bundle).failures(Some(limits)).build().unwrap());
    let peer = Peer { address: "192.0.2.1".parse().ok(), certificates: None };
    let guess = || {
        let request =
            Request::post("/good").header("authorization", "Bearer nobody-knows-this").extension(peer.clone());
        app.ask(request.body(Body::empty()).unwrap()).2.get("retry-after").cloned()
    };
    assert_eq!(guess(), None);
    let told = guess();
    let seconds = told.as_ref().and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| (1..=3_600).contains(&seconds)), "{told:?}");
}

/// A provider that is away is no reason to send a caller to a sign-in: it is to come back.
#[test]
fn a_provider_that_is_away_is_a_503() {
    use tollgate::gate::{Authenticator, Later, Presented, Verdict};
    use tollgate::model::{Refusal, RefusalReason, Timestamp};
    struct Away;
    impl Authenticator for Away {
        fn name(&self) -> &'static str {
            "away"
        }

        fn authenticate(&self, _: &Presented, _: &Arc<tollgate::Snapshot>, _: Timestamp) -> Later<Verdict> {
            Later::ready(Verdict::Refused(Refusal::new(RefusalReason::ProviderUnavailable, "it is away")))
        }
    }
    let bundle = Bundle::new(vec![SourceFile::new("rules.yaml", RULES.as_bytes()).unwrap()]);
    let app = App::new(Engine::builder().bundle(bundle).authenticator(Arc::new(Away)).build().unwrap());
    let (status, body, headers) = app.post("/good", &[("authorization", "Bearer somebody")]);
    assert_eq!((status, code(&body).as_str()), (503, "provider_unavailable"));
    assert!(headers.get("retry-after").is_some() && headers.get("www-authenticate").is_none(), "{headers:?}");
}

#[test]
fn before_a_bundle_nothing_gets_by() {
    let directory = tempfile::TempDir::new().unwrap();
    let engine = Engine::builder().policies(directory.path()).watch(true).first_must_load(false).build().unwrap();
    let app = App::new(engine);
    let (status, body, _) = app.post("/good", &[("x-api-key", TOKEN)]);
    assert_eq!((status, code(&body).as_str()), (503, "no_bundle"));
}
