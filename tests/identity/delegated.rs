//! Somebody else's endpoint: what it answers, and what is made of that; and Tollgate as that endpoint.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::{Answer, Client, Server, Setup, secret};

const GATEWAY: &str = "gateway-token-0123456789abcdef-0123";
const KEY: &str = "somebody-elses-key-0123456789";

/// An endpoint that answers what it is told, and keeps what it was asked.
struct Endpoint {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Endpoint {
    /// Answers each request by `answer` of its body: bytes as they are sent.
    fn start(answer: impl Fn(&Value) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let (kept, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    let (mut head, mut length) = (String::new(), 0);
                    loop {
                        let mut line = String::new();
                        if stream.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        if line == "\r\n" {
                            break;
                        }
                        if let Some(told) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = told.trim().parse().unwrap();
                        }
                        head.push_str(&line);
                    }
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).unwrap();
                    let body: Value = serde_json::from_slice(&body).unwrap();
                    kept.lock().unwrap().push((head, body.clone()));
                    let told = answer(&body);
                    let _ = stream.get_mut().write_all(&told);
                    // One that tells nothing is one that never ends.
                    if told.is_empty() || told.ends_with(b"endless") {
                        while stream.get_mut().write_all(&[b'x'; 1024]).is_ok() && !told.is_empty() {}
                        std::thread::park();
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }

    fn server(&self, more: &str) -> Server {
        secret(KEY);
        let config = format!(
            "identity:
  failures: {{ enabled: false }}
  providers:
    - delegated: {{ url: 'http://{}/validate'{more} }}
",
            self.address
        );
        Setup::new().config(&config).start()
    }
}

fn reply(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn yes(body: &str) -> Vec<u8> {
    reply("200 OK", "application/json", body)
}

fn ask(client: &mut Client, key: &str) -> Answer {
    secret(key);
    let question = format!(
        r#"{{"credential": {{"bearer": "{key}"}}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\"",
            "context": {{"path": "/v1/chat/completions", "method": "POST"}}}}"#
    );
    client.post("/is_authorized", &question)
}

#[test]
fn a_yes_says_who_asks_and_is_remembered_for_that_credential_alone() {
    let endpoint = Endpoint::start(|body| match body["api_key"].as_str() {
        Some(KEY) => yes(r#"{"principal": "alice", "attributes": {"roles": ["dev"]}}"#),
        _ => reply("401 Unauthorized", "application/json", "{}"),
    });
    let server = endpoint.server("");
    let mut client = server.connect();
    for _ in 0..3 {
        let answer = ask(&mut client, KEY);
        assert_eq!((answer.status, answer.json()["decision"].as_str()), (200, Some("permit")), "{}", answer.body);
        assert_eq!(answer.json()["principal"]["id"], "alice");
    }
    let asked = endpoint.asked();
    assert_eq!(asked.len(), 1, "a yes is remembered");
    let (head, body) = &asked[0];
    assert!(head.starts_with("POST /validate HTTP/1.1"), "{head}");
    assert_eq!(body["request"]["path"], "/v1/chat/completions");
    assert!(!head.contains(KEY), "{head}");
    for other in ["somebody-elses-key-012345678", "somebody-elses-key-01234567890", "Somebody-elses-key-0123456789"] {
        assert_eq!(ask(&mut client, other).json()["code"], "unauthenticated", "{other}");
    }
    // The same credential with another request is asked about anew.
    let question = format!(
        r#"{{"credential": {{"bearer": "{KEY}"}}, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\"",
            "context": {{"path": "/v1/embeddings"}}}}"#
    );
    assert_eq!(client.post("/is_authorized", &question).json()["decision"], "permit");
    assert_eq!(endpoint.asked().len(), 5);
}

