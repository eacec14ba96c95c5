//! A key of the bundle and a key of the store that are narrowed alike answer alike; and a list is what single questions say.

use serde_json::{Value, json};

use crate::keys::{Keys, PEOPLE, tollgate_key};
use crate::support::{Setup, secret};

/// What keys are narrowed to, as the bundle says it; the API takes the same in JSON.
const NARROWED: [(&str, &str); 8] = [
    ("plain", "{}"),
    ("models", r#"{"models": ["oa/sm*"], "routers": ["prod"]}"#),
    ("accounts", r#"{"models": ["oa/*"]}"#),
    ("actions", r#"{"actions": ["embed", "list"]}"#),
    ("paths", r#"{"paths": ["/v1/chat/*", {"path": "/v1/mo\"d%65ls", "methods": ["GET", "HEAD"]}]}"#),
    ("networks", r#"{"networks": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]}"#),
    ("dressed", r#"{"networks": ["::ffff:10.1.0.0/112", "::/1"]}"#),
    ("all", r#"{"models": ["oa/big"], "actions": ["chat"], "paths": ["/*"], "networks": ["0.0.0.0/0"]}"#),
];

fn hash(key: &str) -> String {
    let key = tollgate::model::KeyText::parse(key).unwrap();
    tollgate::model::key_hash_text(&tollgate::model::bundle_key_hash(&key))
}

/// The bundle's keys with these names, each narrowed so.
fn bundle(narrowed: &[(&str, &str)]) -> (String, Vec<String>) {
    let mut bundle = "keys:\n".to_owned();
    let texts = narrowed.iter().enumerate().map(|(number, (name, more))| {
        let text = secret(tollgate_key(name, [u8::try_from(number).unwrap() + 1; 32]));
        let more = more.trim_start_matches('{').trim_end_matches('}');
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        bundle.push_str(&format!("  - {{id: {name}, hash: '{}', owner: 'User::\"alice\"'{more}}}\n", hash(&text)));
        text
    });
    let texts = texts.collect();
    (bundle, texts)
}

fn contexts() -> Vec<Value> {
    let mut contexts = vec![json!({})];
    for path in ["/v1/chat/completions", "/v1/chat", "/v1/chat/x?y=/../z", "/v1/%63hat/x", "/v1/mo\"dels", "/v2"] {
        for method in [None, Some("GET"), Some("POST")] {
            let ip = if method.is_some() { "10.1.2.3" } else { "::1" };
            let mut context = json!({"path": path, "ip": ip});
            if let Some(method) = method {
                context["method"] = method.into();
            }
            contexts.push(context);
        }
    }
    for ip in [
        "10.1.2.3",
        "10.2.0.1",
        "11.0.0.1",
        "2001:db8:1::1",
        "2001:db9::1",
        "192.0.2.7",
        "192.0.2.8",
        "::1",
        "::ffff:a01:203",
        "::FFFF:10.1.2.3",
    ] {
        contexts.push(json!({"path": "/v1/chat/x", "ip": ip}));
    }
    contexts
}

#[test]
fn keys_that_are_narrowed_alike_answer_alike() {
    let (bundle, texts) = bundle(&NARROWED);
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).file("keys.yaml", &bundle).start());
    let mut codes = std::collections::BTreeMap::new();
    for ((name, more), of_bundle) in NARROWED.iter().zip(&texts) {
        let mut body: Value = serde_json::from_str(more).unwrap();
        body["owner"] = "User::\"alice\"".into();
        let (_, of_store) = keys.make(body);
        for context in contexts() {
            for (action, resource) in [
                ("chat", "Model::\"oa/big\""),
                ("chat", "Model::\"oa/small\""),
                ("embed", "Model::\"oa/big\""),
                ("chat", "Router::\"prod\""),
                ("chat", "Model::\"oa/nothing\""),
            ] {
                let more = json!({"action": action, "resource": resource, "context": context});
                let [stored, declared] =
                    [&of_store, of_bundle].map(|key| keys.question(json!({"api_key": key}), more.clone()));
                let both = (&stored["decision"], &stored["code"]);
                assert_eq!(both, (&declared["decision"], &declared["code"]), "{name}: {more}: {stored} {declared}");
                // The list that forbids is one of those that the bundle's rules name.
                let lists = |told: &Value| -> Vec<String> {
                    let rules = told["rules"].as_array().into_iter().flatten();
                    let ids = rules.filter_map(|rule| rule["id"].as_str()).filter(|id| id.starts_with("key:"));
                    ids.map(|id| id.rsplit(':').next().unwrap().to_owned()).collect()
                };
                let (one, all) = (lists(&stored), lists(&declared));
                assert!(one.iter().all(|list| all.contains(list)), "{name}: {more}: {stored} {declared}");
                assert_eq!(one.is_empty(), all.is_empty(), "{name}: {more}: {stored} {declared}");
                *codes.entry(stored["code"].to_string()).or_insert(0) += 1;
            }
        }
    }
    // Both ways were walked, often.
    assert!(codes["\"permitted\""] > 50 && codes["\"forbidden_by_rule\""] > 200, "{codes:?}");
}

/// As many paths and networks as a key may have are one condition each, which is not too long.
#[test]
fn a_key_of_the_bundle_may_name_many_paths_and_networks() {
    let methods = r#""methods": ["GET", "POST", "PUT", "PATCH", "DELETE"]"#;
    let paths: Vec<String> = (0..100).map(|number| format!(r#"{{"path": "/v1/{number}/*", {methods}}}"#)).collect();
    let networks: Vec<String> = (0..100).map(|number| format!("\"10.{number}.0.0/16\"")).collect();
    let narrowed = format!(r#"{{"paths": [{}], "networks": [{}]}}"#, paths.join(", "), networks.join(", "));
    let (bundle, texts) = bundle(&[("many", &narrowed)]);
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).file("keys.yaml", &bundle).start());
    for (path, ip, code) in [
        ("/v1/0/x", "10.0.0.1", "permitted"),
        ("/v1/99/x", "10.99.255.255", "permitted"),
        ("/v1/100/x", "10.99.0.1", "forbidden_by_rule"),
        ("/v1/99/x", "10.100.0.1", "forbidden_by_rule"),
    ] {
        let context = json!({"context": {"path": path, "method": "PUT", "ip": ip}});
        assert_eq!(keys.code_with(&texts[0], context), code, "{path} from {ip}");
    }
}

#[test]
fn a_key_of_the_bundle_has_limits_of_its_own() {
    let limits = r#"{"limits": [{"concurrency": 5}, {"id": "people", "each": "end_user", "rate": {"requests": 1, "every": "hour"}}]}"#;
    let (bundle, texts) = bundle(&[("ci", limits), ("other", limits)]);
    let keys = Keys::of(Setup::without_files().file("people.yaml", PEOPLE).file("keys.yaml", &bundle).start());
    let ask = |key: usize, end_user: &str| {
        let more = json!({"reserve": {"requests": 1}, "context": {"end_user": end_user}});
        keys.question(json!({"api_key": texts[key]}), more)
    };
    let told = ask(0, "eve");
    assert_eq!(told["decision"], "permit", "{told}");
    let meters = |told: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        told["limits"].as_array().unwrap().iter().map(|one| (text(&one["id"]), text(&one["meter"]))).collect()
    };
    let wanted = [("key:ci:concurrency", "ApiKey::\"ci\""), ("key:ci:people", "context.end_user::\"eve\"")];
    let wanted = wanted.map(|(id, meter)| (id.to_owned(), meter.to_owned()));
    assert_eq!(meters(&told), wanted);
    assert_eq!(ask(0, "eve")["code"], "rate_limited");
    assert_eq!(ask(0, "dan")["code"], "permitted");
    // Another key with the same limits has meters of its own, and its owner has none of them.
    assert_eq!(ask(1, "eve")["code"], "permitted");
    let owner = keys.make(json!({"owner": "User::\"alice\""})).1;
    let told = keys.question(json!({"api_key": owner}), json!({"reserve": {"requests": 1}}));
    assert_eq!((&told["decision"], &told["limits"]), (&json!("permit"), &json!([])), "{told}");
    // It makes no key without limits.
    let body = json!({"owner": "User::\"alice\""});
    assert_eq!(keys.ask(&texts[0], "POST", "/v1/keys", body).status, 403);
    // Whoever asserts the key is told the same.
    let body = json!({"principal": "ApiKey::\"ci\"", "action": "chat", "resource": "Model::\"oa/big\"",
        "reserve": {"requests": 1}, "context": {"end_user": "eve"}});
    assert_eq!(keys.server.post("/is_authorized", &body.to_string()).json()["code"], "rate_limited");
}

/// Rules and limits about keys as such, whichever they are, for keys of both kinds.
const ABOUT_KEYS: &str = r#"
provider_accounts:
  - { id: az, provider: azure, models: [a, { name: b, tags: [gpu] }, { name: c, aliases: [sea] }] }
authz_rules:
  - { id: any-key, keys: "*", models: [az/a, az/b] }
  - { id: tagged, keys: "*", tags: [gpu], models: [az/c] }
  - { id: not-by-key, effect: forbid, keys: "*", models: [oa/small], when: 'context has end_user' }
  - { id: any-user, users: "*", models: [az/c], when: 'context has end_user && context.end_user == "eve"' }
  - { id: one-key, keys: [ci], models: [oa/big] }
limits:
  - { id: each-key, each: key, keys: "*", models: [az/b], rate: { requests: 2, every: day } }
  - { id: each-user, each: user, models: [az/a], rate: { requests: 3, every: day } }
"#;

#[test]
fn a_list_is_what_single_questions_say() {
    let (bundle, texts) = bundle(&[("ci", r#"{"models": ["az/*", "oa/big"]}"#), ("free", r#"{"tags": ["gpu"]}"#)]);
    let setup = Setup::without_files().file("people.yaml", PEOPLE).file("keys.yaml", &bundle);
    let keys = Keys::of(setup.file("about.yaml", ABOUT_KEYS).start());
    let mut credentials: Vec<Value> = texts.iter().map(|text| json!({"api_key": text})).collect();
    let wide = json!({"limits": [{"id": "own", "each": "model", "rate": {"requests": 2, "every": "day"}}]});
    for (owner, more) in [
        ("User::\"alice\"", json!({})),
        ("User::\"alice\"", json!({"models": ["az/a", "sea"], "tags": ["gpu"]})),
        ("User::\"alice\"", wide),
        ("Service::\"bot\"", json!({"tags": ["gpu"], "models": ["*"]})),
        ("Team::\"research\"", json!({"actions": ["chat"], "networks": ["10.0.0.0/8"]})),
        ("Org::\"acme\"", json!({"tags": ["gpu"]})),
    ] {
        let mut body = more;
        body["owner"] = owner.into();
        credentials.push(json!({"bearer": keys.make(body).1}));
    }
    let models = ["oa/big", "oa/small", "az/a", "az/b", "az/c", "sea", "az/none"];
    let (mut permitted, mut forbidden) = (0, 0);
    for round in 0..3 {
        for credential in &credentials {
            for context in [json!({}), json!({"end_user": "eve"}), json!({"ip": "10.0.0.1"})] {
                let ask = |resource: Value| {
                    let mut question = json!({"credential": credential, "action": "chat", "context": context});
                    question.as_object_mut().unwrap().extend(resource.as_object().unwrap().clone());
                    let answer = keys.server.post("/is_authorized", &question.to_string());
                    assert_eq!(answer.status, 200, "{question}: {}", answer.body);
                    answer.json()
                };
                let named = models.map(|model| json!({"type": "Model", "id": model}));
                let listed = ask(json!({"candidates": named}));
                let all = listed["candidates"].as_array().unwrap();
                assert_eq!(all.len(), models.len(), "{listed}");
                for (model, listed) in models.iter().zip(all) {
                    let checked = ask(json!({"resource": format!("Model::\"{model}\"")}));
                    assert_eq!(
                        (&listed["decision"], &listed["code"]),
                        (&checked["decision"], &checked["code"]),
                        "round {round}, {credential}, {context}, {model}: {listed} {checked}"
                    );
                    *(if checked["decision"] == "permit" { &mut permitted } else { &mut forbidden }) += 1;
                }
            }
            // What is held may use up a limit, so that the next round is told of it.
            for model in ["az/a", "az/b"] {
                keys.question(
                    credential.clone(),
                    json!({"resource": format!("Model::\"{model}\""), "reserve": {"requests": 1}}),
                );
            }
        }
    }
    assert!(permitted > 100 && forbidden > 100, "{permitted} {forbidden}");
}
