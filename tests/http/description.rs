//! Real answers of every route against `/openapi.json`: each status is described, with the content type, the headers and
//! the schema of the body.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::schema::problems;
use crate::support::{Answer, Server, Setup, secret};

const PEOPLE: &str = r#"
orgs: [{ id: acme }]
teams: [{ id: research, org: acme }]
users:
  - { id: alice, team: research }
  - { id: root, team: research, roles: ['tollgate:administrator'] }
provider_accounts:
  - id: main
    provider: openai
    models: [{ name: big, max_output_tokens: 1000, price: { input: 2, output: 10 } }, small]
routers: [{ id: chat, models: [main/big] }]
authz_rules:
  - { id: models, users: "*", models: [main/big], routers: "*" }
limits:
  - { id: month, users: [alice], budget: { usd: 5, every: month } }
  - { id: few, users: [alice], models: [main/big], rate: { requests: 3, every: hour } }
"#;

const CONFIG: &str = "identity:
  loopback: closed
  failures: { enabled: false }
  tokens: {}
  providers:
    - keys: {}
    - basic: {}
routes: [{ path: /v1/chat/completions, action: chat }]
";

const ASKED: &str = r#"{"principal": "User::\"root\"", "action": "chat", "resource": "Model::\"main/big\""}"#;
const UNKNOWN: &str = "r-00000000000000000000000000000001";

/// A request of a route of the description.
struct Call {
    method: &'static str,
    /// The path as the description has it.
    route: &'static str,
    /// The rest of the path where it is another one.
    query: String,
    body: Option<String>,
    status: u16,
}

fn call(method: &'static str, route: &'static str, status: u16) -> Call {
    Call { method, route, query: String::new(), body: None, status }
}

impl Call {
    fn with(self, body: impl Into<String>) -> Self {
        Self { body: Some(body.into()), ..self }
    }

    fn query(self, query: &str) -> Self {
        Self { query: format!("?{query}"), ..self }
    }
}

/// A server, its description, and which routes were called.
struct World {
    server: Server,
    administrator: String,
    description: Value,
    called: BTreeSet<(String, String)>,
    /// Differences between answers and the description.
    wrong: Vec<String>,
    /// The key and the user in paths.
    key: String,
}

impl World {
    fn start() -> Self {
        let server = Setup::without_files().file("people.yaml", PEOPLE).config(CONFIG).start();
        let path = server.temp.path().join("tollgate-data/administrator.key");
        let administrator = secret(std::fs::read_to_string(path).unwrap().trim_end());
        let description = server.get("/openapi.json").json();
        Self {
            server,
            administrator,
            description,
            called: BTreeSet::new(),
            wrong: Vec::new(),
            key: "0AbCdEfGhIjK".to_owned(),
        }
    }

    /// Calls a route as the administrator, and compares its answer with the description.
    fn call(&mut self, call: Call) -> Answer {
        let bearer = format!("Authorization: Bearer {}", self.administrator);
        self.call_with(call, &[&bearer, "Content-Type: application/json"])
    }

    fn call_with(&mut self, call: Call, headers: &[&str]) -> Answer {
        let path = call.route.replace("{id}", &self.key).replace("{user}", "alice") + &call.query;
        let body = call.body.as_deref().unwrap_or_default();
        let answer = self.server.connect().request(call.method, &path, headers, body.as_bytes());
        if answer.status != call.status {
            self.wrong.push(format!("{} {path} {body}: expected {}, got {answer:?}", call.method, call.status));
        }
        self.called.insert((call.method.to_owned(), call.route.to_owned()));
        let compared = self.compare(&call, &answer);
        self.wrong.extend(compared);
        answer
    }

    fn compare(&self, call: &Call, answer: &Answer) -> Vec<String> {
        self.compare_with(call, &self.description["paths"][call.route][call.method.to_lowercase()], answer)
    }

