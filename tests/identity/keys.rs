//! API keys: made over HTTP, shown in questions, and everything that must not work.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::redis::Redis;
use crate::support::{Answer, Client, DEADLINE, Server, Setup, secret};

/// People of several teams, and what they may.
pub const PEOPLE: &str = r#"
orgs: [{ id: acme }]
teams:
  - { id: research, org: acme, tags: [gpu] }
  - { id: ops, org: acme }
  - { id: research-west, parent: research }
  - { id: gone, disabled: true }
users:
  - { id: alice, team: research }
  - { id: boss, teams: [{ id: research, role: admin }] }
  - { id: west, team: research-west }
  - { id: both, teams: [research, ops] }
  - { id: root, team: research, roles: ['tollgate:administrator'] }
  - { id: ian, team: gone }
  - { id: out, disabled: true }
services: [{ id: bot, team: ops }]
provider_accounts:
  - { id: oa, provider: openai, models: [big, { name: small, price: { input: 1, output: 1 } }] }
routers: [{ id: prod, models: [oa/big, oa/small] }]
authz_rules:
  - { id: team, teams: [research, ops, gone], models: ["oa/*"] }
  - { id: out, users: [out], models: ["oa/*"] }
  - { id: route, teams: [research], routers: [prod] }
  - { id: night, effect: forbid, keys: "*", models: [oa/small], when: 'principal.hasTag("night") && context.now > datetime("2000-01-01")' }
"#;

/// A server that puts its administrator's key in a file, and a client that has it.
pub struct Keys {
    pub server: Server,
    administrator: String,
}

impl Keys {
    fn start() -> Self {
        Self::of(Setup::without_files().file("people.yaml", PEOPLE).start())
    }

