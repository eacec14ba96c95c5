//! Paths and addresses of requests have one form, wherever they are looked at; what has none is no request. Errors show no
//! credential of those that were sent in the wrong place.

use serde_json::{Value, json};

use crate::support::{Server, Setup, secret};

const RULES: &str = r#"
users: [{ id: alice }]
authz_rules:
  - { id: all, users: "*", models: "*" }
  - { id: only-emb, effect: forbid, users: "*", models: [m/path], unless: 'context has path && context.path like "/v1/emb*"' }
  - { id: chat, effect: forbid, users: "*", models: [m/path], when: 'context has path && context.path == "/v1/emb/secret"' }
  - { id: inside, effect: forbid, users: "*", models: [m/ip], when: 'context has ip && context.ip.isInRange(ip("169.254.0.0/16"))' }
  - { id: mapped, effect: forbid, users: "*", models: [m/mapped], when: 'context has ip && context.ip.isInRange(ip("::ffff:a9fe:0/112"))' }
"#;

const NATIVE: &str = r#"
@id("native-mapped")
forbid (principal, action, resource == Model::"m/native")
when { context has ip && context.ip.isInRange(ip("::ffff:a9fe:0/112")) };
"#;

fn ask(server: &Server, model: &str, context: Value) -> (u16, String) {
    let body = json!({"principal": "User::\"alice\"", "action": "chat", "resource": {"type": "Model", "id": model}, "context": context});
    let answer = server.post("/is_authorized", &body.to_string());
    let told = answer.json();
    let code = told["code"].as_str().or(told["error"]["code"].as_str()).unwrap().to_owned();
    if answer.status == 400 {
        let param = told["error"]["param"].as_str().unwrap_or_default().to_owned();
        return (400, param);
    }
    (answer.status, code)
}

fn start() -> Server {
    Setup::without_files().file("rules.yaml", RULES).file("native.cedar", NATIVE).start()
}

#[test]
fn a_path_has_one_form_in_conditions() {
    let server = start();
    let code = |path: &str| ask(&server, "m/path", json!({"path": path}));
    let (permitted, forbidden) = ((200, "permitted".to_owned()), (200, "forbidden_by_rule".to_owned()));
    for path in ["/v1/emb", "/v1/%65mb/x", "/v1/emb?x=/../y", "/v1/emb/a%20b"] {
        assert_eq!(code(path), permitted, "{path}");
    }
    for path in ["/v1/files", "/v1/emb/secret", "/v1/emb/%73ecret", "/v1/%66iles?/v1/emb", "/v1/emb/secret?"] {
        assert_eq!(code(path), forbidden, "{path}");
    }
    for path in [
        "/v1/emb/../files",
        "/v1/emb/%2e%2e/files",
        "/v1/emb/%2E./files",
        "/v1/emb%2F..%2Ffiles",
        "/v1/emb%252f",
        "/v1/emb//x",
        "/v1/emb/./x",
        "/v1/emb/..",
        "/v1/emb\\..\\files",
        "/v1/emb;x/../files",
        "/v1/emb#x",
        "/v1/emb/\n",
        "/v1/emb/.\t./x",
        "/v1/emb/\0",
        "/v1/emb%00",
        "/v1/emb%0a",
        "/v1/emb%c2%85",
        "/v1/emb%ff",
        "/v1/emb%",
        "v1/emb",
        "",
    ] {
        assert_eq!(code(path), (400, "context.path".to_owned()), "{path:?}");
    }
}

#[test]
fn a_dual_stack_socket_shows_ipv4_clients() {
    let server = start();
    for ip in [
        "169.254.1.1",
        "::ffff:169.254.1.1",
        "::ffff:a9fe:101",
        "::FFFF:A9FE:0101",
        "0:0:0:0:0:ffff:a9fe:101",
        "0::ffff:169.254.1.1",
    ] {
        for model in ["m/ip", "m/mapped", "m/native"] {
            assert_eq!(ask(&server, model, json!({"ip": ip})), (200, "forbidden_by_rule".to_owned()), "{model} {ip}");
        }
    }
    for ip in ["169.253.1.1", "::ffff:169.253.1.1", "2001:db8::1", "::a9fe:101"] {
        for model in ["m/ip", "m/mapped", "m/native"] {
            assert_eq!(ask(&server, model, json!({"ip": ip})), (200, "permitted".to_owned()), "{model} {ip}");
        }
    }
    for ip in [
        "169.254.0.0/16",
        "169.254.1.1/32",
        "::/0",
        "::ffff:169.254.1.1/128",
        "fe80::1%eth0",
        "[::1]",
        "169.254.1.1:80",
        "",
    ] {
        assert_eq!(ask(&server, "m/ip", json!({"ip": ip})), (400, "context.ip".to_owned()), "{ip}");
    }
}

