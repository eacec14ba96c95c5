//! What a call is estimated to use before it is made, and what has to be said of it afterwards.

use serde_json::{Value, json};

use crate::support::{Server, Setup};
use crate::{ALICE, BOB, ask, code, pair, question, reservation, settle, setup, standing, stands, start, tokens_of};

const MODELS: &str = r#"provider_accounts:
  - id: p
    estimate_input_tokens: 7
    models:
      - { name: g, max_output_tokens: 64000, estimate_output_tokens: 2000, price: { input: 3, output: 15 } }
      - { name: plain, max_output_tokens: 100, price: { input: 1, output: 1 } }
      - { name: free, price: { input: 0, output: 0 } }
      - { name: bare, max_output_tokens: 10 }
      - { name: paint, price: { image: 0.04 } }
      - { name: call, price: { request: 0.01 } }
  - { id: open, estimate_input_tokens: 3, estimate_output_tokens: 5 }
routers:
  - { id: mixed, models: [p/g, p/plain, p/bare] }
  - { id: bare, models: [p/bare] }
authz_rules:
  - { id: models, users: "*", models: "*" }
  - { id: routers, users: "*", routers: "*" }
limits:
"#;

fn served(limits: &str) -> Setup {
    Setup::without_files().file("rules.yaml", &format!("{MODELS}{limits}"))
}

fn reserve(server: &Server, model: &str, reserve: &str) -> Value {
    ask(server, ALICE, model, &format!(", \"reserve\": {reserve}"))
}

fn held(answer: &Value, limit: &str) -> String {
    assert_eq!(code(answer), "permitted", "{answer}");
    stands(answer, limit).1
}

#[test]
fn a_hold_of_nothing_is_refused_where_a_check_is() {
    let limits = r#"limits:
  - { id: money, users: "*", each: user, budget: { usd: 1, every: year } }
  - { id: tokens, users: "*", each: user, budget: { tokens: 1000, every: year } }
  - { id: pace, users: "*", each: user, rate: { requests: 3, every: day } }
"#;
    for config in ["", "meters: { in_memory: true }\n"] {
        let server = setup(limits).config(config).start();
        for (who, full, reserve) in [
            (
                ALICE,
                r#"{"usd": "1", "input_tokens": 1, "output_tokens": 0}"#,
                r#"{"usd": "0", "input_tokens": 0, "output_tokens": 0}"#,
            ),
            (
                BOB,
                r#"{"usd": "0", "input_tokens": 1000, "output_tokens": 0}"#,
                r#"{"input_tokens": 0, "output_tokens": 0}"#,
            ),
            (
                "User::\"zoe\"",
                r#"{"requests": 3, "input_tokens": 0, "output_tokens": 0}"#,
                r#"{"requests": 0, "input_tokens": 0, "output_tokens": 0}"#,
            ),
        ] {
            let filled = ask(&server, who, "main/big", &format!(", \"reserve\": {full}"));
            assert_eq!(code(&filled), "permitted", "{filled}");
            let checked = ask(&server, who, "main/big", "");
            assert_ne!(code(&checked), "permitted", "{checked}");
            for _ in 0..100 {
                let refused = ask(&server, who, "main/big", &format!(", \"reserve\": {reserve}"));
                assert_eq!(code(&refused), code(&checked), "{refused}");
            }
        }
    }
}

