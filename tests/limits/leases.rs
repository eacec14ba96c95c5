//! Servers that spend what they leased of a real Redis: no more than the cap is permitted, whoever is asked, and what was not
//! spent goes back.

use serde_json::Value;

use crate::fleet::on;
use crate::redis_server::Server as Redis;
use crate::support::Server;
use crate::{ALICE, ask, code, hold, pair, reservation, settle, standing, stands, tokens_of};

const LIMITS: &str = r#"limits:
  - { id: day, users: "*", budget: { tokens: 100, every: total }, lease: { size: 10, seconds: 5 } }
"#;

/// Long enough for a machine that does other things.
const SLOW: &str = ", timeout_ms: 5000";

fn keyed(server: &Server, tokens: u64, key: &str) -> Value {
    ask(server, ALICE, "main/big", &format!("{}, \"idempotency_key\": \"{key}\"", tokens_of(tokens)))
}

#[test]
fn servers_lease_of_one_redis_and_permit_no_more_than_it_has() {
    let Some(redis) = Redis::start(&[]) else { return };
    let servers = [on(&redis, LIMITS, SLOW).start(), on(&redis, LIMITS, SLOW).start()];
    let first = reservation(&hold(&servers[0], 4));
    assert_eq!(standing(&servers[1], "day"), pair("0", "10"), "the lease is held for all to see");
    // What nobody else has leased is there for the other; then what it leased is the first one's.
    assert_eq!(code(&hold(&servers[1], 90)), "permitted");
    assert_eq!(code(&hold(&servers[1], 1)), "budget_exceeded");
    assert_eq!(
        settle(&servers[1], &first, r#"{"input_tokens": 1, "output_tokens": 0}"#).status,
        404,
        "its own node knows it"
    );
    assert_eq!(settle(&servers[0], &first, r#"{"input_tokens": 4, "output_tokens": 0}"#).status, 200);
    // What was not spent goes back by itself.
    servers[0].until("the lease is back", |_| standing(&servers[1], "day") == pair("4", "90"));
    // With a key any node can settle.
    let answer = keyed(&servers[0], 6, "k");
    assert_eq!((code(&answer), stands(&answer, "day")), ("permitted", pair("4", "96")));
    assert_eq!(settle(&servers[1], &reservation(&answer), r#"{"input_tokens": 6, "output_tokens": 0}"#).status, 200);
    assert_eq!(standing(&servers[0], "day"), pair("10", "90"));
}

#[test]
fn a_server_that_stops_gives_back_what_it_leased() {
    let Some(redis) = Redis::start(&[]) else { return };
    let long = LIMITS.replace("seconds: 5 ", "seconds: 3600 ");
    let (mut stops, stays) = (on(&redis, &long, SLOW).start(), on(&redis, &long, SLOW).start());
    let spent = reservation(&hold(&stops, 3));
    assert_eq!(settle(&stops, &spent, r#"{"input_tokens": 2, "output_tokens": 0}"#).status, 200);
    assert_eq!(standing(&stays, "day"), pair("0", "10"));
    stops.signal("TERM");
    assert!(stops.wait().success());
    assert_eq!(standing(&stays, "day"), pair("2", "0"));
}