#[test]
fn a_model_is_named_by_what_steps_nowhere() {
    let server = start();
    for model in
        ["m/../x", "m//x", "m/./x", "m/..", "m/.", "m/", "/x", "..", "m/a/../../x", "m\\..\\x", "m/%2e%2E/x", "m/.%2e"]
    {
        assert_eq!(ask(&server, model, json!({})), (200, "model_unknown".to_owned()), "{model}");
        let body = json!({"principal": "User::\"alice\"", "action": "chat",
            "candidates": [{"type": "Model", "id": model}, {"type": "Model", "id": "m/x"}]});
        let told = server.post("/is_authorized", &body.to_string()).json();
        let codes: Vec<&str> =
            told["candidates"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect();
        assert_eq!(codes, ["model_unknown", "permitted"], "{model}");
        let usage = json!({"principal": "User::\"alice\"", "action": "chat", "resource": {"type": "Model", "id": model},
            "usage": {"input_tokens": 1}, "idempotency_key": "k"});
        assert_eq!(server.post("/usage", &usage.to_string()).status, 400, "{model}");
    }
    for model in ["m/...", "m/..x", "m/x.", "m/a/b:0"] {
        assert_eq!(ask(&server, model, json!({})), (200, "permitted".to_owned()), "{model}");
    }
}

#[test]
fn an_error_shows_no_credential() {
    let server = start();
    let key = secret("tg_3JxqPZ0aTn4L_0123456789abcdefghijABCDEFGHIJ0123456789xyz");
    let token = secret("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLWFsaWNlMDEyMw");
    let random = secret("q7Rk2vXz91LmNpQwErTy8uIoPaSd");
    for credential in [&key, &token, &random] {
        let question = |more: Value| {
            let mut body = json!({"principal": "User::\"alice\"", "action": "chat", "resource": "Model::\"m/x\""});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        for (path, body) in [
            ("/is_authorized", question(json!({"action": credential}))),
            ("/is_authorized", question(json!({"action": format!("Bearer {credential}")}))),
            ("/is_authorized", question(json!({"principal": credential}))),
            ("/is_authorized", question(json!({"resource": format!("{credential}::\"x\"")}))),
            ("/is_authorized", question(json!({"resource": {"type": credential, "id": "x"}}))),
            ("/is_authorized", question(json!({ credential.as_str(): 1 }))),
            ("/is_authorized", question(json!({"context": { credential.as_str(): "x" }}))),
            ("/is_authorized", question(json!({"context": {"ip": credential, "path": credential}}))),
            ("/is_authorized", question(json!({"context": {"metadata": { format!("{credential}\u{200b}"): "x" }}}))),
            ("/is_authorized", question(json!({"reserve": {"usd": credential}}))),
            ("/is_authorized", question(json!({"reserve": credential}))),
            ("/is_authorized", question(json!({"explain": credential}))),
            ("/is_authorized", json!(credential)),
            ("/is_authorized/batch", json!({"requests": [question(json!({"action": credential}))]})),
            ("/v1/is_authorized", question(json!({"principal": credential}))),
            ("/v1/is_authorized", question(json!({"additional_entities": [{"uid": credential}]}))),
            ("/v1/auth/validate", json!({ credential.as_str(): 1 })),
            ("/v1/auth/validate", json!({"api_key": "x", "request": { credential.as_str(): 1 }})),
            ("/v1/auth/validate", json!({"api_key": "x", "request": {"path": credential, "ip": credential}})),
            ("/settle", json!({"reservation": credential, "usage": {}})),
            (
                "/settle",
                json!({"reservation": "r-01a2050f490fbc88613e7ca33691a232", "usage": { credential.as_str(): 1 }}),
            ),
            ("/usage", json!({"usages": [{ credential.as_str(): 1 }]})),
        ] {
            // The client looks for noted secrets in whatever an error says.
            let answer = server.post(path, &body.to_string());
            assert!(matches!(answer.status, 200 | 400), "{path} {body}: {answer:?}");
            assert!(answer.status == 400 || path == "/usage", "{path} {body}: {answer:?}");
            assert!(!answer.body.contains(credential.as_str()), "{path} {body}: {answer:?}");
        }
        for path in [
            format!("/limits?{credential}=1"),
            format!("/limits?principal={credential}"),
            format!("/usage?by={credential}"),
        ] {
            let answer = server.get(&path);
            assert!(answer.status == 400 && !answer.body.contains(credential.as_str()), "{path}: {answer:?}");
        }
    }
}