#[test]
fn what_costs_nothing_is_no_matter_of_money() {
    let server = served(
        r#"  - { id: full, users: "*", budget: { usd: 0, every: year } }
  - { id: lenient, models: ["open/*"], unpriced: free, budget: { usd: 0, every: year } }
"#,
    )
    .start();
    for more in ["", r#", "reserve": {"input_tokens": 5, "output_tokens": 5}"#, r#", "reserve": {"usd": "0"}"#] {
        let free = ask(&server, ALICE, "p/free", more);
        assert_eq!((code(&free), &free["limits"], &free["not_held"]), ("permitted", &json!([]), &json!([])), "{more}");
        // A price that is not zero in every member is a price, whatever the request says that it will use.
        assert_eq!(code(&ask(&server, ALICE, "p/call", more)), "budget_exceeded", "{more}");
    }
    // A request that states a cost is one that costs something.
    let stated = reserve(&server, "p/free", r#"{"usd": "0.01"}"#);
    assert_eq!(code(&stated), "budget_exceeded", "{stated}");
    let open = ask(&server, ALICE, "open/x", "");
    assert_eq!(code(&open), "price_unknown", "the other limit forbids it: {open}");
}

#[test]
fn an_estimate_is_held_where_the_request_does_not_say() {
    let limits = r#"  - { id: out, users: "*", each: model, budget: { output_tokens: 1000000, every: year } }
  - { id: in, users: "*", each: model, budget: { input_tokens: 1000000, every: year } }
"#;
    let server = served(limits).start();
    for (model, more, input, output) in [
        ("p/g", "true", "7", "2000"),
        ("p/g", r#"{"input_tokens": 500}"#, "507", "4000"),
        ("p/g", r#"{"input_tokens": 0, "output_tokens": 64000}"#, "507", "68000"),
        ("p/plain", "true", "7", "100"),
        ("open/x", "true", "3", "5"),
    ] {
        let answer = reserve(&server, model, more);
        assert_eq!((held(&answer, "in"), held(&answer, "out")), (input.into(), output.into()), "{model} {more}");
    }
    // What a request says that it will use at most counts before what is estimated.
    let context = r#", "context": {"input_tokens": 1, "max_output_tokens": 2}, "reserve": true"#;
    let answer = ask(&server, ALICE, "open/y", context);
    assert_eq!((held(&answer, "in"), held(&answer, "out")), ("1".into(), "2".into()));
    let unsaid = question(ALICE, "p/free", ", \"reserve\": true");
    assert!(server.post("/is_authorized", &unsaid).is_error(400, "amount_needed", "reserve.output_tokens"));
    // Conditions do not see estimates.
    let server = served(limits)
        .file("seen.yaml", "authz_rules: [{ id: seen, effect: forbid, users: \"*\", models: \"*\", when: context has max_output_tokens || context has input_tokens }]\n")
        .start();
    assert_eq!(code(&reserve(&server, "p/g", "true")), "permitted");
}

const BUDGETS: &str = r#"  - { id: money, users: "*", each: user, budget: { usd: 5, every: year } }
  - { id: out, users: "*", each: user, budget: { output_tokens: 1000000, every: year } }
"#;

#[test]
fn usage_without_what_is_counted_is_refused() {
    let server = served(BUDGETS).start();
    let usages = [
        ("p/g", "{}", "usage.input_tokens"),
        ("p/g", r#"{"output_tokens": 5}"#, "usage.input_tokens"),
        ("p/g", r#"{"input_tokens": 5}"#, "usage.output_tokens"),
        // The cost is stated, and the other limit counts output.
        ("p/g", r#"{"usd": "0.1"}"#, "usage.output_tokens"),
        ("p/free", "{}", "usage.output_tokens"),
        ("p/paint", r#"{"output_tokens": 0}"#, "usage.images"),
    ];
    for (number, (model, usage, param)) in usages.into_iter().enumerate() {
        let answer = reserve(&server, model, r#"{"input_tokens": 1000, "output_tokens": 1000}"#);
        let id = reservation(&answer);
        let settled = settle(&server, &id, usage);
        assert!(settled.is_error(400, "amount_needed", param), "{model} {usage}: {settled:?}");
        assert!(!stands(&answer, "out").1.is_empty());
        let spent = format!(", \"usage\": {usage}, \"idempotency_key\": \"{number}\"");
        let noted = server.post("/usage", &question(BOB, model, &spent));
        assert!(noted.is_error(400, "amount_needed", param), "{model} {usage}: {noted:?}");
    }
    for (number, (model, usage)) in [
        ("p/g", r#"{"input_tokens": 0, "output_tokens": 0}"#),
        ("p/g", r#"{"usd": "0", "output_tokens": 0}"#),
        ("p/free", r#"{"output_tokens": 0}"#),
        ("p/paint", r#"{"output_tokens": 0, "images": 0}"#),
    ]
    .into_iter()
    .enumerate()
    {
        let id = reservation(&reserve(&server, model, r#"{"input_tokens": 1, "output_tokens": 1}"#));
        let settled = settle(&server, &id, usage);
        assert_eq!(settled.status, 200, "{model} {usage}: {settled:?}");
        let spent = format!(", \"usage\": {usage}, \"idempotency_key\": \"good{number}\"");
        assert_eq!(server.post("/usage", &question(BOB, model, &spent)).status, 200, "{model} {usage}");
    }
}

#[test]
fn a_zero_is_a_zero() {
    let server = served(
        r#"  - { id: money, users: "*", each: user, budget: { usd: 1, every: year } }
  - { id: pace, users: "*", each: user, rate: { requests: 10, every: day } }
"#,
    )
    .start();
    let charged = |answer: &Value| -> Vec<Value> {
        answer["charged"].as_array().unwrap().iter().map(|one| one["charged"].clone()).collect()
    };
    let id = reservation(&reserve(&server, "p/call", r#"{"requests": 3}"#));
    let settled = settle(&server, &id, r#"{"requests": 0}"#).json();
    assert_eq!((&settled["usage"]["requests"], &settled["usage"]["usd"]), (&json!(0), &json!("0")), "{settled}");
    assert_eq!(charged(&settled), ["0", "0"]);
    let id = reservation(&reserve(&server, "p/call", r#"{"requests": 0}"#));
    let settled = settle(&server, &id, "{}").json();
    assert_eq!((&settled["usage"]["requests"], charged(&settled)), (&json!(1), vec![json!("0.01"), json!("1")]));
    let spent = |requests: &str, key: &str| {
        let more = format!(", \"usage\": {{{requests}}}, \"idempotency_key\": \"{key}\"");
        server.post("/usage", &question(BOB, "p/call", &more)).json()
    };
    let none = spent("\"requests\": 0", "a");
    assert_eq!((&none["usage"]["requests"], charged(&none)), (&json!(0), vec![json!("0"), json!("0")]));
    let one = spent("", "b");
    assert_eq!((&one["usage"]["requests"], charged(&one)), (&json!(1), vec![json!("0.01"), json!("1")]));
    // A zero and nothing at all are two requests.
    assert_eq!(spent("", "a")["error"]["code"], "idempotency_conflict");
}

#[test]
fn an_unknown_usage_is_charged_as_each_limit_says() {
    let limits = ["charge_hold", "charge_estimate", "release"].map(|what| {
        format!("  - {{ id: {what}, users: \"*\", on_missing_usage: {what}, budget: {{ usd: 50, every: year }} }}\n")
    });
    let rest = "  - { id: usual, users: \"*\", budget: { tokens: 10000000, every: year } }\n  - { id: at-once, users: \"*\", concurrency: 5 }\n";
    let server = served(&(limits.concat() + rest)).start();
    let id = reservation(&reserve(&server, "p/g", r#"{"input_tokens": 1000, "output_tokens": 64000}"#));
    let first = settle(&server, &id, "null");
    let told = first.json();
    assert_eq!(
        (first.status, &told["state"], told.get("usage"), &told["over"]),
        (200, &json!("settled"), None, &json!(false))
    );
    let charged = |id: &str| {
        let all = told["charged"].as_array().unwrap();
        all.iter().find(|one| one["id"] == id).unwrap()["charged"].as_str().unwrap().to_owned()
    };
    // 1000 x 3 + 64000 x 15, and 1000 x 3 + 2000 x 15, dollars a million.
    assert_eq!([charged("charge_hold"), charged("charge_estimate")], ["0.963", "0.033"]);
    assert_eq!([charged("release"), charged("usual"), charged("at-once")], ["0", "65000", "0"]);
    assert_eq!(settle(&server, &id, "null").body, first.body);
    let known = settle(&server, &id, r#"{"input_tokens": 1, "output_tokens": 1}"#);
    assert!(known.is_error(409, "conflict", ""), "{known:?}");
    let standing = ask(&server, BOB, "p/g", "");
    assert_eq!(stands(&standing, "charge_estimate"), pair("0.033", "0"));
    // Without an estimate it is the output as held; a settled reservation is not unknown afterwards.
    let id = reservation(&reserve(&server, "p/plain", r#"{"input_tokens": 1000000}"#));
    let told = settle(&server, &id, "null").json();
    assert_eq!(told["charged"][1]["charged"], "1.0001", "{told}");
    let id = reservation(&reserve(&server, "p/plain", r#"{"input_tokens": 1}"#));
    assert_eq!(settle(&server, &id, r#"{"input_tokens": 1, "output_tokens": 1}"#).status, 200);
    assert!(settle(&server, &id, "null").is_error(409, "conflict", ""));
    // Spending that nobody held is known.
    let spent = ", \"usage\": null, \"idempotency_key\": \"k\"";
    assert!(server.post("/usage", &question(ALICE, "p/g", spent)).is_error(400, "invalid_request", "usage"));
}

#[test]
fn a_check_and_a_hold_on_a_router_agree() {
    let router = |id: &str, more: &str| {
        format!(
            r#"{{"principal": "User::\"alice\"", "action": "chat", "resource": {{"type": "Router", "id": "{id}"}}{more}}}"#
        )
    };
    let server = served("  - { id: money, users: \"*\", budget: { usd: 5, every: year } }\n").start();
    let asked = |id: &str, more: &str| server.post("/is_authorized", &router(id, more)).json();
    let amounts = r#", "reserve": {"input_tokens": 1000, "output_tokens": 1000}"#;
    for more in ["", amounts, ", \"reserve\": true"] {
        assert_eq!(code(&asked("mixed", more)), "permitted", "{more}");
        assert_eq!(code(&asked("bare", more)), "price_unknown", "{more}");
        assert_eq!(code(&asked("none", more)), "price_unknown", "{more}");
    }
    // The dearest of its models, since nobody knows which it will be: 1000 x 3 + 1000 x 15 dollars a million.
    let server = served("  - { id: money, users: \"*\", budget: { usd: 5, every: year } }\n").start();
    let held = server.post("/is_authorized", &router("mixed", amounts)).json();
    assert_eq!(stands(&held, "money").1, "0.018");
    let body = format!(
        r#"{{"reservation": "{}", "usage": {{"input_tokens": 1000, "output_tokens": 0}}, "resource": "Model::\"p/plain\""}}"#,
        reservation(&held)
    );
    let settled = server.post("/settle", &body).json();
    assert_eq!(settled["charged"][0]["charged"], "0.001", "{settled}");
}

#[test]
fn what_never_fits_says_so_and_a_time_is_one_time() {
    let server = start(
        r#"limits:
  - { id: tokens, users: [alice], budget: { tokens: 1000, every: year } }
  - { id: pace, users: [bob], rate: { tokens: 100, every: hour } }
"#,
    );
    let never = ask(&server, ALICE, "main/big", &tokens_of(1001));
    assert_eq!(code(&never), "budget_exceeded");
    let message = never["message"].as_str().unwrap();
    assert!(message.contains("needs 1001") && message.contains("never fits"), "{message}");
    assert!(never.get("retry_after_seconds").is_none(), "{never}");
    assert_eq!(code(&ask(&server, ALICE, "main/big", &tokens_of(600))), "permitted");
    let later = ask(&server, ALICE, "main/big", &tokens_of(600));
    let message = later["message"].as_str().unwrap();
    assert!(message.contains("needs 600") && !message.contains("never"), "{message}");
    // The bucket is empty in an hour, and has room for these in half of one.
    let bob = |tokens| ask(&server, BOB, "main/big", &tokens_of(tokens));
    assert_eq!(settle(&server, &reservation(&bob(100)), r#"{"input_tokens": 100, "output_tokens": 0}"#).status, 200);
    for (refused, about) in
        [(later, 0..=366 * 86_400), (bob(50), 1700..=1800), (ask(&server, BOB, "main/big", ""), 1..=36)]
    {
        let seconds = refused["retry_after_seconds"].as_u64().unwrap();
        assert!(about.contains(&seconds), "{refused}");
        let message = refused["message"].as_str().unwrap();
        let told = message.rsplit_once("room again at ").unwrap_or_else(|| panic!("{message}")).1;
        let told = tollgate::Timestamp::parse(told).unwrap().as_millis();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let wait = (told - i64::try_from(now).unwrap()) / 1000;
        // The question was asked a moment ago.
        assert!((0..60).contains(&(i64::try_from(seconds).unwrap() - wait)), "{message} and {seconds} s");
    }
    assert_eq!(standing(&server, "tokens").1, "600");
}

#[test]
fn a_principal_has_no_more_open_reservations_than_it_may() {
    let config = "limits: { open_reservations_per_principal: 3 }\n";
    let server =
        setup("limits: [{ id: tokens, users: \"*\", budget: { tokens: 1000, every: year } }]\n").config(config).start();
    let one = || ask(&server, ALICE, "main/big", &tokens_of(1));
    let held: Vec<String> = (0..3).map(|_| reservation(&one())).collect();
    let refused = server.post("/is_authorized?status=map", &question(ALICE, "main/big", &tokens_of(1)));
    let told = refused.json();
    assert_eq!((refused.status, code(&told), &told["retry_after_seconds"]), (429, "concurrency_exceeded", &json!(1)));
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("3 open reservations") && message.contains("open_reservations_per_principal"),
        "{message}"
    );
    // A check holds nothing, and another principal has its own.
    assert_eq!(code(&ask(&server, ALICE, "main/big", "")), "permitted");
    assert_eq!(code(&ask(&server, BOB, "main/big", &tokens_of(1))), "permitted");
    assert_eq!(settle(&server, &held[0], r#"{"input_tokens": 1, "output_tokens": 0}"#).status, 200);
    assert_eq!(code(&one()), "permitted");
    assert_eq!(code(&one()), "concurrency_exceeded");
}

#[test]
fn a_key_belongs_to_whom_it_is_about() {
    let hash = "0".repeat(64);
    let keys = format!("keys: [{{ id: laptop, hash: \"{hash}\", owner: 'User::\"alice\"' }}]\n");
    let limits = "limits: [{ id: tokens, users: \"*\", each: user, budget: { tokens: 1000, every: year } }]\n";
    let server = setup(limits).file("keys.yaml", &keys).start();
    let keyed = |who: &str| {
        let more = format!("{}, \"idempotency_key\": \"1\"", tokens_of(1));
        server.post("/is_authorized", &question(who, "main/big", &more))
    };
    let (alice, bob) = (keyed(ALICE), keyed(BOB));
    assert_eq!((alice.status, bob.status), (200, 200));
    assert_ne!(reservation(&alice.json()), reservation(&bob.json()));
    assert_eq!((keyed(ALICE).body, keyed(BOB).body), (alice.body, bob.body));
    // An API key's is its owner's, and another principal makes it another request.
    let by_key = keyed("ApiKey::\"laptop\"");
    assert!(by_key.is_error(409, "idempotency_conflict", "idempotency_key"), "{by_key:?}");
    let spent = |who: &str, tokens: u64| {
        let usage = format!("{{\"input_tokens\": {tokens}, \"output_tokens\": 0}}");
        server.post("/usage", &question(who, "main/big", &format!(", \"usage\": {usage}, \"idempotency_key\": \"1\"")))
    };
    assert_eq!((spent(ALICE, 5).status, spent(BOB, 6).status, spent(ALICE, 5).status), (200, 200, 200));
    assert!(spent(BOB, 5).is_error(409, "idempotency_conflict", "idempotency_key"));
    assert_eq!(stands(&ask(&server, BOB, "main/big", ""), "tokens"), pair("6", "1"));
}
