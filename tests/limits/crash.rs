//! kill -9 at any moment, under load: what was acknowledged is there after the restart, once, and what was held is
//! still held.
//!
//! KILLS says how often (200 unless said), of all servers together; SEED which run.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::support::{Answer, Client, Server};
use crate::{ask, question, reservation, setup, stands};

/// So many servers live short lives at once: each by itself spends most of its time starting.
const SERVERS: u64 = 4;
const CLIENTS: u64 = 8;
const USERS: u64 = 4;
const LIMITS: &str = r#"limits:
  - { id: money, users: "*", each: user, budget: { usd: 1000000, every: total } }
  - { id: tokens, users: "*", each: user, durability: sync, budget: { tokens: 1000000000, every: total } }
  - { id: at-once, users: "*", each: user, durability: sync, concurrency: 1000000 }
"#;

/// What a user has used and holds, as clients were told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    nanos_used: u64,
    nanos_held: u64,
    tokens_used: u64,
    tokens_held: u64,
    places: u64,
}

/// Numbers that a seed repeats.
pub struct Chance(pub u64);

impl Chance {
    /// splitmix64.
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }
}

fn dollars(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

fn nanos(dollars: &str) -> u64 {
    let (whole, fraction) = dollars.split_once('.').unwrap_or((dollars, ""));
    whole.parse::<u64>().unwrap() * 1_000_000_000 + format!("{fraction:0<9}").parse::<u64>().unwrap()
}

/// Where the server is, if it runs.
struct World {
    address: Mutex<Option<SocketAddr>>,
    started: Condvar,
    ends: AtomicBool,
    lost: AtomicU64,
}

impl World {
    /// Connects once there is a server. Never to where one was: the port may be another test's by now.
    fn connect(&self) -> Client {
        let absent = |address: &mut Option<SocketAddr>| address.is_none() && !self.ends.load(Ordering::Relaxed);
        let address = self.started.wait_while(self.address.lock().unwrap(), absent).unwrap();
        Client::connect(address.expect("the server is gone"))
    }

    fn is_at(&self, address: Option<SocketAddr>) {
        *self.address.lock().unwrap() = address;
        self.started.notify_all();
    }
}

/// Lets the clients end, also where the test fails.
struct End<'w>(&'w World);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ends.store(true, Ordering::Relaxed);
        self.0.started.notify_all();
    }
}

/// A client that sends what it has to say until it is answered.
struct Caller<'w> {
    world: &'w World,
    client: Option<Client>,
}

