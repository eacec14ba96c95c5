//! Bodies that are no such request: told with the member that is wrong, never a 500, and nothing is held or charged.

use crate::support::Answer;
use crate::{ALICE, code, hold, pair, question, reservation, standing, start};

struct Case {
    path: &'static str,
    body: String,
    param: String,
}

fn case(path: &'static str, body: String, param: impl Into<String>) -> Case {
    Case { path, body, param: param.into() }
}

const R: &str = "r-00000000000000000000000000000001";

/// What no whole number is.
const NUMBERS: [&str; 12] = [
    "-1",
    "-0.5",
    "1.5",
    "1.0",
    "1e3",
    "9223372036854775808",
    "18446744073709551616",
    "1e300",
    "null",
    "\"1\"",
    "true",
    "[]",
];
/// What no amount of money is.
const MONEY: [&str; 12] = [
    "0.5",
    "1",
    "-1",
    "null",
    "\"\"",
    "\"-1\"",
    "\"1e3\"",
    "\"0.0000000001\"",
    "\"9223372037\"",
    "\" 1\"",
    "\"1,5\"",
    "{}",
];
const KEYS: [&str; 5] = ["\"\"", "null", "7", "[]", "{}"];
const SECONDS: [&str; 8] = ["0", "-1", "3601", "1.5", "null", "\"60\"", "18446744073709551615", "9223372036854775807"];

fn asked(more: &str) -> String {
    question(ALICE, "main/big", &format!(", {more}"))
}

