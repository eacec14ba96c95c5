//! Servers on a real Redis that is away, slow, comes back with less, is taken over by a replica, wants a password or TLS, or
//! is a cluster: no fresh budget in any case, and each limit's `on_store_error` decides meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::on;
use crate::redis_server::{Server as Redis, free_port};
use crate::support::{Answer, DEADLINE, Server, Setup};
use crate::{ALICE, BOB, ask, code, hold, pair, reservation, settle, setup, stands, tokens_of};

/// On `main/big` a limit that forbids while its store is away, on `main/small` one that permits a little.
const LIMITS: &str = r#"limits:
  - { id: hard, users: "*", models: [main/big], budget: { tokens: 100, every: total } }
  - { id: soft, users: "*", models: [main/small], budget: { tokens: 100, every: total }, on_store_error: { permit: 7 } }
"#;
const QUICK: &str = ", timeout_ms: 1500";
const LASTING: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

fn hold_small(server: &Server, tokens: u64) -> Value {
    ask(server, ALICE, "main/small", &tokens_of(tokens))
}

fn is_away(server: &Server) -> bool {
    code(&hold(server, 1)) == "store_unavailable"
}

/// Waits until the store answers again; holds nothing.
fn until_back(server: &Server) {
    let began = Instant::now();
    while code(&ask(server, ALICE, "main/big", "")) == "store_unavailable" {
        let why = settle(server, "r-00000000000000000000000000000000", "{}");
        assert!(began.elapsed() < DEADLINE, "the store does not come back: {why:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_a_redis_does_not_book_is_said() {
    let Some(redis) = Redis::start(&[]) else { return };
    let server = on(&redis, LIMITS, "").start();
    let answer = server.get("/usage?from=2026-01-01&to=2026-01-02");
    assert!(answer.is_error(400, "not_supported", ""), "{answer:?}");
}

#[test]
fn a_redis_that_may_drop_keys_is_refused_while_it_may() {
    let Some(redis) = Redis::start(&[]) else { return };
    let server = on(&redis, LIMITS, QUICK).start();
    assert_eq!(code(&hold(&server, 1)), "permitted");
    redis.ask("CONFIG SET maxmemory-policy allkeys-lru");
    server.until("it is noticed", is_away);
    server.until("it is said", |server| server.log().contains("noeviction"));
    redis.ask("CONFIG SET maxmemory-policy noeviction");
    until_back(&server);
    // What was held before still is.
    assert_ne!(stands(&ask(&server, ALICE, "main/big", ""), "hard").1, "0");
}

fn store_fails(slow: bool) {
    let Some(mut redis) = Redis::start(&LASTING) else { return };
    let server = on(&redis, LIMITS, QUICK).start();
    let kept = reservation(&hold(&server, 40));
    if slow {
        redis.signal("STOP")
    } else {
        redis.kill()
    }
    assert_eq!(code(&hold(&server, 1)), "store_unavailable");
    assert_eq!(code(&ask(&server, ALICE, "main/big", "")), "store_unavailable");
    assert_eq!(settle(&server, &kept, r#"{"input_tokens": 40, "output_tokens": 0}"#).status, 503);
    let local = reservation(&hold_small(&server, 4));
    assert_eq!(code(&hold_small(&server, 3)), "permitted");
    assert_eq!(code(&hold_small(&server, 1)), "budget_exceeded");
    assert_eq!(settle(&server, &local, r#"{"input_tokens": 6, "output_tokens": 0}"#).status, 200);
    let says = |what: &'static str| move |server: &Server| server.log().contains(what);
    server.until("it says so", says("warning: the Redis of the meters failed: the store does not answer"));
    if slow {
        redis.signal("CONT")
    } else {
        redis.begin()
    }
    until_back(&server);
    server.until("it says so", says("the Redis of the meters answers again"));
    // The holds that were refused are given back, where the Redis made them after all.
    let of_big = |server: &Server| stands(&ask(server, ALICE, "main/big", ""), "hard");
    server
        .until("nothing else is held", |server| of_big(server) == pair("0", "40") || of_big(server) == pair("40", "0"));
    // What was settled meanwhile is charged.
    let of_small = |server: &Server| stands(&ask(server, ALICE, "main/small", ""), "soft");
    server.until("it is charged", |server| of_small(server).0 == "6");
    assert_eq!(settle(&server, &kept, r#"{"input_tokens": 40, "output_tokens": 0}"#).status, 200);
    assert_eq!(of_big(&server), pair("40", "0"));
    server.until("nothing of it is held", |server| of_small(server) == pair("6", "0"));
}

#[test]
fn while_redis_is_away_each_limit_says_what_is_decided() {
    store_fails(false);
}

#[test]
fn while_redis_is_slow_each_limit_says_what_is_decided() {
    store_fails(true);
}

#[test]
fn a_redis_that_comes_back_empty_gives_nobody_a_fresh_budget() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let server = on(&redis, LIMITS, QUICK).start();
    let other = on(&redis, LIMITS, QUICK).start();
    assert_eq!(code(&hold(&server, 100)), "permitted");
    assert_eq!(code(&hold_small(&other, 1)), "permitted");
    redis.kill();
    redis.begin();
    // A restart changes nothing, nor does a node that nobody has seen.
    let server = on(&redis, LIMITS, QUICK).start_in(server.crash());
    for _ in 0..3 {
        assert!(is_away(&server) && is_away(&other));
        assert_eq!(code(&hold_small(&server, 2)), "permitted");
    }
    assert_eq!(code(&hold_small(&server, 2)), "budget_exceeded");
    for server in [&server, &other] {
        let says = |server: &Server| server.log().contains("Redis came back empty") && server.log().contains("DEL");
        server.until("it says what to do", says);
    }
    // What an operator says: go on with what it has.
    redis.ask("DEL {tollgate}:generation");
    for server in [&server, &other] {
        std::fs::remove_file(server.temp.path().join("tollgate-data/meters-redis.json")).unwrap();
    }
    for server in [&server, &other] {
        until_back(server);
    }
    assert_eq!(code(&hold(&server, 100)), "permitted");
    assert_eq!(code(&hold(&other, 1)), "budget_exceeded");
}

/// An address behind which another Redis may be put, as a failover does.
struct Address {
    port: u16,
    behind: Arc<AtomicU16>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Address {
    fn of(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (behind, open) = (Arc::new(AtomicU16::new(redis.port)), Arc::<Mutex<Vec<TcpStream>>>::default());
        let address = Self { port, behind: Arc::clone(&behind), open: Arc::clone(&open) };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", behind.load(Ordering::SeqCst))) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    open.lock().unwrap().push(from.try_clone().unwrap());
                    std::thread::spawn(move || carry(from, to));
                }
            }
        });
        address
    }

    fn is_now(&self, redis: &Redis) {
        self.behind.store(redis.port, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn server(&self) -> Server {
        let url = format!("redis://127.0.0.1:{}", self.port);
        setup(LIMITS).config(&format!("meters: {{ redis: {{ url: \"{url}\"{QUICK} }} }}\n")).start()
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn until_it_has_all(primary: &Redis, replica: &Redis) {
    let began = Instant::now();
    let at = |redis: &Redis, name: &str| {
        let told = redis.ask("INFO replication");
        let offset = told.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        offset.filter(|_| name != "slave_repl_offset:" || told.contains("master_link_status:up"))
    };
    while at(replica, "slave_repl_offset:").is_none_or(|offset| Some(offset) != at(primary, "master_repl_offset:")) {
        assert!(began.elapsed() < DEADLINE, "the replica does not follow");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A primary and its replica, which has all that the primary has.
fn pair_of_redis() -> Option<(Redis, Redis)> {
    let primary = Redis::start(&["--repl-diskless-sync-delay", "0"])?;
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &primary.port.to_string()])?;
    until_it_has_all(&primary, &replica);
    Some((primary, replica))
}

#[test]
fn a_replica_that_has_all_takes_over_and_one_that_has_less_is_refused() {
    let Some((mut primary, replica)) = pair_of_redis() else { return };
    let address = Address::of(&primary);
    let (one, other) = (address.server(), address.server());
    let kept = reservation(&hold(&one, 30));
    assert_eq!(code(&hold(&other, 10)), "permitted");
    until_it_has_all(&primary, &replica);
    // It is not to be written to as long as it follows: each limit decides.
    address.is_now(&replica);
    one.until("it is refused", is_away);
    assert_eq!(code(&hold_small(&one, 2)), "permitted");
    primary.kill();
    replica.ask("REPLICAOF NO ONE");
    for server in [&one, &other] {
        until_back(server);
    }
    assert_eq!(stands(&ask(&other, ALICE, "main/big", ""), "hard"), pair("0", "40"));
    assert_eq!(settle(&other, &kept, r#"{"input_tokens": 30, "output_tokens": 0}"#).status, 200);
    assert_eq!(code(&hold(&one, 60)), "permitted");
    assert_eq!(code(&hold(&one, 1)), "budget_exceeded");

    let Some((mut primary, replica)) = pair_of_redis() else { return };
    let address = Address::of(&primary);
    let (one, other) = (address.server(), address.server());
    assert_eq!(code(&hold(&one, 30)), "permitted");
    assert_eq!(code(&hold(&other, 1)), "permitted");
    until_it_has_all(&primary, &replica);
    replica.ask("REPLICAOF NO ONE");
    assert_eq!(code(&hold(&one, 69)), "permitted");
    primary.kill();
    address.is_now(&replica);
    // The one that saw less may go on until the other is told; then neither does.
    one.until("what is lost is noticed", is_away);
    other.until("the other is told", is_away);
    one.until("the log says what goes on and what waits", |server| {
        let log = server.log();
        log.contains("meters resume by themselves") && log.contains("wait for a restart of each node")
    });
    for server in [&one, &other] {
        assert!(is_away(server) && settle(server, &kept, "{}").status == 503);
    }
}

fn with_url(url: &str, more: &str) -> Setup {
    let config = format!("meters: {{ redis: {{ timeout_ms: 5000{more} }} }}\n");
    setup(LIMITS).config(&config).variable("TOLLGATE_REDIS_URL", url)
}

fn is_silent(server: &Server, secret: &str) {
    let told: Vec<Answer> = ["/metrics", "/health/ready", "/version"].map(|path| server.get(path)).into();
    assert!(!server.log().contains(secret) && told.iter().all(|answer| !answer.body.contains(secret)));
}

#[test]
fn a_redis_that_wants_a_password_is_given_it() {
    const PASSWORD: &str = "correct-horse-battery";
    let Some(redis) = Redis::start(&["--requirepass", PASSWORD]) else { return };
    let port = redis.port;
    assert!(redis.ask("ACL SETUSER tollgate on >of-its-own ~{tollgate}:* +@all").starts_with("+OK"));
    for admitted in [format!(":{PASSWORD}"), "tollgate:of-its-own".to_owned()] {
        let server = with_url(&format!("redis://{admitted}@127.0.0.1:{port}"), "").start();
        assert_eq!(code(&hold(&server, 1)), "permitted", "{}", server.log());
        is_silent(&server, PASSWORD);
        is_silent(&server, "of-its-own");
    }
    for refused in ["", ":wrong-secret@", "tollgate:wrong-secret@"] {
        let server = with_url(&format!("redis://{refused}127.0.0.1:{port}"), "").start();
        assert!(is_away(&server), "{}", server.log());
        assert!(server.log().contains("warning: the Redis of the meters failed"), "{}", server.log());
        is_silent(&server, "wrong-secret");
    }
}

#[test]
fn over_tls_only_a_redis_that_is_vouched_for_is_used() {
    let Some((directory, authority)) = certificates() else { return };
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (port, certificate, key) = (free_port(), file("server.pem"), file("server.key"));
    let port_text = port.to_string();
    let tls = ["--tls-port", &port_text, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let tls = [&tls[..], &["--tls-ca-cert-file", &authority, "--tls-auth-clients", "no"]].concat();
    let Some(redis) = Redis::start(&tls) else { return };
    let start = |host: &str, trusted: &str| {
        with_url(&format!("rediss://{host}:{port}"), "").variable("SSL_CERT_FILE", trusted).start()
    };
    let server = start("localhost", &authority);
    assert_eq!(code(&hold(&server, 3)), "permitted", "{}", server.log());
    assert!(redis.ask("GET {tollgate}:nothing").starts_with("$-1"));
    let stranger = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http/tls/authority.pem");
    for (host, trusted) in [("localhost", stranger), ("127.0.0.1", authority.as_str())] {
        let server = start(host, trusted);
        assert!(is_away(&server), "{host} {trusted}");
        assert!(server.log().contains("certificate"), "{}", server.log());
    }
    assert_eq!(stands(&ask(&server, BOB, "main/big", ""), "hard"), pair("0", "3"));
}

/// An authority and a certificate of `localhost` that it signed.
fn certificates() -> Option<(tempfile::TempDir, String)> {
    let directory = tempfile::tempdir().unwrap();
    let make = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(directory.path()).args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30";
    let made = make(&format!("req -x509 {new} -keyout authority.key -out authority.pem -subj /CN=authority"))
        && make(&format!(
            "req -x509 {new} -CA authority.pem -CAkey authority.key -keyout server.key -out server.pem -subj /CN=localhost \
             -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
        ));
    if !made {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "openssl is missing");
        println!("skipped: openssl makes no certificates");
        return None;
    }
    let authority = directory.path().join("authority.pem").to_str().unwrap().to_owned();
    Some((directory, authority))
}

/// Three that serve slots and a replica of each; every key of ours is in one slot.
fn cluster() -> Option<Vec<Redis>> {
    let start = || {
        let (bus, always) = (free_port().to_string(), ["--appendonly", "yes", "--appendfsync", "always"]);
        let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "3000", "--cluster-port", &bus];
        Redis::start(&[&always[..], &cluster, &["--repl-diskless-sync-delay", "0"]].concat())
    };
    let nodes: Vec<Redis> = (0..6).map(|_| start()).collect::<Option<_>>()?;
    let mut command = Command::new("redis-cli");
    command.args(["--cluster", "create"]).args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)));
    let made = command.args(["--cluster-replicas", "1", "--cluster-yes"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    let began = Instant::now();
    let knows = |node: &Redis| {
        let told = node.ask("CLUSTER NODES");
        told.matches(" slave ").count() + told.matches("myself,slave ").count() == 3 && !told.contains("handshake")
    };
    while !nodes.iter().all(|node| node.ask("CLUSTER INFO").contains("cluster_state:ok") && knows(node)) {
        assert!(began.elapsed() < DEADLINE, "no cluster comes to be");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(nodes)
}

#[test]
fn a_cluster_goes_on_when_the_one_that_has_the_meters_is_gone() {
    let Some(mut nodes) = cluster() else { return };
    let urls: Vec<String> = nodes.iter().map(|node| format!("redis://127.0.0.1:{}", node.port)).collect();
    let start = || with_url(&urls.join(","), ", cluster: true").start();
    let (one, other) = (start(), start());
    let kept = reservation(&hold(&one, 30));
    assert_eq!(code(&hold(&other, 10)), "permitted", "{}", other.log());
    let has_meters = |node: &Redis| !node.ask("DBSIZE").starts_with(":0");
    let is_primary = |node: &Redis| node.ask("ROLE").contains("master");
    let with_meters: Vec<usize> = (0..nodes.len()).filter(|at| has_meters(&nodes[*at])).collect();
    let (primary, replica) = match with_meters[..] {
        [first, second] if is_primary(&nodes[first]) => (first, second),
        [first, second] => (second, first),
        _ => panic!("all keys are in one slot, and there is one replica: {with_meters:?}"),
    };
    until_it_has_all(&nodes[primary], &nodes[replica]);
    nodes[primary].kill();
    for server in [&one, &other] {
        until_back(server);
    }
    assert_eq!(stands(&ask(&other, ALICE, "main/big", ""), "hard"), pair("0", "40"));
    assert_eq!(settle(&other, &kept, r#"{"input_tokens": 25, "output_tokens": 0}"#).status, 200);
    assert_eq!(code(&hold(&one, 66)), "budget_exceeded");
    assert_eq!(code(&hold(&one, 65)), "permitted");
}
