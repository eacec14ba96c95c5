//! What limits in a Redis cost: holds and settles on one and on five limits beside a bare script that counts on one key,
//! through the same client with the same settings, against a Redis that is started for it.
//!
//! `cargo bench --bench redis` prints the tables that stand in BENCHMARKS.md. Every round measures all of it by turns, and
//! a ratio is of one round, so that what else the machine does falls on both sides.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench sets up a world of its own"
)]

#[allow(dead_code, reason = "tests use the rest of it")]
#[path = "../tests/stores/redis_server.rs"]
mod redis_server;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::runtime::Runtime;
use tollgate::edge::store::Leases;
use tollgate::gate::Meters;
use tollgate::meter::{
    Charge, Durability, Hold, Lease, Limit, Measure, Mode, OnExpiry, OnMissingUsage, OnStoreError, ReservationId,
    Spending, Unpriced, Usage,
};
use tollgate::model::{Amount, Every, Period, Timestamp, Unit};

use redis_server::Server;

/// How long each figure of a round is measured, and how many rounds there are (`BENCH_ROUNDS`).
const FOR: Duration = Duration::from_millis(300);
const ROUNDS: usize = 9;
/// Meters of each limit, and keys of the bare scripts.
const SUBJECTS: u64 = 64;
const IN_FLIGHT: [usize; 3] = [1, 64, 256];
const NOW: Timestamp = Timestamp::from_millis(1_773_144_000_000);

/// Counts on one key, whatever there is room for: the least that a script can do.
const COUNT: &str = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
/// Counts on one key as far as there is room: the least that a limiter does.
const COUNT_TO: &str = "local used = tonumber(redis.call('GET', KEYS[1]) or '0') + tonumber(ARGV[1])
if used > tonumber(ARGV[2]) then return -1 end
return redis.call('INCRBY', KEYS[1], ARGV[1])";

fn main() {
    // `cargo bench --no-run` and `cargo test --benches` only want it to compile and start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let Some(server) = Server::start(&[]) else { return };
    let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    println!(
        "### Charges a second in a Redis, beside bare scripts through the same client (medians of {rounds} rounds)\n"
    );
    println!("{} A ratio is to the bare script that counts on one key;", version(&server));
    println!(
        "`µs in the script` is Redis' own count (`INFO commandstats`), `µs of Redis` and `µs of the client` is CPU.\n"
    );
    for in_flight in IN_FLIGHT {
        let mut figures: Vec<Vec<Figure>> = Vec::new();
        for round in 0..rounds {
            for (place, figure) in one_round(&server, in_flight, round).into_iter().enumerate() {
                if figures.len() <= place {
                    figures.push(Vec::new());
                }
                figures[place].push(figure);
            }
        }
        table(in_flight, &figures);
    }
}

fn version(server: &Server) -> String {
    let told = server.ask("INFO server");
    let version = told.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("?").to_owned();
    format!("Redis {}.", version.trim())
}

/// What was measured of one kind of call in one round.
struct Figure {
    what: &'static str,
    a_second: f64,
    script_us: f64,
    redis_us: f64,
    client_us: f64,
}

fn table(in_flight: usize, figures: &[Vec<Figure>]) {
    println!("{in_flight} in flight\n");
    println!("| | a second | ratio (least–most) | µs in the script | µs of Redis | µs of the client |");
    println!("|---|---|---|---|---|---|");
    for of_one in figures {
        let median = |of: &dyn Fn(&Figure) -> f64| middle(of_one.iter().map(of).collect());
        let mut ratios: Vec<f64> =
            of_one.iter().zip(&figures[0]).map(|(one, bare)| one.a_second / bare.a_second).collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "| {} | {:.0} | {:.2} ({:.2}–{:.2}) | {:.1} | {:.1} | {:.1} |",
            of_one[0].what,
            median(&|one| one.a_second),
            middle(ratios.clone()),
            ratios[0],
            ratios[ratios.len() - 1],
            median(&|one| one.script_us),
            median(&|one| one.redis_us),
            median(&|one| one.client_us),
        );
    }
    println!();
}

fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn one_round(server: &Server, in_flight: usize, round: usize) -> Vec<Figure> {
    server.ask("FLUSHALL");
    let directory = tempfile::tempdir().unwrap();
    let caller = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let measuring = Measuring { server, pid: pid(server), caller: &caller, in_flight };
    let (count, count_to) = (Bare::new(server, COUNT), Bare::new(server, COUNT_TO));
    let mut figures = vec![
        measuring.calls("bare script: counts on one key", u64::MAX, {
            let bare = Arc::clone(&count);
            move |number| Arc::clone(&bare).call(number)
        }),
        measuring.calls("bare script: counts where there is room", u64::MAX, {
            let bare = Arc::clone(&count_to);
            move |number| Arc::clone(&bare).call(number)
        }),
    ];
    for (limits, hold, settle) in
        [(limits(1), "a hold on one limit", "its settle"), (limits(5), "a hold on five limits", "its settle")]
    {
        let prefix = format!("round{round}-{}", limits.len());
        let store = server.store(&directory.path().join(&prefix), &prefix);
        let world = Arc::new(World { store, limits, spending: spending() });
        caller.block_on(async {
            Arc::clone(&world).hold(u64::MAX).await;
            Arc::clone(&world).settle(u64::MAX).await;
        });
        let held = Arc::new(AtomicU64::new(0));
        figures.push(measuring.calls(hold, u64::MAX, {
            let (world, held) = (Arc::clone(&world), Arc::clone(&held));
            move |number| {
                held.fetch_max(number + 1, Ordering::Relaxed);
                Arc::clone(&world).hold(number)
            }
        }));
        let held = held.load(Ordering::Relaxed);
        figures.push(measuring.calls(settle, held, move |number| Arc::clone(&world).settle(number)));
    }
    figures.extend(leased(&measuring, &directory.path().join("leased"), &format!("round{round}-leased")));
    figures
}

/// What one limit costs of which a node leases so much that it asks a few times a second.
fn leased(measuring: &Measuring<'_>, directory: &std::path::Path, prefix: &str) -> [Figure; 2] {
    let store = Leases::new(Arc::new(measuring.server.store(directory, prefix)));
    let lease = Lease { size: Amount::new(10_000).unwrap(), lasts_ms: 10_000 };
    let limits = limits(1).iter().map(|limit| Arc::new(Limit { lease: Some(lease), ..(**limit).clone() })).collect();
    let world = Arc::new(World { store, limits, spending: spending() });
    let held = Arc::new(AtomicU64::new(0));
    let hold = measuring.calls("a hold on one limit with a lease", u64::MAX, {
        let (world, held) = (Arc::clone(&world), Arc::clone(&held));
        move |number| {
            held.fetch_max(number + 1, Ordering::Relaxed);
            Arc::clone(&world).hold(number)
        }
    });
    let settle = move |number| Arc::clone(&world).settle(number);
    [hold, measuring.calls("its settle", held.load(Ordering::Relaxed), settle)]
}

struct Measuring<'a> {
    server: &'a Server,
    pid: String,
    caller: &'a Runtime,
    in_flight: usize,
}

impl Measuring<'_> {
    /// So many calls in flight at a time, each task the next number as soon as its last is answered; up to `most` calls.
    fn calls<F: Future<Output = ()> + Send>(
        &self,
        what: &'static str,
        most: u64,
        call: impl Fn(u64) -> F + Clone + Send + 'static,
    ) -> Figure {
        self.server.ask("CONFIG RESETSTAT");
        let next = Arc::new(AtomicU64::new(0));
        let (redis_before, client_before) = (cpu_us(&self.pid), cpu_us("self"));
        let begun = Instant::now();
        self.caller.block_on(async {
            let task = |_| {
                let (call, next) = (call.clone(), Arc::clone(&next));
                tokio::spawn(async move {
                    while begun.elapsed() < FOR {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= most {
                            break;
                        }
                        call(number).await;
                    }
                })
            };
            for task in (0..self.in_flight).map(task).collect::<Vec<_>>() {
                task.await.unwrap();
            }
        });
        let took = begun.elapsed().as_secs_f64();
        let done = next.load(Ordering::Relaxed).min(most) as f64;
        let (redis_us, client_us) = (cpu_us(&self.pid) - redis_before, cpu_us("self") - client_before);
        Figure {
            what,
            a_second: done / took,
            script_us: self.script_us(),
            redis_us: redis_us / done,
            client_us: client_us / done,
        }
    }

    /// What Redis says that a script took, on average.
    fn script_us(&self) -> f64 {
        let told = self.server.ask("INFO commandstats");
        // With leases it may be asked nothing.
        let Some(line) = told.lines().find(|line| line.starts_with("cmdstat_evalsha:")) else { return 0.0 };
        let each = line.split(',').find_map(|field| field.strip_prefix("usec_per_call=")).unwrap();
        each.parse().unwrap()
    }
}

fn pid(server: &Server) -> String {
    let told = server.ask("INFO server");
    told.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim().to_owned()
}

