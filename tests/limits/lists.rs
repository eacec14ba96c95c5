//! Lists with limits: candidates, of which the first with room is held, and batches, whose items hold in order.

use serde_json::{Value, json};

use crate::support::Server;
use crate::{ALICE, code, pair, question, reservation, settle, standing, stands, start, tokens_of};

const BY_MODEL: &str = r#"limits:
  - { id: big, models: [main/big], budget: { tokens: 10, every: year } }
  - { id: money, users: "*", budget: { usd: 5, every: year } }
  - { id: through, routers: [chat], budget: { tokens: 1000, every: year } }
"#;

fn list(server: &Server, resource: &str, candidates: &[&str], more: &str) -> Value {
    let named: Vec<String> = candidates.iter().map(|name| format!(r#"{{"type": "Model", "id": "{name}"}}"#)).collect();
    let body = format!(
        r#"{{"principal": "User::\"alice\"", "action": "chat", {resource} "candidates": [{}]{more}}}"#,
        named.join(", ")
    );
    let answer = server.post("/is_authorized", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn codes(answer: &Value) -> Vec<&str> {
    answer["candidates"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect()
}

#[test]
fn the_first_candidate_with_room_is_held() {
    let server = start(BY_MODEL);
    let both = ["main/none", "main/big", "main/small"];
    let first = list(&server, "", &both, &tokens_of(10));
    assert_eq!((code(&first), codes(&first)), ("permitted", vec!["model_unknown", "permitted", "permitted"]));
    assert_eq!((stands(&first, "big"), stands(&first, "money")), (pair("0", "10"), pair("0", "0.00002")));
    let second = list(&server, "", &both, &tokens_of(10));
    assert_eq!(codes(&second), ["model_unknown", "budget_exceeded", "permitted"]);
    assert_eq!(second["permitted"], json!([{ "type": "Model", "id": "main/small" }]));
    assert_eq!(stands(&second, "money"), pair("0", "0.00003"));
    assert_ne!(reservation(&second), reservation(&first));
    // A check of the list says the same and holds nothing.
    let check = list(&server, "", &both, "");
    assert_eq!((codes(&check), &check["not_held"]), (codes(&second), &json!(["money"])));
    let none = list(&server, "", &["main/big", "main/bare"], &tokens_of(10));
    assert_eq!((code(&none), codes(&none)), ("budget_exceeded", vec!["budget_exceeded", "price_unknown"]));
    assert_eq!(standing(&server, "money"), pair("0", "0.00003"));
}

#[test]
fn what_was_permitted_too_is_settled_by_its_own_price() {
    let server = start(BY_MODEL);
    let held = reservation(&list(&server, "", &["main/big", "main/small"], &tokens_of(10)));
    let with = |resource: &str| {
        let body = format!(
            r#"{{"reservation": "{held}", "usage": {{"input_tokens": 10, "output_tokens": 0}}, "resource": {resource}}}"#
        );
        server.post("/settle", &body)
    };
    for other in ["main/bare", "main/none", "open/x"] {
        let answer = with(&format!(r#""Model::\"{other}\"""#));
        assert!(answer.is_error(400, "invalid_request", "resource"), "{other}: {answer:?}");
    }
    assert!(with(r#""Router::\"chat\"""#).is_error(400, "invalid_request", "resource"));
    // By an alias as well.
    let settled = with(r#"{"type": "Model", "id": "tiny"}"#).json();
    assert_eq!((&settled["usage"]["usd"], &settled["over"]), (&json!("0.00001"), &json!(false)), "{settled}");
    assert_eq!(standing(&server, "money"), pair("0.00001", "0"));
}

#[test]
fn a_router_leads_to_the_limits_of_both() {
    let server = start(BY_MODEL);
    let router = r#""resource": {"type": "Router", "id": "chat"},"#;
    let held = list(&server, router, &["main/bare", "main/big"], &tokens_of(10));
    assert_eq!(codes(&held), ["no_rule_permits", "permitted"]);
    assert_eq!((stands(&held, "big"), stands(&held, "through")), (pair("0", "10"), pair("0", "10")));
    let next = list(&server, router, &["main/big", "main/small"], &tokens_of(10));
    assert_eq!((codes(&next), stands(&next, "through")), (vec!["budget_exceeded", "permitted"], pair("0", "20")));
    assert_eq!(
        settle(&server, &reservation(&next), r#"{"input_tokens": 10, "output_tokens": 0}"#).json()["usage"]["usd"],
        "0.00001"
    );
}

#[test]
fn items_of_a_batch_hold_in_order() {
    let server = start("limits: [{ id: b, users: \"*\", budget: { tokens: 10, every: year } }]\n");
    let item = |tokens| question(ALICE, "main/big", &tokens_of(tokens));
    let batch =
        |items: &[String]| server.post("/is_authorized/batch", &format!("{{\"requests\": [{}]}}", items.join(",")));
    let answer = batch(&[item(4), item(4), item(4), question(ALICE, "main/big", ""), item(2), item(1)]).json();
    let told: Vec<&str> = answer["responses"].as_array().unwrap().iter().map(code).collect();
    assert_eq!(told, ["permitted", "permitted", "budget_exceeded", "permitted", "permitted", "budget_exceeded"]);
    assert_eq!(standing(&server, "b"), pair("0", "10"));
}

/// Nobody would know the names of what was held.
#[test]
fn a_batch_that_is_refused_as_a_whole_holds_nothing() {
    let server = start("limits: [{ id: b, users: \"*\", budget: { tokens: 10, every: year } }]\n");
    let item = |more: &str| question(ALICE, "main/big", more);
    let batch =
        |items: &[String]| server.post("/is_authorized/batch", &format!("{{\"requests\": [{}]}}", items.join(",")));
    for (bad, wrong, param) in [
        (item(", \"reserve\": true"), "amount_needed", "requests[1].reserve.input_tokens"),
        (item("").replace("chat", "chatt"), "unknown_action", "requests[1].action"),
        (item(r#", "context": {"ip": "x"}"#), "invalid_context", "requests[1].context.ip"),
    ] {
        let answer = batch(&[item(&tokens_of(4)), bad]);
        assert!(answer.is_error(400, wrong, param), "{answer:?}");
        assert_eq!(standing(&server, "b"), pair("0", "0"), "{wrong}");
    }
    // What has a key is there when it is asked for again.
    let keyed = |tokens| item(&format!("{}, \"idempotency_key\": \"k\"", tokens_of(tokens)));
    let held = server.post("/is_authorized", &keyed(4));
    let answer = batch(&[keyed(4), item(&tokens_of(1)), keyed(5)]);
    assert!(answer.is_error(409, "idempotency_conflict", "requests[2].idempotency_key"), "{answer:?}");
    assert_eq!(standing(&server, "b"), pair("0", "4"));
    let again = batch(&[keyed(4), item(&tokens_of(1))]).body;
    assert!(again.contains(&held.body), "{again}");
}