    pub fn of(server: Server) -> Self {
        let path = server.temp.path().join("tollgate-data/administrator.key");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error}: {}", server.log()));
        let administrator = secret(text.trim_end());
        assert!(!server.log().contains("tg_"), "where stderr is no terminal, it is not printed");
        Self { server, administrator }
    }

    /// Another server that knows the same administrator.
    pub fn with(server: Server, administrator: &str) -> Self {
        Self { server, administrator: administrator.to_owned() }
    }

    pub fn administrator(&self) -> &str {
        &self.administrator
    }

    pub fn ask(&self, key: &str, method: &str, path: &str, body: Value) -> Answer {
        let mut headers = vec!["Content-Type: application/json".to_owned()];
        if !key.is_empty() {
            headers.push(format!("Authorization: Bearer {key}"));
        }
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        Client::connect(self.server.address).request(method, path, &headers, body.as_bytes())
    }

    pub fn admin(&self, method: &str, path: &str, body: Value) -> Answer {
        self.ask(&self.administrator, method, path, body)
    }

    /// Makes a key; its id and all of it.
    pub fn make(&self, body: Value) -> (String, String) {
        self.make_as(&self.administrator, body)
    }

    fn make_as(&self, key: &str, body: Value) -> (String, String) {
        let answer = self.ask(key, "POST", "/v1/keys", body);
        assert_eq!(answer.status, 201, "{}", answer.body);
        let told = answer.json();
        (told["id"].as_str().unwrap().to_owned(), secret(told["key"].as_str().unwrap()))
    }

    pub fn question(&self, credential: Value, more: Value) -> Value {
        let mut question = json!({"credential": credential, "action": "chat", "resource": "Model::\"oa/big\""});
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.server.post("/is_authorized", &question.to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    pub fn code(&self, key: &str) -> String {
        self.code_with(key, json!({}))
    }

    pub fn code_with(&self, key: &str, more: Value) -> String {
        self.question(json!({"api_key": key}), more)["code"].as_str().unwrap().to_owned()
    }
}

fn reasons(server: &Server, reason: &str) -> usize {
    let metrics = server.get("/metrics").body;
    let name = format!("tollgate_authentication_failures_total{{reason=\"{reason}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("no {reason}")).parse().unwrap()
}

#[test]
fn a_key_is_made_and_proves_its_owner() {
    let keys = Keys::start();
    let (id, key) = keys.make(json!({"owner": "User::\"alice\"", "note": "laptop", "tags": ["gpu"]}));
    for credential in [json!({"api_key": key}), json!({"bearer": key})] {
        let told = keys.question(credential, json!({}));
        assert_eq!((&told["decision"], &told["principal"]["id"]), (&json!("permit"), &json!("alice")), "{told}");
        assert_eq!(told["key"]["id"], id.as_str());
    }
    let shown = keys.admin("GET", &format!("/v1/keys/{id}"), Value::Null).json();
    assert_eq!((&shown["state"], &shown["note"], &shown["key"]), (&json!("active"), &json!("laptop"), &Value::Null));
    assert!(shown["last_used_at"].is_string() && shown["created_by"]["type"] == "ApiKey");
    // Also in the headers of a caller, each of them.
    let path = format!("/v1/keys/{id}");
    for header in ["x-api-key", "API-KEY"] {
        let header = format!("{header}: {}", keys.administrator);
        assert_eq!(keys.server.connect().request("GET", &path, &[&header], b"").status, 200);
    }
}

/// A character of base62 other than this one.
fn other(character: char) -> char {
    if character == 'x' { 'y' } else { 'x' }
}

#[test]
fn what_is_no_key_proves_nobody() {
    let keys = Keys::start();
    let (_, key) = keys.make(json!({"owner": "User::\"alice\""}));
    let (id, _) = keys.make(json!({"owner": "User::\"both\""}));
    let swap = |at: usize| {
        let mut wrong: Vec<char> = key.chars().collect();
        wrong[at] = other(wrong[at]);
        wrong.into_iter().collect::<String>()
    };
    let mut refused = vec![("tg_", "malformed"), ("tg__", "malformed"), ("tg_a_b", "malformed")]
        .into_iter()
        .map(|(text, reason)| (text.to_owned(), reason))
        .collect::<Vec<_>>();
    for cut in [1, 6, 20, 49] {
        refused.push((key[..key.len() - cut].to_owned(), "malformed"));
    }
    for at in [3, 10, 16, 40, key.len() - 1] {
        refused.push((swap(at), "malformed"));
    }
    refused.extend([
        (key.to_uppercase().replacen("TG_", "tg_", 1), "malformed"),
        (key.to_lowercase(), "malformed"),
        (format!("{key}0"), "malformed"),
        (format!("{key} "), "malformed"),
        (format!("{key}\u{0}"), "malformed"),
        (format!("{key}\n"), "malformed"),
        (key.replacen("tg_", "tg_\u{200b}", 1), "malformed"),
        (key.replace('0', "\u{ff10}").replacen("tg_", "tg_é", 1), "malformed"),
        (format!("tg_{}", "x".repeat(8000)), "malformed"),
        (format!("TG_{}", &key[3..]), "not_recognized"),
        (format!(" {key}"), "not_recognized"),
        (format!("sk-{key}"), "not_recognized"),
        (format!("{key},{key}"), "malformed"),
        // Right in form: the checksum is nobody's secret.
        (tollgate_key("nobody", [1; 32]), "wrong"),
        (tollgate_key(&id, [1; 32]), "wrong"),
        (tollgate_key("../etc/passwd", [1; 32]), "wrong"),
        (tollgate_key("' OR 1=1 --", [1; 32]), "wrong"),
    ]);
    let mut counts = std::collections::BTreeMap::new();
    for (text, reason) in &refused {
        if text.len() > 40 {
            secret(text.clone());
        }
        let told = keys.question(json!({"api_key": text}), json!({}));
        assert_eq!((&told["code"], &told["principal"]), (&json!("unauthenticated"), &Value::Null), "{text:?}: {told}");
        *counts.entry(*reason).or_insert(0) += 1;
    }
    keys.server.until("every refusal is told", |server| {
        counts.iter().all(|(reason, count)| reasons(server, reason) == *count)
    });
    // What is unknown and what is wrong look the same.
    let told = |text: String| keys.question(json!({"api_key": text}), json!({}))["message"].clone();
    assert_eq!(told(tollgate_key("nobody", [2; 32])), told(tollgate_key(&id, [2; 32])));
    assert_eq!(keys.code(&key), "permitted");
}

/// A key of the right form.
pub fn tollgate_key(id: &str, bytes: [u8; 32]) -> String {
    tollgate::model::key_text(id, bytes).unwrap().expose().to_owned()
}

#[test]
fn a_key_ends() {
    let keys = Keys::start();
    let (id, key) = keys.make(json!({"owner": "User::\"alice\""}));
    let path = format!("/v1/keys/{id}");
    assert_eq!(keys.code(&key), "permitted");
    assert_eq!(keys.admin("POST", &format!("{path}/revoke"), json!({"reason": ""})).status, 400);
    let told = keys.admin("POST", &format!("{path}/revoke"), json!({"reason": "leaked"})).json();
    assert_eq!((&told["state"], &told["revoked"]["reason"]), (&json!("revoked"), &json!("leaked")));
    assert_eq!(keys.code(&key), "credential_revoked");
    // Who has not its secret does not learn that.
    assert_eq!(keys.code(&tollgate_key(&id, [3; 32])), "unauthenticated");
    let again = keys.admin("POST", &format!("{path}/revoke"), json!({"reason": "other"})).json();
    assert_eq!(again["revoked"]["reason"], "leaked");
    assert_eq!(keys.admin("POST", &format!("{path}/rotate"), json!({})).status, 409);
    assert_eq!(keys.admin("PATCH", &path, json!({"note": "n"})).status, 200);
    assert_eq!(keys.code(&key), "credential_revoked");
    assert_eq!(keys.admin("DELETE", &path, Value::Null).status, 200);
    assert_eq!(keys.code(&key), "unauthenticated");
    assert_eq!(keys.admin("GET", &path, Value::Null).status, 404);

    let soon = keys.make(json!({"owner": "User::\"alice\"", "expires_at": soon()})).1;
    keys.server.until("the key expires", |_| keys.code(&soon) == "credential_expired");
    let past = json!({"owner": "User::\"alice\"", "expires_at": "2001-01-01T00:00:00Z"});
    assert!(keys.admin("POST", "/v1/keys", past).is_error(400, "invalid_request", "expires_at"));
}

/// An instant a few seconds ahead.
fn soon() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    tollgate::Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap() + 5000).to_string()
}

#[test]
fn a_rotated_key_has_two_secrets_for_a_while() {
    let keys = Keys::start();
    let (id, first) = keys.make(json!({"owner": "User::\"alice\"", "models": ["oa/big"]}));
    let rotate = |grace: u64| {
        let told = keys.admin("POST", &format!("/v1/keys/{id}/rotate"), json!({"grace_seconds": grace}));
        assert_eq!(told.status, 200, "{}", told.body);
        secret(told.json()["key"].as_str().unwrap())
    };
    let second = rotate(3600);
    assert_eq!((&second[..16], &*keys.code(&first), &*keys.code(&second)), (&first[..16], "permitted", "permitted"));
    let third = rotate(0);
    assert_eq!(keys.code(&second), "credential_expired");
    assert_eq!((keys.code(&first), keys.code(&third)), ("unauthenticated".into(), "permitted".into()));
    // It stays narrowed.
    let small = json!({"resource": "Model::\"oa/small\""});
    assert_eq!(keys.code_with(&third, small), "forbidden_by_rule");
    assert_eq!(reasons(&keys.server, "rotated"), 1);
}

