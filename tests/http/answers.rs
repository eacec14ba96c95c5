//! What is answered to what is a request.

use serde_json::{Value, json};

use crate::support::{Server, Setup, question};

#[test]
fn a_permit_and_a_forbid_are_both_answers() {
    let server = Server::start();
    let answer = server.post("/is_authorized", &question("alice", "openai-main/gpt-4o"));
    assert_eq!(answer.status, 200);
    let mut body = answer.json();
    let id = body["id"].take();
    let revision = body["revision"].take();
    assert!(id.as_str().is_some_and(|id| id.len() > 16) && revision.as_str().is_some_and(|name| !name.is_empty()));
    let rules = json!([{ "id": "research-chat", "effect": "permit", "file": "bundle.yaml", "line": 19 }]);
    let expected = json!({
        "decision": "permit", "id": null, "revision": null,
        "principal": { "type": "User", "id": "alice" }, "action": "chat",
        "resource": { "type": "Model", "id": "openai-main/gpt-4o" },
        "rules": rules, "code": "permitted", "message": "permitted by research-chat (bundle.yaml:19)",
        "limits": [], "not_held": [], "errors": [],
    });
    assert_eq!(body, expected);
    let again = server.post("/is_authorized", &question("alice", "openai-main/gpt-4o")).json();
    assert_ne!(again["id"], id);
    assert_eq!(again["revision"], revision);
    assert_eq!(server.get("/bundle").json()["revision"], revision);
}

#[test]
fn each_code_has_its_question() {
    let server = Server::start();
    for (principal, model, code, rules) in [
        ("alice", "openai-main/gpt-4o", "permitted", &["research-chat"] as &[&str]),
        ("alice", "best", "permitted", &["research-chat"]),
        ("alice", "openai-main/best", "permitted", &["research-chat"]),
        ("alice", "openai-main/gpt-4o-mini", "forbidden_by_rule", &["no-mini"]),
        ("alice", "openai-main/old", "model_disabled", &[]),
        ("alice", "openai-main/new", "model_unknown", &[]),
        ("alice", "gpt-4o", "model_unknown", &[]),
        ("bob", "openai-main/gpt-4o", "no_rule_permits", &[]),
        ("ian", "openai-main/gpt-4o", "principal_disabled", &[]),
        ("erin", "openai-main/gpt-4o", "error", &[]),
        ("alice", "labs/llama", "permitted", &["gpu"]),
    ] {
        for path in ["/is_authorized", "/is_authorized?status=map"] {
            let answer = server.post(path, &question(principal, model));
            let body = answer.json();
            let told: Vec<&str> =
                body["rules"].as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap()).collect();
            assert_eq!((&body["code"], told.as_slice()), (&json!(code), rules), "{principal} {model}: {answer:?}");
            let decision = if code == "permitted" { "permit" } else { "forbid" };
            assert_eq!(body["decision"], decision);
            let forbids = decision == "forbid" && path.ends_with("map");
            assert_eq!(answer.status, if forbids { 403 } else { 200 });
        }
    }
    let alias = server.post("/is_authorized", &question("alice", "best")).json();
    assert_eq!(alias["resource"]["id"], "openai-main/gpt-4o");
    let erred = server.post("/is_authorized", &question("erin", "openai-main/gpt-4o")).json();
    assert_eq!((&erred["errors"][0]["rule"], &erred["errors"][0]["line"]), (&json!("overflow"), &json!(23)));
}

#[test]
fn a_question_has_many_forms() {
    let server = Server::start();
    for body in [
        r#"{"principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""}"#,
        r#"{"resource": {"id": "openai-main/gpt-4o", "type": "Model"}, "action": "Action::\"chat\"", "principal": {"id": "alice", "type": "User"}}"#,
        r#"{"principal": "User::\"al\u0069ce\"", "action": "chat", "resource": {"type": "\u004dodel", "id": "openai-main\/gpt-4o"}, "context": {}}"#,
        r#"{"principal": "Service::\"bot\"", "action": "chat", "resource": "Model::\"openai-main/gpt-4o\"", "explain": true,
            "context": {"ip": "10.1.2.3", "method": "POST", "path": "/v1/chat", "input_tokens": 9, "max_output_tokens": 0,
                        "stream": true, "end_user": "u", "team": "research", "metadata": {"env": "prod"}}}"#,
    ] {
        assert_eq!(server.post("/is_authorized", body).json()["decision"], "permit", "{body}");
    }
    let small = |tokens: i64| {
        let body = format!(
            r#"{{"principal": "User::\"eve\"", "action": "chat", "resource": "Model::\"open/x\"", "context": {{"input_tokens": {tokens}}}, "explain": true}}"#
        );
        server.post("/is_authorized", &body).json()
    };
    assert_eq!(small(9)["decision"], "permit");
    let refused = small(10);
    assert_eq!(refused["decision"], "forbid");
    assert!(refused["hint"].as_str().unwrap().contains("small-only"), "{refused}");
    assert!(server.post("/is_authorized", &question("bob", "open/x")).json().get("hint").is_none());
}

