//! Many servers on one Redis, which are killed and come back, as the Redis is: what clients were told is permitted is never
//! more than the cap, and exactly as much once everyone knows what became of what they asked.
//!
//! A client whose connection is cut, or that is told that the store is away, asks again with the same key at any server
//! until it is told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::crash::Chance;
use crate::redis_server::Server as RedisServer;
use crate::support::{Answer, Client, DEADLINE, Server, Setup};
use crate::{ask, question, reservation, setup};

const SERVERS: usize = 4;
const CLIENTS: usize = 256;
const EACH: usize = 8;
/// How often something is killed, for each number of meters.
const KILLS: usize = 12;

/// A server on `redis`.
pub fn on(redis: &RedisServer, limits: &str, more: &str) -> Setup {
    setup(limits).config(&format!("meters: {{ redis: {{ url: \"redis://127.0.0.1:{}\"{more} }} }}\n", redis.port))
}

/// Where the servers are that run.
#[derive(Default)]
struct Fleet {
    addresses: [Mutex<Option<SocketAddr>>; SERVERS],
    /// How often something was killed.
    kills: Mutex<usize>,
    killed: Condvar,
    /// Asked again since nobody knew.
    again: AtomicUsize,
}

impl Fleet {
    /// Waits for its share of kills, so that all calls are made among them.
    fn await_turn(&self, turn: usize) {
        let early = |kills: &mut usize| *kills < turn * KILLS / EACH;
        let (_kills, waited) = self.killed.wait_timeout_while(self.kills.lock().unwrap(), 2 * DEADLINE, early).unwrap();
        assert!(!waited.timed_out(), "nothing is killed any more");
    }

    fn note_kill(&self) {
        *self.kills.lock().unwrap() += 1;
        self.killed.notify_all();
    }
}

struct Caller<'f> {
    fleet: &'f Fleet,
    chance: Chance,
    client: Option<Client>,
}