#[test]
fn a_key_is_no_more_than_its_owner() {
    let keys = Keys::start();
    let key = |body: Value| keys.make(body).1;
    assert_eq!(keys.code(&key(json!({"owner": "User::\"ian\""}))), "principal_disabled");
    assert_eq!(keys.code(&key(json!({"owner": "User::\"out\""}))), "principal_disabled");
    assert_eq!(keys.code(&key(json!({"owner": "Team::\"research\""}))), "permitted");
    assert_eq!(keys.code(&key(json!({"owner": "Org::\"acme\""}))), "no_rule_permits");
    assert_eq!(keys.code(&key(json!({"owner": "Service::\"bot\""}))), "permitted");
    // An owner who is deleted from the bundle.
    let bot = key(json!({"owner": "Service::\"bot\""}));
    let without = PEOPLE.replace("services: [{ id: bot, team: ops }]\n", "");
    std::fs::write(keys.server.policies().join("people.yaml"), without).unwrap();
    keys.server.until("the bundle is read again", |_| keys.code(&bot) == "unauthenticated");
    assert!(reasons(&keys.server, "unknown_principal") >= 1);
    let nobody = json!({"owner": "Service::\"bot\""});
    assert!(keys.admin("POST", "/v1/keys", nobody).is_error(400, "invalid_request", "owner"));
}

#[test]
fn a_key_is_narrowed() {
    let keys = Keys::start();
    let (id, key) = keys.make(json!({
        "owner": "User::\"alice\"", "models": ["oa/big"], "actions": ["chat"], "paths": ["/v1/chat/*"],
        "networks": ["10.0.0.0/8"], "metadata": {"night": "yes"},
    }));
    let context = |path: &str, ip: &str| json!({"context": {"path": path, "ip": ip}});
    let good = context("/v1/chat/completions", "10.1.2.3");
    assert_eq!(keys.code_with(&key, good.clone()), "permitted");
    for (more, rule) in [
        (json!({}), "paths"),
        (context("/v1/embeddings", "10.1.2.3"), "paths"),
        (context("/v1/chat/completions", "11.1.2.3"), "networks"),
        (json!({"action": "embed", "context": good["context"]}), "actions"),
        (json!({"resource": "Model::\"oa/small\"", "context": good["context"]}), "models"),
        (json!({"resource": "Router::\"prod\"", "context": good["context"]}), "models"),
    ] {
        let told = keys.question(json!({"bearer": key}), more.clone());
        assert_eq!(told["rules"][0]["id"], format!("key:{id}:{rule}"), "{more}: {told}");
    }
    for path in [
        "/v1/chat/../files",
        "/v1/chat/%2e%2E/files",
        "/v1/chat//files",
        "/v1/chat/..\\files",
        "/v1/chat/.\n./files",
        "/v1/chat/\0",
    ] {
        let mut question = context(path, "10.1.2.3");
        let more = json!({"credential": {"bearer": key}, "action": "chat", "resource": "Model::\"oa/big\""});
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = keys.server.post("/is_authorized", &question.to_string());
        assert!(answer.is_error(400, "invalid_context", "context.path"), "{path:?}: {answer:?}");
    }
    for path in ["/v1/chat/../x", "/v1//x", "/v1/%2e%2e/*", "/v1/x?y", "/v1/a\nb"] {
        let body = json!({"owner": "User::\"alice\"", "paths": [path]});
        assert!(keys.admin("POST", "/v1/keys", body).is_error(400, "invalid_request", "paths[0]"), "{path:?}");
    }
    for model in ["oa/../x", "oa//*", "./oa/big"] {
        let body = json!({"owner": "User::\"alice\"", "models": [model]});
        assert!(keys.admin("POST", "/v1/keys", body).is_error(400, "invalid_request", "models[0]"), "{model}");
    }
    // Widened again, a rule of the bundle about the key's metadata still holds.
    let wide = json!({"models": null, "actions": null, "paths": null, "networks": null});
    assert_eq!(keys.admin("PATCH", &format!("/v1/keys/{id}"), wide).status, 200);
    let told = keys.question(json!({"bearer": key}), json!({"resource": "Model::\"oa/small\""}));
    assert_eq!(told["rules"][0]["id"], "night", "{told}");
}

/// A router is a grant of its own: a key that has routers alone uses models through them, and none directly.
#[test]
fn a_key_of_routers_alone_uses_models_through_them_only() {
    let text = secret(tollgate_key("routed", [6; 32]));
    let hash = tollgate::model::bundle_key_hash(&tollgate::model::KeyText::parse(&text).unwrap());
    let hash = tollgate::model::key_hash_text(&hash);
    let bundle = format!("keys: [{{ id: routed, hash: '{hash}', owner: 'User::\"alice\"', routers: [prod] }}]\n");
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).file("keys.yaml", &bundle).start());
    let (id, stored) = keys.make(json!({"owner": "User::\"alice\"", "routers": ["prod"]}));
    let (_, both) = keys.make(json!({"owner": "User::\"alice\"", "routers": ["prod"], "models": ["oa/big"]}));
    let router = json!({"resource": "Router::\"prod\""});
    let through = json!({"resource": "Router::\"prod\"", "candidates": ["Model::\"oa/big\"", "Model::\"oa/small\""]});
    for (key, id) in [(&stored, &*id), (&text, "routed")] {
        let direct = keys.question(json!({"api_key": key}), json!({}));
        assert_eq!(direct["code"], "forbidden_by_rule", "{direct}");
        assert_eq!(direct["rules"][0]["id"], format!("key:{id}:routers"), "{direct}");
        assert_eq!(keys.code_with(key, router.clone()), "permitted", "{id}");
        let told = keys.question(json!({"api_key": key}), through.clone());
        let each: Vec<_> = told["candidates"].as_array().unwrap().iter().map(|one| one["code"].as_str()).collect();
        assert_eq!(each, [Some("permitted"), Some("permitted")], "{told}");
    }
    // What narrows a key that is kept stands in no file.
    let direct = keys.question(json!({"api_key": stored}), json!({}));
    assert_eq!(direct["message"], format!("forbidden by key:{id}:routers"), "{direct}");
    // Models that are named too are used directly, and no others behind the router.
    assert_eq!(keys.code(&both), "permitted");
    let told = keys.question(json!({"api_key": both}), through);
    let each: Vec<_> = told["candidates"].as_array().unwrap().iter().map(|one| one["code"].as_str()).collect();
    assert_eq!(each, [Some("permitted"), Some("forbidden_by_rule")], "{told}");
}