    fn compare_with(&self, call: &Call, operation: &Value, answer: &Answer) -> Vec<String> {
        let what = format!("{} {}{} {:?}", call.method, call.route, call.query, call.body);
        let reply = &operation["responses"][answer.status.to_string()];
        let mut wrong = Vec::new();
        let headers = reply["headers"].as_object().into_iter().flat_map(|headers| headers.keys());
        // A forbid is no challenge, and only a decision has an id.
        let may_be_absent = |name: &str| match name {
            "WWW-Authenticate" => answer.body.starts_with("{\"decision\""),
            "X-Tollgate-Id" => call.route == "/v1/auth/validate",
            _ => false,
        };
        for name in headers.filter(|name| !may_be_absent(name) && header(answer, name).is_none()) {
            wrong.push(format!("{what}: no {name}: {answer:?}"));
        }
        let kind = header(answer, "content-type").unwrap();
        let kind = kind.split(';').next().unwrap();
        let schema = &reply["content"][kind]["schema"];
        if !schema.is_object() {
            wrong.push(format!("{what}: {kind} with {} is not described: {answer:?}", answer.status));
        } else if kind == "application/json" {
            let problems = problems(&self.description, schema, &answer.json());
            wrong.extend(problems.iter().map(|problem| format!("{what}: {problem}: {}", answer.body)));
        }
        if let (Some(body), 200 | 201) = (&call.body, answer.status) {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let problems = problems(&self.description, schema, &serde_json::from_str(body).unwrap());
            wrong.extend(problems.iter().map(|problem| format!("the body of {what}: {problem}")));
        }
        wrong
    }

