//! What becomes of what was held: settled, given back, extended, expired, each once, however often it is sent. And
//! spending that nobody held, and requests that are sent again.

use std::sync::Barrier;

use serde_json::{Value, json};

use crate::support::Server;
use crate::{
    ALICE, BOB, ask, code, hold, pair, question, release, reservation, settle, standing, stands, start, tokens_of,
};

const BUDGETS: &str = r#"limits:
  - { id: tokens, users: "*", each: user, budget: { tokens: 1000, every: year } }
  - { id: money, users: "*", each: user, budget: { usd: 5, every: year } }
  - { id: at-once, users: "*", each: user, concurrency: 100 }
"#;
const NOBODY: &str = "r-00000000000000000000000000000000";

fn stand(server: &Server) -> [(String, String); 3] {
    let answer = ask(server, ALICE, "main/big", "");
    ["tokens", "money", "at-once"].map(|id| stands(&answer, id))
}

fn three(tokens: (&str, &str), money: (&str, &str), at_once: &str) -> [(String, String); 3] {
    [pair(tokens.0, tokens.1), pair(money.0, money.1), pair("0", at_once)]
}

#[test]
fn a_settle_counts_once() {
    let server = start(BUDGETS);
    let id = reservation(&hold(&server, 100));
    assert_eq!(stand(&server), three(("0", "100"), ("0", "0.0002"), "1"));
    let first = settle(&server, &id, r#"{"input_tokens": 40, "output_tokens": 10, "cached_input_tokens": 0}"#);
    let expected = json!({
        "reservation": id, "state": "settled", "over": false,
        "usage": { "requests": 1, "input_tokens": 40, "output_tokens": 10, "cached_input_tokens": 0,
            "cache_write_tokens": 0, "reasoning_tokens": 0, "images": 0, "usd": "0.00018" },
        "charged": [
            { "id": "tokens", "meter": ALICE, "unit": "tokens", "held": "100", "charged": "50" },
            { "id": "money", "meter": ALICE, "unit": "usd", "held": "0.0002", "charged": "0.00018" },
            { "id": "at-once", "meter": ALICE, "unit": "places", "held": "1", "charged": "0" },
        ],
    });
    assert_eq!((first.status, first.json()), (200, expected));
    for same in [
        r#"{"input_tokens": 40, "output_tokens": 10}"#,
        r#"{"usd": "0.00018", "output_tokens": 10, "input_tokens": 40, "requests": 1}"#,
    ] {
        assert_eq!(settle(&server, &id, same).body, first.body, "{same}");
    }
    for other in [
        "{}",
        r#"{"input_tokens": 41, "output_tokens": 10}"#,
        r#"{"input_tokens": 40, "output_tokens": 10, "usd": "1"}"#,
    ] {
        let answer = settle(&server, &id, other);
        assert!(answer.is_error(409, "conflict", ""), "{other}: {answer:?}");
    }
    assert!(release(&server, &id).is_error(409, "conflict", ""));
    assert_eq!(stand(&server), three(("50", "0"), ("0.00018", "0"), "0"));
}

#[test]
fn what_was_used_beyond_is_charged_and_told() {
    let server = start(BUDGETS);
    let id = reservation(&hold(&server, 10));
    let answer = settle(&server, &id, r#"{"input_tokens": 2000, "output_tokens": 1}"#).json();
    assert_eq!(answer["over"], true, "{answer}");
    let full = ask(&server, ALICE, "main/big", "");
    assert_eq!((code(&full), stands(&full, "tokens")), ("budget_exceeded", pair("2001", "0")));
    assert_eq!(full["limits"][0]["remaining"], "0");
    let bound = r#"{"input_tokens": 9223372036854775807, "output_tokens": 0, "usd": "0"}"#;
    let id = reservation(&ask(&server, BOB, "main/big", &tokens_of(10)));
    let answer = settle(&server, &id, &bound.replace("0, \"usd\": \"0\"", "1"));
    assert!(answer.is_error(400, "invalid_request", "usage"), "{answer:?}");
    assert_eq!(settle(&server, &id, bound).status, 200);
    // Another as large cannot be counted beside it.
    let second = format!(
        r#"{{"principal": "User::\"bob\"", "action": "chat", "resource": "Model::\"main/big\"", "usage": {bound}, "idempotency_key": "k"}}"#
    );
    assert!(server.post("/usage", &second).is_error(400, "invalid_request", "usage"));
}

#[test]
fn a_release_gives_back_once() {
    let server = start(BUDGETS);
    let (id, other) = (reservation(&hold(&server, 100)), reservation(&hold(&server, 7)));
    let first = release(&server, &id);
    assert_eq!((first.status, &first.json()["state"]), (200, &json!("released")));
    assert_eq!(release(&server, &id).body, first.body);
    assert!(settle(&server, &id, "{}").is_error(409, "conflict", ""));
    let extended = server.post("/extend", &format!(r#"{{"reservation": "{id}"}}"#));
    assert!(extended.is_error(409, "conflict", ""), "{extended:?}");
    assert_eq!(stand(&server), three(("0", "7"), ("0", "0.000014"), "1"));
    assert_eq!(release(&server, &other).status, 200);
    assert_eq!(stand(&server), three(("0", "0"), ("0", "0"), "0"));
}

#[test]
fn an_extension_lasts_and_never_shortens() {
    let server = start(BUDGETS);
    let held = ask(&server, ALICE, "main/big", &format!("{}, \"ttl_seconds\": 600", tokens_of(1)));
    let id = reservation(&held);
    let extend = |seconds: u64| {
        let answer = server.post("/extend", &format!(r#"{{"reservation": "{id}", "ttl_seconds": {seconds}}}"#));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["reservation"], id.as_str());
        answer.json()["expires_at"].as_str().unwrap().to_owned()
    };
    assert_eq!(extend(1), held["reservation"]["expires_at"]);
    let longer = extend(3600);
    assert!(longer.as_str() > held["reservation"]["expires_at"].as_str().unwrap());
    assert_eq!(extend(600), longer);
}

#[test]
fn nobody_knows_what_was_never_held() {
    let server = start(BUDGETS);
    assert!(settle(&server, NOBODY, "{}").is_error(404, "reservation_unknown", "reservation"));
    assert!(release(&server, NOBODY).is_error(404, "reservation_unknown", "reservation"));
    let answer = server.post("/extend", &format!(r#"{{"reservation": "{NOBODY}"}}"#));
    assert!(answer.is_error(404, "reservation_unknown", "reservation"), "{answer:?}");
}

#[test]
fn what_expires_is_charged_as_held_and_can_be_corrected() {
    let server = start(
        r#"limits:
  - { id: tokens, users: "*", budget: { tokens: 1000, every: year } }
  - { id: kind, users: "*", on_expiry: release, budget: { tokens: 1000, every: year } }
  - { id: at-once, users: "*", concurrency: 2 }
"#,
    );
    let short =
        |tokens| reservation(&ask(&server, ALICE, "main/big", &format!("{}, \"ttl_seconds\": 5", tokens_of(tokens))));
    let (first, second) = (short(100), short(10));
    let of = |id| standing(&server, id);
    assert_eq!(of("at-once"), pair("0", "2"));
    server.until("both expire", |server| standing(server, "at-once") == pair("0", "0"));
    assert_eq!((of("tokens"), of("kind")), (pair("110", "0"), pair("0", "0")));
    assert!(server.post("/extend", &format!(r#"{{"reservation": "{first}"}}"#)).is_error(409, "conflict", ""));
    let late = settle(&server, &first, r#"{"input_tokens": 30, "output_tokens": 0}"#);
    assert_eq!((late.status, &late.json()["over"]), (200, &json!(false)));
    assert_eq!(settle(&server, &first, r#"{"input_tokens": 30, "output_tokens": 0}"#).body, late.body);
    assert_eq!((of("tokens"), of("kind")), (pair("40", "0"), pair("30", "0")));
    assert_eq!(release(&server, &second).json()["state"], "released");
    assert_eq!((of("tokens"), of("kind")), (pair("30", "0"), pair("30", "0")));
}

fn spent(key: &str, usage: &str) -> String {
    question(ALICE, "main/big", &format!(r#", "usage": {usage}, "idempotency_key": "{key}""#))
}

#[test]
fn usage_without_a_reservation_counts_in_full_and_once() {
    let server = start(BUDGETS);
    let first = server.post("/usage", &spent("a", r#"{"input_tokens": 1500, "output_tokens": 0}"#));
    let told = first.json();
    assert_eq!((first.status, &told["state"], &told["over"]), (200, &json!("settled"), &json!(false)), "{told}");
    assert_eq!(told["usage"]["usd"], "0.003");
    // It is over, so it takes nobody's place.
    let limits: Vec<&Value> = told["charged"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(limits, ["tokens", "money"]);
    assert_eq!(server.post("/usage", &spent("a", r#"{"input_tokens": 1500, "output_tokens": 0}"#)).body, first.body);
    let other = server.post("/usage", &spent("a", r#"{"input_tokens": 1501, "output_tokens": 0}"#));
    assert!(other.is_error(409, "idempotency_conflict", "idempotency_key"), "{other:?}");
    assert_eq!(stand(&server), three(("1500", "0"), ("0.003", "0"), "0"));
    // A key of a question is another key.
    let asked = ask(&server, BOB, "main/big", &format!("{}, \"idempotency_key\": \"a\"", tokens_of(1)));
    assert_eq!(code(&asked), "permitted");
}

#[test]
fn of_many_usages_a_bad_one_harms_none() {
    let server = start(BUDGETS);
    let items = [
        spent("a", r#"{"input_tokens": 1, "output_tokens": 0}"#),
        spent("b", r#"{"input_tokens": 2, "output_tokens": 0}"#).replace("chat", "chatt"),
        spent("c", r#"{"input_tokens": 4, "output_tokens": 0}"#).replace("main/big", "main/none"),
        spent("d", r#"{"input_tokens": 8, "output_tokens": 0}"#).replace("main/big", "main/bare"),
        spent("a", r#"{"input_tokens": 16, "output_tokens": 0}"#),
        spent("a", r#"{"input_tokens": 1, "output_tokens": 0}"#),
        spent("e", r#"{"input_tokens": 32, "output_tokens": 0}"#),
    ];
    let batch = format!("{{\"usages\": [{}]}}", items.join(","));
    let first = server.post("/usage", &batch);
    assert_eq!(first.status, 200, "{first:?}");
    let told = first.json();
    let told = told["responses"].as_array().unwrap();
    let errors: Vec<Value> = told.iter().map(|one| json!([one["error"]["code"], one["error"]["param"]])).collect();
    let none = json!([null, null]);
    assert_eq!(
        errors,
        [
            none.clone(),
            json!(["unknown_action", "usages[1].action"]),
            json!(["invalid_request", "usages[2].resource"]),
            json!(["amount_needed", "usages[3].usage.usd"]),
            json!(["idempotency_conflict", "usages[4].idempotency_key"]),
            none.clone(),
            none,
        ]
    );
    assert_eq!(told[5], told[0]);
    assert_eq!(server.post("/usage", &batch).body, first.body);
    assert_eq!(stand(&server)[0], pair("33", "0"));
}

fn keyed(tokens: u64, key: &str) -> String {
    question(ALICE, "main/big", &format!("{}, \"idempotency_key\": \"{key}\"", tokens_of(tokens)))
}

#[test]
fn the_same_question_under_the_same_key_is_answered_as_it_was() {
    let server = start(BUDGETS);
    let first = server.post("/is_authorized", &keyed(10, "k"));
    let id = reservation(&first.json());
    assert_eq!(server.post("/is_authorized?status=map", &keyed(10, "k")).body, first.body);
    // However it is written.
    let spread = keyed(10, "k").replace("\"action\": \"chat\", ", "").replacen('{', "{ \"action\":\n\"chat\", ", 1);
    assert_eq!(server.post("/is_authorized", &spread).body, first.body);
    for other in [keyed(11, "k"), keyed(10, "k").replace("main/big", "main/small")] {
        let answer = server.post("/is_authorized", &other);
        assert!(answer.is_error(409, "idempotency_conflict", "idempotency_key"), "{answer:?}");
    }
    // Another's key of the same text is another key.
    let bobs = server.post("/is_authorized", &keyed(10, "k").replace("alice", "bob")).json();
    assert_eq!((code(&bobs), &bobs["principal"]["id"]), ("permitted", &json!("bob")));
    assert_ne!(reservation(&bobs), id);
    assert_eq!(stand(&server)[0], pair("0", "10"));
    assert_eq!(settle(&server, &id, r#"{"input_tokens": 3, "output_tokens": 0}"#).status, 200);
    assert_eq!(server.post("/is_authorized", &keyed(10, "k")).body, first.body);
    assert_eq!(stand(&server)[0], pair("3", "0"));
    // Of a forbid nothing is kept: it holds nothing, and there may be room later.
    let refused = server.post("/is_authorized", &keyed(1000, "later")).json();
    assert_eq!(code(&refused), "budget_exceeded");
    assert_eq!(code(&server.post("/is_authorized", &keyed(1, "later")).json()), "permitted");
}

#[test]
fn of_many_at_once_under_one_key_one_is_held() {
    let server = start(BUDGETS);
    let barrier = Barrier::new(32);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let one = || {
            let mut client = server.connect();
            barrier.wait();
            (
                client.post("/is_authorized", &keyed(10, "k")),
                client.post("/usage", &spent("k", r#"{"input_tokens": 3, "output_tokens": 0}"#)),
            )
        };
        let threads: Vec<_> = (0..32).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let held = server.post("/is_authorized", &keyed(10, "k")).body;
    let noted = server.post("/usage", &spent("k", r#"{"input_tokens": 3, "output_tokens": 0}"#)).body;
    for (answer, usage) in answers {
        let waits = answer.is_error(409, "idempotency_conflict", "idempotency_key");
        assert!(waits || answer.body == held, "{answer:?}");
        assert_eq!((usage.status, &usage.body), (200, &noted));
    }
    assert_eq!(stand(&server)[0], pair("3", "10"));
}