/// Whoever may see somebody's usage sees what they have spent and where they stand, and of others nothing.
#[test]
fn people_see_their_own_usage() {
    let limits = "limits:\n  - { id: people, users: \"*\", each: end_user, rate: { requests: 9, every: hour } }\n  \
                  - { id: own, users: \"*\", each: user, rate: { requests: 9, every: hour } }\n";
    let setup = Setup::without_files().file("people.yaml", PEOPLE).file("limits.yaml", limits);
    let keys = Keys::of(setup.config("identity: { loopback: closed }\n").start());
    let key = |owner: &str| keys.make(json!({"owner": format!("User::\"{owner}\"")})).1;
    let (alice, boss, west) = (key("alice"), key("boss"), key("west"));
    let of = |owner: &str, member: &str, value: Value| keys.make(json!({"owner": owner, member: value})).1;
    let narrowed = of("User::\"alice\"", "models", json!(["oa/big"]));
    let elsewhere = of("User::\"alice\"", "networks", json!(["192.0.2.0/24"]));
    let of_root = of("User::\"root\"", "actions", json!(["chat"]));
    let bot = of("Service::\"bot\"", "paths", json!(["/v1/*"]));
    for end_user in ["eve", "dan"] {
        let more = json!({"reserve": {"requests": 1}, "context": {"end_user": end_user}});
        let mut question = json!({"credential": {"api_key": alice}, "action": "chat", "resource": "Model::\"oa/big\""});
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(keys.admin("POST", "/is_authorized", question).json()["decision"], "permit");
    }
    let of = |principal: &str| ["/limits", "/usage"].map(|path| format!("{path}?principal={principal}"));
    let status = |key: &str, principal: &str| of(principal).map(|path| keys.ask(key, "GET", &path, Value::Null).status);
    for (who, key, principal, told) in [
        ("oneself", &alice, "User::%22alice%22", [200, 200]),
        // What was spent is booked neither by key nor by team.
        ("one's own key", &alice, "ApiKey::%22ALICE%22", [200, 400]),
        ("another", &alice, "User::%22boss%22", [403, 403]),
        ("one's team", &alice, "Team::%22research%22", [403, 403]),
        ("a member of the team that one manages", &boss, "User::%22alice%22", [200, 200]),
        ("a team that one manages", &boss, "Team::%22research%22", [200, 400]),
        ("who is in no team of one's own", &boss, "Service::%22bot%22", [403, 403]),
        ("another team's", &west, "User::%22alice%22", [403, 403]),
        ("with a narrowed key its owner", &narrowed, "User::%22alice%22", [200, 200]),
        ("with a narrowed key itself", &narrowed, "ApiKey::%22NARROWED%22", [200, 400]),
        ("with a narrowed key another", &narrowed, "User::%22boss%22", [403, 403]),
        ("with a narrowed key another team's", &narrowed, "Team::%22research%22", [403, 403]),
        ("with a key from elsewhere", &elsewhere, "User::%22alice%22", [403, 403]),
        ("with a key from elsewhere itself", &elsewhere, "ApiKey::%22ELSEWHERE%22", [403, 403]),
        ("with a narrowed key of an administrator another", &of_root, "User::%22alice%22", [403, 403]),
        ("with a narrowed key of a service itself", &bot, "ApiKey::%22BOT%22", [200, 400]),
    ] {
        let id = |key: &str| key.split('_').nth(1).unwrap().to_owned();
        let names = [("ALICE", &alice), ("NARROWED", &narrowed), ("ELSEWHERE", &elsewhere), ("BOT", &bot)];
        let principal = names.iter().fold(principal.to_owned(), |text, (name, key)| text.replace(name, &id(key)));
        assert_eq!(status(key, &principal), told, "{who}");
    }
    for principal in ["Team::%22research%22", "Org::%22acme%22", "ApiKey::%22none%22"] {
        let answer = keys.admin("GET", &format!("/usage?principal={principal}"), Value::Null);
        assert!(answer.is_error(400, "not_supported", "principal"), "{}", answer.body);
    }
    assert_eq!(status(&alice, "User::%22alice%22&principal=User::%22boss%22"), [403; 2]);
    assert_eq!(keys.ask(&alice, "GET", "/usage", Value::Null).status, 403);
    assert_eq!(keys.ask(&alice, "GET", "/limits?princi%70al=User::%22boss%22", Value::Null).status, 403);
    // Meters of what requests name may be anybody's.
    let meters = |told: Answer| {
        let told = told.json();
        let meters: Vec<String> =
            told["limits"].as_array().unwrap().iter().map(|one| one["meter"].as_str().unwrap().to_owned()).collect();
        meters
    };
    let path = "/limits?principal=User::%22alice%22";
    let own = "User::\"alice\"".to_owned();
    assert_eq!(meters(keys.ask(&alice, "GET", path, Value::Null)), [own.clone(), own.clone()]);
    let [eve, dan] = ["eve", "dan"].map(|name| format!("context.end_user::\"{name}\""));
    assert_eq!(meters(keys.admin("GET", path, Value::Null)), [own, dan, eve]);
}

