//! The log of a library user: off unless asked for; then each decision of the engine and of the layer is recorded.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderValue, Request as HttpRequest, StatusCode};
use axum::{Router, routing::any};
use tollgate::edge::clock::SystemClock;
use tollgate::edge::decision_log::{DecisionLogOptions, Destination, Level, Recorder};
use tollgate::edge::identity::{StaticProvider, StaticSecret};
use tollgate::gate::{Credential, DecisionLog, DecisionLogStatus, DecisionRecord, Presented, Reserve};
use tollgate::model::{Identity, SecretText};
use tollgate::{
    AuthorizeLayer, Bundle, CandidatesRequest, Engine, EngineBuilder, EntityUid, Request, RouteMap, SourceFile,
};
use tower_service::Service;

use crate::support::secret;
use crate::{decisions, log};

const TOKEN: &str = "library-token-0123456789abcdef-012";

/// Keeps what records say, in a line.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl DecisionLog for Told {
    fn record(&self, record: &DecisionRecord<'_>) {
        let line = format!("{} {} {}", record.via.as_str(), record.outcome().as_str(), record.code().as_str());
        self.0.lock().unwrap().push(line);
    }

    fn status(&self) -> DecisionLogStatus {
        DecisionLogStatus::default()
    }
}

fn builder() -> EngineBuilder {
    let rules = "users: [{ id: alice }]\nauthz_rules: [{ users: [alice], models: [m/good] }]\n\
                 limits: [{ id: l, users: [alice], budget: { tokens: 10, every: total } }]\n";
    let principal = uid("User", "alice");
    let token = StaticSecret { token: SecretText::new(secret(TOKEN)), principal, roles: Vec::new() };
    Engine::builder()
        .bundle(Bundle::new(vec![SourceFile::new("rules.yaml", rules.as_bytes()).unwrap()]))
        .authenticator(Arc::new(StaticProvider::new(vec![token]).unwrap()))
}

fn uid(kind: &str, id: &str) -> EntityUid {
    EntityUid::new(kind, id).unwrap()
}

fn ask_everything(engine: &Engine) {
    let good = Request::new(uid("User", "alice"), "chat", uid("Model", "m/good"));
    engine.is_authorized(&good).unwrap();
    engine.is_authorized(&Request::new(uid("User", "zoe"), "chat", uid("Model", "m/good"))).unwrap();
    let presented = Presented::new(Credential::Bearer(SecretText::new(TOKEN)));
    let ask = |identity: Arc<Identity>| Request::proved(identity, "chat", uid("Model", "m/bad"));
    engine.authorize(&presented, ask).unwrap();
    let list = CandidatesRequest {
        principal: uid("User", "alice"),
        identity: None,
        action: "chat".into(),
        router: None,
        candidates: vec![uid("Model", "m/bad"), uid("Model", "m/good")],
        context: Default::default(),
    };
    engine.candidates(&list).unwrap();
    let reserve = Reserve { input_tokens: Some(1), output_tokens: Some(1), ..Reserve::default() };
    engine.reserve(&good, reserve).unwrap();
}

async fn ask_layer(engine: Engine) {
    let map = RouteMap::empty().on("POST", "/good", "chat", uid("Model", "m/good")).on(
        "POST",
        "/bad",
        "chat",
        uid("Model", "m/bad"),
    );
    let mut router: Router =
        Router::new().fallback(any(|| async { "reached" })).layer(AuthorizeLayer::new(engine, map));
    for (path, token, status) in [
        ("/good", TOKEN, StatusCode::OK),
        ("/bad", TOKEN, StatusCode::FORBIDDEN),
        ("/good", "nobodys", StatusCode::UNAUTHORIZED),
    ] {
        let mut request = HttpRequest::post(path).body(Body::empty()).unwrap();
        request.headers_mut().insert("authorization", HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        assert_eq!(router.call(request).await.unwrap().status(), status, "{path}");
    }
}

#[test]
fn every_way_to_a_decision_is_recorded_once() {
    let told: Arc<Told> = Arc::default();
    let engine = builder().decision_log(Arc::clone(&told) as Arc<dyn DecisionLog>).build().unwrap();
    ask_everything(&engine);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(ask_layer(engine));
    assert_eq!(
        *told.0.lock().unwrap(),
        [
            "library permit permitted",
            "library forbid no_rule_permits",
            "library forbid no_rule_permits",
            "library permit permitted",
            "library permit permitted",
            "layer permit permitted",
            "layer forbid no_rule_permits",
            "layer forbid unauthenticated",
        ]
    );
}

#[test]
fn a_library_has_no_log_unless_it_asks_for_one() {
    let engine = builder().build().unwrap();
    ask_everything(&engine);
    assert_eq!(engine.decision_log_status(), None);
}

#[test]
fn a_library_may_use_the_log_of_the_server() {
    let temp = tempfile::TempDir::new().unwrap();
    let options =
        DecisionLogOptions { level: Level::All, ..DecisionLogOptions::new(Destination::Folder(temp.path().into())) };
    let recorder = Recorder::open(options, Arc::new(SystemClock)).unwrap();
    let engine = builder().decision_log(Arc::new(recorder)).build().unwrap();
    ask_everything(&engine);
    // What waits is written when the last engine goes.
    drop(engine);
    assert_eq!(decisions(temp.path()).len(), 5);
    let (code, told) = log(temp.path(), &["verify"]);
    assert_eq!(code, 0, "{told}");
}
