//! The library's client against a real server, and its credentials against an issuer.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::EntityUid;
use tollgate::client::{
    Amounts, Client, ClientCredentials, ClientError, CredentialError, CredentialSource, Credentials, DeviceLogin,
    Exchange, Grant, Issuer, OAuthError, Question, SignedIn,
};
use tollgate::model::SecretText;

use crate::authority::Authority;
use crate::issuer::FakeIssuer;
use crate::support::{Server, Setup, secret};

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

fn uid(text: &str) -> EntityUid {
    text.parse().unwrap()
}

fn question(model: &str) -> Question {
    Question::new(uid("User::\"alice\""), "chat", uid(&format!("Model::\"openai-main/{model}\"")))
}

const LIMITS: &str = "limits: [{ id: tokens, users: [alice], budget: { tokens: 10000, every: total } }]\n";

fn server() -> Server {
    Setup::new().file("limits.yaml", LIMITS).start()
}

fn used(client: &Client) -> (String, String) {
    let limits = run(client.get("/limits?principal=User::%22alice%22")).unwrap();
    let one = &limits["limits"][0];
    (one["used"].as_str().unwrap().to_owned(), one["held"].as_str().unwrap().to_owned())
}

#[test]
fn a_client_asks_holds_and_settles() {
    let server = server();
    let client = Client::builder(format!("http://{}", server.address)).build().unwrap();
    let answer = run(client.is_authorized(&question("gpt-4o"))).unwrap();
    assert!(answer.is_permit() && answer.code == "permitted", "{answer:?}");
    assert_eq!(answer.principal.unwrap().id, "alice");
    let answer = run(client.is_authorized(&question("gpt-4o-mini"))).unwrap();
    assert!(!answer.is_permit() && answer.code == "forbidden_by_rule");
    let answers = run(client.batch(&[question("gpt-4o"), question("gpt-4o-mini")])).unwrap();
    assert_eq!(answers.iter().map(|one| one.permit).collect::<Vec<_>>(), [true, false]);
    let models = [uid("Model::\"openai-main/gpt-4o-mini\""), uid("Model::\"openai-main/gpt-4o\"")];
    let answer = run(client.candidates(&question("gpt-4o"), &models)).unwrap();
    assert_eq!((answer.permitted.len(), answer.permitted[0].id.as_str()), (1, "openai-main/gpt-4o"));
    assert_eq!(answer.candidates[0].decision, "forbid");

    let held = run(client.reserve(&question("gpt-4o"), Amounts::tokens(900, 500))).unwrap().reservation.unwrap();
    assert_eq!(used(&client), ("0".to_owned(), "1400".to_owned()));
    run(client.extend(&held.id, Duration::from_secs(1800))).unwrap();
    let settled = run(client.settle(&held.id, Amounts::tokens(100, 20))).unwrap();
    assert_eq!(settled["state"], "settled");
    assert_eq!(run(client.settle(&held.id, Amounts::tokens(100, 20))).unwrap(), settled);
    assert_eq!(used(&client), ("120".to_owned(), "0".to_owned()));
    let held = run(client.reserve(&question("gpt-4o"), Amounts::tokens(10, 10))).unwrap().reservation.unwrap();
    assert_eq!(run(client.release(&held.id)).unwrap()["state"], "released");
    run(client.usage(&question("gpt-4o"), Amounts::tokens(3, 4))).unwrap();
    assert_eq!(used(&client), ("127".to_owned(), "0".to_owned()));
    let Err(ClientError::Refused { status, code, .. }) = run(client.settle("r-00", Amounts::default())) else {
        panic!()
    };
    assert!(status >= 400 && !code.is_empty());
    let Err(ClientError::Refused { status: 400, param, .. }) =
        run(client.is_authorized(&Question::new(uid("User::\"a\""), "fly", uid("Model::\"a/b\""))))
    else {
        panic!()
    };
    assert_eq!(param.as_deref(), Some("action"));
    for address in ["http://tollgate.example", "nowhere", "http://127.0.0.1:1/path"] {
        assert!(matches!(Client::builder(address).build(), Err(ClientError::Address(..))), "{address}");
    }
    // Many ask at once over the connections that are kept.
    run(async {
        let all: Vec<_> = (0..64)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.is_authorized(&question("gpt-4o")).await.unwrap().permit })
            })
            .collect();
        for one in all {
            assert!(one.await.unwrap());
        }
    });
}

