//! Tollgate's own tokens: a credential is exchanged, tokens are good for a while, refresh tokens once.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tollgate::Timestamp;
use tollgate::edge::identity::tokens::{Lookups, TokenOptions, TokenProvider};
use tollgate::edge::store::TokenFile;
use tollgate::gate::{TokenStore, Tokens as _};
use tollgate::model::{AuthMethod, CredentialMark, Identity};

use crate::passwords::{HASH, PASSWORD, bundle};
use crate::redis::Redis;
use crate::support::{Answer, Client, Server, Setup, secret};
use crate::tokens::{Signer, now, set};

const DEV: &str = "dev-token-for-exchange-0123456789";

fn config(extra: &str) -> String {
    secret(DEV);
    format!(
        "identity:
  tokens: {{ {extra} }}
  providers:
    - static: {{ tokens: [{{ token: {DEV}, principal: 'User::\"alice\"', roles: ['tollgate:monitor'] }}] }}
    - jwt: {{ issuers: [{{ issuer: 'https://idp.example.com', audiences: [tollgate], jwks_file: keys.json,
        claims: {{ user: sub, teams: groups }} }}] }}
    - basic: {{}}
"
    )
}

fn start(extra: &str) -> (Server, Signer) {
    let signer = Signer::ed("one");
    let temp = tempfile::TempDir::new().unwrap();
    std::fs::write(temp.path().join("keys.json"), set([&signer])).unwrap();
    let server = Setup::new().file("bundle.yaml", &bundle()).config(&config(extra)).start_in(temp);
    server.until("the keys are read", |server| server.log().contains("1 in use"));
    (server, signer)
}

/// The proof of alice's password.
fn basic() -> String {
    secret(PASSWORD);
    secret(HASH);
    format!("Authorization: Basic {}", STANDARD.encode(format!("alice:{PASSWORD}")))
}

fn token(signer: &Signer, seconds: i64) -> String {
    let claims = json!({"iss": "https://idp.example.com", "aud": "tollgate", "sub": "bob", "groups": ["research"],
        "iat": now(), "exp": now() + seconds});
    signer.token(&claims)
}

fn exchange(client: &mut Client, headers: &[&str], body: &Value) -> Answer {
    let headers = [headers, &["Content-Type: application/json"]].concat();
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let answer = client.request("POST", "/v1/token", &headers, text.as_bytes());
    if answer.status == 200 {
        for name in ["access_token", "refresh_token"] {
            answer.json()[name].as_str().map(secret);
        }
    }
    answer
}

fn ask(client: &mut Client, token: &str) -> Value {
    let body = json!({"credential": {"bearer": token}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""});
    client.post("/is_authorized", &body.to_string()).json()
}

