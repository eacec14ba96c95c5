//! What a reload does to meters.

use crate::{ALICE, ask, code, hold, pair, question, reload, reservation, settle, standing, stands, start};

fn month(cap: u64, every: &str, more: &str) -> String {
    format!("limits: [{{ id: b, users: \"*\", budget: {{ tokens: {cap}, every: {every} }}{more} }}]\n")
}

#[test]
fn a_changed_cap_keeps_what_was_spent() {
    let server = start(&month(100, "year", ""));
    let (first, _) = (reservation(&hold(&server, 40)), hold(&server, 30));
    settle(&server, &first, r#"{"input_tokens": 50}"#);
    reload(&server, &month(60, "year", ""));
    let over = ask(&server, ALICE, "main/big", "");
    assert_eq!((code(&over), stands(&over, "b")), ("budget_exceeded", pair("50", "30")));
    assert_eq!((&over["limits"][0]["limit"], &over["limits"][0]["remaining"]), (&"60".into(), &"0".into()));
    reload(&server, &month(81, "year", ", mode: enforce, warn_at: [50]"));
    assert_eq!(code(&hold(&server, 2)), "budget_exceeded");
    assert_eq!(code(&hold(&server, 1)), "permitted");
}

#[test]
fn a_limit_that_comes_again_finds_its_meter() {
    let server = start(&month(100, "year", ""));
    let held = reservation(&hold(&server, 40));
    reload(&server, "users: [{ id: carol }]\n");
    assert_eq!(ask(&server, ALICE, "main/big", "")["limits"], serde_json::json!([]));
    // What was held is settled while the limit is away.
    assert_eq!(settle(&server, &held, r#"{"input_tokens": 30}"#).status, 200);
    reload(&server, &month(100, "year", ""));
    assert_eq!(standing(&server, "b"), pair("30", "0"));
}

#[test]
fn another_period_begins_anew() {
    let server = start(&month(100, "year", ""));
    let held = reservation(&hold(&server, 40));
    for other in ["month", "{ rolling: 30d }", "total"] {
        let limits = month(100, other, "").replace("every: { rolling: 30d }", "rolling: 30d");
        reload(&server, &limits);
        assert_eq!(standing(&server, "b"), pair("0", "0"), "{other}");
    }
    assert_eq!(code(&hold(&server, 100)), "permitted");
    assert_eq!(settle(&server, &held, r#"{"input_tokens": 1}"#).status, 200);
    assert_eq!(standing(&server, "b"), pair("0", "100"));
    reload(&server, &month(100, "year", ""));
    assert_eq!(standing(&server, "b"), pair("1", "0"));
}

#[test]
fn a_restart_keeps_meters_and_answers() {
    let limits = month(100, "year", ", durability: sync");
    let server = start(&limits);
    let held = reservation(&hold(&server, 40));
    let keyed = question(ALICE, "main/big", &format!("{}, \"idempotency_key\": \"k\"", crate::tokens_of(5)));
    let answered = server.post("/is_authorized", &keyed).body;
    let settled = settle(&server, &reservation(&hold(&server, 10)), r#"{"input_tokens": 7}"#);
    assert_eq!(settled.status, 200);
    let server = crate::setup(&limits).start_in(server.crash());
    assert_eq!(standing(&server, "b"), pair("7", "45"));
    assert_eq!(server.post("/is_authorized", &keyed).body, answered);
    assert_eq!(
        settle(&server, settled.json()["reservation"].as_str().unwrap(), r#"{"input_tokens": 7}"#).body,
        settled.body
    );
    assert_eq!(settle(&server, &held, r#"{"input_tokens": 40}"#).status, 200);
    assert_eq!(standing(&server, "b"), pair("47", "5"));
}