#[test]
fn an_answer_that_gets_lost_is_asked_for_again_where_that_counts_once() {
    let flaky = FakeIssuer::start(|_, before| match before {
        0 => (503, json!({ "error": { "code": "unavailable", "message": "in a moment", "param": null } })),
        1 => (502, Value::Null),
        _ => (200, json!({ "decision": "permit", "code": "permitted", "message": "m", "principal": null })),
    });
    let client = Client::builder(&flaky.url).build().unwrap();
    assert!(run(client.reserve(&question("gpt-4o"), Amounts::default())).unwrap().permit);
    let asked = flaky.asked("/is_authorized");
    let key = |at: usize| serde_json::from_str::<Value>(&asked[at].body).unwrap()["idempotency_key"].clone();
    assert_eq!(asked.len(), 3);
    assert!(key(0).as_str().unwrap().len() == 32 && key(0) == key(1) && key(1) == key(2));
    let once = question("gpt-4o").reserving(Amounts::tokens(1, 1));
    let flaky = FakeIssuer::start(|_, _| (503, json!({ "error": { "code": "unavailable", "message": "m" } })));
    let client = Client::builder(&flaky.url).build().unwrap();
    let Err(ClientError::Refused { status: 503, .. }) = run(client.is_authorized(&once)) else { panic!() };
    assert_eq!(flaky.asked("/is_authorized").len(), 1);
    // What is neither a permit nor a forbid is nothing.
    for body in [json!({}), json!({ "decision": "Permit", "code": "", "message": "" }), json!([]), json!("permit")] {
        let other = FakeIssuer::start(move |_, _| (200, body.clone()));
        let client = Client::builder(&other.url).build().unwrap();
        assert!(matches!(run(client.is_authorized(&question("gpt-4o"))), Err(ClientError::NotTollgate(_))));
    }
}

#[test]
fn a_file_that_rotates_is_read_again() {
    let (first, second) =
        (secret("gateway-token-first-0123456789abcdef"), secret("gateway-token-second-0123456789abcdef"));
    let tokens = [&first, &second]
        .map(|token| format!("{{ token: {token}, principal: 'Service::\"gateway\"', roles: ['tollgate:gateway'] }}"));
    let config =
        format!("identity: {{ loopback: closed, providers: [{{ static: {{ tokens: [{}] }} }}] }}", tokens.join(", "));
    let server = Setup::new().config(&config).start();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("token");
    let client = Client::builder(format!("http://{}", server.address)).credentials(Credentials::file(&path));
    let client = client.build().unwrap();
    let ask = || run(client.is_authorized(&question("gpt-4o")));
    let refused = |error: Result<_, ClientError>| matches!(error, Err(ClientError::Refused { status: 401, .. }));
    assert!(matches!(ask(), Err(ClientError::Credential(CredentialError::File { .. }))));
    std::fs::write(&path, " \n").unwrap();
    assert!(matches!(ask(), Err(ClientError::Credential(CredentialError::Form))));
    std::fs::write(&path, format!("{first}\n")).unwrap();
    assert!(ask().unwrap().permit);
    std::fs::write(&path, "not-a-token-that-is-known").unwrap();
    assert!(refused(ask()));
    std::fs::write(&path, &second).unwrap();
    assert!(ask().unwrap().permit);
    let fixed = Client::builder(format!("http://{}", server.address));
    let fixed = fixed.credentials(Credentials::bearer(&SecretText::new(&first))).build().unwrap();
    assert!(run(fixed.is_authorized(&question("gpt-4o"))).unwrap().permit);
    let basic = Client::builder(format!("http://{}", server.address));
    let basic = basic.credentials(Credentials::basic("alice", &SecretText::new("wrong"))).build().unwrap();
    assert!(refused(run(basic.is_authorized(&question("gpt-4o")))));
}