#[test]
fn a_key_has_limits_of_its_own() {
    let keys = Keys::start();
    let limits = json!([
        {"concurrency": 5},
        {"id": "people", "each": "end_user", "rate": {"requests": 1, "every": "hour"}},
    ]);
    let (id, key) = keys.make(json!({"owner": "User::\"alice\"", "limits": limits}));
    let ask = |end_user: &str| {
        let more = json!({"reserve": {"requests": 1}, "context": {"end_user": end_user}});
        keys.question(json!({"api_key": key}), more)
    };
    let told = ask("eve");
    assert_eq!(told["decision"], "permit", "{told}");
    let meters: Vec<_> = told["limits"].as_array().unwrap().iter().map(|one| (&one["id"], &one["meter"])).collect();
    let own = json!(format!("ApiKey::\"{id}\""));
    assert_eq!(
        meters,
        [(&json!("key:concurrency"), &own), (&json!("key:people"), &json!("context.end_user::\"eve\"")),]
    );
    assert_eq!(ask("eve")["code"], "rate_limited");
    assert_eq!(ask("dan")["code"], "permitted");
    // Another key with the same limits has meters of its own.
    let limits = json!([{"id": "people", "each": "end_user", "rate": {"requests": 1, "every": "hour"}}]);
    let (_, other) = keys.make(json!({"owner": "User::\"alice\"", "limits": limits}));
    let more = json!({"reserve": {"requests": 1}, "context": {"end_user": "eve"}});
    assert_eq!(keys.code_with(&other, more), "permitted");
    // Where the key stands, of its own limits and of its owner's; whatever becomes of it.
    for revoked in [false, true] {
        if revoked {
            let path = format!("/v1/keys/{id}/revoke");
            assert_eq!(keys.admin("POST", &path, json!({"reason": "lost"})).status, 200);
        }
        let standing = keys.server.get(&format!("/limits?principal=ApiKey::%22{id}%22")).json();
        assert_eq!(standing["principal"], json!({"type": "User", "id": "alice"}), "{standing}");
        let limits = standing["limits"].as_array().unwrap();
        let told: Vec<_> =
            limits.iter().map(|one| (&one["id"], &one["meter"], &one["remaining"], &one["file"])).collect();
        let (three, none, null) = (&json!("3"), &json!("0"), &Value::Null);
        let of = |name: &str| json!(format!("context.end_user::\"{name}\""));
        let (concurrency, people) = (&json!("key:concurrency"), &json!("key:people"));
        assert_eq!(
            told,
            [(concurrency, &own, three, null), (people, &of("dan"), none, null), (people, &of("eve"), none, null)],
            "{standing}"
        );
    }
    for wrong in [
        json!([]),
        json!("x"),
        json!([{"budget": {"usd": -5, "every": "month"}}]),
        json!([{"budget": {"usd": 5, "every": "month"}, "users": ["alice"]}]),
        json!([{"each": "team", "concurrency": 1}]),
        json!([{"concurrency": 1}, {"concurrency": 2}]),
        (0..17).map(|number| json!({"id": format!("l{number}"), "concurrency": 1})).collect(),
    ] {
        let answer = keys.admin("POST", "/v1/keys", json!({"owner": "User::\"alice\"", "limits": wrong}));
        assert!(answer.is_error(400, "invalid_request", "limits"), "{wrong}: {answer:?}");
    }
}

