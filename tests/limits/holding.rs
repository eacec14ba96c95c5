//! What is held, what is refused, and what a refusal tells.

use serde_json::{Value, json};

use crate::support::Server;
use crate::{
    ALICE, BOB, ask, code, hold, pair, question, release, reload, reservation, settle, setup, standing, stands, start,
    tokens_of,
};

#[test]
fn a_check_counts_nothing() {
    let server = start(
        r#"limits:
  - { id: money, users: "*", each: user, budget: { usd: 1, every: total } }
  - { id: pace, users: "*", rate: { requests: 2, every: day } }
  - { id: at-once, users: "*", each: user, concurrency: 1 }
"#,
    );
    for _ in 0..5 {
        let answer = ask(&server, ALICE, "main/big", "");
        assert_eq!(code(&answer), "permitted");
        assert_eq!(answer["not_held"], json!(["money", "pace", "at-once"]));
        assert!(answer.get("reservation").is_none());
        let expected = json!({ "id": "money", "meter": ALICE, "unit": "usd", "limit": "1", "used": "0", "held": "0",
            "remaining": "1", "resets_at": null });
        assert_eq!(answer["limits"][0], expected);
        assert_eq!(answer["limits"][1]["meter"], Value::Null);
        assert_eq!((&answer["limits"][2]["unit"], &answer["limits"][2]["limit"]), (&json!("places"), &json!("1")));
    }
    // What rules forbid, nobody looks at.
    assert_eq!(ask(&server, ALICE, "main/none", "")["limits"], json!([]));
}

#[test]
fn every_limit_is_held_or_none() {
    let server = start(
        r#"limits:
  - { id: wide, users: "*", budget: { tokens: 100, every: year } }
  - { id: narrow, users: "*", budget: { tokens: 10, every: year } }
"#,
    );
    let held = hold(&server, 6);
    assert_eq!((stands(&held, "wide"), stands(&held, "narrow")), (pair("0", "6"), pair("0", "6")));
    assert_eq!((code(&held), &held["not_held"]), ("permitted", &json!([])));
    let refused = hold(&server, 5);
    assert_eq!((code(&refused), &refused["not_held"]), ("budget_exceeded", &json!([])));
    assert_eq!((standing(&server, "wide"), standing(&server, "narrow")), (pair("0", "6"), pair("0", "6")));
    assert_eq!(code(&hold(&server, 4)), "permitted");
    // Full to the last token: now a check is refused too, since there is no room for anything.
    let full = ask(&server, BOB, "main/big", "");
    assert_eq!((code(&full), stands(&full, "wide")), ("budget_exceeded", pair("0", "10")));
}