impl Caller<'_> {
    fn post(&mut self, path: &str, body: &str) -> Answer {
        loop {
            let mut client = self.client.take().unwrap_or_else(|| self.world.connect());
            let headers = ["Content-Type: application/json"];
            match client.try_request("POST", path, &headers, body.as_bytes()) {
                // It listens, and has not read its bundle yet.
                Some(answer) if answer.is_error(503, "no_bundle", "") => self.client = Some(client),
                Some(answer) => {
                    self.client = Some(client);
                    return answer;
                }
                None => {
                    self.world.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// An answer that must be given: to forget what was acknowledged would show as another.
    fn told(&mut self, path: &str, body: &str) -> Answer {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        answer
    }
}

/// Asks, settles, gives back, notes and leaves open until the world ends; what it was told, by user.
fn work(world: &World, number: u64, seed: u64) -> Vec<Sum> {
    let mut chance = Chance(seed ^ (number << 32));
    let mut caller = Caller { world, client: None };
    let mut sums = vec![Sum::default(); usize::try_from(USERS).unwrap()];
    let mut turn = 0;
    while !world.ends.load(Ordering::Relaxed) {
        turn += 1;
        let user = chance.next(USERS);
        let sum = &mut sums[usize::try_from(user).unwrap()];
        let user = format!("User::\"u{user}\"");
        let (held_nanos, held_tokens) = (chance.next(5000) + 1, chance.next(50));
        let (nanos, tokens) = (chance.next(6000), chance.next(60));
        let usage = format!(r#"{{"usd": "{}", "input_tokens": {tokens}, "output_tokens": 0}}"#, dollars(nanos));
        if chance.next(5) == 0 {
            let more = format!(r#", "usage": {usage}, "idempotency_key": "{number}-{turn}""#);
            caller.told("/usage", &question(&user, "main/big", &more));
            sum.nanos_used += nanos;
            sum.tokens_used += tokens;
            continue;
        }
        let expires = chance.next(8) == 0;
        let more = format!(
            r#", "reserve": {{"usd": "{}", "input_tokens": {held_tokens}, "output_tokens": 0}}, "ttl_seconds": {}, "idempotency_key": "{number}-{turn}""#,
            dollars(held_nanos),
            if expires { 1 } else { 3600 },
        );
        let held = reservation(&caller.told("/is_authorized", &question(&user, "main/big", &more)).json());
        let named = format!("\"reservation\": \"{held}\"");
        match chance.next(8) {
            0 => {
                caller.told("/release", &format!("{{{named}}}"));
            }
            1 if expires => {
                sum.nanos_used += held_nanos;
                sum.tokens_used += held_tokens;
            }
            1 => {
                caller.told("/extend", &format!("{{{named}, \"ttl_seconds\": 3600}}"));
                sum.nanos_held += held_nanos;
                sum.tokens_held += held_tokens;
                sum.places += 1;
            }
            again => {
                let body = format!("{{{named}, \"usage\": {usage}}}");
                let first = caller.told("/settle", &body);
                if again == 2 {
                    assert_eq!(caller.told("/settle", &body).body, first.body);
                }
                sum.nanos_used += nanos;
                sum.tokens_used += tokens;
            }
        }
    }
    sums
}

/// What the server says is used and held.
fn told(server: &Server, user: u64) -> Sum {
    let answer = ask(server, &format!("User::\"u{user}\""), "main/big", "");
    let (money, tokens, places) = (stands(&answer, "money"), stands(&answer, "tokens"), stands(&answer, "at-once"));
    Sum {
        nanos_used: nanos(&money.0),
        nanos_held: nanos(&money.1),
        tokens_used: tokens.0.parse().unwrap(),
        tokens_held: tokens.1.parse().unwrap(),
        places: places.1.parse().unwrap(),
    }
}

/// Starts a server and kills it, perhaps before it listens.
fn crash_at_start(temp: &Path, after: Duration) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.current_dir(temp).args(["serve", "--listen", "127.0.0.1:0"]).env_clear().stdin(Stdio::null());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // From where it begins to work: it says nothing earlier.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    if after.is_zero() {
        let _first = lines.next();
    }
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What the books say was charged, by limit.
fn books(temp: &TempDir, limit: &str) -> u64 {
    let file = rusqlite::Connection::open(temp.path().join("tollgate-data/meters.db")).unwrap();
    let sum =
        file.query_row("SELECT SUM(amount) FROM charges WHERE limit_id = ?1", [limit], |row| row.get::<_, i64>(0));
    u64::try_from(sum.unwrap()).unwrap()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a whole number")))
}

#[test]
fn what_was_acknowledged_survives_every_crash() {
    let kills = number("KILLS").unwrap_or(200);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("SEED").unwrap_or(now.as_secs());
    println!("SEED={seed}");
    std::thread::scope(|scope| {
        for server in 0..SERVERS {
            scope.spawn(move || survive(kills.div_ceil(SERVERS), seed.wrapping_add(server << 48)));
        }
    });
}

/// Kills one server so often, and adds up.
fn survive(kills: u64, seed: u64) {
    let mut chance = Chance(seed);
    let mut server = setup(LIMITS).start();
    let world = World {
        address: Mutex::new(Some(server.address)),
        started: Condvar::new(),
        ends: AtomicBool::new(false),
        lost: AtomicU64::new(0),
    };
    let (sums, server) = std::thread::scope(|scope| {
        let world = &world;
        let end = End(world);
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || work(world, number, seed))).collect();
        for _ in 0..kills {
            // At any moment of the load.
            std::thread::sleep(Duration::from_millis(chance.next(250)));
            world.is_at(None);
            let temp = server.crash();
            if chance.next(4) == 0 {
                crash_at_start(temp.path(), Duration::from_millis(chance.next(60)));
            }
            server = setup(LIMITS).start_in(temp);
            world.is_at(Some(server.address));
        }
        drop(end);
        let sums: Vec<Vec<Sum>> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        (sums, server)
    });
    let expected: Vec<Sum> = (0..usize::try_from(USERS).unwrap())
        .map(|user| {
            sums.iter().map(|sums| sums[user]).fold(Sum::default(), |a, b| Sum {
                nanos_used: a.nanos_used + b.nanos_used,
                nanos_held: a.nanos_held + b.nanos_held,
                tokens_used: a.tokens_used + b.tokens_used,
                tokens_held: a.tokens_held + b.tokens_held,
                places: a.places + b.places,
            })
        })
        .collect();
    let mut server = setup(LIMITS).start_in(server.crash());
    let all = |server: &Server| -> Vec<Sum> { (0..USERS).map(|user| told(server, user)).collect() };
    // The last of what nobody settles expires within a second.
    let places = |sums: &[Sum]| sums.iter().map(|sum| sum.places).sum::<u64>();
    server.until("what is left open expires", |server| places(&all(server)) <= places(&expected));
    assert_eq!(all(&server), expected);
    // What expired last nobody waited for: a server that ends in order has written it.
    server.signal("TERM");
    assert!(server.wait().success());
    let log = server.log();
    let temp = server.crash();
    let charged = |of: fn(&Sum) -> u64| expected.iter().map(of).sum::<u64>();
    assert_eq!(books(&temp, "money"), charged(|sum| sum.nanos_used));
    assert_eq!(books(&temp, "tokens"), charged(|sum| sum.tokens_used));
    assert!(!log.contains("panicked"), "{log}");
    let lost = world.lost.load(Ordering::Relaxed);
    println!("{kills} kills, {lost} answers lost, {} held at the end, {expected:?}", places(&expected));
    assert!(lost > 0 && places(&expected) > 0);
}