#[test]
fn a_client_shows_its_certificate() {
    let (authority, temp) = (Authority::new("authority"), TempDir::new().unwrap());
    authority.server().write(temp.path(), "server");
    std::fs::write(temp.path().join("ca.pem"), &authority.pem).unwrap();
    let config = "tls: { certificate_file: server.pem, key_file: server.key, client_ca_file: ca.pem, client_certificates: required }
identity:
  loopback: closed
  providers:
  - client_certificate:
      mappings: [{ spiffe: 'spiffe://acme.example/gateway', principal: 'Service::\"gateway\"', roles: ['tollgate:gateway'] }]
";
    let server = Setup::new().config(config).start_in(temp);
    let at = |name: &str| server.temp.path().join(name);
    authority
        .vouch_for(&[crate::authority::uri("spiffe://acme.example/gateway")], |_| {})
        .write(server.temp.path(), "client");
    let url = format!("https://{}", server.address);
    let client = Client::builder(&url).authorities(at("ca.pem")).certificate(at("client.pem"), at("client.key"));
    let client = client.build().unwrap();
    assert!(run(client.is_authorized(&question("gpt-4o"))).unwrap().permit);
    let nameless = Client::builder(&url).authorities(at("ca.pem")).build().unwrap();
    assert!(matches!(run(nameless.is_authorized(&question("gpt-4o"))), Err(ClientError::NoAnswer(..))));
    assert!(Client::builder(&url).authorities(at("none.pem")).build().is_err());
}

fn token(number: usize, seconds: i64) -> Value {
    json!({ "access_token": secret(format!("access-token-{number}-0123456789")), "token_type": "Bearer", "expires_in": seconds,
            "refresh_token": secret(format!("refresh-token-{number}-0123456789")) })
}

fn shown(source: &impl CredentialSource) -> Result<String, CredentialError> {
    run(source.authorization(None)).map(|text| text.expose().to_owned())
}