#[test]
fn a_token_proves_whoever_the_credential_proved() {
    let (server, _) = start("");
    let mut client = server.connect();
    let answer = exchange(&mut client, &[&basic()], &Value::Null);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.head.to_lowercase().contains("cache-control: no-store"), "{}", answer.head);
    let issued = answer.json();
    assert_eq!((issued["token_type"].as_str(), issued["expires_in"].as_i64()), (Some("Bearer"), Some(900)));
    let access = issued["access_token"].as_str().unwrap();
    let decided = ask(&mut client, access);
    assert_eq!(
        (decided["decision"].as_str(), decided["principal"]["id"].as_str()),
        (Some("permit"), Some("alice")),
        "{decided}"
    );
    // Its key is published, and the token names it.
    let published = server.get("/.well-known/jwks.json").json();
    let header = header(access);
    assert_eq!(published["keys"][0]["kid"], header["kid"]);
    assert_eq!(header["typ"], "at+jwt");
    assert!(published["keys"][0]["d"].is_null(), "a private key is published");
    // A changed one proves nobody.
    let parts: Vec<&str> = access.split('.').collect();
    let forged = format!("{}.{}.{}", parts[0], crate::tokens::b64(r#"{"iss":"tollgate","sub":"x"}"#), parts[2]);
    assert_eq!(ask(&mut client, &forged)["code"], "unauthenticated");
    // A refresh token is for /v1/token alone.
    let refresh = issued["refresh_token"].as_str().unwrap();
    assert_eq!(ask(&mut client, refresh)["code"], "unauthenticated");
}

#[test]
fn a_token_never_outlives_its_credential() {
    let (server, signer) = start("");
    let answer =
        exchange(&mut server.connect(), &[&format!("Authorization: Bearer {}", token(&signer, 120))], &Value::Null);
    let issued = answer.json();
    // The leeway of its issuer is part of how long the credential is good.
    assert!(issued["expires_in"].as_i64().unwrap() <= 130, "{issued}");
    // Its issuer may take it back, and nobody here would know.
    assert!(issued["refresh_token"].is_null() && issued["refresh_expires_in"].is_null(), "{issued}");
}

#[test]
fn a_fixed_token_gets_nothing_that_lasts() {
    let (server, _) = start("");
    let mut client = server.connect();
    let answer = exchange(&mut client, &[], &json!({"grant_type": "api_key", "api_key": DEV}));
    let issued = answer.json();
    assert_eq!((answer.status, issued["refresh_token"].is_null()), (200, true), "{}", answer.body);
    let decided = ask(&mut client, issued["access_token"].as_str().unwrap());
    assert_eq!(decided["principal"]["id"], "alice");
}

#[test]
fn a_refresh_token_that_is_used_twice_ends_its_family() {
    let (server, _) = start("");
    let mut client = server.connect();
    let header = basic();
    let first = exchange(&mut client, &[&header], &Value::Null).json();
    let another = exchange(&mut client, &[&header], &Value::Null).json();
    let refresh = |client: &mut Client, token: &Value| {
        exchange(client, &[], &json!({"grant_type": "refresh_token", "refresh_token": token}))
    };
    let second = refresh(&mut client, &first["refresh_token"]);
    assert_eq!(second.status, 200, "{}", second.body);
    let second = second.json();
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    assert_eq!(ask(&mut client, second["access_token"].as_str().unwrap())["decision"], "permit");
    // Whoever stole the first one, or was stolen from, uses it again.
    assert_eq!(refresh(&mut client, &first["refresh_token"]).status, 401);
    assert_eq!(refresh(&mut client, &second["refresh_token"]).status, 401);
    assert_eq!(ask(&mut client, second["access_token"].as_str().unwrap())["code"], "credential_revoked");
    // Others have nothing to do with it.
    assert_eq!(ask(&mut client, another["access_token"].as_str().unwrap())["decision"], "permit");
    assert_eq!(refresh(&mut client, &another["refresh_token"]).status, 200);
}

#[test]
fn what_was_handed_out_outlives_a_crash() {
    let (server, _) = start("");
    let mut client = server.connect();
    let header = basic();
    let first = exchange(&mut client, &[&header], &Value::Null).json();
    let stolen = exchange(&mut client, &[&header], &Value::Null).json();
    let refresh = |client: &mut Client, token: &Value| {
        exchange(client, &[], &json!({"grant_type": "refresh_token", "refresh_token": token}))
    };
    let used = refresh(&mut client, &stolen["refresh_token"]).json();
    assert_eq!(refresh(&mut client, &stolen["refresh_token"]).status, 401);
    let keys = server.get("/.well-known/jwks.json").body;
    let temp = server.crash();
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(temp.path().join("tollgate-data/tokens.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let server = Setup::new().file("bundle.yaml", &bundle()).config(&config("")).start_in(temp);
    let mut client = server.connect();
    assert_eq!(server.get("/.well-known/jwks.json").body, keys);
    assert_eq!(ask(&mut client, first["access_token"].as_str().unwrap())["decision"], "permit");
    assert_eq!(refresh(&mut client, &first["refresh_token"]).status, 200);
    assert_eq!(refresh(&mut client, &first["refresh_token"]).status, 401);
    // What was revoked before stays revoked.
    assert_eq!(ask(&mut client, used["access_token"].as_str().unwrap())["code"], "credential_revoked");
    assert_eq!(refresh(&mut client, &used["refresh_token"]).status, 401);
}

#[test]
fn keys_rotate_and_old_tokens_stay_good() {
    let (server, _) = start("rotate_seconds: 1");
    let mut client = server.connect();
    let header = basic();
    let first = exchange(&mut client, &[&header], &Value::Null).json();
    let keys = |server: &Server| server.get("/.well-known/jwks.json").json()["keys"].as_array().unwrap().len();
    server.until("another key signs", |server| {
        exchange(&mut server.connect(), &[&header], &Value::Null);
        keys(server) > 1
    });
    assert_eq!(ask(&mut client, first["access_token"].as_str().unwrap())["decision"], "permit");
}

fn header(token: &str) -> Value {
    use base64::Engine as _;
    let header = token.split('.').next().unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

/// The `kid` that a token names.
fn kid(token: &str) -> String {
    header(token)["kid"].as_str().unwrap().to_owned()
}

/// By a clock that is handed in: two nodes of one store, of which each may make the next key.
#[test]
fn a_key_is_published_before_it_signs_and_until_what_it_signed_has_ended() {
    let temp = tempfile::TempDir::new().unwrap();
    let store: Arc<dyn TokenStore> = Arc::new(TokenFile::open(temp.path()).unwrap());
    const MINUTE: i64 = 60_000;
    let options = TokenOptions {
        issuer: "tollgate".into(),
        access_ms: 15 * MINUTE,
        refresh_ms: 24 * 60 * MINUTE,
        rotate_ms: 60 * MINUTE,
    };
    let at = |minute: i64| Timestamp::from_millis(now() * 1000 + minute * MINUTE);
    let node = || TokenProvider::new(Arc::clone(&store), options.clone(), Lookups::default(), at(0));
    let nodes = [node(), node()];
    let files = vec![tollgate::SourceFile::new("bundle.yaml", crate::support::BUNDLE.as_bytes()).unwrap()];
    let engine = tollgate::Engine::builder().bundle(tollgate::Bundle::new(files)).build().unwrap();
    let snapshot = engine.snapshot().unwrap();
    let who = Arc::new(Identity {
        mark: Some(CredentialMark::of(b"what is kept")),
        ..Identity::new("User::\"alice\"".parse().unwrap(), AuthMethod::Basic)
    });
    let signs = |minute: i64| {
        let by = usize::try_from(minute).unwrap() % 2;
        let issued = nodes[by].issue(&who, &snapshot, at(minute)).unwrap();
        secret(issued.refresh.unwrap().0.expose());
        kid(&secret(issued.access.expose()))
    };
    let published = || {
        let told = nodes.each_ref().map(|node| serde_json::from_str::<Value>(&node.published()).unwrap());
        assert_eq!(told[0], told[1]);
        let kids = told[0]["keys"].as_array().unwrap().iter();
        kids.map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // The first one has no other to wait for.
    let first = signs(1);
    assert_eq!((published(), signs(59)), (vec![first.clone()], first.clone()));
    // Old enough: the next is published, and five minutes later it signs, on both.
    assert_eq!(signs(60), first);
    let second = published()[0].clone();
    assert_eq!(published(), [second.clone(), first.clone()]);
    assert_eq!([signs(61), signs(64)], [first.clone(), first.clone()]);
    assert_eq!([signs(65), signs(66)], [second.clone(), second.clone()]);
    // Nobody asked for a day: what signs until the next one does is not forgotten.
    assert_eq!(signs(24 * 60), second);
    let third = published()[0].clone();
    assert_eq!(published(), [third.clone(), second]);
    assert_eq!(signs(24 * 60 + 5), third);
    // With the next one those are forgotten whose tokens have ended.
    assert_eq!(signs(25 * 60), third);
    assert_eq!(published().len(), 2);
    // A clock that was set back makes no more keys.
    assert!([signs(0), signs(0)].iter().all(|kid| published().contains(kid)));
    assert_eq!(published().len(), 2);
}

#[test]
fn two_nodes_of_one_redis_take_each_others_tokens() {
    let Some(redis) = Redis::start() else { return };
    let temp = tempfile::TempDir::new().unwrap();
    let pepper = temp.path().join("pepper");
    std::fs::write(&pepper, secret("a-pepper-of-both-nodes-that-is-long-enough")).unwrap();
    let signer = Signer::ed("one");
    std::fs::write(temp.path().join("keys.json"), set([&signer])).unwrap();
    let start = |extra: &str| {
        let config = config(extra).replace("keys.json", temp.path().join("keys.json").to_str().unwrap());
        let config = format!("{config}    - keys: {{ max_stale_seconds: 5, first_key: none }}\n");
        let redis = format!("meters: {{ redis: {{ url: 'redis://127.0.0.1:{}', timeout_ms: 5000 }} }}\n", redis.port);
        let server = Setup::new().file("bundle.yaml", &bundle()).config(&format!("{redis}{config}")).start();
        server.until("the keys are read", |server| server.log().contains("1 in use"));
        server
    };
    let with_pepper = format!("pepper_file: {}", pepper.display());
    let servers = [start(&with_pepper), start(&with_pepper)];
    let mut clients = servers.each_ref().map(Server::connect);
    let published = |server: &Server| server.get("/.well-known/jwks.json").body;
    servers[1].until("both publish one set", |_| published(&servers[0]) == published(&servers[1]));
    assert_eq!(servers[0].get("/.well-known/jwks.json").json()["keys"].as_array().unwrap().len(), 1);
    let header = basic();
    let first = exchange(&mut clients[0], &[&header], &Value::Null).json();
    assert_eq!(ask(&mut clients[1], first["access_token"].as_str().unwrap())["decision"], "permit");
    let refresh = |client: &mut Client, token: &Value| {
        exchange(client, &[], &json!({"grant_type": "refresh_token", "refresh_token": token}))
    };
    let second = refresh(&mut clients[1], &first["refresh_token"]).json();
    assert_eq!(ask(&mut clients[0], second["access_token"].as_str().unwrap())["decision"], "permit");
    // A second use on any node ends the family on all.
    assert_eq!(refresh(&mut clients[0], &first["refresh_token"]).status, 401);
    let began = Instant::now();
    servers[1].until("the other node knows it", |_| {
        ask(&mut clients[1], second["access_token"].as_str().unwrap())["code"] == "credential_revoked"
    });
    println!("revoked on the other node after {:?}", began.elapsed());
    // Without the Redis nobody is handed a token, and after a while none is taken.
    let third = exchange(&mut clients[0], &[&header], &Value::Null).json();
    drop(redis);
    let answer = exchange(&mut clients[0], &[&header], &Value::Null);
    assert!(answer.is_error(503, "store_unavailable", ""), "{answer:?}");
    assert_eq!(refresh(&mut clients[1], &third["refresh_token"]).status, 503);
    servers[1].until("nothing is taken from memory any more", |_| {
        ask(&mut clients[1], third["access_token"].as_str().unwrap())["code"] == "provider_unavailable"
    });
    servers[1]
        .until("why is logged", |server| server.log().contains("refused a credential reason=provider_unavailable"));
    assert_eq!(published(&servers[0]), published(&servers[1]));
}

#[test]
fn tokens_in_a_redis_want_a_pepper() {
    let config = "meters: { redis: { url: 'redis://127.0.0.1:1' } }\nidentity: { tokens: {}, providers: [] }\n";
    let (code, told) = Setup::new().config(config).fail();
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("`identity.tokens` with a Redis wants a `pepper_file`"), "{told}");
}

#[test]
fn what_is_no_grant_is_told() {
    let (server, _) = start("");
    let mut client = server.connect();
    for (body, status, param) in [
        (json!({"grant_type": "client_credentials"}), 400, "grant_type"),
        (json!({"grant_type": "api_key"}), 400, "api_key"),
        (json!({"grant_type": "password", "username": "alice"}), 400, "password"),
        (json!({"grant_type": "refresh_token", "refresh_token": ""}), 400, "refresh_token"),
        (json!({"grant_type": "api_key", "api_key": 5}), 400, ""),
        (json!({"grant_type": "api_key", "api_key": DEV, "scope": "x"}), 400, ""),
        (json!([]), 400, ""),
    ] {
        let answer = exchange(&mut client, &[], &body);
        assert!(answer.is_error(status, "invalid_request", param), "{body}: {answer:?}");
    }
    for body in [
        json!({"grant_type": "api_key", "api_key": secret("nobody-knows-this-key-at-all")}),
        json!({"grant_type": "refresh_token", "refresh_token": secret("tgr_nobody-knows-this-one-at-all")}),
        json!({"grant_type": "refresh_token", "refresh_token": secret("no-refresh-token-at-all")}),
        json!({}),
    ] {
        assert_eq!(exchange(&mut client, &[], &body).status, 401, "{body}");
    }
    let header = format!("Authorization: Bearer {DEV}");
    let both = exchange(&mut client, &[&header], &json!({"grant_type": "api_key", "api_key": DEV}));
    assert!(both.is_error(400, "invalid_request", ""), "{both:?}");
    let form = |client: &mut Client, text: &str| {
        client
            .request("POST", "/v1/token", &["Content-Type: application/x-www-form-urlencoded"], text.as_bytes())
            .status
    };
    assert_eq!(form(&mut client, &format!("grant_type=api_key&api_key={DEV}")), 200);
    assert_eq!(form(&mut client, "grant_type=api_key&api_key=a&api_key=b"), 400);
    let plain = client.request("POST", "/v1/token", &["Content-Type: text/plain"], b"{}");
    assert_eq!(plain.status, 400);
}

/// A token of a key is as good on another node as the key, at once: both ask the Redis before they call it gone.
#[test]
fn a_key_that_another_node_made_a_moment_ago_has_tokens_here_too() {
    let Some(redis) = Redis::start() else { return };
    let temp = tempfile::TempDir::new().unwrap();
    let pepper = temp.path().join("pepper");
    std::fs::write(&pepper, secret("a-pepper-of-both-nodes-that-is-long-enough")).unwrap();
    let start = || {
        let redis = format!("meters: {{ redis: {{ url: 'redis://127.0.0.1:{}', timeout_ms: 5000 }} }}\n", redis.port);
        let keys = format!("{{ keys: {{ pepper_file: {}, first_key: none }} }}", pepper.display());
        let master = format!(
            "{{ static: {{ tokens: [{{ token: {DEV}, principal: 'Service::\"ops\"', roles: ['tollgate:administrator'] }}] }} }}"
        );
        secret(DEV);
        let config = format!("{redis}identity: {{ providers: [{master}, {keys}] }}\n");
        Setup::new().file("bundle.yaml", &bundle()).config(&config).start()
    };
    let servers = [start(), start()];
    let mut clients = servers.each_ref().map(Server::connect);
    let published = |server: &Server| server.get("/.well-known/jwks.json").body;
    servers[1].until("both publish one set", |_| published(&servers[0]) == published(&servers[1]));
    let (master, json_body) = (format!("Authorization: Bearer {DEV}"), "Content-Type: application/json");
    let of_key = |client: &mut Client, path: &str, body: Value| {
        let answer = client.request("POST", path, &[&master, json_body], body.to_string().as_bytes()).json();
        secret(answer["key"].as_str().unwrap());
        answer
    };
    for _ in 0..5 {
        let made = of_key(&mut clients[0], "/v1/keys", json!({"owner": "User::\"alice\""}));
        let rotate = format!("/v1/keys/{}/rotate", made["id"].as_str().unwrap());
        for rotated in [false, true] {
            let key =
                if rotated { of_key(&mut clients[0], &rotate, json!({"grace_seconds": 0})) } else { made.clone() };
            let header = format!("Authorization: Bearer {}", key["key"].as_str().unwrap());
            let issued = exchange(&mut clients[0], &[&header], &Value::Null).json();
            let decided = ask(&mut clients[1], issued["access_token"].as_str().unwrap());
            assert_eq!(decided["decision"], "permit", "rotated: {rotated}: {decided}");
        }
        // And it can be refreshed there.
        let made = of_key(&mut clients[0], "/v1/keys", json!({"owner": "User::\"alice\""}));
        let header = format!("Authorization: Bearer {}", made["key"].as_str().unwrap());
        let issued = exchange(&mut clients[0], &[&header], &Value::Null).json();
        let refresh = json!({"grant_type": "refresh_token", "refresh_token": issued["refresh_token"]});
        let answer = exchange(&mut clients[1], &[], &refresh);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

/// Keys can be exchanged as they are made: without a word in the configuration.
#[test]
fn a_server_with_keys_hands_out_tokens_unless_told_otherwise() {
    let status = |config: &str| {
        let setup = Setup::new();
        let server = if config.is_empty() { setup.start() } else { setup.config(config).start() };
        let published = server.get("/.well-known/jwks.json").status;
        (exchange(&mut server.connect(), &[], &Value::Null).status, published)
    };
    assert_eq!(status(""), (401, 200));
    for none in ["tokens: { enabled: false }", "providers: [{ basic: {} }]", "providers: []"] {
        assert_eq!(status(&format!("identity: {{ {none} }}\n")), (404, 404), "{none}");
    }
    // Nothing seals the key that would sign.
    let Some(redis) = Redis::start() else { return };
    let redis = format!("meters: {{ redis: {{ url: 'redis://127.0.0.1:{}', timeout_ms: 5000 }} }}\n", redis.port);
    assert_eq!(status(&redis), (404, 404));
}

#[test]
fn a_second_process_on_a_directory_of_tokens_is_refused() {
    let temp = tempfile::TempDir::new().unwrap();
    // Nothing else of these keeps a second process out.
    let setup = || {
        let data = temp.path().join("data").to_str().unwrap().to_owned();
        let config = "meters: { in_memory: true }\nidentity: { tokens: {}, providers: [] }\n";
        Setup::new().config(config).argument("--data").argument(&data)
    };
    let one = setup().start();
    let (code, told) = setup().fail();
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("the file of tokens is in use by another process"), "{told}");
    assert!(told.contains("tokens.lock"), "{told}");
    // Whoever ended holds it no longer, however it ended.
    drop(one.crash());
    drop(setup().start());
}