#[test]
fn managing_takes_a_credential_and_a_right() {
    let keys = Keys::start();
    let of = |user: &str| keys.make(json!({"owner": format!("User::\"{user}\"")}));
    let ((alice_id, alice), (_, boss), (both_id, both), (_, root), (west_id, _)) =
        (of("alice"), of("boss"), of("both"), of("root"), of("west"));
    let (bot_id, bot) = keys.make(json!({"owner": "Service::\"bot\""}));
    let (team_id, team) = keys.make(json!({"owner": "Team::\"research\""}));
    let narrowed = keys.make(json!({"owner": "User::\"alice\"", "models": ["oa/big"]})).1;
    let limited = keys.make(json!({"owner": "User::\"alice\"", "limits": [{"concurrency": 1}]})).1;
    let ending = keys.make(json!({"owner": "User::\"alice\"", "expires_at": "2099-01-01T00:00:00Z"})).1;

    // Without one, also on loopback.
    for (method, path) in [("GET", "/v1/keys"), ("POST", "/v1/keys"), ("GET", "/v1/keys/x"), ("DELETE", "/v1/keys/x")] {
        assert!(keys.ask("", method, path, Value::Null).is_error(401, "unauthenticated", ""), "{method} {path}");
    }
    let status = |key: &str, method: &str, path: &str, body: Value| keys.ask(key, method, path, body).status;
    let make = |key: &str, owner: &str| status(key, "POST", "/v1/keys", json!({"owner": owner}));
    for (who, key, owner, told) in [
        ("alice", &alice, "User::\"alice\"", 201),
        ("alice", &alice, "User::\"boss\"", 403),
        ("alice", &alice, "Team::\"research\"", 403),
        ("alice", &alice, "Service::\"tollgate:administrator\"", 403),
        ("narrowed", &narrowed, "User::\"alice\"", 403),
        ("limited", &limited, "User::\"alice\"", 403),
        ("ending", &ending, "User::\"alice\"", 403),
        ("boss", &boss, "User::\"alice\"", 201),
        ("boss", &boss, "User::\"west\"", 201),
        ("boss", &boss, "Team::\"research\"", 201),
        ("boss", &boss, "Team::\"research-west\"", 201),
        ("boss", &boss, "Team::\"ops\"", 403),
        ("boss", &boss, "Org::\"acme\"", 403),
        ("boss", &boss, "Service::\"bot\"", 403),
        // In research, and elsewhere too; or an administrator.
        ("boss", &boss, "User::\"both\"", 403),
        ("boss", &boss, "User::\"root\"", 403),
        ("bot", &bot, "Service::\"bot\"", 403),
        ("team", &team, "Team::\"research\"", 403),
        ("root", &root, "Org::\"acme\"", 201),
        ("root", &root, "Model::\"oa/big\"", 400),
    ] {
        assert_eq!(make(key, owner), told, "{who} makes a key of {owner}");
    }
    // An ending key makes none that outlives it.
    let until = |at: &str| json!({"owner": "User::\"alice\"", "expires_at": at});
    assert_eq!(status(&ending, "POST", "/v1/keys", until("2098-01-01T00:00:00Z")), 201);
    assert_eq!(status(&ending, "POST", "/v1/keys", until("2100-01-01T00:00:00Z")), 403);
    // Nobody gives what only an administrator gives.
    for (member, value) in [
        ("roles", json!(["tollgate:administrator"])),
        ("roles", json!(["tollgate:gateway"])),
        ("metadata", json!({"env": "prod"})),
        ("tags", json!(["admin"])),
    ] {
        let mut body = json!({"owner": "User::\"alice\""});
        body[member] = value.clone();
        assert!(keys.ask(&alice, "POST", "/v1/keys", body).is_error(403, "forbidden", member), "{member}");
        let change = keys.ask(&alice, "PATCH", &format!("/v1/keys/{alice_id}"), json!({member: value}));
        assert!(change.is_error(403, "forbidden", member), "{member}: {change:?}");
    }
    let owned = json!({"owner": "User::\"alice\"", "tags": ["gpu"], "team": "research"});
    assert_eq!(status(&alice, "POST", "/v1/keys", owned), 201);
    let payer = json!({"owner": "User::\"alice\"", "team": "ops"});
    assert!(keys.ask(&alice, "POST", "/v1/keys", payer).is_error(400, "invalid_request", "team"));
    // Others' keys look as none.
    for id in [&*both_id, &bot_id, &team_id, "nothing"] {
        assert_eq!(status(&alice, "GET", &format!("/v1/keys/{id}"), Value::Null), 404);
        assert_eq!(status(&alice, "POST", &format!("/v1/keys/{id}/rotate"), json!({})), 404);
        assert_eq!(status(&alice, "POST", &format!("/v1/keys/{id}/revoke"), json!({"reason": "x"})), 404);
        assert_eq!(status(&alice, "DELETE", &format!("/v1/keys/{id}"), Value::Null), 404);
    }
    // A team's administrator ends them, and gets no secret of who is in more.
    assert_eq!(status(&boss, "POST", &format!("/v1/keys/{west_id}/rotate"), json!({})), 200);
    assert_eq!(status(&boss, "POST", &format!("/v1/keys/{both_id}/rotate"), json!({})), 403);
    assert_eq!(status(&boss, "POST", &format!("/v1/keys/{both_id}/revoke"), json!({"reason": "left"})), 200);
    assert_eq!(keys.code(&both), "credential_revoked");
    // Lists.
    let list = |key: &str, query: &str| keys.ask(key, "GET", &format!("/v1/keys{query}"), Value::Null);
    let owners = |answer: Answer| {
        let told = answer.json();
        let owners = told["keys"].as_array().unwrap().iter().map(|key| key["owner"]["id"].as_str().unwrap().to_owned());
        owners.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(owners(list(&alice, "")), ["alice".to_owned()].into());
    assert!(owners(list(&keys.administrator, "")).len() > 5);
    assert_eq!(list(&alice, "?owner=User::%22boss%22").status, 403);
    assert_eq!(owners(list(&boss, "?owner=User::%22both%22")), ["both".to_owned()].into());
    let page = list(&keys.administrator, "?page_size=2").json();
    let next = list(&keys.administrator, &format!("?page_size=1000&after={}", page["next"].as_str().unwrap())).json();
    assert!(next["keys"][0]["id"].as_str() > page["keys"][1]["id"].as_str() && next["next"].is_null());
}

#[test]
fn bodies_say_what_is_known_and_once() {
    let keys = Keys::start();
    let (id, _) = keys.make(json!({"owner": "User::\"alice\""}));
    let raw = |method: &str, path: &str, body: &str| {
        let bearer = format!("Authorization: Bearer {}", keys.administrator);
        keys.server.connect().request(method, path, &["Content-Type: application/json", &bearer], body.as_bytes())
    };
    let path = format!("/v1/keys/{id}");
    for (method, path, body, param) in [
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "owner": "User::\"root\""}"#, "owner"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "hash": "x"}"#, "hash"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "id": "mine"}"#, "id"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "created_by": "x"}"#, "created_by"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "reason": "x"}"#, "reason"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "metadata": {"a": "1", "a": "2"}}"#, "metadata"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "metadata": {"a": 1}}"#, "metadata"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "models": []}"#, "models"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "models": ["a", 1]}"#, "models[1]"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "actions": ["chatt"]}"#, "actions[0]"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "networks": ["10.0.0.0/33"]}"#, "networks[0]"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "paths": ["v1"]}"#, "paths[0]"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "paths": ["/*/x"]}"#, "paths[0]"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "roles": ["root"]}"#, "roles[0]"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "expires_at": 7}"#, "expires_at"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"alice\"", "note": "a\u0007b"}"#, "note"),
        ("PATCH", &path, r#"{"owner": "User::\"root\""}"#, "owner"),
        ("PATCH", &path, r#"{"state": "active"}"#, "state"),
        ("POST", &format!("{path}/rotate"), r#"{"grace_seconds": -1}"#, "grace_seconds"),
        ("POST", &format!("{path}/rotate"), r#"{"grace_seconds": 1e99}"#, "grace_seconds"),
        ("POST", &format!("{path}/rotate"), r#"{"key": "tg_x"}"#, "key"),
        ("POST", &format!("{path}/revoke"), r#"{"reason": ""}"#, "reason"),
        ("POST", "/v1/keys", r#"{"owner": "User::\"nobody\""}"#, "owner"),
    ] {
        let answer = raw(method, path, body);
        assert!(answer.is_error(400, "invalid_request", param), "{body}: {answer:?}");
    }
    let undeclared = raw("POST", "/v1/keys", r#"{"owner": "User::\"nobody\""}"#);
    assert!(undeclared.body.contains("`unknown_owners: allow`"), "{}", undeclared.body);
    let budget = r#"{"budget": {"usd": 5, "every": "month"}}"#;
    let unnamed = raw("PATCH", &path, &format!(r#"{{"limits": [{budget}, {budget}]}}"#));
    assert!(unnamed.is_error(400, "invalid_request", "limits"), "{unnamed:?}");
    let told = unnamed.body;
    assert!(
        told.contains("`budget`") && told.contains("give each an `id`") && told.contains("after its kind"),
        "{told}"
    );
    assert_eq!(raw("POST", "/v1/keys", "[").status, 400);
    assert_eq!(raw("PUT", &path, "{}").status, 405);
    for path in ["/v1/keys/", "/v1/keys//revoke", "/v1/keys/a%2Fb", "/v1/keys/a/b", "/v1/keys/../keys/a"] {
        assert_eq!(raw("GET", path, "").status, 404, "{path}");
    }
    let twice =
        [&*format!("Authorization: Bearer {}", keys.administrator), &format!("X-Api-Key: {}", keys.administrator)];
    assert_eq!(keys.server.connect().request("GET", "/v1/keys", &twice, b"").status, 400);
}

#[test]
fn what_was_acknowledged_outlives_a_crash() {
    let keys = Keys::start();
    let (id, key) = keys.make(json!({"owner": "User::\"alice\"", "models": ["oa/big"]}));
    let (other_id, other) = keys.make(json!({"owner": "User::\"alice\""}));
    assert_eq!(keys.admin("POST", &format!("/v1/keys/{other_id}/revoke"), json!({"reason": "x"})).status, 200);
    let administrator = keys.administrator.clone();
    let temp = keys.server.crash();
    let database = std::fs::read(temp.path().join("tollgate-data/keys.db")).unwrap();
    let log = std::fs::read(temp.path().join("tollgate-data/keys.db-wal")).unwrap_or_default();
    for text in [&key, &other, &administrator] {
        let kept = [&database, &log].iter().any(|file| file.windows(text.len()).any(|part| part == text.as_bytes()));
        assert!(!kept, "a key is kept in clear");
    }
    let server = Setup::without_files().file("people.yaml", PEOPLE).start_in(temp);
    assert!(!server.log().contains("tg_"), "there is an administrator already: {}", server.log());
    let keys = Keys { server, administrator };
    assert_eq!((&*keys.code(&key), &*keys.code(&other)), ("permitted", "credential_revoked"));
    let told = keys.admin("GET", &format!("/v1/keys/{id}"), Value::Null).json();
    assert_eq!(told["models"], json!(["oa/big"]));
}

#[test]
fn a_key_of_the_bundle_is_proved_by_its_hash() {
    let text = secret(tollgate_key("ci", [9; 32]));
    let hash = {
        let key = tollgate::model::KeyText::parse(&text).unwrap();
        tollgate::model::key_hash_text(&tollgate::model::bundle_key_hash(&key))
    };
    let expired = secret(tollgate_key("old", [8; 32]));
    let old = {
        let key = tollgate::model::KeyText::parse(&expired).unwrap();
        tollgate::model::key_hash_text(&tollgate::model::bundle_key_hash(&key))
    };
    let bundle = format!(
        "keys:\n  - {{ id: ci, hash: '{hash}', owner: 'User::\"alice\"', models: [oa/big] }}\n  \
         - {{ id: old, hash: '{old}', owner: 'User::\"alice\"', expires_at: 2001-01-01T00:00:00Z }}\n"
    );
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).file("keys.yaml", &bundle).start());
    let told = keys.question(json!({"api_key": text}), json!({}));
    assert_eq!(
        (&told["decision"], &told["principal"]["id"], &told["key"]["id"]),
        (&json!("permit"), &json!("alice"), &json!("ci"))
    );
    assert_eq!(keys.code_with(&text, json!({"resource": "Model::\"oa/small\""})), "forbidden_by_rule");
    assert_eq!(keys.code(&tollgate_key("ci", [7; 32])), "unauthenticated");
    assert_eq!(keys.code(&expired), "credential_expired");
    // A narrowed key manages none.
    let body = json!({"owner": "User::\"alice\""});
    assert_eq!(keys.ask(&text, "POST", "/v1/keys", body).status, 403);
}

#[test]
fn the_bundle_may_say_who_manages_keys() {
    let cedar = "forbid (principal is ApiKey, action == Action::\"manage_keys\", resource is User);\n\
                 permit (principal == User::\"alice\", action == Action::\"manage_keys\", resource == Team::\"ops\");\n";
    let token = secret("fixed-token-of-alice-0123456789");
    let config = format!(
        "identity:\n  admin_policies: off\n  providers:\n    - keys: {{}}\n    \
         - static: {{ tokens: [{{ token: {token}, principal: 'User::\"alice\"' }}] }}\n"
    );
    let setup = Setup::without_files().file("people.yaml", PEOPLE).file("who.cedar", cedar).config(&config);
    let keys = Keys::of(setup.start());
    let make = |key: &str, owner: &str| keys.ask(key, "POST", "/v1/keys", json!({"owner": owner})).status;
    assert_eq!(make(&keys.administrator, "User::\"alice\""), 403);
    assert_eq!(make(&token, "User::\"alice\""), 403);
    assert_eq!(make(&token, "Team::\"ops\""), 201);
}

#[test]
fn the_first_key_may_be_put_in_a_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let config = "identity: { providers: [{ keys: { first_key: file } }] }\n";
    let server = Setup::without_files().file("people.yaml", PEOPLE).config(config).start();
    let path = server.temp.path().join("tollgate-data/administrator.key");
    let key = secret(std::fs::read_to_string(&path).unwrap().trim());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let pepper = server.temp.path().join("tollgate-data/keys.pepper");
    assert_eq!(std::fs::metadata(&pepper).unwrap().permissions().mode() & 0o777, 0o600);
    let bearer = format!("Authorization: Bearer {key}");
    assert_eq!(server.connect().request("GET", "/v1/keys", &[&bearer], b"").status, 200);
}

#[test]
fn a_server_that_others_reach_is_closed_and_opens_with_a_key() {
    let setup = Setup::without_files().file("people.yaml", PEOPLE).argument("--listen").argument("0.0.0.0:0");
    let mut server = setup.start();
    server.address.set_ip([127, 0, 0, 1].into());
    let keys = Keys::of(server);
    let question = json!({"principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"oa/big\""});
    assert_eq!(keys.ask("", "POST", "/is_authorized", question.clone()).status, 401);
    let (_, alice) = keys.make(json!({"owner": "User::\"alice\""}));
    // Who is no gateway asks about themselves alone, and holds nothing.
    assert_eq!(keys.ask(&alice, "POST", "/is_authorized", question.clone()).status, 200);
    let other = json!({"principal": "User::\"boss\"", "action": "chat", "resource": "Model::\"oa/big\""});
    assert!(keys.ask(&alice, "POST", "/is_authorized", other).is_error(403, "forbidden", "principal"));
    let (_, gateway) = keys.make(json!({"owner": "Service::\"bot\"", "roles": ["tollgate:gateway"]}));
    assert_eq!(keys.ask(&gateway, "POST", "/is_authorized", question).status, 200);
    assert_eq!(keys.ask(&gateway, "POST", "/bundle/reload", json!({})).status, 403);
    assert_eq!(keys.ask(&keys.administrator, "POST", "/bundle/reload", json!({})).status, 200);
}

#[test]
fn two_nodes_of_one_redis_share_their_keys() {
    let Some(redis) = Redis::start() else { return };
    let config = format!("meters: {{ redis: {{ url: 'redis://127.0.0.1:{}', timeout_ms: 5000 }} }}\n", redis.port);
    let start = || Setup::without_files().file("people.yaml", PEOPLE).config(&config).start();
    let one = Keys::of(start());
    let second = start();
    assert!(!second.log().contains("tg_"), "{}", second.log());
    let two = Keys { server: second, administrator: one.administrator.clone() };
    let (id, key) = one.make(json!({"owner": "User::\"alice\""}));
    let within_a_second = |what: &str, holds: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < DEADLINE, "never: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
        began.elapsed()
    };
    within_a_second("the other node knows the key", &|| two.code(&key) == "permitted");
    assert_eq!(one.admin("POST", &format!("/v1/keys/{id}/revoke"), json!({"reason": "x"})).status, 200);
    assert_eq!(one.code(&key), "credential_revoked");
    let took = within_a_second("the other node knows the revocation", &|| two.code(&key) == "credential_revoked");
    println!("revoked on the other node after {took:?}");
    assert_eq!(two.admin("DELETE", &format!("/v1/keys/{id}"), Value::Null).status, 200);
    within_a_second("the first node knows that it is gone", &|| one.code(&key) == "unauthenticated");
}

#[test]
fn a_token_of_a_key_is_no_more_than_the_key_and_ends_with_it() {
    let setup = Setup::without_files().file("people.yaml", PEOPLE);
    let keys = Keys::of(setup.config("identity: { providers: [{ keys: {} }], tokens: {} }\n").start());
    let (id, key) = keys.make(json!({"owner": "User::\"alice\"", "models": ["oa/big"]}));
    let answer = keys.server.post("/v1/token", &json!({"grant_type": "api_key", "api_key": key}).to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    let token = secret(answer.json()["access_token"].as_str().unwrap());
    secret(answer.json()["refresh_token"].as_str().unwrap());
    let bearer = json!({"bearer": token});
    let told = keys.question(bearer.clone(), json!({}));
    assert_eq!(
        (&told["code"], &told["key"]["id"], &told["principal"]["id"]),
        (&json!("permitted"), &json!(id), &json!("alice"))
    );
    let small = json!({"resource": "Model::\"oa/small\""});
    assert_eq!(keys.question(bearer.clone(), small)["code"], "forbidden_by_rule");
    let revoked = keys.admin("POST", &format!("/v1/keys/{id}/revoke"), json!({"reason": "lost"}));
    assert_eq!(revoked.status, 200, "{}", revoked.body);
    assert_eq!(keys.question(bearer, json!({}))["code"], "credential_revoked");
}

/// There are keys in any number, and the labels of rules are not.
#[test]
fn what_kept_keys_forbid_is_counted_under_one_label() {
    let text = secret(tollgate_key("ci", [9; 32]));
    let key = tollgate::model::KeyText::parse(&text).unwrap();
    let hash = tollgate::model::key_hash_text(&tollgate::model::bundle_key_hash(&key));
    let bundle = format!("keys:\n  - {{ id: ci, hash: '{hash}', owner: 'User::\"alice\"', paths: [/v1/x] }}\n");
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).file("keys.yaml", &bundle).start());
    let narrowed = [
        json!({"owner": "User::\"alice\"", "paths": ["/v1/x"]}),
        json!({"owner": "User::\"alice\"", "models": ["oa/small"]}),
    ];
    let made = narrowed.map(|body| keys.make(body));
    for (_, key) in &made {
        assert_eq!(keys.code(key), "forbidden_by_rule");
    }
    assert_eq!(keys.code(&text), "forbidden_by_rule");
    let metrics = keys.server.get("/metrics").body;
    for line in
        ["tollgate_rule_decisions_total{rule=\"key\"} 2", "tollgate_rule_decisions_total{rule=\"key:ci:paths\"} 1"]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(made.iter().all(|(id, _)| !metrics.contains(id)), "{metrics}");
}

/// Whoever adds a provider leaves the keys out, and hears of it.
#[test]
fn keys_that_no_provider_takes_are_told_at_the_start() {
    let keys = Keys::start();
    let (_, alice) = keys.make(json!({"owner": "User::\"alice\""}));
    let others = "identity: { providers: [{ basic: {} }] }\n";
    let temp = keys.server.crash();
    let server = Setup::without_files().file("people.yaml", PEOPLE).config(others).start_in(temp);
    assert!(server.log().contains("warning: ") && server.log().contains("`- keys: {}`"), "{}", server.log());
    let question = json!({"credential": {"api_key": alice}, "action": "chat", "resource": "Model::\"oa/big\""});
    assert_eq!(server.post("/is_authorized", &question.to_string()).json()["code"], "unauthenticated");
    let temp = server.crash();
    let both = "identity: { providers: [{ keys: {} }, { basic: {} }] }\n";
    let server = Setup::without_files().file("people.yaml", PEOPLE).config(both).start_in(temp);
    assert!(!server.log().contains("warning: "), "{}", server.log());
    assert_eq!(server.post("/is_authorized", &question.to_string()).json()["code"], "permitted");
    // Where there never were any, there is nothing to say.
    let server = Setup::without_files().file("people.yaml", PEOPLE).config(others).start();
    assert!(!server.log().contains("warning: "), "{}", server.log());
}
