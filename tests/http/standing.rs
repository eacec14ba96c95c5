//! Where callers stand, and what was spent.

use serde_json::{Value, json};

use crate::support::{Answer, Server, Setup};

const BUNDLE: &str = r#"
orgs: [{ id: acme }]
teams: [{ id: science, org: acme }, { id: research, parent: science }]
users: [{ id: alice, team: research }, { id: bob, org: acme }]
keys: [{ id: ci, hash: "7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069", owner: 'User::"alice"' }]
provider_accounts:
  - id: open
    provider: any
    models:
      - { name: x, price: { input: 1, output: 2 }, max_output_tokens: 100 }
      - { name: y, price: { input: 10, output: 20 }, max_output_tokens: 100 }
authz_rules: [{ orgs: [acme], models: "*" }]
limits:
  - { id: a-money, orgs: [acme], each: user, budget: { usd: 1, every: total }, warn_at: [50, 80] }
  - { id: b-model, everyone: true, each: model, budget: { tokens: 1000000, every: total } }
  - { id: c-team, orgs: [acme], each: team, budget: { tokens: 5000, every: day }, mode: warn }
  - { id: d-end-user, everyone: true, each: end_user, budget: { tokens: 1000000, every: total } }
  - { id: e-shared, everyone: true, rate: { requests: 60, every: minute } }
  - { id: f-bob, users: [bob], concurrency: 2 }
"#;

fn server(config: &str) -> Server {
    Setup::new().file("bundle.yaml", BUNDLE).config(config).start()
}

