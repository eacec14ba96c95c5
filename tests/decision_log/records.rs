//! What is recorded: each decision once, under the id of its answer, without what is masked.

use serde_json::{Value, json};

use crate::support::{BUNDLE, Client, Server, Setup, question, secret};
use crate::{decisions, files, folder, lines, log, mode, stop};

const TOKEN: &str = "alices-token-0123456789abcdef-0123";

fn identity() -> String {
    secret(TOKEN);
    format!(
        "identity:\n  providers:\n    - static: {{ tokens: [{{ token: {TOKEN}, principal: 'User::\"alice\"' }}] }}\n"
    )
}

fn server(log: &str, limits: &str) -> Server {
    let bundle = format!("{BUNDLE}{limits}");
    Setup::new().file("bundle.yaml", &bundle).config(&format!("{}{log}", identity())).start()
}

fn id_of(answer: &Value) -> String {
    answer["id"].as_str().unwrap_or_else(|| panic!("no id: {answer}")).to_owned()
}

fn header(head: &str, name: &str) -> Option<String> {
    let value = |line: &str| {
        line.split_once(':').filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned())
    };
    head.lines().find_map(value)
}

fn proved(model: &str, token: &str) -> String {
    json!({ "credential": { "bearer": token }, "action": "chat", "resource": format!("Model::\"{model}\"") })
        .to_string()
}

