//! Limits from outside: the real binary holds, settles and refuses, over sockets, through reloads, crashes and crowds.

#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "it sets up a world of its own, and fails by panicking"
)]
#![cfg(all(unix, feature = "server"))]
mod amounts;
mod bodies;
mod closing;
mod crash;
mod crowd;
mod fleet;
mod full_disk;
mod holding;
mod leases;
mod lists;
#[allow(dead_code, reason = "the tests of the stores use the rest of it")]
#[path = "../stores/redis_server.rs"]
mod redis_server;
mod reloads;
mod shared;
#[allow(dead_code, reason = "the tests of the server use the rest of it")]
#[path = "../http/support.rs"]
mod support;

use serde_json::Value;
use support::{Answer, Client, Server, Setup};

/// Everyone may use everything: what is refused here, limits refuse.
pub const PEOPLE: &str = r#"
orgs: [{ id: acme }]
teams: [{ id: research, org: acme }, { id: ops, org: acme }]
users:
  - { id: alice, teams: [research, ops] }
  - { id: bob, team: research }
services: [{ id: bot, team: ops }]
provider_accounts:
  - id: main
    provider: openai
    models:
      - { name: big, max_output_tokens: 1000, price: { input: 2, output: 10 } }
      - { name: small, aliases: [tiny], max_output_tokens: 100, price: { input: 1, output: 2 } }
      - bare
routers: [{ id: chat, models: [main/big, main/small] }]
authz_rules:
  - { id: models, users: "*", services: "*", keys: "*", models: "*" }
  - { id: routers, users: "*", routers: "*" }
"#;

pub fn setup(limits: &str) -> Setup {
    Setup::without_files().file("people.yaml", PEOPLE).file("limits.yaml", limits)
}

pub fn start(limits: &str) -> Server {
    setup(limits).start()
}

/// A question about one model; `more` are members, each with a comma before it.
pub fn question(principal: &str, model: &str, more: &str) -> String {
    let principal = serde_json::to_string(principal).unwrap();
    format!(r#"{{"principal": {principal}, "action": "chat", "resource": {{"type": "Model", "id": "{model}"}}{more}}}"#)
}

pub const ALICE: &str = "User::\"alice\"";
pub const BOB: &str = "User::\"bob\"";

pub fn ask(server: &Server, principal: &str, model: &str, more: &str) -> Value {
    let answer = server.post("/is_authorized", &question(principal, model, more));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Holds so many input tokens, and no output, for alice on `main/big`.
pub fn hold(server: &Server, tokens: u64) -> Value {
    ask(server, ALICE, "main/big", &tokens_of(tokens))
}

pub fn tokens_of(tokens: u64) -> String {
    format!(r#", "reserve": {{"input_tokens": {tokens}, "output_tokens": 0}}"#)
}

/// The code of an answer, and the reservation that comes with a permit alone.
#[track_caller]
pub fn code(answer: &Value) -> &str {
    let code = answer["code"].as_str().unwrap();
    assert_eq!(answer["decision"], if code == "permitted" { "permit" } else { "forbid" }, "{answer}");
    if code != "permitted" {
        assert!(answer.get("reservation").is_none(), "{answer}");
    }
    code
}

#[track_caller]
pub fn reservation(answer: &Value) -> String {
    answer["reservation"]["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// What an answer says is used and held of a limit, the first of its meters.
#[track_caller]
pub fn stands(answer: &Value, limit: &str) -> (String, String) {
    let limits = answer["limits"].as_array().unwrap();
    let found = limits.iter().find(|one| one["id"] == limit).unwrap_or_else(|| panic!("no {limit}: {answer}"));
    (found["used"].as_str().unwrap().to_owned(), found["held"].as_str().unwrap().to_owned())
}

/// What is used and held of a limit, as a check of alice's tells it.
#[track_caller]
pub fn standing(server: &Server, limit: &str) -> (String, String) {
    stands(&ask(server, ALICE, "main/big", ""), limit)
}

pub fn pair(used: &str, held: &str) -> (String, String) {
    (used.to_owned(), held.to_owned())
}

pub fn settle(server: &Server, reservation: &str, usage: &str) -> Answer {
    server.post("/settle", &format!(r#"{{"reservation": "{reservation}", "usage": {usage}}}"#))
}

pub fn release(server: &Server, reservation: &str) -> Answer {
    server.post("/release", &format!(r#"{{"reservation": "{reservation}"}}"#))
}

/// Puts other limits in the bundle.
pub fn reload(server: &Server, limits: &str) {
    std::fs::write(server.policies().join("limits.yaml"), limits).unwrap();
    let answer = Client::connect(server.address).request("POST", "/bundle/reload", &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
}
