//! What is not a request: always the same kind of answer, with the place of the mistake, never a 500.

use crate::support::{Answer, Client, Server, question};

/// A body, and the error it must be answered with.
struct Case {
    name: &'static str,
    path: &'static str,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    param: &'static str,
}

const P: &str = r#""principal": {"type": "User", "id": "alice"}"#;
const A: &str = r#""action": "chat""#;
const R: &str = r#""resource": {"type": "Model", "id": "openai-main/gpt-4o"}"#;

fn case(name: &'static str, body: impl Into<Vec<u8>>, code: &'static str, param: &'static str) -> Case {
    Case { name, path: "/is_authorized", body: body.into(), status: 400, code, param }
}

fn with(name: &'static str, more: &str, code: &'static str, param: &'static str) -> Case {
    case(name, format!("{{{P}, {A}, {R}, {more}}}"), code, param)
}

fn context(name: &'static str, context: &str, code: &'static str, param: &'static str) -> Case {
    with(name, &format!("\"context\": {context}"), code, param)
}

fn principal(name: &'static str, principal: &str, code: &'static str, param: &'static str) -> Case {
    case(name, format!("{{\"principal\": {principal}, {A}, {R}}}"), code, param)
}

fn action(name: &'static str, action: &str, code: &'static str) -> Case {
    case(name, format!("{{{P}, \"action\": {action}, {R}}}"), code, "action")
}