fn reserving() -> Vec<Case> {
    let ask = |more: &str, param: &str| case("/is_authorized", asked(more), param);
    let mut cases = vec![
        ask("\"reserve\": null", "reserve"),
        ask("\"reserve\": 1", "reserve"),
        ask("\"reserve\": \"true\"", "reserve"),
        ask("\"reserve\": [1]", "reserve"),
        ask(r#""reserve": {"tokens": 1}"#, "reserve.tokens"),
        ask(r#""reserve": {"input_tokens": 1, "input_tokens": 1}"#, "reserve.input_tokens"),
        ask(r#""reserve": true, "reserve": true"#, "reserve"),
        ask(r#""reserve": {"ttl_seconds": 9, "input_tokens": 1}, "ttl_seconds": 9"#, "ttl_seconds"),
        ask(r#""reserve": false, "ttl_seconds": 9"#, "ttl_seconds"),
        ask(r#""reserve": false, "idempotency_key": "k""#, "idempotency_key"),
        ask(r#""idempotency_key": "k""#, "idempotency_key"),
        ask(&format!(r#""reserve": true, "idempotency_key": "{}""#, "k".repeat(256)), "idempotency_key"),
        ask(&format!(r#""reserve": {}1{}"#, "[".repeat(500), "]".repeat(500)), "reserve"),
        ask(
            &format!(r#""reserve": {}1{}"#, "{\"input_tokens\": ".repeat(500), "}".repeat(500)),
            "reserve.input_tokens",
        ),
        // Each can be counted, both together cannot.
        ask(r#""reserve": {"input_tokens": 9223372036854775807, "output_tokens": 1}"#, "reserve"),
        ask(r#""reserve": {"input_tokens": 9223372036854775807, "output_tokens": 0}"#, "reserve"),
        case(
            "/is_authorized/batch",
            format!("{{\"requests\": [{}, {}]}}", asked("\"reserve\": false"), asked(r#""reserve": {"usd": 1}"#)),
            "requests[1].reserve.usd",
        ),
    ];
    for member in ["requests", "input_tokens", "output_tokens", "images"] {
        let each = |bad: &&str| ask(&format!(r#""reserve": {{"{member}": {bad}}}"#), &format!("reserve.{member}"));
        cases.extend(NUMBERS.iter().map(each));
    }
    cases.extend(MONEY.iter().map(|bad| ask(&format!(r#""reserve": {{"usd": {bad}}}"#), "reserve.usd")));
    cases.extend(
        KEYS.iter().map(|bad| ask(&format!(r#""reserve": true, "idempotency_key": {bad}"#), "idempotency_key")),
    );
    for bad in SECONDS {
        cases.push(ask(&format!(r#""reserve": true, "ttl_seconds": {bad}"#), "ttl_seconds"));
        cases.push(ask(&format!(r#""reserve": {{"ttl_seconds": {bad}}}"#), "reserve.ttl_seconds"));
    }
    cases
}

fn closing() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in ["/settle", "/release", "/extend"] {
        let with = |more: &str, param: &str| case(path, format!("{{\"reservation\": \"{R}\"{more}}}"), param);
        for bad in [
            "null",
            "1",
            "{}",
            "[]",
            "\"\"",
            "\"r-1\"",
            "\"R-00000000000000000000000000000001\"",
            "\"r-0000000000000000000000000000000g\"",
            "\"r-0000000000000000000000000000000A\"",
            "\"r-+0000000000000000000000000000001\"",
            "\"00000000-0000-0000-0000-000000000001\"",
            "\"r-000000000000000000000000000000010\"",
            "\"r-0000000000000000000000000000000é\"",
        ] {
            cases.push(case(path, format!("{{\"reservation\": {bad}}}"), "reservation"));
        }
        cases.push(case(path, "{}".to_owned(), "reservation"));
        for body in ["", "[]", "null", "7", "{", "\"r\"", "{\"reservation\"}"] {
            cases.push(case(path, body.to_owned(), ""));
        }
        cases.push(with(&format!(", \"reservation\": \"{R}\""), "reservation"));
        cases.push(with(", \"id\": 1", "id"));
        cases.push(with(", \"idempotency_key\": \"k\"", "idempotency_key"));
        if path != "/settle" {
            cases.push(with(", \"usage\": {}", "usage"));
            cases.push(with(", \"resource\": \"Model::\\\"main/big\\\"\"", "resource"));
        }
        if path == "/extend" {
            cases.extend(SECONDS.map(|bad| with(&format!(", \"ttl_seconds\": {bad}"), "ttl_seconds")));
        } else {
            cases.push(with(", \"ttl_seconds\": 9", "ttl_seconds"));
        }
    }
    let settle = |more: &str, param: &str| case("/settle", format!("{{\"reservation\": \"{R}\"{more}}}"), param);
    cases.push(settle("", "usage"));
    cases.push(settle(", \"usage\": {}, \"resource\": \"main/big\"", "resource"));
    cases.push(settle(", \"usage\": {}, \"resource\": {\"type\": \"Model\"}", "resource.id"));
    // Where a reservation is settled, null states that nobody knows what was used.
    let usages = usages().into_iter().filter(|(usage, _)| usage != "null");
    cases.extend(usages.map(|(usage, param)| settle(&format!(", \"usage\": {usage}"), &param)));
    cases
}

/// Usages that are none, with what is wrong.
fn usages() -> Vec<(String, String)> {
    let mut usages: Vec<(String, String)> = [
        ("null", "usage"),
        ("1", "usage"),
        ("[]", "usage"),
        (r#"{"tokens": 1}"#, "usage.tokens"),
        (r#"{"usd": "1", "usd": "1"}"#, "usage.usd"),
        (r#"{"input_tokens": 1, "cached_input_tokens": 2}"#, "usage.cached_input_tokens"),
        (r#"{"input_tokens": 3, "cached_input_tokens": 2, "cache_write_tokens": 2}"#, "usage.cached_input_tokens"),
        (r#"{"output_tokens": 1, "reasoning_tokens": 2}"#, "usage.reasoning_tokens"),
    ]
    .map(|(usage, param)| (usage.to_owned(), param.to_owned()))
    .into();
    for member in [
        "requests",
        "input_tokens",
        "output_tokens",
        "cached_input_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "images",
    ] {
        usages.extend(NUMBERS.map(|bad| (format!(r#"{{"{member}": {bad}}}"#), format!("usage.{member}"))));
    }
    usages.extend(MONEY.map(|bad| (format!(r#"{{"usd": {bad}}}"#), "usage.usd".to_owned())));
    usages
}

fn noting() -> Vec<Case> {
    let note = |more: &str, param: &str| case("/usage", asked(more), param);
    let good = r#""usage": {"input_tokens": 1, "output_tokens": 0}, "idempotency_key": "k""#;
    let mut cases = vec![
        case("/usage", "{}".to_owned(), "principal"),
        case("/usage", "[]".to_owned(), ""),
        note(r#""usage": {}"#, "idempotency_key"),
        note(r#""idempotency_key": "k""#, "usage"),
        note(&format!("{good}, \"usages\": []"), "usages"),
        note("\"usages\": []", "usages"),
        case("/usage", r#"{"idempotency_key": "k", "usages": []}"#.to_owned(), "usages"),
        case("/usage", r#"{"context": {"path": "/x"}, "usages": []}"#.to_owned(), "usages"),
        note(&format!("{good}, \"reserve\": true"), "reserve"),
        note(&format!("{good}, \"resource\": \"Model::\\\"main/big\\\"\""), "resource"),
        case("/usage", asked(good).replace("main/big", "main/none"), "resource"),
        case("/usage", r#"{"usages": 1}"#.to_owned(), "usages"),
        case("/usage", r#"{"usages": [7]}"#.to_owned(), "usages[0]"),
        case("/usage", format!("{{\"usages\": [{}, {{}}]}}", asked(good)), "usages[1].principal"),
        case("/usage", format!("{{\"usages\": [{}]}}", asked(r#""usage": {"usd": 1}"#)), "usages[0].usage.usd"),
    ];
    cases.extend(
        KEYS.iter().map(|bad| note(&format!("\"usage\": {{}}, \"idempotency_key\": {bad}"), "idempotency_key")),
    );
    let each =
        |(usage, param): (String, String)| note(&format!("\"idempotency_key\": \"k\", \"usage\": {usage}"), &param);
    cases.extend(usages().into_iter().map(each));
    cases
}

/// What JSON says wrongly as JSON is about no member; what no number can hold is refused as that.
fn is_told(answer: &Answer, param: &str) -> bool {
    answer.is_error(400, "invalid_request", param)
}

#[test]
fn what_is_no_request_is_told_where() {
    let server = start(
        r#"limits:
  - { id: tokens, users: "*", budget: { tokens: 1000, every: year } }
  - { id: money, users: "*", budget: { usd: 1000, every: year } }
"#,
    );
    let cases: Vec<Case> = [reserving(), closing(), noting()].into_iter().flatten().collect();
    assert!(cases.len() > 300, "{}", cases.len());
    let mut client = server.connect();
    let mut wrong = Vec::new();
    for Case { path, body, param } in &cases {
        let answer = client.post(path, body);
        if !is_told(&answer, param) {
            wrong.push(format!("{path} {}: expected {param:?}, got {answer:?}", &body[..body.len().min(300)]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!((standing(&server, "tokens"), standing(&server, "money")), (pair("0", "0"), pair("0", "0")));
    assert!(server.get("/metrics").body.lines().any(|line| line == "tollgate_panics_total 0"));
    assert_eq!(code(&hold(&server, 1)), "permitted");
}

#[test]
fn too_many_and_too_much_are_refused_whole() {
    let server = start("limits: [{ id: b, users: \"*\", budget: { tokens: 1000, every: year } }]\n");
    let one = asked(r#""usage": {"input_tokens": 1, "output_tokens": 0}, "idempotency_key": "k""#);
    let many = format!("{{\"usages\": [{}]}}", vec![one.as_str(); 1001].join(","));
    assert!(server.post("/usage", &many).is_error(413, "batch_too_large", "usages"));
    let long = format!("{{\"reservation\": \"{R}\", \"usage\": {{}}{}}}", " ".repeat(3 << 20));
    assert!(server.post("/settle", &long).is_error(413, "body_too_large", ""));
    assert_eq!(standing(&server, "b"), pair("0", "0"));
    let id = reservation(&hold(&server, 1));
    for path in ["/settle", "/release", "/extend", "/usage"] {
        let body = format!("{{\"reservation\": \"{id}\"}}");
        let answer = server.connect().request("POST", path, &["Content-Type: text/plain"], body.as_bytes());
        assert!(answer.is_error(400, "invalid_request", ""), "{path}: {answer:?}");
        assert_eq!(server.connect().request("DELETE", path, &[], b"").status, 405, "{path}");
    }
}