#[test]
fn a_client_with_a_secret_gets_tokens_of_its_issuer() {
    let issuer = FakeIssuer::start(|asked, before| match asked.path.as_str() {
        "/token" => (200, token(before, if before == 0 { 0 } else { 3600 })),
        _ => (404, json!({})),
    });
    let client = ClientCredentials {
        issuer: issuer.url.clone(),
        client_id: "gate:way".to_owned(),
        client_secret: SecretText::new("s&cret"),
        scope: Some("a b".to_owned()),
        audience: Some("tollgate".to_owned()),
    };
    let source = Credentials::client_credentials(client.clone());
    assert_eq!(shown(&source).unwrap(), "Bearer access-token-0-0123456789");
    // The first has ended already; the second is kept.
    assert_eq!(shown(&source).unwrap(), "Bearer access-token-1-0123456789");
    assert_eq!(shown(&source).unwrap(), "Bearer access-token-1-0123456789");
    let asked = issuer.asked("/token");
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].form("grant_type").as_deref(), Some("client_credentials"));
    assert_eq!(
        (asked[0].form("scope").as_deref(), asked[0].form("audience").as_deref()),
        (Some("a%20b"), Some("tollgate"))
    );
    // `gate%3Away:s%26cret`
    assert!(asked[0].head.contains("Z2F0ZSUzQXdheTpzJTI2Y3JldA=="), "{}", asked[0].head);
    assert!(!format!("{client:?} {source:?}").contains("s&cret"));

    let fails = |issuer: String| {
        let source = Credentials::client_credentials(ClientCredentials { issuer, ..client.clone() });
        match shown(&source) {
            Err(CredentialError::OAuth(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(fails(format!("{}/", issuer.url)), OAuthError::Another(..)));
    assert!(matches!(fails("http://login.example".to_owned()), OAuthError::Address(_)));
    assert!(matches!(fails("http://127.0.0.1:1".to_owned()), OAuthError::NoAnswer(..)));
    let refusing =
        FakeIssuer::start(|_, _| (401, json!({ "error": "invalid_client", "error_description": "no\u{1b}[31m" })));
    let told = format!("{} refuses: invalid_client (no[31m)", refusing.url);
    assert_eq!(fails(refusing.url).to_string(), told);
    for answer in
        [json!({}), json!([]), json!({ "access_token": "x", "token_type": "DPoP" }), json!({ "token_type": "Bearer" })]
    {
        let odd = FakeIssuer::start(move |_, _| (200, answer.clone()));
        assert!(matches!(fails(odd.url), OAuthError::Form(_)));
    }
}

#[test]
fn a_key_is_exchanged_and_then_tokens_are() {
    let tollgate = FakeIssuer::start(|asked, before| {
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        match (asked.path.as_str(), body["grant_type"].as_str().unwrap()) {
            ("/v1/token", "refresh_token") if before == 2 => {
                (401, json!({ "error": { "code": "unauthenticated", "message": "it was used before", "param": null } }))
            }
            ("/v1/token", _) => (200, token(before, if before < 3 { 0 } else { 900 })),
            _ => (404, json!({})),
        }
    });
    let key = SecretText::new(secret("tg_key_0123456789"));
    let source = Credentials::exchange(Exchange::new(&tollgate.url, Grant::ApiKey(key)).unwrap());
    for number in [0, 1, 3, 3] {
        assert_eq!(shown(&source).unwrap(), format!("Bearer access-token-{number}-0123456789"));
    }
    let bodies: Vec<Value> =
        tollgate.asked("/v1/token").iter().map(|asked| serde_json::from_str(&asked.body).unwrap()).collect();
    assert_eq!(bodies[0], json!({ "grant_type": "api_key", "api_key": "tg_key_0123456789" }));
    assert_eq!(bodies[1], json!({ "grant_type": "refresh_token", "refresh_token": "refresh-token-0-0123456789" }));
    assert_eq!(bodies[2], json!({ "grant_type": "refresh_token", "refresh_token": "refresh-token-1-0123456789" }));
    assert_eq!(bodies[3], bodies[0]);
    assert_eq!(bodies.len(), 4);
}

/// What a server does not take is renewed once.
#[test]
fn a_token_that_is_refused_is_renewed_once() {
    let tollgate = FakeIssuer::start(|asked, before| match asked.path.as_str() {
        "/v1/token" => (200, token(before, 900)),
        _ if asked.head.contains("access-token-1-") => {
            (200, json!({ "decision": "permit", "code": "permitted", "message": "m", "principal": null }))
        }
        _ => (401, json!({ "error": { "code": "unauthenticated", "message": "revoked", "param": null } })),
    });
    let exchange = || {
        let (username, password) = ("alice".to_owned(), SecretText::new("pw"));
        Credentials::exchange(Exchange::new(&tollgate.url, Grant::Password { username, password }).unwrap())
    };
    let client = Client::builder(&tollgate.url).credentials(exchange()).build().unwrap();
    assert!(run(client.is_authorized(&question("gpt-4o"))).unwrap().permit);
    assert_eq!(tollgate.asked("/v1/token").len(), 2);
    // The next one's tokens are refused whatever it does.
    let client = Client::builder(&tollgate.url).credentials(exchange()).build().unwrap();
    assert!(run(client.is_authorized(&question("gpt-4o"))).is_err());
    assert_eq!(tollgate.asked("/v1/token").len(), 4);
}

#[test]
fn who_signed_in_stays_signed_in() {
    let issuer = FakeIssuer::start(|asked, before| match asked.path.as_str() {
        "/device" => (200, json!({ "device_code": "d", "user_code": "u", "verification_url": "v", "interval": 0 })),
        _ => (200, token(before, if before < 2 { 0 } else { 3600 })),
    });
    let source = run(async {
        let login = DeviceLogin::begin(Issuer::discover(&issuer.url).await.unwrap(), "cli", "openid").await.unwrap();
        assert_eq!((login.user_code.as_str(), login.verification_uri.as_str()), ("u", "v"));
        let tokens = login.wait().await.unwrap();
        Credentials::device(SignedIn::new(login, tokens))
    });
    for number in [0, 1, 2, 2] {
        assert_eq!(shown(&source).unwrap(), format!("Bearer access-token-{number}-0123456789"));
    }
    let refreshed: Vec<_> = issuer.asked("/token").iter().filter_map(|asked| asked.form("refresh_token")).collect();
    assert_eq!(refreshed, ["refresh-token-0-0123456789", "refresh-token-1-0123456789"]);
}
