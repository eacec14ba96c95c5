//! What a reload does to meters, with each store, and what a restart with other limits does.

use crate::redis_server::Server as Redis;
use crate::support::{Server, Setup};
use crate::{ALICE, ask, code, hold, pair, question, reload, reservation, settle, setup, standing, stands, start};

fn month(cap: u64, every: &str, more: &str) -> String {
    format!("limits: [{{ id: b, users: \"*\", budget: {{ tokens: {cap}, every: {every} }}{more} }}]\n")
}

/// Nothing acknowledged is forgotten when the server is killed.
const SYNC: &str = ", durability: sync";

/// Where meters are kept, and how limits change: by a reload, or while the server is killed and started again.
struct World<'r> {
    redis: Option<&'r Redis>,
    restarts: bool,
}

impl World<'_> {
    fn setup(&self, limits: &str) -> Setup {
        match self.redis {
            Some(redis) => crate::fleet::on(redis, limits, ", timeout_ms: 5000"),
            None => setup(limits),
        }
    }

    fn change(&self, server: Server, limits: &str) -> Server {
        if self.restarts {
            return self.setup(limits).start_in(server.crash());
        }
        reload(&server, limits);
        server
    }
}

fn in_each_world(check: fn(&World)) {
    std::thread::scope(|scope| {
        for restarts in [false, true] {
            scope.spawn(move || check(&World { redis: None, restarts }));
            scope.spawn(move || {
                if let Some(redis) = Redis::start(&[]) {
                    check(&World { redis: Some(&redis), restarts });
                }
            });
        }
    });
}

#[test]
fn a_changed_cap_keeps_what_was_spent() {
    in_each_world(|world| {
        let mut server = world.setup(&month(100, "year", SYNC)).start();
        let (first, _) = (reservation(&hold(&server, 40)), hold(&server, 30));
        settle(&server, &first, r#"{"input_tokens": 50, "output_tokens": 0}"#);
        server = world.change(server, &month(60, "year", ""));
        let over = ask(&server, ALICE, "main/big", "");
        assert_eq!((code(&over), stands(&over, "b")), ("budget_exceeded", pair("50", "30")));
        assert_eq!((&over["limits"][0]["limit"], &over["limits"][0]["remaining"]), (&"60".into(), &"0".into()));
        server = world.change(server, &month(81, "year", ", mode: enforce, warn_at: [50]"));
        assert_eq!(code(&hold(&server, 2)), "budget_exceeded");
        assert_eq!(code(&hold(&server, 1)), "permitted");
    });
}

#[test]
fn a_limit_that_comes_again_finds_its_meter() {
    in_each_world(|world| {
        let mut server = world.setup(&month(100, "year", SYNC)).start();
        let held = reservation(&hold(&server, 40));
        server = world.change(server, "users: [{ id: carol }]\n");
        assert_eq!(ask(&server, ALICE, "main/big", "")["limits"], serde_json::json!([]));
        // What was held is settled while the limit is away.
        assert_eq!(settle(&server, &held, r#"{"input_tokens": 30, "output_tokens": 0}"#).status, 200);
        server = world.change(server, &month(100, "year", ""));
        assert_eq!(standing(&server, "b"), pair("30", "0"));
    });
}

#[test]
fn another_period_begins_anew() {
    in_each_world(|world| {
        let mut server = world.setup(&month(100, "year", SYNC)).start();
        let held = reservation(&hold(&server, 40));
        for other in ["month", "{ rolling: 30d }", "total", "year, timezone: Asia/Tokyo"] {
            let limits = month(100, other, SYNC).replace("every: { rolling: 30d }", "rolling: 30d");
            server = world.change(server, &limits);
            assert_eq!(standing(&server, "b"), pair("0", "0"), "{other}");
        }
        assert_eq!(code(&hold(&server, 100)), "permitted");
        assert_eq!(settle(&server, &held, r#"{"input_tokens": 1, "output_tokens": 0}"#).status, 200);
        assert_eq!(standing(&server, "b"), pair("0", "100"));
        server = world.change(server, &month(100, "year", SYNC));
        assert_eq!(standing(&server, "b"), pair("1", "0"));
    });
}

#[test]
fn a_restart_keeps_meters_and_answers() {
    let limits = month(100, "year", ", durability: sync");
    let server = start(&limits);
    let held = reservation(&hold(&server, 40));
    let keyed = question(ALICE, "main/big", &format!("{}, \"idempotency_key\": \"k\"", crate::tokens_of(5)));
    let answered = server.post("/is_authorized", &keyed).body;
    let settled = settle(&server, &reservation(&hold(&server, 10)), r#"{"input_tokens": 7, "output_tokens": 0}"#);
    assert_eq!(settled.status, 200);
    let server = crate::setup(&limits).start_in(server.crash());
    assert_eq!(standing(&server, "b"), pair("7", "45"));
    assert_eq!(server.post("/is_authorized", &keyed).body, answered);
    assert_eq!(
        settle(&server, settled.json()["reservation"].as_str().unwrap(), r#"{"input_tokens": 7, "output_tokens": 0}"#)
            .body,
        settled.body
    );
    assert_eq!(settle(&server, &held, r#"{"input_tokens": 40, "output_tokens": 0}"#).status, 200);
    assert_eq!(standing(&server, "b"), pair("47", "5"));
}