fn not_json() -> Vec<Case> {
    let deep = |open: &str, close: &str| {
        format!("{{{P}, {A}, {R}, \"context\": {{\"metadata\": {}1{}}}}}", open.repeat(500), close.repeat(500))
    };
    vec![
        case("nothing", "", "invalid_request", ""),
        case("white space", " \n", "invalid_request", ""),
        case("a word", "permit", "invalid_request", ""),
        case("a number", "1", "invalid_request", ""),
        case("null", "null", "invalid_request", ""),
        case("a list", "[]", "invalid_request", ""),
        case("cut off", format!("{{{P}, {A}, {R}"), "invalid_request", ""),
        case("something behind it", format!("{{{P}, {A}, {R}}} {{}}"), "invalid_request", ""),
        case("a comma too many", format!("{{{P}, {A}, {R},}}"), "invalid_request", ""),
        case("a comment", format!("{{{P}, {A}, /* x */ {R}}}"), "invalid_request", ""),
        case(
            "not UTF-8",
            [b"{\"principal\": \"User::\\\"al".as_slice(), &[0xff, 0xfe], b"\\\"\"}"].concat(),
            "invalid_request",
            "",
        ),
        case("UTF-16", "{}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(), "invalid_request", ""),
        case("a byte order mark", format!("\u{feff}{{{P}, {A}, {R}}}"), "invalid_request", ""),
        case(
            "a lone surrogate",
            format!("{{\"principal\": {{\"type\": \"User\", \"id\": \"\\ud800\"}}, {A}, {R}}}"),
            "invalid_request",
            "",
        ),
        case("deep lists", deep("[", "]"), "invalid_request", ""),
        case("deep objects", deep("{\"a\":", "}"), "invalid_request", ""),
        context("1e400", r#"{"input_tokens": 1e400}"#, "invalid_request", ""),
        context("NaN", r#"{"input_tokens": NaN}"#, "invalid_request", ""),
    ]
}

fn members() -> Vec<Case> {
    vec![
        case("no member", "{}", "invalid_request", "principal"),
        case("no principal", format!("{{{A}, {R}}}"), "invalid_request", "principal"),
        case("no action", format!("{{{P}, {R}}}"), "invalid_request", "action"),
        case("no resource", format!("{{{P}, {A}}}"), "invalid_request", "resource"),
        with("an unknown member", r#""resouce": 1"#, "invalid_request", "resouce"),
        with("a member twice", A, "invalid_request", "action"),
        with("a member twice, once escaped", r#""\u0061ction": "chat""#, "invalid_request", "action"),
        principal(
            "a member of the principal twice",
            r#"{"type": "User", "id": "a", "id": "b"}"#,
            "invalid_request",
            "principal.id",
        ),
        context("a member of the context twice", r#"{"path": "a", "path": "b"}"#, "invalid_request", "context"),
        context(
            "a member of the metadata twice",
            r#"{"metadata": {"a": "1", "a": "2"}}"#,
            "invalid_request",
            "context",
        ),
        principal("a principal that is a number", "3", "invalid_request", "principal"),
        principal("a principal that is null", "null", "invalid_request", "principal"),
        principal("a principal that is a list", r#"["User", "alice"]"#, "invalid_request", "principal"),
        principal("a principal without type", r#"{"id": "alice"}"#, "invalid_request", "principal.type"),
        principal("a principal without id", r#"{"type": "User"}"#, "invalid_request", "principal.id"),
        principal(
            "a principal with more",
            r#"{"type": "User", "id": "alice", "roles": []}"#,
            "invalid_request",
            "principal.roles",
        ),
        principal("an id that is a number", r#"{"type": "User", "id": 7}"#, "invalid_request", "principal.id"),
        principal("a bare name", r#""alice""#, "invalid_request", "principal"),
        principal("an unclosed uid", r#""User::\"alice""#, "invalid_request", "principal"),
        with("explain as a text", r#""explain": "true""#, "invalid_request", "explain"),
        with("context as a list", r#""context": []"#, "invalid_request", "context"),
        with("context as null", r#""context": null"#, "invalid_request", "context"),
        with("a credential beside a principal", r#""credential": {"bearer": "x"}"#, "invalid_request", "credential"),
        case(
            "a credential of no form",
            format!(r#"{{"credential": {{"api_key": "x", "bearer": "y"}}, {A}, {R}}}"#),
            "invalid_request",
            "credential",
        ),
        case("a credential as a text", format!(r#"{{"credential": "x", {A}, {R}}}"#), "invalid_request", "credential"),
        case(
            "an empty credential",
            format!(r#"{{"credential": {{"bearer": ""}}, {A}, {R}}}"#),
            "invalid_request",
            "credential",
        ),
        with("an idempotency key of a check", r#""idempotency_key": "x""#, "invalid_request", "idempotency_key"),
        with("a time to live of a check", r#""ttl_seconds": 60"#, "invalid_request", "ttl_seconds"),
    ]
}

fn names() -> Vec<Case> {
    vec![
        action("an unknown action", r#""chatt""#, "unknown_action"),
        action("an action in capitals", r#""Chat""#, "unknown_action"),
        action("an action with a zero-width space", "\"chat\u{200b}\"", "unknown_action"),
        action("a look-alike action", "\"сhat\"", "unknown_action"),
        action("an action group", r#""use""#, "unknown_action"),
        action("an action group as a uid", r#""Action::\"admin\"""#, "unknown_action"),
        action("another type's action", r#""User::\"chat\"""#, "unknown_action"),
        action("an empty action", r#""""#, "invalid_request"),
        action("a long action", &format!("\"{}\"", "a".repeat(10_000)), "invalid_request"),
        action("an action that is an object", r#"{"id": "chat"}"#, "invalid_request"),
        principal("an unknown type", r#"{"type": "Robot", "id": "r"}"#, "unknown_entity_type", "principal"),
        principal("a type that is none", r#"{"type": "ip-address", "id": "r"}"#, "unknown_entity_type", "principal"),
        principal("an empty type", r#"{"type": "", "id": "r"}"#, "unknown_entity_type", "principal"),
        principal(
            "a principal that is a model",
            r#""Model::\"openai-main/gpt-4o\"""#,
            "unknown_entity_type",
            "principal",
        ),
        principal("an empty id", r#"{"type": "User", "id": ""}"#, "invalid_name", "principal"),
        principal("a line break in an id", r#"{"type": "User", "id": "al\nice"}"#, "invalid_name", "principal"),
        principal("a NUL in an id", r#"{"type": "User", "id": "alice\u0000"}"#, "invalid_name", "principal"),
        principal("a zero-width space", "{\"type\": \"User\", \"id\": \"alice\u{200b}\"}", "invalid_name", "principal"),
        principal("a turned direction", "{\"type\": \"User\", \"id\": \"\u{202e}ecila\"}", "invalid_name", "principal"),
        principal(
            "10 kB",
            &format!("{{\"type\": \"User\", \"id\": \"{}\"}}", "a".repeat(10_000)),
            "invalid_name",
            "principal",
        ),
        case(
            "an unknown resource type",
            format!(r#"{{{P}, {A}, "resource": {{"type": "Thing", "id": "x"}}}}"#),
            "unknown_entity_type",
            "resource",
        ),
        case(
            "a resource of another action",
            format!(r#"{{{P}, {A}, "resource": {{"type": "Org", "id": "acme"}}}}"#),
            "unknown_entity_type",
            "resource",
        ),
    ]
}

fn contexts() -> Vec<Case> {
    let mut cases = vec![
        context("an unknown member", r#"{"colour": "red"}"#, "invalid_context", "context.colour"),
        context("ip as a number", r#"{"ip": 1}"#, "invalid_context", "context.ip"),
        context("no ip", r#"{"ip": "10.1.2"}"#, "invalid_context", "context.ip"),
        context("an ip with zeros", r#"{"ip": "010.1.2.3"}"#, "invalid_context", "context.ip"),
        context("a wide prefix", r#"{"ip": "10.0.0.0/33"}"#, "invalid_context", "context.ip"),
        context("method as a boolean", r#"{"method": true}"#, "invalid_context", "context.method"),
        context("path as an object", r#"{"path": {}}"#, "invalid_context", "context.path"),
        context("an end user as null", r#"{"end_user": null}"#, "invalid_context", "context.end_user"),
        context("a team as a list", r#"{"team": ["research"]}"#, "invalid_context", "context.team"),
        context("stream as a text", r#"{"stream": "false"}"#, "invalid_context", "context.stream"),
        context("negative tokens", r#"{"input_tokens": -1}"#, "invalid_context", "context.input_tokens"),
        context("half a token", r#"{"input_tokens": 1.5}"#, "invalid_context", "context.input_tokens"),
        context(
            "too many tokens",
            r#"{"max_output_tokens": 9223372036854775808}"#,
            "invalid_context",
            "context.max_output_tokens",
        ),
        context("very many tokens", r#"{"max_output_tokens": 1e300}"#, "invalid_context", "context.max_output_tokens"),
        context("metadata as a list", r#"{"metadata": []}"#, "invalid_context", "context.metadata"),
        context("metadata of numbers", r#"{"metadata": {"a": 1}}"#, "invalid_context", "context.metadata.a"),
        context(
            "an entity for a text",
            r#"{"team": {"__entity": {"type": "Team", "id": "x"}}}"#,
            "invalid_context",
            "context.team",
        ),
    ];
    for name in ["now", "budget", "rate", "limits", "auth"] {
        let body = format!("{{{P}, {A}, {R}, \"context\": {{\"{name}\": {{}}}}}}");
        let param: &'static str = Box::leak(format!("context.{name}").into_boxed_str());
        cases.push(case("a reserved member", body, "reserved_context", param));
    }
    cases
}

fn lists() -> Vec<Case> {
    let model = r#"{"type": "Model", "id": "openai-main/gpt-4o"}"#;
    let candidates =
        |name, list: &str, code, param| case(name, format!("{{{P}, {A}, \"candidates\": {list}}}"), code, param);
    let batch = |name, body: String, status, code, param| Case {
        path: "/is_authorized/batch",
        status,
        ..case(name, body, code, param)
    };
    let good = question("alice", "openai-main/gpt-4o");
    vec![
        candidates("no candidate", "[]", "invalid_candidates", "candidates"),
        candidates("65 candidates", &format!("[{}]", vec![model; 65].join(",")), "invalid_candidates", "candidates"),
        candidates("candidates that are none", "{}", "invalid_request", "candidates"),
        candidates("a candidate that is a number", &format!("[{model}, 3]"), "invalid_request", "candidates[1]"),
        candidates("a candidate without id", r#"[{"type": "Model"}]"#, "invalid_request", "candidates[0].id"),
        candidates(
            "a candidate of another type",
            r#"[{"type": "User", "id": "x"}]"#,
            "unknown_entity_type",
            "candidates[0]",
        ),
        with("candidates beside a model", &format!("\"candidates\": [{model}]"), "invalid_candidates", "resource"),
        batch("a batch that is a list", "[]".to_owned(), 400, "invalid_request", ""),
        batch("a batch without requests", "{}".to_owned(), 400, "invalid_request", "requests"),
        batch("a batch of a number", r#"{"requests": 3}"#.to_owned(), 400, "invalid_request", "requests"),
        batch(
            "a malformed item",
            format!(r#"{{"requests": [{good}, {good}, {good}, {{{P}, {R}}}]}}"#),
            400,
            "invalid_request",
            "requests[3].action",
        ),
        batch("a mistyped item", format!(r#"{{"requests": [{good}, 7]}}"#), 400, "invalid_request", "requests[1]"),
        batch(
            "an unknown action in a batch",
            format!(r#"{{"requests": [{good}, {{{P}, "action": "x", {R}}}]}}"#),
            400,
            "unknown_action",
            "requests[1].action",
        ),
        batch(
            "a context in a batch",
            format!(r#"{{"requests": [{{{P}, {A}, {R}, "context": {{"ip": "x"}}}}]}}"#),
            400,
            "invalid_context",
            "requests[0].context.ip",
        ),
        batch(
            "1,001 requests",
            format!(r#"{{"requests": [{}]}}"#, vec![good.as_str(); 1001].join(",")),
            413,
            "batch_too_large",
            "requests",
        ),
    ]
}

#[test]
fn what_is_no_request_is_told_where() {
    let server = Server::start();
    let cases: Vec<Case> = [not_json(), members(), names(), contexts(), lists()].into_iter().flatten().collect();
    assert!(cases.len() >= 90);
    let mut client = server.connect();
    let mut wrong = Vec::new();
    for case in &cases {
        let answer = client.request("POST", case.path, &["Content-Type: application/json"], &case.body);
        if !answer.is_error(case.status, case.code, case.param) {
            wrong.push(format!(
                "{}: expected {} {} {:?}, got {answer:?}",
                case.name, case.status, case.code, case.param
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // After all that the same connection still answers.
    assert_eq!(client.post("/is_authorized", &question("alice", "openai-main/gpt-4o")).json()["decision"], "permit");
    assert_eq!(
        server.get("/metrics").body.lines().find(|line| line.starts_with("tollgate_panics_total")),
        Some("tollgate_panics_total 0")
    );
}

/// The parser quotes the value that it does not expect, and each of these characters with several bytes.
#[test]
fn errors_about_long_values_are_short() {
    let server = Server::start();
    let long = "\u{7f} ".repeat(50_000);
    for (member, expected) in [("explain", "a boolean"), ("reserve", "an object such as"), ("candidates", "a list")] {
        let answer = server.post("/is_authorized", &format!(r#"{{{P}, {A}, {R}, "{member}": "{long}"}}"#));
        assert!(answer.is_error(400, "invalid_request", member), "{member}: {}", answer.status);
        assert!(answer.body.len() < 5_000, "{member}: {}", answer.body.len());
        assert!(answer.body.contains(expected), "{member}: {}", answer.body);
    }
}

#[test]
fn strange_names_are_just_names() {
    let server = Server::start();
    for id in
        [r#"o\"hara"#, r"back\\slash", "alice' or 1=1", "аlice", "ALICE", " alice", "alice ", "日本語", "a::b", "😀"]
    {
        let answer = server.post("/is_authorized", &question(id, "openai-main/gpt-4o"));
        assert_eq!((answer.status, &answer.json()["code"]), (200, &"no_rule_permits".into()), "{id}");
    }
    for model in
        ["gpt-4o", "openai-main/GPT-4o", "openai-main/gpt-4o ", "openai-main/", "/gpt-4o", "openai-main/x", "BEST"]
    {
        let answer = server.post("/is_authorized", &question("alice", model));
        assert_eq!((answer.status, &answer.json()["code"]), (200, &"model_unknown".into()), "{model}");
    }
}

#[test]
fn only_json_is_taken() {
    let server = Server::start();
    let body = question("alice", "openai-main/gpt-4o");
    let ask = |headers: &[&str]| server.connect().request("POST", "/is_authorized", headers, body.as_bytes());
    for headers in [
        &[] as &[&str],
        &["Content-Type: text/plain"],
        &["Content-Type: application/x-www-form-urlencoded"],
        &["Content-Type: application/json; charset=latin1"],
        &["Content-Type: application/json", "Content-Type: text/plain"],
    ] {
        assert!(ask(headers).is_error(400, "invalid_request", ""), "{headers:?}");
    }
    for header in ["Content-Type: application/json; charset=utf-8", "content-type: APPLICATION/JSON"] {
        assert_eq!(ask(&[header]).status, 200, "{header}");
    }
}

#[test]
fn paths_and_methods_are_taken_literally() {
    let server = Server::start();
    let ask = |method: &str, path: &str| -> Answer {
        let body: &[u8] = if method == "POST" { b"{}" } else { b"" };
        Client::connect(server.address).request(method, path, &["Content-Type: application/json"], body)
    };
    for path in [
        "/",
        "/is_authorized/",
        "//is_authorized",
        "/is%5fauthorized",
        "/v1/../is_authorized",
        "/IS_AUTHORIZED",
        "/health",
    ] {
        assert!(ask("POST", path).is_error(404, "not_found", ""), "{path}");
    }
    for (method, path, allowed) in [
        ("GET", "/is_authorized", "POST"),
        ("DELETE", "/is_authorized", "POST"),
        ("POST", "/metrics", "GET, HEAD"),
        ("GET", "/bundle/reload", "POST"),
        ("PUT", "/bundle", "GET, HEAD"),
    ] {
        let answer = ask(method, path);
        assert!(answer.is_error(405, "method_not_allowed", ""), "{method} {path}: {answer:?}");
        assert!(answer.head.to_lowercase().contains(&format!("allow: {}", allowed.to_lowercase())), "{answer:?}");
    }
    let body = question("alice", "openai-main/gpt-4o");
    for path in ["/is_authorized?status=mpa", "/is_authorized?Status=map", "/is_authorized?status=map&x=1"] {
        assert!(server.post(path, &body).is_error(400, "invalid_request", "status"), "{path}");
    }
    assert!(server.post("/is_authorized/batch?status=map", &body).is_error(400, "invalid_request", ""));
}

/// The text of an item begins in the middle of the body, so a column that counts from there would mislead.
#[test]
fn errors_of_batch_items_have_no_position_within_the_item() {
    let server = Server::start();
    let mut client = server.connect();
    for (path, body, param, message) in [
        (
            "/is_authorized/batch",
            format!(r#"{{"requests": [{{{P}, {A}, {R}}}, {{{P}, {A}, {R}, "explain": "yes"}}]}}"#),
            "requests[1].explain",
            r#"invalid type: string "yes", expected a boolean"#,
        ),
        (
            "/usage",
            format!(r#"{{"usages": [{{{P}, {A}, {R}, "usage": 5, "idempotency_key": "k"}}]}}"#),
            "usages[0].usage",
            r#"invalid type: integer `5`, expected an object such as {"input_tokens": 870, "output_tokens": 312}"#,
        ),
    ] {
        let error = client.post(path, &body).json()["error"].clone();
        assert_eq!((error["param"].as_str(), error["message"].as_str()), (Some(param), Some(message)), "{body}");
    }
}