    fn is_taken(&self, schema: &Value, value: &Value) -> bool {
        problems(&self.description, schema, value).is_empty()
    }
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    let mut headers = answer.head.lines().filter_map(|line| line.split_once(':'));
    headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

#[test]
fn every_route_answers_as_it_is_described() {
    let mut world = World::start();
    decisions(&mut world);
    reservations(&mut world);
    reports(&mut world);
    server(&mut world);
    keys(&mut world);
    passwords(&mut world);
    tokens(&mut world);
    refused_callers(&mut world);
    let described: BTreeSet<(String, String)> = world.description["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let never: Vec<_> = described.difference(&world.called).collect();
    assert!(never.is_empty(), "not called: {never:?}");
    assert!(world.wrong.is_empty(), "{}", world.wrong.join("\n"));
}

fn decisions(world: &mut World) {
    let ask = |status, body: &str| call("POST", "/is_authorized", status).with(body);
    world.call(ask(200, ASKED));
    world.call(ask(200, &ASKED.replace("main/big", "main/none")));
    world.call(ask(403, &ASKED.replace("main/big", "main/small")).query("status=map"));
    world.call(ask(200, &ASKED.replace('}', r#", "explain": true}"#).replace("main/big", "main/small")));
    world.call(ask(
        200,
        r#"{"credential": {"api_key": "nothing"}, "action": "chat", "resource": "Model::\"main/big\""}"#,
    ));
    let guess = r#"{"credential": {"api_key": "nothing"}, "action": "chat", "resource": "Model::\"main/big\""}"#;
    world.call(ask(401, guess).query("status=map"));
    let list = r#"{"principal": {"type": "User", "id": "alice"}, "action": "chat", "resource": "Router::\"chat\"",
        "candidates": ["Model::\"main/small\"", {"type": "Model", "id": "main/big"}], "explain": true}"#;
    world.call(ask(200, list));
    world.call(ask(200, &list.replace("main/big", "main/small")));
    for wrong in ["", "[]", "{}", r#"{"principal": 3}"#, r#"{"principal": "User::\"root\"", "action": "fly"}"#] {
        world.call(ask(400, wrong));
    }
    world.call_with(ask(401, ASKED), &["Authorization: Bearer nothing", "Content-Type: application/json"]);
    let batch = |status, items: &str| {
        call("POST", "/is_authorized/batch", status).with(format!(r#"{{"requests": [{items}]}}"#))
    };
    world.call(batch(200, &format!("{ASKED}, {list}")));
    world.call(batch(400, "3"));
    world.call(batch(413, &vec![ASKED; 1001].join(",")));
    world.call(call("POST", "/v1/is_authorized", 200).with(ASKED));
    world.call(call("POST", "/v1/is_authorized", 400).with(ASKED.replace('}', r#", "entities": []}"#)));
    let validate = |status, key: &str, authorize: bool| {
        let params = json!({ "model": "main/big", "max_tokens": 5, "messages": [] });
        let request = json!({ "path": "/v1/chat/completions", "method": "POST", "headers": {}, "params": params });
        let body = json!({ "api_key": key, "request": request, "authorize": authorize });
        call("POST", "/v1/auth/validate", status).with(body.to_string())
    };
    let made = world.call(call("POST", "/v1/keys", 201).with(r#"{"owner": "User::\"alice\""}"#)).json();
    let key = secret(made["key"].as_str().unwrap());
    world.call(validate(200, &key, false));
    world.call(validate(200, &key, true));
    world.call(validate(401, "nothing", true));
    world.call(call("POST", "/v1/auth/validate", 400).with("{}"));
}

fn reservations(world: &mut World) {
    let asked = ASKED.replace("root", "alice");
    let hold = asked.replace('}', r#", "reserve": {"input_tokens": 9, "output_tokens": 9}, "idempotency_key": "k"}"#);
    let held = world.call(call("POST", "/is_authorized", 200).with(hold.as_str())).json();
    let id = held["reservation"]["id"].as_str().unwrap_or_else(|| panic!("{held}")).to_owned();
    world.call(call("POST", "/is_authorized", 409).with(hold.replace(": 9,", ": 8,")));
    let post = |route, status, body: Value| call("POST", route, status).with(body.to_string());
    world.call(post("/extend", 200, json!({ "reservation": id, "ttl_seconds": 60 })));
    world.call(post("/settle", 200, json!({ "reservation": id, "usage": { "input_tokens": 9, "output_tokens": 3 } })));
    world.call(post("/settle", 409, json!({ "reservation": id, "usage": { "input_tokens": 8 } })));
    world.call(post("/release", 409, json!({ "reservation": id })));
    for route in ["/extend", "/release"] {
        world.call(post(route, 404, json!({ "reservation": UNKNOWN })));
        world.call(post(route, 400, json!({})));
    }
    world.call(post("/settle", 404, json!({ "reservation": UNKNOWN, "usage": null })));
    world.call(post("/settle", 400, json!({ "reservation": UNKNOWN })));
    let held = world.call(post(
        "/is_authorized",
        200,
        json!({
            "principal": "User::\"root\"", "action": "chat", "resource": "Model::\"main/big\"", "reserve": true,
            "context": { "input_tokens": 9 },
        }),
    ));
    let id = held.json()["reservation"]["id"].clone();
    world.call(post("/release", 200, json!({ "reservation": id })));
    let report = |key: &str| {
        json!({
            "principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"main/big\"",
            "usage": { "input_tokens": 9, "output_tokens": 3 }, "idempotency_key": key,
        })
    };
    world.call(post("/usage", 200, report("u")));
    let mut other = report("u");
    other["usage"]["input_tokens"] = 8.into();
    world.call(post("/usage", 409, other.clone()));
    world.call(post("/usage", 200, json!({ "usages": [report("v"), other] })));
    world.call(post("/usage", 400, json!({ "usages": [3] })));
    // The rate is used up.
    let refused = asked.replace('}', r#", "reserve": {"input_tokens": 1, "output_tokens": 1}}"#);
    world.call(call("POST", "/is_authorized", 429).with(refused.as_str()).query("status=map"));
    world.call(call("POST", "/is_authorized", 200).with(refused));
}

fn reports(world: &mut World) {
    world.call(call("GET", "/limits", 200).query("principal=User::%22alice%22&page_size=1"));
    world.call(call("GET", "/limits", 400));
    for by in ["", "day,subject,model", "month", "limit,subject"] {
        world.call(call("GET", "/usage", 200).query(&format!("by={by}&page_size=1")));
    }
    world.call(call("GET", "/usage", 400).query("by=moon"));
}

fn server(world: &mut World) {
    for route in ["/health/live", "/health/ready", "/metrics", "/bundle", "/openapi.json", "/docs", "/version"] {
        world.call(call("GET", route, 200));
    }
    world.call_with(call("GET", "/bundle", 401), &["Authorization: Bearer nothing"]);
    world.call(call("POST", "/bundle/reload", 200));
    world.call(call("POST", "/bundle/reload", 200).with(r#"{"acknowledge": "0123"}"#));
    world.call(call("POST", "/bundle/reload", 400).with("[]"));
    let people = world.server.policies().join("people.yaml");
    std::fs::write(&people, "users: [{ id: alice, id: bob }]").unwrap();
    world.call(call("POST", "/bundle/reload", 409));
    world.call(call("GET", "/bundle", 200));
    world.call(call("GET", "/health/ready", 200));
    std::fs::write(&people, PEOPLE).unwrap();
    world.call(call("POST", "/bundle/reload", 200));
}

fn keys(world: &mut World) {
    let body = json!({
        "owner": { "type": "User", "id": "alice" }, "models": ["main/*", "main/none"], "routers": ["chat"],
        "actions": ["chat"], "paths": ["/v1/*", { "path": "/v1/models", "methods": ["GET"] }],
        "networks": ["10.0.0.0/8"], "limits": [{ "concurrency": 3 }], "tags": ["night"],
        "metadata": { "a": "1" }, "team": "research", "expires_at": "2100-01-01T00:00:00Z", "note": "a notebook",
    });
    let made = world.call(call("POST", "/v1/keys", 201).with(body.to_string())).json();
    secret(made["key"].as_str().unwrap());
    let unknown = world.key.clone();
    for (method, route) in [
        ("GET", "/v1/keys/{id}"),
        ("PATCH", "/v1/keys/{id}"),
        ("DELETE", "/v1/keys/{id}"),
        ("POST", "/v1/keys/{id}/revoke"),
        ("POST", "/v1/keys/{id}/rotate"),
    ] {
        world.call(call(method, route, 404));
        world.call_with(call(method, route, 401), &[]);
    }
    made["id"].as_str().unwrap().clone_into(&mut world.key);
    world.call(call("POST", "/v1/keys", 400).with(r#"{"owner": 3}"#));
    world.call(call("POST", "/v1/keys", 400).with(body.to_string()).query("strict=true"));
    world.call(call("GET", "/v1/keys", 200));
    world.call(call("GET", "/v1/keys", 200).query("page_size=1"));
    world.call(call("GET", "/v1/keys", 400).query("page_size=0"));
    world.call(call("GET", "/v1/keys/{id}", 200));
    world.call(call("PATCH", "/v1/keys/{id}", 200).with(r#"{"disabled": true, "note": null, "limits": null}"#));
    world.call(call("PATCH", "/v1/keys/{id}", 400).with(r#"{"owner": "User::\"root\""}"#));
    let rotated = world.call(call("POST", "/v1/keys/{id}/rotate", 200).with(r#"{"grace_seconds": 60}"#));
    secret(rotated.json()["key"].as_str().unwrap());
    world.call(call("POST", "/v1/keys/{id}/rotate", 400).with(r#"{"grace_seconds": -1}"#));
    world.call(call("POST", "/v1/keys/{id}/revoke", 200).with(r#"{"reason": "it leaked"}"#));
    world.call(call("POST", "/v1/keys/{id}/rotate", 409));
    world.call(call("GET", "/v1/keys/{id}", 200));
    world.call(call("DELETE", "/v1/keys/{id}", 200));
    world.key = unknown;
}

fn passwords(world: &mut World) {
    let route = "/v1/users/{user}/password";
    world.call(call("GET", route, 200));
    let password = secret("correct horse battery staple");
    world.call(call("PUT", route, 200).with(json!({ "password": password }).to_string()));
    world.call(call("PUT", route, 400).with(r#"{"password": "short"}"#));
    world.call(call("GET", route, 200));
    world.call(call("DELETE", route, 200));
    for method in ["GET", "PUT", "DELETE"] {
        world.call_with(call(method, route, 401), &["Content-Type: application/json"]);
    }
}

fn tokens(world: &mut World) {
    let made = world.call(call("POST", "/v1/keys", 201).with(r#"{"owner": "User::\"alice\""}"#)).json();
    let key = secret(made["key"].as_str().unwrap());
    let json = ["Content-Type: application/json"];
    let token = |status, body: Value| call("POST", "/v1/token", status).with(body.to_string());
    let grant = json!({ "grant_type": "api_key", "api_key": key });
    let issued = world.call_with(token(200, grant), &json).json();
    secret(issued["access_token"].as_str().unwrap());
    if let Some(refresh) = issued["refresh_token"].as_str() {
        secret(refresh);
        let grant = json!({ "grant_type": "refresh_token", "refresh_token": refresh });
        let next = world.call_with(token(200, grant), &json).json();
        secret(next["access_token"].as_str().unwrap());
        secret(next["refresh_token"].as_str().unwrap());
    }
    world.call_with(token(400, json!({ "grant_type": "magic" })), &json);
    world.call_with(token(401, json!({ "grant_type": "api_key", "api_key": "nothing" })), &json);
    world.call(call("GET", "/.well-known/jwks.json", 200));
}

/// Every route that takes a right, without a credential, with a wrong one, and with one that gives no right.
fn refused_callers(world: &mut World) {
    let made = world.call(call("POST", "/v1/keys", 201).with(r#"{"owner": "User::\"alice\""}"#)).json();
    let narrowed = format!("Authorization: Bearer {}", secret(made["key"].as_str().unwrap()));
    let paths = world.description["paths"].as_object().unwrap().clone();
    for (route, methods) in &paths {
        for (method, operation) in methods.as_object().unwrap() {
            let headers: [&[&str]; 3] = [&[], &["Authorization: Bearer nothing"], &[&narrowed]];
            let refused = headers.map(|headers| {
                let path = route.replace("{id}", &world.key).replace("{user}", "root");
                let answer = world.server.connect().request(&method.to_uppercase(), &path, headers, b"");
                let call = Call { method: "", route: "", query: String::new(), body: None, status: answer.status };
                let compared = world.compare_with(&call, operation, &answer);
                world.wrong.extend(compared.into_iter().map(|wrong| format!("{method} {path} {headers:?}{wrong}")));
                answer.status
            });
            let is_open = operation["security"].is_null();
            let has_refused = refused[..2] == [401, 401] && refused[2] != 200;
            let asks_about_itself = ["/v1/keys", "/limits", "/is_authorized"].iter().any(|own| route.starts_with(own));
            assert!(is_open || has_refused || asks_about_itself, "{method} {route}: {refused:?}");
        }
    }
}

#[test]
fn examples_fit_their_schemas_and_other_bodies_do_not() {
    let world = World::start();
    for (path, methods) in world.description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(content) = operation["requestBody"]["content"]["application/json"].as_object() else { continue };
            let problems = problems(&world.description, &content["schema"], &content["example"]);
            assert!(problems.is_empty(), "the example of {method} {path}: {problems:?}");
            for other in [json!([]), json!(3), json!({ "no_such_member": 1 })] {
                assert!(!world.is_taken(&content["schema"], &other), "{method} {path}: {other}");
            }
        }
    }
    // A description that takes everything would show nothing.
    let schema = json!({ "$ref": "#/components/schemas/Question" });
    let good: Value = serde_json::from_str(ASKED).unwrap();
    assert!(world.is_taken(&schema, &good));
    for (name, wrong) in [
        ("principal", json!(3)),
        ("principal", json!({ "type": "User" })),
        ("action", json!(null)),
        ("candidates", json!([])),
        ("reserve", json!({ "tokens": 1 })),
        ("reserve", json!({ "input_tokens": -1 })),
        ("ttl_seconds", json!(0)),
        ("explain", json!("true")),
        ("credential", json!({ "bearer": "x" })),
    ] {
        let mut body = good.clone();
        body[name] = wrong;
        assert!(!world.is_taken(&schema, &body), "{body}");
    }
}