/// What is no plain yes proves nobody. A no of the endpoint is one about the credential; where the endpoint is away, or
/// answers what nobody can read, nobody can say.
#[test]
fn everything_but_a_plain_yes_refuses() {
    let huge = format!("{{\"principal\": \"alice\", \"x\": \"{}\"}}", "x".repeat(70_000));
    let header = format!("200 OK\r\nX-Huge: {}", "x".repeat(600_000));
    let many: Vec<String> = (0..1001).map(|number| format!("\"t{number}\"")).collect();
    let many = format!(r#"{{"principal": "alice", "attributes": {{"teams": [{}]}}}}"#, many.join(","));
    let alice = r#"{"principal": "alice"}"#;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("401", reply("401 Unauthorized", "application/json", alice)),
        ("403", reply("403 Forbidden", "application/json", alice)),
        ("201", reply("201 Created", "application/json", alice)),
        ("202", reply("202 Accepted", "application/json", alice)),
        ("204", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        ("206", reply("206 Partial Content", "application/json", alice)),
        ("a redirect", reply("302 Found\r\nLocation: http://127.0.0.1:1/", "application/json", alice)),
        ("a redirect that keeps the method", reply("307 Temporary\r\nLocation: /yes", "application/json", alice)),
        ("404", reply("404 Not Found", "application/json", alice)),
        ("500", reply("500 Oops", "application/json", alice)),
        ("503", reply("503 Away", "application/json", alice)),
        ("HTML", reply("200 OK", "text/html", "<html>sign in</html>")),
        ("HTML that says it is JSON", yes("<html>sign in</html>")),
        ("JSON that says it is HTML", reply("200 OK", "text/html", alice)),
        ("a bare 200 where nobody is configured", reply("200 OK", "application/json", "")),
        ("an object without a principal", yes("{}")),
        ("a list", yes("[\"alice\"]")),
        ("null", yes("null")),
        ("a principal twice", yes(r#"{"principal": "alice", "principal": "bob"}"#)),
        ("a principal that is null", yes(r#"{"principal": null}"#)),
        ("a number", yes(r#"{"principal": 7}"#)),
        ("an object as principal", yes(r#"{"principal": {"type": "User", "id": "alice"}}"#)),
        ("an empty principal", yes(r#"{"principal": ""}"#)),
        ("a line break in it", yes(r#"{"principal": "alice\nbob"}"#)),
        ("a team as principal", yes(r#"{"principal": "Team::\"research\""}"#)),
        ("a key as principal", yes(r#"{"principal": "ApiKey::\"ci\""}"#)),
        ("half a uid", yes(r#"{"principal": "User::alice"}"#)),
        ("attributes that are a list", yes(r#"{"principal": "alice", "attributes": []}"#)),
        ("a number as team", yes(r#"{"principal": "alice", "attributes": {"teams": [7]}}"#)),
        ("lists of lists", yes(r#"{"principal": "alice", "attributes": {"teams": [["research"]]}}"#)),
        ("a thousand teams", yes(&many)),
        ("a body that is too long", yes(&huge)),
        ("headers that are too long", reply(&header, "application/json", alice)),
        (
            "a body cut short",
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{".to_vec(),
        ),
        ("no HTTP", b"hello\r\n\r\n".to_vec()),
        ("an endless body", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\nendless".to_vec()),
        ("silence", Vec::new()),
    ];
    let noes = [
        "401",
        "403",
        "a bare 200 where nobody is configured",
        "an object without a principal",
        "a principal that is null",
    ];
    let count = cases.len();
    let answers: Vec<Vec<u8>> = cases.iter().map(|(_, answer)| answer.clone()).collect();
    let endpoint = Endpoint::start(move |body| {
        let key = body["api_key"].as_str().unwrap();
        answers[key.rsplit('-').next().unwrap().parse::<usize>().unwrap()].clone()
    });
    let server = endpoint.server(", timeout_ms: 5000");
    for (number, (what, _)) in cases.iter().enumerate() {
        let answer = ask(&mut server.connect(), &format!("secret-of-case-{number}"));
        let code = if noes.contains(what) { "unauthenticated" } else { "provider_unavailable" };
        assert_eq!((answer.status, answer.json()["code"].as_str()), (200, Some(code)), "{what}: {}", answer.body);
        assert!(answer.json()["principal"].is_null(), "{what}");
    }
    assert!(count >= 15);
    server.until("each was asked about", |_| endpoint.asked().len() >= count);
}

#[test]
fn attributes_join_what_the_bundle_says_and_give_no_role_of_tollgates_own() {
    let endpoint = Endpoint::start(|body| match body["api_key"].as_str() {
        Some("secret-of-a-stranger") => yes(
            r#"{"principal": "zoe", "attributes": {"teams": "research", "roles": ["tollgate:administrator", "dev"]}}"#,
        ),
        Some("secret-of-a-service") => {
            yes(r#"{"principal": "Service::\"bot\"", "attributes": {"teams": ["nowhere"]}}"#)
        }
        _ => yes(r#"{"principal": "ian"}"#),
    });
    let server = endpoint.server("");
    let mut client = server.connect();
    let answer = ask(&mut client, "secret-of-a-stranger");
    assert_eq!(answer.json()["decision"], "permit", "a team of the bundle: {}", answer.body);
    assert_eq!(ask(&mut client, "secret-of-a-service").json()["principal"]["type"], "Service");
    assert_eq!(ask(&mut client, "secret-of-a-disabled").json()["code"], "principal_disabled");
    let body = format!(r#"{{"api_key": "{}", "request": {{"path": "/x"}}}}"#, secret("secret-of-a-stranger"));
    let answer = client.post("/v1/auth/validate", &body);
    assert_eq!(answer.json()["attributes"]["roles"], serde_json::json!(["dev"]), "{}", answer.body);
}

#[test]
fn a_bare_yes_proves_whom_the_configuration_names_and_an_endpoint_that_is_away_may_be_passed() {
    let endpoint = Endpoint::start(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec());
    let server = endpoint.server(", nameless: 'User::\"alice\"'");
    assert_eq!(ask(&mut server.connect(), KEY).json()["principal"]["id"], "alice");
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "identity:
  providers:
    - {{ on_error: pass, delegated: {{ url: 'http://{gone}/' }} }}
    - static: {{ tokens: [{{ token: {KEY}, principal: 'User::\"alice\"' }}] }}
"
    );
    let server = Setup::new().config(&config).start();
    assert_eq!(ask(&mut server.connect(), KEY).json()["principal"]["id"], "alice");
    let server = Setup::new().config(&config.replace("on_error: pass, ", "")).start();
    assert_eq!(ask(&mut server.connect(), KEY).json()["code"], "provider_unavailable");
}

/// An endpoint names whomever it likes. The roles of this server are the operator's to give, to people who prove themselves
/// to this server: it gives them by no attribute, and by no name of somebody who has them.
#[test]
fn whomever_an_endpoint_names_has_no_role_of_tollgates_own() {
    let bundle = r#"
teams: [{ id: admins }]
users: [{ id: root, roles: ["tollgate:administrator", dev] }, { id: ann, team: admins, roles: ["tollgate:monitor"] }]
services: [{ id: gateway, roles: ["tollgate:gateway"] }]
authz_rules:
  - { id: any, users: "*", models: [m/any] }
  - { id: any-service, services: "*", models: [m/any] }
  - { id: dev, roles: [dev], models: [m/dev] }
  - { id: staff, teams: [admins], models: [m/staff] }
  - { id: ours, roles: ["tollgate:administrator", "tollgate:gateway"], models: [m/ours] }
  - { id: condition, users: "*", models: [m/condition], when: 'principal.roles.contains("tollgate:administrator")' }
"#;
    let names = [
        r#"{"principal": "root"}"#,
        r#"{"principal": "User::\"root\"", "attributes": {"roles": ["tollgate:administrator"]}}"#,
        r#"{"principal": "ann"}"#,
        r#"{"principal": "zoe", "attributes": {"teams": ["admins"]}}"#,
        r#"{"principal": "Service::\"gateway\"", "attributes": {"tags": ["x"]}}"#,
    ];
    let endpoint = Endpoint::start(move |body| {
        let key = body["api_key"].as_str().unwrap();
        match key.strip_prefix("secret-of-one-named-").and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => yes(names[number]),
            None => yes(r#"{"principal": "Service::\"tollgate:administrator\""}"#),
        }
    });
    let config = format!(
        "identity:
  failures: {{ enabled: false }}
  loopback: closed
  providers:
    - keys: {{ unknown_owners: allow }}
    - static: {{ tokens: [{{ token: {GATEWAY}, principal: 'Service::\"asks\"', roles: ['tollgate:gateway'] }}] }}
    - delegated: {{ url: 'http://{}/validate' }}
",
        endpoint.address
    );
    secret(GATEWAY);
    let server = Setup::without_files().file("bundle.yaml", bundle).config(&config).start();
    let mut client = server.connect();
    let gateway = format!("Authorization: Bearer {GATEWAY}");
    let json = "Content-Type: application/json";
    for (number, name) in names.iter().enumerate() {
        let key = secret(format!("secret-of-one-named-{number}"));
        let mut code = |model: &str| {
            let question = serde_json::json!({"credential": {"bearer": key}, "action": "chat", "resource": format!("Model::\"{model}\"")});
            client.request("POST", "/is_authorized", &[&gateway, json], question.to_string().as_bytes()).json()["code"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let has = |yes: bool| if yes { "permitted" } else { "no_rule_permits" };
        assert_eq!(code("m/any"), "permitted", "{}", name);
        assert_eq!(code("m/dev"), has(number <= 1), "a role of the company's stays: {}", name);
        assert_eq!(code("m/staff"), has(number == 2 || number == 3), "{}", name);
        for ours in ["m/ours", "m/condition"] {
            assert_eq!(code(ours), "no_rule_permits", "{ours}: {}", name);
        }
        // As a caller of the server itself.
        let own = format!("Authorization: Bearer {key}");
        for (method, path) in [("GET", "/metrics"), ("GET", "/bundle"), ("POST", "/bundle/reload")] {
            let answer = client.request(method, path, &[&own], b"");
            assert_eq!(answer.status, 403, "{path}: {name} {}", answer.body);
        }
        // Nor by a key of the one whom the endpoint names.
        let ends_at = tollgate::model::Timestamp::from_millis((crate::tokens::now() + 86_400) * 1000);
        let ends = serde_json::json!({"expires_at": ends_at.to_string()}).to_string();
        let made = client.request("POST", "/v1/keys", &[&own, json], ends.as_bytes());
        assert_eq!(made.status == 201, number == 3, "zoe alone has none of these roles: {name}: {}", made.body);
        if number == 3 {
            secret(made.json()["key"].as_str().unwrap());
        }
        let made = client.request("POST", "/v1/keys", &[&own, json], br#"{"owner": "User::\"root\""}"#);
        assert_eq!(made.status, 403, "{name}: {}", made.body);
    }
    // Nobody is one of Tollgate's own.
    let question =
        r#"{"credential": {"bearer": "secret-of-no-number"}, "action": "chat", "resource": "Model::\"m/any\""}"#;
    let answer = client.request("POST", "/is_authorized", &[&gateway, json], question.as_bytes()).json();
    assert_eq!(answer["code"], "unauthenticated", "{answer}");
}

/// What names nothing among the attributes is none, and locks nobody out.
#[test]
fn an_attribute_that_can_name_nothing_is_none() {
    let long = "x".repeat(2000);
    let yes_to = format!(
        r#"{{"principal": "zoe", "attributes": {{"teams": ["research", "", "PS\u200bEmeriti", "{long}"], "roles": "", "tags": [""]}}}}"#
    );
    let endpoint = Endpoint::start(move |_| yes(&yes_to));
    let server = endpoint.server("");
    assert_eq!(ask(&mut server.connect(), KEY).json()["decision"], "permit");
}

/// Only an answer that says nothing says yes without a name.
#[test]
fn an_answer_that_says_something_and_names_nobody_is_no_bare_yes() {
    let answers = [
        (r#"{}"#, true),
        (r#" { } "#, true),
        (r#"{"allowed": false}"#, false),
        (r#"{"error": "unknown key"}"#, false),
        (r#"{"attributes": {"teams": ["research"]}}"#, false),
        (r#"{"Principal": "bob"}"#, false),
        (r#"[]"#, false),
        (r#"null"#, false),
        (r#"false"#, false),
        (r#""""#, false),
    ];
    let endpoint = Endpoint::start(move |body| {
        let key = body["api_key"].as_str().unwrap();
        yes(answers[key.rsplit('-').next().unwrap().parse::<usize>().unwrap()].0)
    });
    let server = endpoint.server(", nameless: 'User::\"alice\"'");
    for (number, (answer, is_yes)) in answers.iter().enumerate() {
        let told = ask(&mut server.connect(), &format!("secret-of-bare-case-{number}")).json();
        assert_eq!(told["decision"] == "permit", *is_yes, "{answer}: {told}");
    }
}

/// What only this server can know is not shown to others; keys of another Tollgate are, where this one has none.
#[test]
fn credentials_of_tollgates_own_are_not_sent_to_the_endpoint() {
    let key = secret(format!("tg_somebodys_{}", "x".repeat(49)));
    let refresh = "tgr_a-refresh-token-of-tollgate";
    let endpoint = Endpoint::start(|_| yes(r#"{"principal": "alice"}"#));
    let of = |others: &str| {
        let config = format!(
            "identity:
  failures: {{ enabled: false }}
  providers:
    - delegated: {{ url: 'http://{}/' }}
{others}",
            endpoint.address
        );
        Setup::new().config(&config).start()
    };
    let server = of("    - keys: { first_key: none }\n");
    // Also where a gateway hands on all of a header.
    let told = [
        key.clone(),
        refresh.to_owned(),
        format!("Bearer {key}"),
        format!("bearer Bearer {key}"),
        format!("Bearer {refresh}"),
        format!("Basic {key}"),
        format!(" {key}"),
        format!("\u{a0}{key}"),
        format!("Token {refresh}"),
    ];
    for own in told {
        assert_eq!(ask(&mut server.connect(), &own).json()["code"], "unauthenticated", "{own}");
    }
    assert!(endpoint.asked().is_empty());
    let server = of("");
    assert_eq!(ask(&mut server.connect(), refresh).json()["code"], "unauthenticated");
    assert_eq!(ask(&mut server.connect(), &key).json()["principal"]["id"], "alice");
    let bearer = format!("Bearer {key}");
    assert_eq!(ask(&mut server.connect(), &bearer).json()["principal"]["id"], "alice");
    assert!(endpoint.asked().iter().all(|(_, body)| body["api_key"] == key.as_str()));
}

/// Of a request nothing is sent on that may be a secret: in a header of keys, in a parameter, or behind the path.
#[test]
fn what_may_be_secret_in_a_request_is_not_sent_on() {
    let endpoint = Endpoint::start(|_| yes(r#"{"principal": "alice"}"#));
    secret(KEY);
    let config = format!(
        "identity:
  key_headers: [x-company-pass-through]
  providers:
    - delegated: {{ url: 'http://{}/validate' }}
",
        endpoint.address
    );
    let server = Setup::new().config(&config).start();
    let hidden = secret("not-to-be-sent-on-0123456789");
    let names = ["api_key", "x-bf-vk", "Ocp-Apim-Subscription-Key", "x-functions-key", "sig", "pwd", "code", "jwt"];
    let of = |more: &str| {
        let mut members: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), hidden.as_str().into())).collect();
        members.insert(more.to_owned(), "shown".into());
        Value::Object(members)
    };
    let (mut headers, mut params) = (of("x-tenant"), of("model"));
    headers["x-company-pass-through"] = hidden.as_str().into();
    params["tag"] = serde_json::json!(["a", "b"]);
    let path = format!("/v1/chat/completions?key={hidden}#{hidden}");
    let request = serde_json::json!({"path": path, "headers": headers, "params": params});
    let body = serde_json::json!({"api_key": KEY, "request": request});
    assert_eq!(server.post("/v1/auth/validate", &body.to_string()).status, 200);
    let asked = endpoint.asked();
    let sent = &asked[0].1["request"];
    assert!(!asked[0].1.to_string().contains(&hidden), "{sent}");
    assert_eq!(
        *sent,
        serde_json::json!({
            "path": "/v1/chat/completions",
            "headers": {"x-tenant": "shown"},
            "params": {"model": "shown", "tag": ["a", "b"]},
        })
    );
}

#[test]
fn an_address_that_is_not_encrypted_is_refused() {
    for url in ["http://auth.example.com/", "ftp://127.0.0.1/", "https://user:secret-in-a-url@auth.example.com/", "x"] {
        let config = format!("identity:\n  providers:\n    - delegated: {{ url: '{url}' }}\n");
        let (code, said) = Setup::new().config(&config).fail();
        assert!(code == Some(2) && said.contains("`url`"), "{said}");
    }
}

const TOKEN: &str = "validate-token-0123456789abcdef";

fn validating() -> Server {
    secret(TOKEN);
    Setup::new()
        .config(&format!(
            "identity:\n  providers:\n    - static: {{ tokens: [{{ token: {TOKEN}, principal: 'User::\"alice\"', roles: [dev] }}] }}\n"
        ))
        .start()
}

#[test]
fn what_paths_ask_for_may_be_configured() {
    secret(TOKEN);
    let config = format!(
        "routes:\n  - {{ path: /talk, action: chat, model_param: voice }}\n\
         identity:\n  providers:\n    - static: {{ tokens: [{{ token: {TOKEN}, principal: 'User::\"alice\"' }}] }}\n"
    );
    let server = Setup::new().config(&config).start();
    let mut client = server.connect();
    let mut ask = |path: &str, params: &str| {
        let request = format!(r#"{{"path": "{path}", "params": {params}}}"#);
        let body = format!(r#"{{"api_key": "{TOKEN}", "request": {request}, "authorize": true}}"#);
        client.post("/v1/auth/validate", &body).status
    };
    assert_eq!(ask("/talk", r#"{"voice": "openai-main/gpt-4o"}"#), 200);
    assert_eq!(ask("/talk", r#"{"voice": "openai-main/nothing"}"#), 403);
    assert_eq!(ask("/talk", r#"{"model": "openai-main/gpt-4o"}"#), 400);
    assert_eq!(ask("/v1/chat/completions", r#"{"model": "openai-main/gpt-4o"}"#), 400);
}

#[test]
fn tollgate_is_the_endpoint_of_others() {
    let server = validating();
    let mut client = server.connect();
    let mut ask = |body: &str| client.post("/v1/auth/validate", &body.replace("KEY", TOKEN));
    let llama =
        r#"{"api_key": "KEY", "request": {"path": "/v1/models", "headers": {"user-agent": "x"}, "params": {}}}"#;
    let answer = ask(llama);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        answer.json(),
        serde_json::json!({
            "principal": "User::\"alice\"",
            "attributes": { "teams": ["research"], "orgs": ["acme"], "roles": ["dev"], "tags": ["gpu"] },
        })
    );
    let with = |path: &str, params: &str| {
        format!(r#"{{"api_key": "KEY", "authorize": true, "request": {{"path": "{path}", "params": {params}}}}}"#)
    };
    let gpt = r#"{"model": "openai-main/gpt-4o"}"#;
    assert_eq!(ask(&with("/v1/chat/completions", gpt)).status, 200);
    let forbidden = ask(&with("/v1/embeddings", gpt));
    assert_eq!(
        (forbidden.status, forbidden.json()["code"].as_str()),
        (403, Some("no_rule_permits")),
        "{}",
        forbidden.body
    );
    let forbidden = ask(&with("/v1/chat/completions", r#"{"model": "openai-main/gpt-4o-mini"}"#));
    assert_eq!((forbidden.status, forbidden.json()["code"].as_str()), (403, Some("forbidden_by_rule")));
    // Llama Stack sends what it reads of a query, a list for each name.
    assert_eq!(ask(&with("/v1/chat/completions", r#"{"model": ["openai-main/gpt-4o"]}"#)).status, 200);
    let forbidden = ask(&with("/v1/chat/completions", r#"{"model": ["openai-main/gpt-4o-mini"]}"#));
    assert_eq!((forbidden.status, forbidden.json()["code"].as_str()), (403, Some("forbidden_by_rule")));
    let several = ask(&with("/v1/chat/completions", r#"{"model": ["openai-main/gpt-4o", "openai-main/gpt-4o-mini"]}"#));
    assert!(several.status == 400 && several.body.contains("several models"), "{}", several.body);
    for (what, body, param) in [
        ("no model", with("/v1/chat/completions", "{}"), "request.params"),
        ("several models", with("/v1/chat/completions", r#"{"model": ["a/b", "a/c"]}"#), "request.params"),
        ("a list of none", with("/v1/chat/completions", r#"{"model": []}"#), "request.params"),
        ("a list of lists", with("/v1/chat/completions", r#"{"model": [["a/b"]]}"#), "request.params"),
        ("a model that is a number", with("/v1/chat/completions", r#"{"model": 7}"#), "request.params"),
        ("an unknown path", with("/v1/nothing", gpt), "request.path"),
        ("a path in two readings", with("/v1/audio/../chat/completions", gpt), "request.path"),
        ("an encoded path", with("/v1/chat%2Fcompletions", gpt), "request.path"),
        ("no request", r#"{"api_key": "KEY", "authorize": true}"#.to_owned(), "request"),
        ("no key", r#"{"request": {"path": "/"}}"#.to_owned(), "api_key"),
        ("an empty key", r#"{"api_key": "", "request": {"path": "/"}}"#.to_owned(), "api_key"),
        ("a key that is a number", r#"{"api_key": 7, "request": {"path": "/"}}"#.to_owned(), "api_key"),
        ("headers that are a list", r#"{"api_key": "KEY", "request": {"headers": []}}"#.to_owned(), "request.headers"),
        ("a member more", r#"{"api_key": "KEY", "request": {}, "admin": true}"#.to_owned(), ""),
        ("a member twice", r#"{"api_key": "KEY", "api_key": "KEY", "request": {}}"#.to_owned(), "api_key"),
        ("no JSON", "api_key=KEY".to_owned(), ""),
    ] {
        let answer = ask(&body);
        assert!(answer.is_error(400, "invalid_request", param), "{what}: {answer:?}");
        assert!(!answer.body.contains(TOKEN), "{what}");
    }
    let answer = ask(r#"{"api_key": "validate-token-of-nobody-at-all", "request": {"path": "/"}}"#);
    assert!(answer.is_error(401, "unauthenticated", ""), "{answer:?}");
}