impl Caller<'_> {
    fn connect(&mut self) -> Client {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < DEADLINE, "no server is there");
            let which = usize::try_from(self.chance.next(SERVERS as u64)).unwrap();
            let address = *self.fleet.addresses[which].lock().unwrap();
            match address.map(Client::try_connect) {
                Some(Ok(client)) => return client,
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// What a server says of its store.
    fn why(&mut self) -> String {
        let body = r#"{"reservation": "r-00000000000000000000000000000000", "usage": {}}"#;
        self.connect().post("/settle", body).body
    }

    /// Asks until it is told.
    fn told(&mut self, path: &str, body: &str) -> Answer {
        let (began, mut last) = (Instant::now(), None);
        loop {
            // Twice as long as anything else: a machine with much to do serves 256 clients slowly.
            assert!(began.elapsed() < 2 * DEADLINE, "nobody tells what became of {body}: {last:?} {}", self.why());
            let mut client = self.client.take().unwrap_or_else(|| self.connect());
            let headers = ["Content-Type: application/json"];
            let Some(answer) = client.try_request("POST", path, &headers, body.as_bytes()) else {
                self.fleet.again.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if answer.status == 200 && answer.json()["code"] != "store_unavailable" {
                self.client = Some(client);
                return answer;
            }
            let waits = answer.status == 200
                || answer.is_error(503, "no_bundle", "")
                || answer.is_error(503, "store_unavailable", "")
                || answer.is_error(409, "idempotency_conflict", "idempotency_key");
            assert!(waits, "{path} {body}: {answer:?}");
            last = Some(answer);
            self.fleet.again.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What was told of one meter.
#[derive(Default)]
struct Meter {
    permitted: AtomicUsize,
    refused: AtomicUsize,
}

struct Case {
    meters: usize,
    cap: usize,
    /// Whether some give back what they hold.
    gives_back: bool,
}

impl Case {
    fn limits(&self) -> String {
        let (dollars, cents) = (self.cap / 100, self.cap % 100);
        format!(
            r#"limits:
  - {{ id: money, users: "*", each: user, budget: {{ usd: {dollars}.{cents:02}, every: total }} }}
  - {{ id: wide, users: "*", budget: {{ tokens: 1000000, every: total }} }}
"#
        )
    }

    /// One client's calls, a cent each.
    fn call(&self, caller: &mut Caller, number: usize, meters: &[Meter]) {
        for turn in 0..EACH {
            caller.fleet.await_turn(turn);
            let user = (number * EACH + turn) % self.meters;
            let more = format!(
                r#", "reserve": {{"usd": "0.01", "input_tokens": 1, "output_tokens": 0}}, "ttl_seconds": 4, "idempotency_key": "{number}-{turn}""#
            );
            let body = question(&format!("User::\"u{user}\""), "main/big", &more);
            let answer = caller.told("/is_authorized", &body).json();
            if answer["code"] == "budget_exceeded" {
                meters[user].refused.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            assert_eq!(answer["code"], "permitted", "{answer}");
            let permitted = meters[user].permitted.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(permitted <= self.cap, "User::\"u{user}\" of {}: {permitted}", self.meters);
            let named = format!("\"reservation\": \"{}\"", reservation(&answer));
            if self.gives_back && caller.chance.next(3) == 0 {
                meters[user].permitted.fetch_sub(1, Ordering::SeqCst);
                caller.told("/release", &format!("{{{named}}}"));
            } else if turn % 2 == 0 {
                // As held. Every other one expires, and is charged the same.
                caller.told(
                    "/settle",
                    &format!(r#"{{{named}, "usage": {{"usd": "0.01", "input_tokens": 1, "output_tokens": 0}}}}"#),
                );
            }
        }
    }
}

/// Kills servers and the Redis, and starts them again.
fn disturb(fleet: &Fleet, servers: &mut [Option<Server>], redis: &mut RedisServer, case: &Case, chance: &mut Chance) {
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(chance.next(150)));
        if kill % 3 == 2 {
            redis.kill();
            std::thread::sleep(Duration::from_millis(chance.next(100)));
            redis.begin();
            fleet.note_kill();
            continue;
        }
        let which = usize::try_from(chance.next(SERVERS as u64)).unwrap();
        *fleet.addresses[which].lock().unwrap() = None;
        let temp = servers[which].take().unwrap().crash();
        let server = on(redis, &case.limits(), ", timeout_ms: 5000").start_in(temp);
        *fleet.addresses[which].lock().unwrap() = Some(server.address);
        servers[which] = Some(server);
        fleet.note_kill();
    }
}

/// What a server says once it has found its Redis again.
fn settled(server: &Server, user: &str) -> Value {
    for _ in 0..600 {
        let answer = ask(server, user, "main/big", "");
        if answer["code"] != "store_unavailable" {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the server does not find its Redis: {}", server.log());
}

fn amount(limit: &Value, of: &str) -> usize {
    let text = limit[of].as_str().unwrap();
    let (whole, cents) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{cents:0<2}").parse().unwrap()
}

fn hammer(meters: usize, gives_back: bool) {
    let always = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut redis) = RedisServer::start(&always) else { return };
    let case = Case { meters, cap: CLIENTS * EACH / 2 / meters, gives_back };
    let seed = std::env::var("SEED").map_or(meters as u64, |seed| seed.parse().unwrap());
    let start = || Some(on(&redis, &case.limits(), ", timeout_ms: 5000").start());
    let mut servers: Vec<Option<Server>> = (0..SERVERS).map(|_| start()).collect();
    let fleet = Fleet::default();
    for (address, server) in fleet.addresses.iter().zip(&servers) {
        *address.lock().unwrap() = server.as_ref().map(|server| server.address);
    }
    let told: Vec<Meter> = (0..meters).map(|_| Meter::default()).collect();
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (fleet, case, told) = (&fleet, &case, &told);
            scope.spawn(move || {
                let mut caller = Caller { fleet, chance: Chance(seed ^ ((number as u64) << 20)), client: None };
                case.call(&mut caller, number, told);
            });
        }
        disturb(&fleet, &mut servers, &mut redis, &case, &mut Chance(seed));
    });
    let server = servers[0].as_ref().unwrap();
    let mut sum = 0;
    for (user, told) in told.iter().enumerate() {
        let (permitted, refused) = (told.permitted.load(Ordering::SeqCst), told.refused.load(Ordering::SeqCst));
        sum += permitted;
        if !gives_back {
            assert_eq!(permitted, case.cap, "User::\"u{user}\" of {meters}, {refused} refused");
        }
        if meters <= 10 {
            let answer = settled(server, &format!("User::\"u{user}\""));
            let limit = &answer["limits"][0];
            assert_eq!(amount(limit, "used") + amount(limit, "held"), permitted, "{answer}");
        }
    }
    let wide = settled(server, "User::\"u0\"")["limits"][1].clone();
    let taken = |of: &str| wide[of].as_str().unwrap().parse::<usize>().unwrap();
    assert_eq!(taken("used") + taken("held"), sum);
    let again = fleet.again.load(Ordering::Relaxed);
    println!("{meters} meters: {sum} permitted, asked again {again} times");
    assert!(again > 100);
}

#[test]
fn one_meter_of_four_servers_gives_out_its_cap() {
    hammer(1, false);
}

#[test]
fn ten_meters_of_four_servers_give_out_theirs() {
    hammer(10, false);
}

#[test]
fn a_thousand_meters_of_four_servers_give_out_theirs() {
    hammer(1000, false);
}

#[test]
fn what_is_given_back_is_given_out_again_and_never_twice() {
    hammer(10, true);
}
