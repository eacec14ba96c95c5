//! Credentials in a question, and callers that have to prove themselves.

use crate::support::{Client, Setup, secret};

const TOKEN: &str = "dev-token-0123456789abcdef";
const GATEWAY: &str = "gateway-token-0123456789abcdef-01";

fn setup() -> Setup {
    secret(TOKEN);
    secret(GATEWAY);
    Setup::new().config(&format!(
        "identity:
  loopback: closed
  providers:
    - static:
        tokens:
          - {{ token: {TOKEN}, principal: 'User::\"alice\"' }}
          - {{ token: {GATEWAY}, principal: 'Service::\"gateway\"', roles: ['tollgate:gateway'] }}
"
    ))
}

fn question(credential: &str) -> String {
    format!(r#"{{"credential": {credential}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""}}"#)
}

#[test]
fn a_credential_says_who_asks() {
    let server = setup().config("").variable(
        "TOLLGATE_IDENTITY",
        &format!("providers: [{{ static: {{ tokens: [{{ token: {TOKEN}, principal: 'User::\"alice\"' }}] }} }}]"),
    );
    let server = server.start();
    let mut client = Client::connect(server.address);
    for credential in [format!(r#"{{"bearer": "{TOKEN}"}}"#), format!(r#"{{"api_key": "{TOKEN}"}}"#)] {
        let answer = client.post("/is_authorized", &question(&credential));
        assert_eq!((answer.status, answer.json()["decision"].as_str()), (200, Some("permit")), "{}", answer.body);
        assert_eq!(answer.json()["principal"]["id"], "alice");
    }
    let another = format!(r#"{{"bearer": "{}"}}"#, secret("another-token-0123456789"));
    let answer = client.post("/is_authorized", &question(&another));
    assert_eq!((answer.status, answer.json()["code"].as_str()), (200, Some("unauthenticated")), "{}", answer.body);
    assert!(answer.json()["principal"].is_null());
    let answer = client.post("/is_authorized?status=map", &question(&another));
    assert_eq!(answer.status, 401);
}

#[test]
fn a_caller_proves_itself_where_the_server_is_closed() {
    let server = setup().start();
    let mut client = Client::connect(server.address);
    let mut ask = |headers: &[&str]| {
        let headers = [&["Content-Type: application/json"], headers].concat();
        let question =
            r#"{"principal": "User::\"bob\"", "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""}"#;
        let answer = client.request("POST", "/is_authorized", &headers, question.as_bytes());
        (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let (bearer, other) = (format!("Authorization: Bearer {GATEWAY}"), format!("Authorization: Bearer {TOKEN}"));
    let key = format!("X-Api-Key: {GATEWAY}");
    assert_eq!(ask(&[]), (401, "unauthenticated".to_owned()));
    assert_eq!(ask(&["Authorization: Bearer nobody-knows-this-one"]), (401, "unauthenticated".to_owned()));
    assert_eq!(ask(&[&*other]), (403, "forbidden".to_owned()));
    assert_eq!(ask(&[&*bearer]), (200, String::new()));
    assert_eq!(ask(&[&*key]), (200, String::new()));
    assert_eq!(ask(&[&*bearer, &*key]), (400, "invalid_request".to_owned()));
    assert_eq!(ask(&[&*key, &*key]), (400, "invalid_request".to_owned()));
}

/// Headers of other gateways hold keys too, some of them behind the `Bearer` that their clients put there.
#[test]
fn a_header_of_another_gateway_holds_a_key() {
    let server = setup().config(&format!(
        "identity:
  key_headers: [x-litellm-api-key, cf-aig-authorization]
  loopback: closed
  providers:
    - static: {{ tokens: [{{ token: {GATEWAY}, principal: 'Service::\"g\"', roles: ['tollgate:gateway'] }}] }}
"
    ));
    let server = server.start();
    let mut client = server.connect();
    for (header, status) in [
        (format!("x-litellm-api-key: {GATEWAY}"), 200),
        (format!("X-LiteLLM-API-Key: Bearer {GATEWAY}"), 200),
        (format!("cf-aig-authorization: bearer   {GATEWAY}"), 200),
        (format!("x-api-key: {GATEWAY}"), 401),
        (format!("x-litellm-api-key: Basic {GATEWAY}"), 401),
        ("x-litellm-api-key: Bearer ".to_owned(), 401),
    ] {
        let answer = client.request("GET", "/metrics", &[&header], b"");
        assert_eq!(answer.status, status, "{header}: {}", answer.body);
    }
}
