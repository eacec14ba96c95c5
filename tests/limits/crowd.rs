//! 256 clients at once, on caps that run out midway: exactly as much is permitted as there is.

use std::collections::HashMap;
use std::sync::Barrier;

use crate::support::Client;
use crate::{ask, code, pair, question, reservation, settle, stands, start};

const CLIENTS: usize = 256;
const EACH: usize = 24;

/// Lets all of them ask for a cent on `meters` meters, each with a cap of half of what is asked for.
fn hammer(meters: usize) {
    let cap = CLIENTS * EACH / 2 / meters;
    let server = start(&format!(
        r#"limits:
  - {{ id: money, users: "*", each: user, budget: {{ usd: {}.{:02}, every: total }} }}
  - {{ id: wide, users: "*", budget: {{ tokens: 1000000, every: total }} }}
"#,
        cap / 100,
        cap % 100
    ));
    let barrier = Barrier::new(CLIENTS);
    let client = |number: usize| {
        let mut client = Client::connect(server.address);
        let mut permitted = Vec::new();
        barrier.wait();
        for turn in 0..EACH {
            let user = (number * EACH + turn) % meters;
            let more = r#", "reserve": {"usd": "0.01", "input_tokens": 1, "output_tokens": 0}"#;
            let answer = client.post("/is_authorized", &question(&format!("User::\"u{user}\""), "main/big", more));
            let answer = answer.json();
            match code(&answer) {
                "permitted" => permitted.push(user),
                code => assert_eq!(code, "budget_exceeded", "{answer}"),
            }
            // Every other call ends meanwhile, and used what it had held.
            if answer["reservation"].is_object() && turn % 2 == 0 {
                let settled = format!(
                    r#"{{"reservation": "{}", "usage": {{"usd": "0.01", "input_tokens": 1, "output_tokens": 0}}}}"#,
                    reservation(&answer)
                );
                assert_eq!(client.post("/settle", &settled).status, 200);
            }
        }
        permitted
    };
    let permitted: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut counts: HashMap<usize, usize> = HashMap::new();
    for user in permitted {
        *counts.entry(user).or_default() += 1;
    }
    for user in 0..meters {
        assert_eq!(counts.get(&user), Some(&cap), "User::\"u{user}\" of {meters}");
    }
    let full = ask(&server, "User::\"u0\"", "main/big", "");
    let limit = &full["limits"][0];
    assert_eq!((code(&full), &limit["remaining"]), ("budget_exceeded", &"0".into()));
    let wide = &full["limits"][1];
    let taken: usize = ["used", "held"].iter().map(|of| wide[of].as_str().unwrap().parse::<usize>().unwrap()).sum();
    assert_eq!(taken, cap * meters);
}

#[test]
fn one_meter_gives_out_its_cap() {
    hammer(1);
}

#[test]
fn ten_meters_give_out_theirs() {
    hammer(10);
}

#[test]
fn a_thousand_meters_give_out_theirs() {
    hammer(1000);
}

#[test]
fn places_are_never_more_than_there_are() {
    let server = start("limits: [{ id: at-once, users: \"*\", concurrency: 7 }]\n");
    let under_way = std::sync::atomic::AtomicUsize::new(0);
    let granted: usize = std::thread::scope(|scope| {
        let one = || {
            let mut client = Client::connect(server.address);
            let mut granted = 0;
            for _ in 0..EACH {
                let answer = client.post("/is_authorized", &question(crate::ALICE, "main/big", r#", "reserve": true"#));
                let answer = answer.json();
                if code(&answer) == "concurrency_exceeded" {
                    continue;
                }
                granted += 1;
                // A place may be given on once its release was sent, so it is counted until then.
                assert!(under_way.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 7);
                under_way.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                assert_eq!(
                    settle(&server, &reservation(&answer), r#"{"input_tokens": 1, "output_tokens": 0}"#).status,
                    200
                );
            }
            granted
        };
        let threads: Vec<_> = (0..32).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(granted >= 7);
    assert_eq!(stands(&ask(&server, crate::ALICE, "main/big", ""), "at-once"), pair("0", "0"));
}