#[test]
fn candidates_keep_their_order() {
    let server = Server::start();
    let ask = |resource: &str| {
        let body = format!(
            r#"{{"principal": "User::\"alice\"", "action": "chat", {resource} "candidates": [
                {{"type": "Model", "id": "openai-main/gpt-4o-mini"}}, "Model::\"best\"", {{"type": "Model", "id": "labs/x"}}]}}"#
        );
        server.post("/is_authorized", &body).json()
    };
    let alone = ask("");
    assert_eq!((&alone["decision"], &alone["code"]), (&json!("permit"), &json!("permitted")));
    assert_eq!(
        alone["permitted"],
        json!([{ "type": "Model", "id": "openai-main/gpt-4o" }, { "type": "Model", "id": "labs/x" }])
    );
    let codes: Vec<&Value> = alone["candidates"].as_array().unwrap().iter().map(|one| &one["code"]).collect();
    assert_eq!(codes, ["forbidden_by_rule", "permitted", "permitted"]);
    assert!(alone.get("resource").is_none());
    let through = ask(r#""resource": "Router::\"chat-prod\"","#);
    assert_eq!(through["resource"], json!({ "type": "Router", "id": "chat-prod" }));
    assert_eq!(through["permitted"], json!([{ "type": "Model", "id": "openai-main/gpt-4o" }]));
    let other = ask(r#""resource": "Router::\"other\"", "explain": true,"#);
    assert_eq!((&other["decision"], &other["code"]), (&json!("forbid"), &json!("no_rule_permits")));
    assert_eq!(other["permitted"], json!([]));
    assert!(other["hint"].is_string(), "{other}");
}

#[test]
fn a_batch_is_answered_in_order_by_one_revision() {
    let server = Server::start();
    assert_eq!(server.post("/is_authorized/batch", r#"{"requests": []}"#).json(), json!({ "responses": [] }));
    let mut requests = Vec::new();
    for number in 0..1000 {
        requests.push(question(["alice", "bob"][number % 2], "openai-main/gpt-4o"));
    }
    requests[7] = r#"{"principal": "User::\"alice\"", "action": "chat", "candidates": ["Model::\"best\""]}"#.to_owned();
    requests[8] =
        r#"{"principal": "User::\"bob\"", "action": "chat", "resource": "Model::\"open/x\"", "explain": true}"#
            .to_owned();
    let answer = server.post("/is_authorized/batch", &format!("{{\"requests\": [{}]}}", requests.join(",")));
    assert_eq!(answer.status, 200);
    let body = answer.json();
    let responses = body["responses"].as_array().unwrap();
    assert_eq!(responses.len(), 1000);
    for (number, response) in responses.iter().enumerate() {
        let expected = if number % 2 == 0 && number != 8 || number == 7 { "permit" } else { "forbid" };
        assert_eq!(response["decision"], expected, "{number}: {response}");
        assert_eq!(response["revision"], responses[0]["revision"]);
    }
    assert_eq!(responses[7]["permitted"][0]["id"], "openai-main/gpt-4o");
    assert!(responses[8]["hint"].is_string());
}

#[test]
fn the_server_tells_about_itself() {
    let server = Server::start();
    assert_eq!(server.get("/health/live").json(), json!({ "status": "live" }));
    let ready = server.get("/health/ready");
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("ready")));
    assert_eq!(server.get("/version").json(), json!({ "name": "tollgate", "version": env!("CARGO_PKG_VERSION") }));
    let head = server.connect().request("HEAD", "/health/live", &[], b"");
    assert_eq!(head.status, 200);
    let bundle = server.get("/bundle").json();
    assert_eq!((&bundle["counts"]["rules"], &bundle["files"]), (&json!(6), &json!(["bundle.yaml"])));
    assert_eq!((&bundle["failure"], &bundle["degraded"]), (&Value::Null, &json!(false)));
    let page = server.get("/docs");
    assert!(page.head.contains("text/html") && page.head.to_lowercase().contains("content-security-policy"));
    let elsewhere = page.body.matches("://").count() + page.body.matches("src=").count();
    assert_eq!(elsewhere, 0, "the page takes something from elsewhere");
    server.post("/is_authorized", &question("alice", "openai-main/gpt-4o"));
    server.post("/is_authorized", &question("bob", "openai-main/gpt-4o"));
    let metrics = server.get("/metrics");
    assert!(metrics.head.contains("text/plain; version=0.0.4"));
    for line in [
        r#"tollgate_decisions_total{decision="permit",code="permitted"} 1"#,
        r#"tollgate_decisions_total{decision="forbid",code="no_rule_permits"} 1"#,
        r#"tollgate_rule_decisions_total{rule="research-chat"} 1"#,
        r#"tollgate_reload_total{outcome="success"} 1"#,
        "tollgate_reload_failed 0",
    ] {
        assert!(metrics.body.lines().any(|known| known == line), "{line}: {}", metrics.body);
    }
}

#[test]
fn the_description_lists_every_route() {
    let server = Setup::new().config("identity: { tokens: {} }\n").start();
    let description = server.get("/openapi.json").json();
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let named = path.replace("{id}", "0AbCdEfGhIjK").replace("{user}", "alice");
            let answer = server.connect().request(&method.to_uppercase(), &named, &[], b"");
            assert!(![404, 405].contains(&answer.status), "{method} {path}: {answer:?}");
            let described = description["paths"][path][method]["responses"].as_object().unwrap();
            assert!(described.contains_key(&answer.status.to_string()), "{method} {path}: {}", answer.status);
            assert_eq!(server.connect().request("TRACE", &named, &[], b"").status, 405);
        }
    }
}

#[test]
fn a_key_is_answered_with_its_owner() {
    let hash = "0".repeat(64);
    let keys = format!("keys: [{{ id: ci, hash: \"{hash}\", owner: 'Service::\"bot\"' }}]\n");
    let server = Setup::new().file("keys.yaml", &keys).start();
    let body = r#"{"principal": "ApiKey::\"ci\"", "action": "chat", "resource": "Model::\"openai-main/gpt-4o\""}"#;
    let answer = server.post("/is_authorized", body).json();
    assert_eq!(answer["key"], json!({ "type": "ApiKey", "id": "ci" }), "{answer} {}", server.log());
    assert_eq!(answer["principal"], json!({ "type": "Service", "id": "bot" }));
    assert_eq!(answer["decision"], "permit");
}
