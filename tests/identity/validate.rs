//! `POST /v1/auth/validate` with `authorize`: what others delegate to decides by the rules, counts on the limits, and knows
//! the model of a request by its path too.

use serde_json::{Value, json};

use crate::support::{Answer, Server, Setup, secret};

const TOKEN: &str = "validate-and-charge-0123456789";

const BUNDLE: &str = r#"
users: [{ id: alice }]
provider_accounts:
  - id: main
    provider: openai
    models:
      - { name: big, aliases: [deploy], max_output_tokens: 100, price: { input: 1000, output: 1000 } }
      - { name: other }
  - { id: open }
routers: [{ id: ogx, models: [main/big] }]
authz_rules:
  - { id: all, users: "*", models: [main/*, open/*] }
  - { id: router, users: "*", routers: [ogx] }
  - { id: end-user, effect: forbid, users: "*", models: [main/big], when: 'context has end_user && context.end_user == "mallory"' }
  - { id: long, effect: forbid, users: "*", models: [main/big], when: 'context has max_output_tokens && context.max_output_tokens > 1000' }
"#;

fn start(limits: &str, config: &str) -> Server {
    secret(TOKEN);
    let identity = format!(
        "identity:\n  providers:\n    - static: {{ tokens: [{{ token: {TOKEN}, principal: 'User::\"alice\"' }}] }}\n"
    );
    let setup = Setup::without_files().file("bundle.yaml", BUNDLE).config(&format!("{config}{identity}"));
    if limits.is_empty() { setup.start() } else { setup.file("limits.yaml", limits).start() }
}

fn validate(server: &Server, request: Value) -> Answer {
    let body = json!({"api_key": TOKEN, "authorize": true, "request": request});
    server.post("/v1/auth/validate", &body.to_string())
}

fn chat(params: Value) -> Value {
    json!({"path": "/v1/chat/completions", "method": "POST", "params": params})
}

/// What is used and held of a limit.
fn used(server: &Server, limit: &str) -> (String, String) {
    let body = json!({"principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"main/big\""});
    let told = server.post("/is_authorized", &body.to_string()).json();
    let limits = told["limits"].as_array().unwrap().clone();
    let one = limits.iter().find(|one| one["id"] == limit).unwrap_or_else(|| panic!("no {limit}: {told}"));
    (one["used"].as_str().unwrap().to_owned(), one["held"].as_str().unwrap().to_owned())
}

fn pair(used: &str, held: &str) -> (String, String) {
    (used.to_owned(), held.to_owned())
}

#[test]
fn a_permit_counts_one_request_and_the_estimate() {
    let server = start(
        r#"limits:
  - { id: calls, users: "*", rate: { requests: 3, every: day } }
  - { id: tokens, users: "*", budget: { tokens: 1000000, every: total } }
  - { id: money, users: "*", budget: { usd: 1000, every: total } }
"#,
        "",
    );
    // 401 bytes of a body are 101 tokens, and the request says how many there may be in the answer.
    let mut request = chat(json!({"model": "main/big", "max_tokens": 9}));
    request["headers"] = json!({"Content-Length": "401"});
    assert_eq!(validate(&server, request).status, 200);
    assert_eq!(used(&server, "calls"), pair("1", "0"));
    assert_eq!(used(&server, "tokens"), pair("110", "0"));
    assert_eq!(used(&server, "money"), pair("0.11", "0"));
    // The body itself, and what the model answers with at most.
    let params = json!({"model": "main/big", "messages": [{"role": "user", "content": "x".repeat(100)}]});
    let tokens = params.to_string().len().div_ceil(4) + 100;
    assert_eq!(validate(&server, chat(params.clone())).status, 200);
    assert_eq!(used(&server, "tokens"), pair(&(110 + tokens).to_string(), "0"));
    // Whoever is refused is not counted: by a rule, by a limit.
    let mut forbidden = params.clone();
    forbidden["user"] = "mallory".into();
    let answer = validate(&server, chat(forbidden));
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("forbidden_by_rule")));
    assert_eq!(used(&server, "calls"), pair("2", "0"));
    assert_eq!(validate(&server, chat(params.clone())).status, 200);
    let answer = validate(&server, chat(params));
    assert_eq!((answer.status, answer.json()["code"].as_str()), (429, Some("rate_limited")));
    assert_eq!(used(&server, "tokens"), pair(&(110 + 2 * tokens).to_string(), "0"));
}

/// Whoever says that its body is shorter than it is, or says it twice, does not pay less.
#[test]
fn the_longest_length_that_is_told_counts() {
    let server = start("limits: [{ id: tokens, users: \"*\", budget: { input_tokens: 100000, every: total } }]\n", "");
    let mut total = 0;
    let mut charged = |headers: Value, params: Value, tokens: usize| {
        let mut request = chat(params);
        request["headers"] = headers;
        assert_eq!(validate(&server, request.clone()).status, 200, "{request}");
        total += tokens;
        assert_eq!(used(&server, "tokens"), pair(&total.to_string(), "0"), "{request}");
    };
    let plain = json!({"model": "main/big"});
    charged(json!({"content-length": "40", "Content-Length": "4000"}), plain.clone(), 1000);
    charged(json!({"Content-Length": "4000", "content-length": "40"}), plain.clone(), 1000);
    charged(json!({"content-length": ["40", "4000"]}), plain, 1000);
    let long = json!({"model": "main/big", "messages": [{"role": "user", "content": "x".repeat(400)}]});
    let tokens = long.to_string().len().div_ceil(4);
    charged(json!({"content-length": "4"}), long.clone(), tokens);
    charged(json!({"content-length": "-1"}), long, tokens);
}

#[test]
fn many_at_once_never_pass_a_limit() {
    let server = start("limits: [{ id: calls, users: \"*\", budget: { tokens: 40, every: total } }]\n", "");
    let mut request = chat(json!({"model": "main/big", "max_tokens": 0}));
    request["headers"] = json!({"content-length": 16});
    let permitted: usize = std::thread::scope(|scope| {
        let asks: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..5).filter(|_| validate(&server, request.clone()).status == 200).count()))
            .collect();
        asks.into_iter().map(|asks| asks.join().unwrap()).sum()
    });
    assert_eq!(permitted, 10);
    assert_eq!(used(&server, "calls"), pair("40", "0"));
}

#[test]
fn no_place_of_a_concurrency_limit_is_taken() {
    let limits = "limits: [{ id: parallel, users: \"*\", concurrency: 1 }, { id: calls, users: \"*\", rate: { requests: 100, every: day } }]\n";
    let server = start(limits, "validate: { authorize: true }\n");
    for _ in 0..5 {
        assert_eq!(validate(&server, chat(json!({"model": "main/big"}))).status, 200);
    }
    assert_eq!((used(&server, "parallel"), used(&server, "calls")), (pair("0", "0"), pair("5", "0")));
    // One that is full refuses, as it refuses a check.
    let hold =
        json!({"principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"main/big\"", "reserve": true});
    assert_eq!(server.post("/is_authorized", &hold.to_string()).json()["decision"], "permit");
    let answer = validate(&server, chat(json!({"model": "main/big"})));
    assert_eq!((answer.status, answer.json()["code"].as_str()), (429, Some("concurrency_exceeded")));
    assert_eq!(used(&server, "calls"), pair("6", "0"));
    // Whoever sets this up is told.
    assert!(server.log().contains("warning: `parallel`"), "{}", server.log());
}

#[test]
fn an_amount_that_nobody_gives_is_asked_for() {
    let limits = "limits: [{ id: tokens, users: \"*\", budget: { tokens: 1000, every: total } }]\n";
    let server = start(limits, "");
    for (what, model, params) in
        [("the input", "main/big", json!({})), ("the output", "main/other", json!({"messages": []}))]
    {
        let mut params = params;
        params["model"] = model.into();
        let answer = validate(&server, chat(params));
        assert!(answer.is_error(400, "amount_needed", "request.params"), "{what}: {answer:?}");
    }
    for (name, wrong) in [("max_tokens", json!(-1)), ("max_tokens", json!("many")), ("user", json!({"id": 1}))] {
        let answer = validate(&server, chat(json!({"model": "main/big", "messages": [], name: wrong})));
        assert!(answer.is_error(400, "invalid_request", &format!("request.params.{name}")), "{answer:?}");
    }
    assert_eq!(used(&server, "tokens"), pair("0", "0"));
    let check = start(limits, "routes:\n  - { path: /v1/chat/completions, action: chat, limits: check }\n");
    assert_eq!(validate(&check, chat(json!({"model": "main/big"}))).status, 200);
    assert_eq!(used(&check, "tokens"), pair("0", "0"));
}

#[test]
fn conditions_see_what_the_parameters_say() {
    let server = start("", "");
    for (params, status) in [
        (json!({"model": "main/big", "user": "carol", "stream": true, "max_tokens": 5}), 200),
        (json!({"model": ["main/big"], "user": ["carol"], "max_tokens": ["5"]}), 200),
        (json!({"model": "main/big", "user": "mallory"}), 403),
        (json!({"model": "main/big", "max_tokens": 2000}), 403),
        (json!({"model": "main/big", "max_tokens": 5, "max_completion_tokens": 2000}), 403),
        (json!({"model": "main/big", "generationConfig": {"maxOutputTokens": 2000}}), 403),
    ] {
        assert_eq!(validate(&server, chat(params.clone())).status, status, "{params}");
    }
}

#[test]
fn a_path_names_the_model() {
    let config = r#"routes:
  - { path: "/openai/deployments/{model}/chat/completions", method: POST, action: chat, account: main }
  - { path: "/v1beta/models/{model}:generateContent", action: chat, account: main }
  - { path: "/v1/chat/completions", action: chat, without_model: 'Router::"ogx"' }
"#;
    let server = start("", config);
    let ask = |path: &str, params: Value| {
        let answer = validate(&server, json!({"path": path, "method": "POST", "params": params}));
        (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    let permitted = (200, String::new());
    for path in [
        "/openai/deployments/big/chat/completions",
        "/openai/deployments/big/chat/completions?api-version=2024-10-21",
        "/openai/deployments/deploy/chat/completions",
        "/openai/deployments/%62ig/chat/completions",
        "/v1beta/models/big:generateContent",
    ] {
        assert_eq!(ask(path, json!({})), permitted, "{path}");
        assert_eq!(ask(path, json!({"model": "deploy"})), permitted, "{path}");
        assert_eq!(ask(path, json!({"model": "other"})).0, 400, "{path}");
    }
    assert_eq!(ask("/v1beta/models/none:generateContent", json!({})), (403, "model_unknown".to_owned()));
    for path in [
        "/openai/deployments/../chat/completions",
        "/openai/deployments/main%2Fbig/chat/completions",
        "/openai/deployments/main/big/chat/completions",
        "/openai/deployments//chat/completions",
        "/v1beta/models/:generateContent",
    ] {
        assert_eq!(ask(path, json!({})).0, 400, "{path}");
    }
    // A stack that sends no body: its router is asked for, and a model where one is named.
    assert_eq!(ask("/v1/chat/completions", json!({})), permitted);
    assert_eq!(ask("/v1/chat/completions", json!({"model": "main/big"})), permitted);
    assert_eq!(ask("/v1/chat/completions", json!({"model": "main/none"})), (403, "model_unknown".to_owned()));
    // What is there and cannot be read as a name is not the same as no name.
    assert_eq!(ask("/v1/chat/completions", json!({"model": null})), permitted);
    for model in
        [json!(5), json!([]), json!([5]), json!({"id": "main/other"}), json!(true), json!(["main/big", "main/other"])]
    {
        assert_eq!(ask("/v1/chat/completions", json!({"model": model})).0, 400, "{model}");
        assert_eq!(ask("/v1beta/models/big:generateContent", json!({"model": model})).0, 400, "{model}");
    }
    // Without routes of one's own, an alias is enough.
    let usual = start("", "");
    for path in [
        "/openai/deployments/deploy/chat/completions",
        "/v1beta/models/deploy:generateContent",
        "/model/deploy/converse",
        "/model/deploy/invoke-with-response-stream",
    ] {
        let answer = validate(&usual, json!({"path": path, "method": "POST", "params": {}}));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

#[test]
fn the_server_may_decide_about_every_call() {
    let server = start("", "validate: { authorize: true }\n");
    let ask = |authorize: Option<bool>, request: Option<Value>| {
        let mut body = json!({"api_key": TOKEN});
        if let Some(authorize) = authorize {
            body["authorize"] = authorize.into();
        }
        if let Some(request) = request {
            body["request"] = request;
        }
        server.post("/v1/auth/validate", &body.to_string()).status
    };
    for authorize in [None, Some(false), Some(true)] {
        assert_eq!(ask(authorize, Some(chat(json!({"model": "main/big"})))), 200);
        assert_eq!(ask(authorize, Some(chat(json!({"model": "main/none"})))), 403);
        assert_eq!(ask(authorize, None), 400);
    }
}

#[test]
fn routes_that_cannot_be_are_told() {
    for (route, told) in [
        (r#"{ path: "/a/{model}/{model}", action: chat }"#, "{model}"),
        (r#"{ path: "/a/{name}", action: chat }"#, "{model}"),
        (r#"{ path: "/a/../b", action: chat }"#, "`..`"),
        (r#"{ path: "/a/", action: chat }"#, "must not end with"),
        (r#"{ path: "/a", action: chat, account: "a/b" }"#, "`account`"),
        (r#"{ path: "/a", action: chat, limits: hold }"#, "`charge` or `check`"),
        (r#"{ path: "/a/{model}", action: chat, resource: 'Router::"x"' }"#, "does not go together"),
        (r#"{ path: "/a/{model}", action: chat, without_model: 'Router::"x"' }"#, "does not go together"),
        (
            r#"{ path: "/a", action: chat, resource: 'Router::"x"', without_model: 'Router::"x"' }"#,
            "do not go together",
        ),
        (r#"{ path: "/a", action: chat, without_model: 'Model::"x/y"' }"#, "is a Router"),
    ] {
        let (code, said) = Setup::new().config(&format!("routes: [{route}]\n")).fail();
        assert!(code == Some(2) && said.contains(told), "{route}: {said}");
    }
}

#[test]
fn an_address_or_path_that_is_none_is_told_before_the_credential_is_looked_at() {
    let server = start("", "");
    for (member, wrong) in
        [("ip", "10.0.0.0/8"), ("ip", "::1/128"), ("path", "/a/../b"), ("path", "/a\n"), ("path", "/%2e%2e/b")]
    {
        let mut request = chat(json!({"model": "main/big"}));
        request[member] = wrong.into();
        let answer = validate(&server, request);
        assert!(answer.is_error(400, "invalid_request", &format!("request.{member}")), "{answer:?}");
        let question = json!({"credential": {"bearer": "a-guess-of-somebody"}, "action": "chat", "resource": "Model::\"main/big\"",
            "context": { member: wrong }});
        let answer = server.post("/is_authorized", &question.to_string());
        assert!(answer.is_error(400, "invalid_context", &format!("context.{member}")), "{answer:?}");
    }
}

#[test]
fn guesses_from_a_mapped_address_are_guesses_from_the_ipv4_address() {
    let server = start("", "");
    let ask = |ip: &str, token: &str| {
        let body = json!({"api_key": token, "request": {"path": "/x", "ip": ip}});
        server.post("/v1/auth/validate", &body.to_string()).status
    };
    let spellings = ["203.0.113.9", "::ffff:203.0.113.9", "::ffff:cb00:7109", "0:0:0:0:0:FFFF:CB00:7109"];
    let told: Vec<u16> = (0..60).map(|number| ask(spellings[number % 4], &format!("a-wrong-token-{number}"))).collect();
    assert_eq!(told.first(), Some(&401));
    assert_eq!(told.last(), Some(&429), "{told:?}");
    for ip in spellings {
        assert_eq!(ask(ip, "one-more-wrong-token"), 429, "{ip}");
    }
    assert_eq!(ask("203.0.113.10", "one-more-wrong-token"), 401);
}
