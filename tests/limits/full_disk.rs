//! A disk that is full, and has room again: each limit's `on_store_error` decides meanwhile, and nothing is forgotten.

use serde_json::Value;

use crate::support::Server;
use crate::{ALICE, ask, code, hold, pair, question, reservation, settle, setup, stands, tokens_of};

const LIMITS: &str = r#"limits:
  - { id: hard, users: "*", models: [main/big], durability: sync, budget: { tokens: 100, every: total } }
  - { id: soft, users: "*", models: [main/small], durability: sync, budget: { tokens: 100, every: total }, on_store_error: { permit: 7 } }
  - { id: late, users: "*", models: [main/bare], budget: { tokens: 100, every: total } }
"#;

fn hold_of(server: &Server, model: &str, tokens: u64) -> Value {
    ask(server, ALICE, model, &tokens_of(tokens))
}

fn standing(server: &Server, model: &str, limit: &str) -> (String, String) {
    stands(&ask(server, ALICE, model, ""), limit)
}

#[test]
fn while_the_disk_is_full_each_limit_says_what_is_decided() {
    let server = setup(LIMITS).outlives_full_disks().start();
    let kept = reservation(&hold(&server, 40));
    server.fill_disk(true);
    assert_eq!(code(&hold(&server, 1)), "store_unavailable");
    // Callers that look at the status alone are told to come back, and when.
    let answer = server.post("/is_authorized?status=map", &question(ALICE, "main/big", &tokens_of(1)));
    let retry_after =
        answer.head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("retry-after: ")?.parse().ok());
    assert_eq!((answer.status, retry_after), (503, Some(5_u64)), "{answer:?}");
    assert_eq!(settle(&server, &kept, r#"{"input_tokens": 30, "output_tokens": 0}"#).status, 503);
    let local = reservation(&hold_of(&server, "main/small", 4));
    assert_eq!(code(&hold_of(&server, "main/small", 3)), "permitted");
    assert_eq!(code(&hold_of(&server, "main/small", 1)), "budget_exceeded");
    assert_eq!(settle(&server, &local, r#"{"input_tokens": 6, "output_tokens": 0}"#).status, 200);
    // What need not be on disk at once may be a commit behind, and no more.
    server.until("it is noticed", |server| code(&hold_of(server, "main/bare", 1)) == "store_unavailable");
    assert_eq!(code(&hold_of(&server, "main/bare", 1)), "store_unavailable");
    server.fill_disk(false);
    server.until("there is room again", |server| code(&hold_of(server, "main/bare", 1)) == "permitted");
    // The settle of before, sent again; what was let through is charged, and what was refused given back.
    assert_eq!(settle(&server, &kept, r#"{"input_tokens": 30, "output_tokens": 0}"#).status, 200);
    assert_eq!(standing(&server, "main/big", "hard"), pair("30", "0"));
    server.until("it is charged", |server| standing(server, "main/small", "soft") == pair("6", "0"));
    let server = setup(LIMITS).start_in(server.crash());
    assert_eq!(standing(&server, "main/big", "hard"), pair("30", "0"));
    assert_eq!(standing(&server, "main/small", "soft"), pair("6", "0"));
}
