//! What the ledger costs alone: `cargo bench --bench ledger`. Before it measures time it tells what a million meters take
//! (`LEDGER_METERS` says how many), as the process sees it.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "it sets up a world of its own, and fails by panicking"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use jiff::tz::TimeZone;
use tollgate::Timestamp;
use tollgate::meter::{
    Charge, Durability, Hold, Ledger, Limit, Measure, Mode, OnExpiry, OnMissingUsage, OnStoreError, ReservationId,
    Spending, Unpriced, Usage,
};
use tollgate::model::{Amount, Every, Period, Unit};

const NOON: i64 = 1_795_348_800_000;

fn now() -> Timestamp {
    Timestamp::from_millis(NOON)
}

fn amount(number: u64) -> Amount {
    Amount::new(number).unwrap()
}

/// Five limits as one caller may have them: two budgets, a rolling one, a rate of requests and one of tokens.
fn limits() -> Vec<Arc<Limit>> {
    let zone = || TimeZone::get("Europe/Berlin").unwrap();
    let budget = |unit, period| Measure::Budget { unit, period, carry_over_percent: 0 };
    let measures = [
        ("research-month", budget(Unit::Usd, Period::Calendar { every: Every::Month(1), zone: zone() })),
        ("everyone-day", budget(Unit::Usd, Period::Calendar { every: Every::Day, zone: zone() })),
        ("rpm", Measure::Rate { unit: Unit::Requests, amount: amount(1_000_000), every_ms: 60_000 }),
        ("tpm", Measure::Rate { unit: Unit::Tokens, amount: amount(1_000_000_000), every_ms: 60_000 }),
        ("thirty-days", budget(Unit::Usd, Period::Rolling(30 * 86_400_000))),
    ];
    let limit = |(id, measure): (&str, Measure)| Limit {
        id: id.into(),
        series: format!("{id}:usd:month(1)(Europe/Berlin)").into(),
        measure,
        cap: amount(1 << 60),
        overrides: Box::new([]),
        warn_at: Box::new([50, 80]),
        mode: Mode::Enforce,
        on_expiry: OnExpiry::Charge,
        on_store_error: OnStoreError::Forbid,
        durability: Durability::Sync,
        unpriced: Unpriced::Forbid,
        on_missing_usage: OnMissingUsage::ChargeHold,
        lease: None,
    };
    measures.into_iter().map(|measure| limit(measure).into()).collect()
}

struct Caller {
    limits: Vec<Arc<Limit>>,
    spending: Arc<Spending>,
    made: u128,
}

impl Caller {
    fn new(limits: usize) -> Self {
        let spending = Spending {
            principal: "User::\"alice\"".parse().unwrap(),
            resource: "Model::\"openai-main/gpt-4o\"".parse().unwrap(),
            permitted: Box::default(),
            price: None,
            if_unknown: Box::default(),
        };
        Self { limits: self::limits()[..limits].to_vec(), spending: spending.into(), made: 0 }
    }

    /// A hold of the `user`th of the callers, each with a name of its own in memory, as requests bring them.
    fn hold(&mut self, user: usize) -> Hold {
        self.made += 1;
        let subject = format!("User::\"employee-{user:06}@corp.example\"");
        let charge = |limit: &Arc<Limit>| Charge {
            limit: Arc::clone(limit),
            subject: Some(subject.as_str().into()),
            amount: amount(1000),
        };
        let charges = self.limits.iter().map(charge).collect();
        let id = ReservationId::new(now(), self.made);
        Hold { id, spending: Arc::clone(&self.spending), charges, ttl_ms: 600_000, idempotency: None, most_open: None }
    }
}

fn usage() -> Usage {
    Usage { requests: 1, input_tokens: 500, output_tokens: 400, usd: Some(amount(900)), ..Usage::default() }
}

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024
}

/// Five limits of many users, each used once.
fn filled(users: usize) -> (Ledger, Duration) {
    let (mut ledger, mut caller, mut longest) = (Ledger::default(), Caller::new(5), Duration::ZERO);
    for user in 0..users {
        let hold = caller.hold(user);
        let (id, begun) = (hold.id, Instant::now());
        ledger.hold(hold, now()).unwrap();
        ledger.settle(id, usage(), now()).unwrap();
        longest = longest.max(begun.elapsed());
        ledger.forget(id);
        if user % 1000 == 0 {
            drop(ledger.take_changes());
        }
    }
    drop(ledger.take_changes());
    (ledger, longest)
}

fn memory() {
    let users = std::env::var("LEDGER_METERS").map_or(1_000_000, |text| text.parse().unwrap()) / 5;
    let before = resident_mb();
    let (mut ledger, longest) = filled(users);
    let count = ledger.meters_count();
    println!("{count} meters take {} MB; the longest hold and settle took {longest:?}", resident_mb() - before);
    let later = Timestamp::from_millis(NOON + 40 * 86_400_000);
    let (mut times, mut forgotten) = (Vec::new(), 0);
    while forgotten < count {
        let begun = Instant::now();
        forgotten += ledger.sweep(later, 500);
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!("a sweep that forgets {} took {}", count / times.len(), told(&times));
    expiry();
}

/// What whoever asks waits for while many expire: as many at once as a store lets.
fn expiry() {
    let (mut ledger, mut caller) = (Ledger::default(), Caller::new(5));
    (0..128_000).for_each(|user| drop(ledger.hold(caller.hold(user), now()).unwrap()));
    drop(ledger.take_changes());
    let (later, mut times) = (Timestamp::from_millis(NOON + 600_000), Vec::new());
    for _ in 0..1000 {
        let begun = Instant::now();
        assert_eq!(ledger.expire(later, 128), 128);
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!("expiring 128 with five limits each took {}", told(&times));
}

/// Of sorted times: what half, and all but one in a hundred, stay within, and the longest.
fn told(times: &[Duration]) -> String {
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    format!("{:?} (median), {:?} (99th percentile), {:?} at most", at(50), at(99), at(100))
}

fn hold_and_settle(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger");
    for limits in [1, 5] {
        let (mut ledger, mut caller, mut user) = (Ledger::default(), Caller::new(limits), 0);
        group.bench_function(BenchmarkId::new("hold and settle, limits", limits), |bencher| {
            bencher.iter_batched(
                || {
                    user = (user + 1) % 10_000;
                    caller.hold(user)
                },
                |hold| {
                    let id = hold.id;
                    black_box(ledger.hold(hold, now())).unwrap();
                    black_box(ledger.settle(id, usage(), now())).unwrap();
                    drop(ledger.forget(id));
                    drop(black_box(ledger.take_changes()));
                },
                BatchSize::SmallInput,
            );
        });
    }
    for limits in [1, 5] {
        let mut caller = Caller::new(limits);
        let mut full = Ledger::default();
        (0..1000).for_each(|user| drop(full.hold(caller.hold(user), now()).unwrap()));
        drop(full.take_changes());
        let later = Timestamp::from_millis(NOON + 600_000);
        group.bench_function(BenchmarkId::new("expire 1,000, limits", limits), |bencher| {
            let expire = |mut ledger: Ledger| {
                assert_eq!(ledger.expire(later, 1000), 1000);
                ledger
            };
            bencher.iter_batched(|| full.clone(), expire, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn all(criterion: &mut Criterion) {
    memory();
    hold_and_settle(criterion);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = all
}
criterion_main!(benches);