#[test]
fn a_refusal_names_every_limit_without_room() {
    let all = r#"limits:
  - { id: at-once, users: "*", concurrency: 1 }
  - { id: pace, users: "*", rate: { requests: 1, every: hour } }
  - { id: forever, users: "*", budget: { tokens: 10, every: total } }
  - { id: roomy, users: "*", budget: { tokens: 1000, every: total } }
"#;
    let server = start(all);
    let first = reservation(&hold(&server, 10));
    for more in ["", &tokens_of(1)] {
        let refused = ask(&server, ALICE, "main/big", more);
        assert_eq!(code(&refused), "budget_exceeded");
        let message = refused["message"].as_str().unwrap();
        for name in ["at-once: 0 of 1 places", "pace: ", "forever: 0 of 10 tokens used, 10 held"] {
            assert!(message.contains(name), "{name}: {message}");
        }
        assert!(!message.contains("roomy"), "{message}");
        // The budget never begins anew, so nothing says to wait.
        assert!(refused.get("retry_after_seconds").is_none(), "{refused}");
        assert_eq!(refused["limits"].as_array().unwrap().len(), 4);
    }
    let without = |gone: &[&str]| -> String {
        all.lines().filter(|line| !gone.iter().any(|id| line.contains(id))).map(|line| format!("{line}\n")).collect()
    };
    reload(&server, &without(&["forever"]));
    let refused = hold(&server, 1);
    assert_eq!(code(&refused), "rate_limited");
    let wait = refused["retry_after_seconds"].as_u64().unwrap();
    assert!((3500..=3600).contains(&wait), "{refused}");
    reload(&server, &without(&["forever", "pace"]));
    let refused = hold(&server, 1);
    assert_eq!((code(&refused), &refused["retry_after_seconds"]), ("concurrency_exceeded", &json!(1)));
    assert_eq!(settle(&server, &first, r#"{"input_tokens": 10, "output_tokens": 0}"#).status, 200);
    assert_eq!(code(&hold(&server, 1)), "permitted");
}

/// Waits until the hour lasts for as long as a test does.
fn within_an_hour() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    while 3_600 - now() % 3_600 < 60 {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

#[test]
fn waiting_is_told_only_where_it_helps() {
    within_an_hour();
    let server = start("limits: [{ id: hourly, users: \"*\", budget: { tokens: 10, every: hour } }]\n");
    assert_eq!(code(&hold(&server, 10)), "permitted");
    let later = hold(&server, 1);
    assert!((1..=3600).contains(&later["retry_after_seconds"].as_u64().unwrap()), "{later}");
    assert!(later["limits"][0]["resets_at"].is_string());
    let never = hold(&server, 11);
    assert_eq!(code(&never), "budget_exceeded");
    assert!(never.get("retry_after_seconds").is_none(), "{never}");
}

fn status_of(server: &Server, more: &str) -> (u16, Value) {
    let answer = server.post("/is_authorized?status=map", &question(ALICE, "main/big", more));
    (answer.status, answer.json()["code"].clone())
}

#[test]
fn the_status_tells_where_asked_to() {
    let budget = "limits: [{ id: b, users: \"*\", budget: { tokens: 10, every: year } }]\n";
    let server = start(budget);
    assert_eq!(status_of(&server, &tokens_of(10)), (200, json!("permitted")));
    assert_eq!(status_of(&server, ""), (403, json!("budget_exceeded")));
    reload(&server, "limits: [{ id: r, users: \"*\", rate: { requests: 1, every: hour } }]\n");
    assert_eq!(status_of(&server, &tokens_of(1)).0, 200);
    assert_eq!(status_of(&server, &tokens_of(1)), (429, json!("rate_limited")));
    reload(&server, "limits: [{ id: c, users: \"*\", concurrency: 1 }]\n");
    assert_eq!(status_of(&server, &tokens_of(1)).0, 200);
    assert_eq!(status_of(&server, ""), (429, json!("concurrency_exceeded")));
    reload(&server, "limits: [{ id: m, users: \"*\", budget: { usd: 0, every: year } }]\n");
    assert_eq!(status_of(&server, ""), (403, json!("budget_exceeded")));
    let server = setup(budget).config("decisions: { budget_status: 402 }\n").start();
    assert_eq!(status_of(&server, &tokens_of(11)), (402, json!("budget_exceeded")));
}

#[test]
fn amounts_come_from_the_request_its_context_and_the_model() {
    let server = start(
        r#"limits:
  - { id: all, users: "*", each: model, budget: { tokens: 100000, every: year } }
  - { id: out, users: "*", each: model, budget: { output_tokens: 100000, every: year } }
  - { id: money, models: ["main/*"], each: model, unpriced: free, budget: { usd: 5, every: year } }
  - { id: calls, users: "*", each: model, rate: { requests: 100, every: day } }
"#,
    );
    let said = r#", "context": {"input_tokens": 100, "max_output_tokens": 50}, "reserve": true"#;
    let modelled = r#", "context": {"input_tokens": 100}, "reserve": true"#;
    let overridden = r#", "context": {"input_tokens": 9, "max_output_tokens": 9}, "reserve": {"input_tokens": 100, "output_tokens": 7, "requests": 3}"#;
    let priced = r#", "reserve": {"usd": "0.25", "input_tokens": 1, "output_tokens": 1}"#;
    for (model, more, all, out, money, calls) in [
        ("main/big", said, "150", "50", "0.0007", "1"),
        ("main/small", modelled, "200", "100", "0.0003", "1"),
        ("main/bare", overridden, "107", "7", "", "3"),
    ] {
        let held = ask(&server, ALICE, model, more);
        assert_eq!(code(&held), "permitted", "{held}");
        let of = |id| stands(&held, id).1;
        assert_eq!((of("all").as_str(), of("out").as_str()), (all, out), "{model}");
        // What costs nothing is no matter of a budget of money.
        let counts_money = held["limits"].as_array().unwrap().iter().any(|one| one["id"] == "money");
        let of_money = if counts_money { of("money") } else { String::new() };
        assert_eq!(of_money, money, "{model}");
        let called = stands(&held, "calls");
        assert!([&called.0, &called.1].contains(&&calls.to_owned()), "{model}: {called:?}");
    }
    let held = ask(&server, ALICE, "main/big", priced);
    assert_eq!(stands(&held, "money").1, "0.2507");
    for (model, reserve, param) in [
        ("main/big", "true", "reserve.input_tokens"),
        ("main/big", r#"{"output_tokens": 1}"#, "reserve.input_tokens"),
        ("main/bare", r#"{"input_tokens": 1}"#, "reserve.output_tokens"),
        ("open/x", r#"{"input_tokens": 1, "usd": "1"}"#, "reserve.output_tokens"),
    ] {
        let body = question(ALICE, model, &format!(", \"reserve\": {reserve}"));
        let answer = server.post("/is_authorized", &body);
        assert!(answer.is_error(400, "amount_needed", param), "{model} {reserve}: {answer:?}");
    }
}

#[test]
fn without_a_price_money_cannot_be_counted() {
    let server = start("limits: [{ id: money, users: \"*\", budget: { usd: 5, every: year } }]\n");
    for more in ["", &tokens_of(1)] {
        let refused = ask(&server, ALICE, "main/bare", more);
        assert_eq!(code(&refused), "price_unknown", "{refused}");
        assert!(refused["message"].as_str().unwrap().contains("has no price"), "{refused}");
    }
    let told = ask(&server, ALICE, "main/bare", r#", "reserve": {"usd": "0.5"}"#);
    assert_eq!((code(&told), stands(&told, "money")), ("permitted", pair("0", "0.50")));
    let answer = settle(&server, &reservation(&told), r#"{"input_tokens": 3, "output_tokens": 0}"#);
    assert!(answer.is_error(400, "amount_needed", "usage.usd"), "{answer:?}");
    let answer = settle(&server, &reservation(&told), r#"{"input_tokens": 3, "usd": "0.000000001"}"#).json();
    assert_eq!(answer["charged"][0]["charged"], "0.000000001");
}

#[test]
fn the_code_is_the_first_that_is_so() {
    let server = start(
        r#"limits:
  - { id: pace, users: "*", rate: { requests: 1, every: hour } }
  - { id: money, users: "*", budget: { usd: 5, every: year } }
"#,
    );
    assert_eq!(code(&ask(&server, ALICE, "main/big", r#", "reserve": {"usd": "5"}"#)), "permitted");
    assert_eq!(code(&ask(&server, ALICE, "main/bare", "")), "price_unknown");
    assert_eq!(code(&ask(&server, ALICE, "main/big", "")), "budget_exceeded");
    assert_eq!(code(&ask(&server, ALICE, "main/none", "")), "model_unknown");
}

#[test]
fn conditions_read_what_limits_say() {
    let server = setup("limits: [{ id: month, users: \"*\", each: user, budget: { tokens: 10, every: year } }]\n")
        .file(
            "half.yaml",
            r#"authz_rules:
  - id: half
    effect: forbid
    users: "*"
    models: [main/big]
    when: context.limits has "month" && context.limits["month"].used_percent >= 50
"#,
        )
        .start();
    assert_eq!(code(&hold(&server, 4)), "permitted");
    assert_eq!(code(&hold(&server, 1)), "permitted");
    for more in ["", &tokens_of(1)] {
        let refused = ask(&server, ALICE, "main/big", more);
        assert_eq!((code(&refused), &refused["rules"][0]["id"]), ("forbidden_by_rule", &json!("half")));
    }
    assert_eq!(code(&ask(&server, ALICE, "main/small", &tokens_of(1))), "permitted");
    assert_eq!(code(&ask(&server, BOB, "main/big", &tokens_of(1))), "permitted");
}

#[test]
fn a_key_counts_for_its_owner_and_a_team_for_whom_it_pays() {
    let hash = "0".repeat(64);
    let keys = format!("keys: [{{ id: laptop, hash: \"{hash}\", owner: 'User::\"alice\"' }}]\n");
    let server = setup(
        r#"limits:
  - { id: person, users: "*", each: user, budget: { tokens: 100, every: year } }
  - { id: key, keys: "*", each: key, budget: { tokens: 100, every: year } }
  - { id: team, everyone: true, each: team, budget: { tokens: 100, every: year } }
"#,
    )
    .file("keys.yaml", &keys)
    .start();
    let meters = |answer: &Value| -> Vec<String> {
        let limits = answer["limits"].as_array().unwrap();
        limits
            .iter()
            .map(|one| format!("{} {} {}", one["id"], one["meter"], one["held"]).replace(['"', '\\'], ""))
            .collect()
    };
    let paid = |team: &str| format!(r#"{}, "context": {{"team": "{team}"}}"#, tokens_of(1));
    let both = ["team Team::ops 1", "team Team::research 1"];
    let alone = ask(&server, ALICE, "main/big", &tokens_of(1));
    assert_eq!(meters(&alone), ["person User::alice 1", both[0], both[1]]);
    let by_key = ask(&server, "ApiKey::\"laptop\"", "main/big", &paid("ops"));
    assert_eq!(meters(&by_key), ["person User::alice 2", "key ApiKey::laptop 1", "team Team::ops 2"]);
    // A team that the caller is not in pays nothing.
    let foreign = ask(&server, BOB, "main/big", &paid("ops"));
    assert_eq!(meters(&foreign), ["person User::bob 1", "team Team::research 2"]);
    // Who is in no team has a meter all the same.
    let nobody = ask(&server, "User::\"zoe\"", "main/big", &tokens_of(1));
    assert_eq!(meters(&nobody), ["person User::zoe 1", "team User::zoe 1"]);
    let service = ask(&server, "Service::\"bot\"", "main/big", &tokens_of(1));
    assert_eq!(meters(&service), ["team Team::ops 3"]);
}

#[test]
fn where_a_missing_price_forbids_nothing_a_call_is_held_and_settled() {
    for kind in ["unpriced: free", "mode: warn"] {
        let server =
            start(&format!("limits: [{{ id: money, users: \"*\", {kind}, budget: {{ usd: 5, every: year }} }}]\n"));
        let held = ask(&server, ALICE, "main/bare", &tokens_of(1));
        assert_eq!(code(&held), "permitted", "{kind}: {held}");
        for _ in 0..2 {
            let settled = settle(&server, &reservation(&held), r#"{"input_tokens": 1, "output_tokens": 0}"#);
            assert_eq!(settled.status, 200, "{kind}: {settled:?}");
        }
        let told = settle(&server, &reservation(&held), r#"{"input_tokens": 1, "usd": "0.5"}"#);
        assert_eq!(told.status, 409, "{kind}: {told:?}");
        let held = ask(&server, ALICE, "main/bare", &tokens_of(1));
        let told = settle(&server, &reservation(&held), r#"{"input_tokens": 1, "usd": "0.5"}"#);
        assert_eq!(told.status, 200, "{kind}: {told:?}");
        assert_eq!(standing(&server, "money"), pair("0.50", "0"), "{kind}");
    }
}

#[test]
fn a_limit_that_only_warns_needs_no_amount() {
    let server = start("limits: [{ id: soft, users: \"*\", mode: warn, budget: { tokens: 10, every: year } }]\n");
    let held = ask(&server, ALICE, "main/big", r#", "reserve": true"#);
    assert_eq!(code(&held), "permitted", "{held}");
    assert_eq!(settle(&server, &reservation(&held), r#"{"input_tokens": 7, "output_tokens": 0}"#).status, 200);
    assert_eq!(standing(&server, "soft"), pair("7", "0"));
}

#[test]
fn warning_is_told_once_and_refuses_nothing() {
    let server = start(
        r#"limits:
  - { id: soft, users: "*", mode: warn, warn_at: [50, 100], budget: { tokens: 10, every: year } }
"#,
    );
    assert_eq!(code(&hold(&server, 4)), "permitted");
    assert!(!server.log().contains("limit soft"), "{}", server.log());
    for tokens in [1, 1, 1, 20, 1] {
        let held = hold(&server, tokens);
        assert_eq!(code(&held), "permitted", "{held}");
    }
    assert_eq!(code(&ask(&server, ALICE, "main/big", "")), "permitted");
    server.until("both are told", |server| server.log().contains("has reached 100 %"));
    let log = server.log();
    let told = log.lines().filter_map(|line| line.split_once(" warning: limit soft")?.1.split_once(" limit=soft"));
    let told: Vec<&str> = told.map(|(message, _)| message).collect();
    assert_eq!(
        told,
        [" has reached 50 %: 5 of 10 tokens used or held", " has reached 100 %: 27 of 10 tokens used or held"]
    );
    let metrics = server.get("/metrics").body;
    for percent in ["50", "100"] {
        let line = format!("{{limit=\"soft\",percent=\"{percent}\"}} 1");
        assert_eq!(metrics.lines().filter(|known| known.ends_with(&line)).count(), 1, "{metrics}");
    }
}

#[test]
fn every_question_reserves_where_the_server_is_told_so() {
    let limits = "limits: [{ id: tokens, users: \"*\", budget: { tokens: 10000, every: total } }]\n";
    let server = setup(limits).config("decisions: { reserve: auto }\n").start();
    let context = r#", "context": {"input_tokens": 20}"#;
    let held = ask(&server, ALICE, "main/small", context);
    assert_eq!(stands(&held, "tokens"), pair("0", "120"));
    assert_eq!(release(&server, &reservation(&held)).status, 200);
    // A check is still to be had, and an amount that nobody gives is an error, not a check.
    let checked = ask(&server, ALICE, "main/small", &format!("{context}, \"reserve\": false"));
    assert!(checked.get("reservation").is_none() && stands(&checked, "tokens") == pair("0", "0"), "{checked}");
    let unsaid = server.post("/is_authorized", &question(ALICE, "main/bare", ""));
    assert!(unsaid.is_error(400, "amount_needed", "reserve.input_tokens"), "{unsaid:?}");
    let batch = format!(r#"{{"requests": [{}]}}"#, question(ALICE, "main/small", context));
    let answer = server.post("/is_authorized/batch", &batch).json();
    assert_eq!(stands(&answer["responses"][0], "tokens"), pair("0", "120"));
    let (code, said) = setup(limits).config("decisions: { reserve: always }\n").fail();
    assert!(code == Some(2) && said.contains("expected asked or auto"), "{said}");
}