/// Asks each route that decides, with permits and forbids; the ids of the answers in order.
fn ask_every_route(client: &mut Client) -> Vec<String> {
    let mut ids = Vec::new();
    for model in ["openai-main/gpt-4o", "openai-main/best", "openai-main/gpt-4o-mini", "other/x"] {
        ids.push(id_of(&client.post("/is_authorized", &question("alice", model)).json()));
    }
    let candidates = json!({
        "principal": "User::\"alice\"", "action": "chat", "resource": "Router::\"chat-prod\"",
        "candidates": ["Model::\"openai-main/gpt-4o\"", "Model::\"openai-main/gpt-4o-mini\""],
    });
    ids.push(id_of(&client.post("/is_authorized", &candidates.to_string()).json()));
    let explained =
        json!({ "principal": "User::\"eve\"", "action": "chat", "resource": "Model::\"a/b\"", "explain": true });
    ids.push(id_of(&client.post("/is_authorized?status=map", &explained.to_string()).json()));
    ids.push(id_of(&client.post("/is_authorized", &proved("openai-main/gpt-4o", TOKEN)).json()));
    ids.push(id_of(&client.post("/is_authorized", &proved("openai-main/gpt-4o", "nobodys-token")).json()));
    let batch = format!("{{\"requests\": [{}, {}]}}", question("alice", "openai-main/gpt-4o"), question("zoe", "a/b"));
    let answers = client.post("/is_authorized/batch", &batch).json();
    ids.extend(answers["responses"].as_array().unwrap().iter().map(id_of));
    for principal in ["alice", "zoe"] {
        let asked = json!({
            "principal": format!("User::\"{principal}\""), "action": "Action::\"chat\"",
            "resource": "Model::\"openai-main/gpt-4o\"", "context": {},
        });
        let answer = client.post("/v1/is_authorized", &asked.to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
        ids.push(header(&answer.head, "x-tollgate-id").unwrap());
    }
    for (model, status) in [("openai-main/gpt-4o", 200), ("openai-main/gpt-4o-mini", 403)] {
        let asked = json!({
            "api_key": TOKEN, "authorize": true,
            "request": { "path": "/v1/chat/completions", "method": "POST", "params": { "model": model } },
        });
        let answer = client.post("/v1/auth/validate", &asked.to_string());
        assert_eq!(answer.status, status, "{}", answer.body);
        ids.push(header(&answer.head, "x-tollgate-id").unwrap_or_else(|| id_of(&answer.json())));
    }
    ids
}

#[test]
fn each_decision_of_each_route_is_recorded_once_under_the_id_of_its_answer() {
    let mut server = server("decision_log: { level: all }\n", "");
    let mut client = server.connect();
    let ids = ask_every_route(&mut client);
    // These make no decision.
    for (path, body) in [("/is_authorized", "{}"), ("/v1/is_authorized", "{}"), ("/v1/auth/validate", "{}")] {
        assert_eq!(client.post(path, body).status, 400);
    }
    drop(client);
    stop(&mut server);
    let folder = folder(server.temp.path());
    let recorded: Vec<String> = decisions(&folder).iter().map(id_of).collect();
    assert_eq!(recorded, ids);
    let (code, told) = log(&folder, &["verify"]);
    assert_eq!((code, told.contains(&format!("{} decisions", ids.len()))), (0, true), "{told}");
    let (code, shown) = log(&folder, &["show", &ids[2]]);
    let shown: Value = serde_json::from_str(&shown).unwrap_or_else(|_| panic!("{code}: {shown}"));
    assert_eq!((code, &shown["code"], &shown["rules"]), (0, &json!("forbidden_by_rule"), &json!(["no-mini"])));
    let (code, told) = log(&folder, &["show", "00-1"]);
    assert_eq!((code, told.contains("no decision `00-1` is recorded")), (1, true), "{told}");
    let (code, proof) = log(&folder, &["prove", &ids[0]]);
    let proof: Value = serde_json::from_str(&proof).unwrap();
    assert_eq!((code, proof["line"].as_str().unwrap().contains(&ids[0])), (0, true));
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(files(&folder).iter().map(|file| mode(file)).collect::<Vec<_>>(), [0o600]);
}

#[test]
fn a_record_says_what_was_asked_and_what_was_answered() {
    let mut server = server("decision_log: { level: all }\n", "");
    let mut client = server.connect();
    let ids = ask_every_route(&mut client);
    let answer = client.post("/is_authorized", &question("alice", "openai-main/best")).json();
    drop(client);
    stop(&mut server);
    let records = decisions(&folder(server.temp.path()));
    let of = |at: usize| records.iter().find(|record| record["id"] == ids[at].as_str()).unwrap();
    let last = records.last().unwrap();
    assert_eq!(last["revision"], answer["revision"]);
    assert_eq!(
        (&last["resource"], &last["requested_resource"]),
        (&json!("Model::\"openai-main/gpt-4o\""), &json!("Model::\"openai-main/best\""))
    );
    let list = of(4);
    assert_eq!(list["candidates"][0]["decision"], "permit");
    assert_eq!(
        (&list["candidates"][1]["code"], &list["router"]["rules"]),
        (&json!("forbidden_by_rule"), &json!(["alice-router"]))
    );
    assert_eq!(of(6)["identity"]["method"], "static");
    let refused = of(7);
    assert_eq!((&refused["principal"], &refused["code"]), (&Value::Null, &json!("unauthenticated")));
    assert_eq!(refused["refused"]["reason"], "not_recognized");
    let via: Vec<&str> = (8..14).map(|at| of(at)["via"].as_str().unwrap()).collect();
    assert_eq!(via, ["is_authorized", "is_authorized", "cedar_agent", "cedar_agent", "validate", "validate"]);
}

#[test]
fn only_forbids_are_recorded_where_nothing_is_configured() {
    let mut server = server("", "");
    let ids = ask_every_route(&mut server.connect());
    stop(&mut server);
    let records = decisions(&folder(server.temp.path()));
    assert!(records.iter().all(|record| record["decision"] == "forbid"));
    // 2, 3: a forbid and no permit; 5: explained; 7: nobody's credential; 9, 11, 13: the second of each pair.
    let forbids: Vec<&String> = [2, 3, 5, 7, 9, 11, 13].map(|at| &ids[at]).to_vec();
    assert_eq!(records.iter().map(id_of).collect::<Vec<_>>(), forbids.into_iter().cloned().collect::<Vec<_>>());
}

#[test]
fn nothing_is_kept_where_the_log_is_off() {
    let mut server = server("decision_log: { level: off }\n", "");
    ask_every_route(&mut server.connect());
    stop(&mut server);
    assert!(!folder(server.temp.path()).exists());
}

#[test]
fn a_sample_has_every_forbid_and_every_permit_that_holds() {
    let limits = "limits: [{ id: few, users: [alice], budget: { tokens: 1000, every: total } }]\n";
    let mut server = server("decision_log: { level: { sample: 0.000000001 } }\n", limits);
    let mut client = server.connect();
    for _ in 0..20 {
        client.post("/is_authorized", &question("alice", "openai-main/gpt-4o"));
    }
    let holds = |key: &str| {
        json!({
            "principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"openai-main/gpt-4o\"",
            "reserve": { "input_tokens": 1, "output_tokens": 2 }, "idempotency_key": key,
        })
    };
    let held = client.post("/is_authorized", &holds("k").to_string()).json();
    // The same again is the same decision.
    assert_eq!(client.post("/is_authorized", &holds("k").to_string()).json()["id"], held["id"]);
    let forbidden = client.post("/is_authorized", &question("zoe", "a/b")).json();
    drop(client);
    stop(&mut server);
    let records = decisions(&folder(server.temp.path()));
    assert_eq!(records.iter().map(id_of).collect::<Vec<_>>(), [id_of(&held), id_of(&forbidden)]);
    assert_eq!(records[0]["reservation"], held["reservation"]["id"]);
    assert_eq!(records[0]["reserve"], json!({ "input_tokens": 1, "output_tokens": 2 }));
    assert_eq!(records[0]["limits"], json!([["few", null, "tokens", "1000", "0", "3"]]));
}

#[test]
fn the_standings_that_conditions_saw_are_recorded() {
    let bundle = "users: [{ id: alice }]\nauthz_rules:\n  - { id: r, users: [alice], models: [\"a/*\"], when: context.budget.used_percent < 100 }\n\
                  limits: [{ id: few, users: [alice], budget: { tokens: 10, every: total } }]\n";
    let setup = Setup::new().file("bundle.yaml", bundle).config("decision_log: { level: all }\n");
    let mut server = setup.start();
    let asked = json!({
        "principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"a/b\"",
        "reserve": { "input_tokens": 4, "output_tokens": 0 },
    });
    server.post("/is_authorized", &asked.to_string());
    server.post("/is_authorized", &question("alice", "a/b"));
    server.post("/is_authorized", &question("alice", "z/b"));
    stop(&mut server);
    let records = decisions(&folder(server.temp.path()));
    let seen: Vec<&Value> = records.iter().map(|record| &record["condition_limits"][0]["limits"]).collect();
    let standing = |held: &str| json!([["few", null, "tokens", "10", "0", held]]);
    // Also where the rules forbid: then the answer tells of no limit.
    assert_eq!(seen, [&standing("0"), &standing("4"), &standing("4")]);
    assert_eq!((&records[2]["decision"], records[2].get("limits")), (&json!("forbid"), None));
}

#[test]
fn what_is_masked_or_secret_is_nowhere_in_the_log() {
    let mask = "[context.ip, context.metadata.mail, context.end_user]";
    let limits = "limits: [{ id: each-user, models: \"*\", users: \"*\", each: end_user, budget: { tokens: 9, every: total } }]\n";
    let mut server = server(&format!("decision_log: {{ level: all, mask: {mask} }}\n"), limits);
    let asked = json!({
        "credential": { "bearer": TOKEN }, "action": "chat", "resource": "Model::\"openai-main/gpt-4o\"",
        "context": {
            "ip": "203.0.113.77", "end_user": "customer-4711", "input_tokens": 5,
            "metadata": { "mail": "someone@example.com", "env": "prod" },
        },
    });
    let answer = server.post("/is_authorized", &asked.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    let refused = json!({
        "credential": { "basic": { "username": "u", "password": secret("a-password-0123") } }, "action": "chat",
        "resource": "Model::\"openai-main/gpt-4o\"", "context": { "ip": "203.0.113.77" },
    });
    server.post("/is_authorized", &refused.to_string());
    stop(&mut server);
    let folder = folder(server.temp.path());
    let text: String = files(&folder).iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for hidden in ["203.0.113.77", "customer-4711", "someone@example.com", TOKEN, "a-password-0123"] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
    let records = decisions(&folder);
    assert_eq!(records[0]["context"], json!({ "input_tokens": 5, "metadata": { "env": "prod" } }));
    for path in ["context.ip", "context.end_user", "context.metadata.mail"] {
        assert!(records[0]["masked"].as_array().unwrap().contains(&json!(path)), "{path}: {}", records[0]);
    }
    assert_eq!(records[1]["masked"], json!(["context.ip"]));
}

/// A gateway may put what its client sent into any member: what is a credential by its form is kept nowhere.
#[test]
fn no_credential_reaches_the_log_wherever_a_caller_puts_it() {
    let limits = "limits: [{ id: each-user, models: \"*\", users: \"*\", each: end_user, budget: { tokens: 9, every: total } }]\n";
    let mut server = server("decision_log: { level: all, mask: [] }\n", limits);
    let key: &str = &secret("sk-proj-AbCdEf0123456789AbCdEf0123456789");
    let model = "Model::\"openai-main/gpt-4o\"";
    let told = [
        json!({ "metadata": { "authorization": format!("Bearer {key}") } }),
        json!({ "metadata": { key: "x" } }),
        json!({ "end_user": format!("Bearer {key}") }),
        json!({ "path": format!("/v1/chat/completions?api_key={key}") }),
        json!({ "path": "/v1/chat/completions?token=hunter2-in-a-query" }),
        json!({ "path": format!("/v1/{key}/completions") }),
        json!({ "team": key }),
        json!({ "end_user": "customer-4711" }),
    ];
    for context in &told {
        let asked = json!({ "principal": "User::\"alice\"", "action": "chat", "resource": model, "context": context });
        assert_eq!(server.post("/is_authorized", &asked.to_string()).status, 200, "{context}");
    }
    let named = [
        (format!("User::\"{key}\""), model.to_owned()),
        ("User::\"alice\"".to_owned(), format!("Model::\"openai-main/{key}\"")),
        ("User::\"alice\"".to_owned(), format!("Router::\"{key}\"")),
    ];
    for (principal, resource) in &named {
        let asked = json!({ "principal": principal, "action": "chat", "resource": resource });
        assert_eq!(server.post("/is_authorized", &asked.to_string()).status, 200, "{asked}");
        let asked = json!({ "principal": principal, "action": "chat", "candidates": [resource] });
        server.post("/is_authorized", &asked.to_string());
    }
    let entities = json!([{ "uid": { "type": "User", "id": key }, "attrs": {}, "parents": [] }]);
    let asked = json!({
        "principal": format!("User::\"{key}\""), "action": "Action::\"chat\"", "resource": model, "context": {},
        "additional_entities": entities,
    });
    server.post("/v1/is_authorized", &asked.to_string());
    stop(&mut server);
    let folder = folder(server.temp.path());
    let text: String = files(&folder).iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for hidden in [key, "hunter2-in-a-query"] {
        let line = text.lines().find(|line| line.contains(hidden));
        assert_eq!(line, None, "{hidden}");
    }
    let records = decisions(&folder);
    assert!(records.len() >= told.len() + named.len());
    assert_eq!(records[3]["context"], json!({ "path": "/v1/chat/completions" }));
    assert_eq!(records[7]["context"], json!({ "end_user": "customer-4711" }));
}

#[test]
fn many_refusals_are_summed_up() {
    let mut server = server("", "");
    let mut client = server.connect();
    for number in 0..27 {
        client.post("/is_authorized", &proved("openai-main/gpt-4o", &format!("a-guess-{number}")));
    }
    let counted = client.request("GET", "/metrics", &[], b"").body;
    assert!(counted.contains("tollgate_decision_log_records_total{outcome=\"summed_up\"} 7"), "{counted}");
    drop(client);
    stop(&mut server);
    let folder = folder(server.temp.path());
    assert_eq!(decisions(&folder).len(), 20);
    let sums: Vec<Value> = lines(&folder).into_iter().filter(|line| line["event"] == "refused").collect();
    assert_eq!(sums.len(), 1);
    assert_eq!(sums[0]["count"], 7);
    let reasons = sums[0]["reasons"].as_object().unwrap();
    assert_eq!(reasons.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 7);
}

#[test]
fn the_log_goes_to_standard_output_where_that_is_configured() {
    let mut server = server("decision_log: { level: all, stdout: {} }\n", "");
    let ids = ask_every_route(&mut server.connect());
    stop(&mut server);
    assert!(!folder(server.temp.path()).exists());
    server.until("all of the output", |server| server.log().contains("\"event\":\"stop\""));
    let kept = server.temp.path().join("stdout.jsonl");
    let lines = |server: &Server| -> String {
        let log = server.log();
        log.lines().filter(|line| line.starts_with("{\"v\":1")).map(|line| format!("{line}\n")).collect()
    };
    server.until("the last checkpoint", |server| {
        lines(server).lines().last().is_some_and(|line| line.contains("\"checkpoint\""))
    });
    std::fs::write(&kept, lines(&server)).unwrap();
    let (code, told) = log(&kept, &["verify"]);
    assert_eq!((code, told.contains(&format!("{} decisions", ids.len()))), (0, true), "{told}");
}