fn limits(server: &Server, principal: &str, more: &str) -> Value {
    let answer = server.get(&format!("/limits?principal={principal}{more}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn meters(body: &Value) -> Vec<(&str, Option<&str>)> {
    let limits = body["limits"].as_array().unwrap();
    limits.iter().map(|one| (one["id"].as_str().unwrap(), one["meter"].as_str())).collect()
}

fn reserve(server: &Server, who: &str, model: &str, tokens: u64, end_user: &str) -> String {
    let body = json!({
        "principal": who, "action": "chat", "resource": format!("Model::\"open/{model}\""),
        "reserve": { "input_tokens": tokens, "output_tokens": 0 }, "context": { "end_user": end_user },
    });
    let answer = server.post("/is_authorized", &body.to_string()).json();
    answer["reservation"]["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

fn settle(server: &Server, reservation: &str, input: u64, output: u64) {
    let body = json!({ "reservation": reservation, "usage": { "input_tokens": input, "output_tokens": output } });
    let answer = server.post("/settle", &body.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
}

const ALICE: &str = "User%3A%3A%22alice%22";

#[test]
fn a_caller_sees_every_meter_that_can_bind_it() {
    for config in ["", "meters: { in_memory: true }"] {
        let server = server(config);
        let before = limits(&server, ALICE, "");
        let alice = Some("User::\"alice\"");
        let (research, science) = (Some("Team::\"research\""), Some("Team::\"science\""));
        let known = [("a-money", alice), ("c-team", research), ("c-team", science), ("e-shared", None)];
        assert_eq!(meters(&before), known);
        let held = reserve(&server, "User::\"alice\"", "x", 1000, "u \"1\"");
        settle(&server, &reserve(&server, "ApiKey::\"ci\"", "y", 10_000, "u2"), 20_000, 1_000);
        let after = limits(&server, ALICE, "");
        assert_eq!(
            meters(&after),
            [
                ("a-money", alice),
                ("b-model", Some("Model::\"open/x\"")),
                ("b-model", Some("Model::\"open/y\"")),
                ("c-team", research),
                ("c-team", science),
                ("d-end-user", Some("context.end_user::\"u \\\"1\\\"\"")),
                ("d-end-user", Some("context.end_user::\"u2\"")),
                ("e-shared", None),
            ]
        );
        let money = json!({
            "id": "a-money", "meter": "User::\"alice\"", "each": "user", "kind": "budget", "unit": "usd", "limit": "1",
            "used": "0.22", "held": "0.001", "remaining": "0.779", "resets_at": null, "warn_at": [50, 80],
            "mode": "enforce", "file": "bundle.yaml", "line": 14,
        });
        assert_eq!(after["limits"][0], money);
        assert_eq!(after["limits"][3]["mode"], "warn");
        assert!(after["limits"][3]["resets_at"].as_str().unwrap().ends_with("T00:00:00Z"));
        assert_eq!((&after["principal"], &after["next"]), (&json!({ "type": "User", "id": "alice" }), &Value::Null));
        // A key stands where its owner does.
        let key = limits(&server, "ApiKey::%22ci%22", "");
        assert_eq!((&key["principal"], meters(&key)), (&after["principal"], meters(&after)));
        // Nothing moved by looking.
        assert_eq!(limits(&server, ALICE, "")["limits"][1], after["limits"][1]);
        // In no team, and of no end user: meters of its own, once they are there.
        let bob = limits(&server, "User%3A%3A%22bob%22", "");
        assert!(meters(&bob).contains(&("c-team", Some("User::\"bob\""))));
        assert_eq!(meters(&bob).last(), Some(&("f-bob", None)));
        let mut paged = Vec::new();
        let mut after_mark = String::new();
        loop {
            let page = limits(&server, ALICE, &format!("&page_size=3{after_mark}"));
            let items = page["limits"].as_array().unwrap();
            assert!(items.len() <= 3);
            paged.extend(items.iter().map(|one| (one["id"].clone(), one["meter"].clone())));
            let Some(next) = page["next"].as_str() else { break };
            after_mark = format!("&after={next}");
        }
        let whole = after["limits"].as_array().unwrap().iter().map(|one| (one["id"].clone(), one["meter"].clone()));
        assert_eq!(paged, whole.collect::<Vec<_>>());
        settle(&server, &held, 1, 1);
    }
}

fn usage(server: &Server, query: &str) -> Value {
    let answer = server.get(&format!("/usage?{query}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[test]
fn the_books_sum_up_what_was_spent() {
    // A day that lasts for as long as this does.
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    while 86_400 - now() % 86_400 < 60 {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    for config in ["", "meters: { in_memory: true }"] {
        let server = server(config);
        settle(&server, &reserve(&server, "User::\"alice\"", "x", 10, "u"), 1000, 500);
        settle(&server, &reserve(&server, "ApiKey::\"ci\"", "y", 10, "u"), 100, 0);
        settle(&server, &reserve(&server, "User::\"bob\"", "x", 10, "u"), 7, 0);
        let all = usage(&server, "");
        let line = |input: &str, output: &str, requests: &str, usd: &str| json!({ "requests": requests, "input_tokens": input, "output_tokens": output, "usd": usd });
        assert_eq!(all["usage"], json!([line("1107", "500", "3", "0.003007")]));
        assert!(all["from"].as_str().unwrap().ends_with("-01") && all["next"].is_null());
        let today = all["to"].as_str().unwrap();
        let by_subject = usage(&server, &format!("from={today}&to={today}&by=day,subject"));
        let mut alice = line("1100", "500", "2", "0.003");
        alice["day"] = json!(today);
        alice["principal"] = json!("User::\"alice\"");
        assert_eq!(by_subject["usage"][0], alice);
        assert_eq!(by_subject["by"], json!(["day", "subject"]));
        let by_month = usage(&server, "by=month,model&principal=User%3A%3A%22alice%22");
        let models: Vec<&Value> = by_month["usage"].as_array().unwrap().iter().map(|one| &one["resource"]).collect();
        assert_eq!(models, ["Model::\"open/x\"", "Model::\"open/y\""]);
        assert_eq!(by_month["usage"][0]["month"], json!(today[..7]));
        let counted = usage(&server, "by=limit");
        let expected = json!([
            { "limit": "a-money", "unit": "usd", "amount": "0.003007" },
            { "limit": "b-model", "unit": "tokens", "amount": "1607" },
            { "limit": "c-team", "unit": "tokens", "amount": "1607" },
            { "limit": "d-end-user", "unit": "tokens", "amount": "1607" },
            { "limit": "e-shared", "unit": "requests", "amount": "3" },
        ]);
        assert_eq!(counted["usage"], expected);
        let of_one = usage(&server, "limit=b-model&resource=Model%3A%3A%22open/y%22");
        assert_eq!(of_one["usage"], json!([{ "unit": "tokens", "amount": "100" }]));
        let first = usage(&server, "by=limit&page_size=2");
        let second = usage(&server, &format!("by=limit&page_size=3&after={}", first["next"].as_str().unwrap()));
        assert_eq!(second["usage"], json!(expected.as_array().unwrap()[2..]));
        assert!(second["next"].is_null());
        assert_eq!(usage(&server, "from=2020-01-01&to=2020-02-29")["usage"], json!([]));
    }
}

#[test]
fn the_books_outlive_the_process() {
    let setup = || Setup::new().file("bundle.yaml", BUNDLE);
    let server = setup().start();
    settle(&server, &reserve(&server, "User::\"alice\"", "x", 10, "u"), 1000, 500);
    let before = usage(&server, "by=day,subject,model");
    let temp = server.crash();
    let server = setup().start_in(temp);
    assert_eq!(usage(&server, "by=day,subject,model"), before);
}

#[test]
fn what_is_no_question_is_told() {
    let server = server("");
    let is = |answer: &Answer, param: &str| answer.is_error(400, "invalid_request", param);
    for (path, param) in [
        ("/limits", "principal"),
        ("/limits?principal=alice", "principal"),
        ("/limits?principal=User%3A%3A%22alice%22&page_size=0", "page_size"),
        ("/limits?principal=User%3A%3A%22alice%22&page_size=1001", "page_size"),
        ("/limits?principal=User%3A%3A%22alice%22&page_size=+1", "page_size"),
        ("/limits?principal=User%3A%3A%22alice%22&after=x", "after"),
        ("/limits?prinzipal=User%3A%3A%22alice%22", "prinzipal"),
        ("/limits?principal=User%3A%3A%22alice%22&principal=User%3A%3A%22bob%22", "principal"),
        ("/limits?principal=%zz", "principal"),
        ("/usage?from=2026-02-30", "from"),
        ("/usage?from=2026-02-01&to=2026-01-01", "from"),
        ("/usage?to=yesterday", "to"),
        ("/usage?by=day,month", "by"),
        ("/usage?by=colour", "by"),
        ("/usage?by=limit,limit", "by"),
        ("/usage?after=bm9uZQ", "after"),
        ("/usage?principal=alice", "principal"),
    ] {
        let answer = server.get(path);
        assert!(is(&answer, param), "{path}: {answer:?}");
    }
    let robot = server.get("/limits?principal=Robot%3A%3A%22x%22");
    assert!(robot.is_error(400, "unknown_entity_type", "principal"), "{robot:?}");
    let put = server.connect().request("PUT", "/usage", &[], b"");
    assert!(put.status == 405 && put.head.contains("GET, HEAD, POST"), "{put:?}");
    assert_eq!(server.connect().request("DELETE", "/limits", &[], b"").status, 405);
    assert_eq!(server.connect().request("HEAD", "/usage", &[], b"").status, 200);
    let empty = Setup::without_files().file("broken.yaml", "a: b\n").start();
    assert!(empty.get("/limits?principal=User%3A%3A%22alice%22").is_error(503, "no_bundle", ""));
    assert_eq!(empty.get("/usage").status, 200);
}