/// The time that a process had a processor, all its threads together. In ticks of 10 ms.
fn cpu_us(pid: &str) -> f64 {
    let told = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = told.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks * 10_000.0
}

/// A script of a line or three, through the client as `tollgate` sets it up, its connection on a thread of its own.
struct Bare {
    manager: ConnectionManager,
    script: String,
    _connection: Runtime,
}

impl Bare {
    fn new(server: &Server, text: &str) -> Arc<Self> {
        let connection = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let timeout = Duration::from_secs(5);
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout))
            .set_max_delay(timeout)
            .set_number_of_retries(1);
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).unwrap();
        let manager = connection.block_on(ConnectionManager::new_with_config(client, config)).unwrap();
        let load = redis::cmd("SCRIPT").arg("LOAD").arg(text).to_owned();
        let script = connection.block_on(load.query_async(&mut manager.clone())).unwrap();
        Arc::new(Self { manager, script, _connection: connection })
    }

    async fn call(self: Arc<Self>, number: u64) {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.script).arg(1).arg(format!("{{bare}}:User::\"u{}\"", number % SUBJECTS));
        command.arg(1).arg(i64::MAX);
        let told: i64 = command.query_async(&mut self.manager.clone()).await.unwrap();
        assert!(told > 0);
    }
}

/// Limits in a Redis, with somebody who holds on them.
struct World<S> {
    store: S,
    limits: Vec<Arc<Limit>>,
    spending: Arc<Spending>,
}

impl<S: Meters> World<S> {
    async fn hold(self: Arc<Self>, number: u64) {
        let subject = format!("User::\"u{}\"", number % SUBJECTS);
        let charge = |limit: &Arc<Limit>| Charge {
            limit: Arc::clone(limit),
            subject: Some(subject.as_str().into()),
            amount: if limit.unit() == Unit::Tokens { Amount::new(1400).unwrap() } else { Amount::ONE },
        };
        let hold = Hold {
            id: id(number),
            spending: Arc::clone(&self.spending),
            charges: self.limits.iter().map(charge).collect(),
            ttl_ms: 600_000,
            idempotency: None,
            most_open: None,
        };
        self.store.hold(hold, NOW).await.unwrap();
    }

    async fn settle(self: Arc<Self>, number: u64) {
        let usd = Some(Amount::ONE);
        let usage = Usage { requests: 1, input_tokens: 900, output_tokens: 400, usd, ..Usage::default() };
        self.store.settle(id(number), usage, NOW).await.unwrap();
    }
}

fn id(number: u64) -> ReservationId {
    ReservationId::new(NOW, u128::from(number))
}

fn spending() -> Arc<Spending> {
    Arc::new(Spending {
        principal: "User::\"alice\"".parse().unwrap(),
        resource: "Model::\"openai-main/gpt-4o\"".parse().unwrap(),
        permitted: Box::default(),
        price: None,
        if_unknown: Box::default(),
    })
}

/// The limits of `benches/limits.rs`.
fn limits(most: usize) -> Vec<Arc<Limit>> {
    let budget = |unit, every| Measure::Budget {
        unit,
        period: Period::Calendar { every, zone: jiff::tz::TimeZone::UTC },
        carry_over_percent: 0,
    };
    let rate = |unit, amount| Measure::Rate { unit, amount: Amount::new(amount).unwrap(), every_ms: 60_000 };
    let limits = [
        ("month:usd:month", budget(Unit::Usd, Every::Month(1)), 1_000_000_000_000_000),
        ("day:tokens:day", budget(Unit::Tokens, Every::Day), 1_000_000_000_000),
        ("rpm:requests:60000", rate(Unit::Requests, 1_000_000_000), 1_000_000_000),
        ("tpm:tokens:60000", rate(Unit::Tokens, 1_000_000_000_000), 1_000_000_000_000),
        ("parallel:places", Measure::Concurrency, 100_000_000),
    ];
    let limit = |(series, measure, cap): (&str, Measure, u64)| {
        Arc::new(Limit {
            id: series.split(':').next().unwrap().into(),
            series: series.into(),
            measure,
            cap: Amount::new(cap).unwrap(),
            overrides: Box::default(),
            warn_at: Box::default(),
            mode: Mode::Enforce,
            on_expiry: OnExpiry::Charge,
            on_store_error: OnStoreError::Forbid,
            durability: Durability::Async,
            unpriced: Unpriced::Forbid,
            on_missing_usage: OnMissingUsage::ChargeHold,
            lease: None,
        })
    };
    limits.into_iter().take(most).map(limit).collect()
}
