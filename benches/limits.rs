//! What limits cost: a decision with five that apply, and durable charges beside one that syncs the disk for each.
//!
//! `cargo bench --bench limits` prints the tables that stand in BENCHMARKS.md; each compares within one run.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench sets up a world of its own"
)]

use std::fmt::Write as _;
use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollgate::edge::store::Embedded;
use tollgate::gate::{Meters, ReportedUsage, Reserve};
use tollgate::meter::{
    Charge, Durability, Hold, Limit, Measure, Mode, OnExpiry, OnMissingUsage, OnStoreError, ReservationId, Spending,
    Unpriced,
};
use tollgate::model::{Amount, Every, Period, Timestamp, Unit};
use tollgate::{Bundle, Engine, Request, SourceFile};

/// How long each figure is measured.
const FOR: Duration = Duration::from_secs(3);
const IN_FLIGHT: usize = 256;

fn main() {
    // `cargo bench --no-run` and `cargo test --benches` only want it to compile and start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    // Either table alone, where an argument names it.
    let wanted = |name: &str| !["decisions", "durable"].iter().any(|one| named(one)) || named(name);
    if wanted("decisions") {
        decisions();
    }
    if wanted("durable") {
        durable();
    }
}

fn bundle(limits: usize) -> Bundle {
    let mut text = String::from(
        "provider_accounts:\n  - id: openai-main\n    models:\n      - { name: gpt-4o, price: { input: 2.5, output: 10 } }\n\
         teams: [{ id: research }]\nusers:\n",
    );
    for user in 0..1000 {
        writeln!(text, "  - {{ id: u{user}, team: research }}").unwrap();
    }
    text.push_str("authz_rules:\n  - { id: all, teams: [research], models: [\"openai-main/*\"] }\n");
    if limits > 0 {
        text.push_str("limits:\n");
        for (id, measure) in [
            ("month", "budget: { usd: 1000000, every: month }, durability: async"),
            ("day", "budget: { tokens: 1000000000000, every: day }"),
            ("rpm", "rate: { requests: 1000000000, every: minute }"),
            ("tpm", "rate: { tokens: 1000000000000, every: minute }"),
            ("parallel", "concurrency: 1000000"),
        ]
        .iter()
        .take(limits)
        {
            writeln!(text, "  - {{ id: {id}, users: \"*\", each: user, {measure} }}").unwrap();
        }
    }
    Bundle::new(vec![SourceFile::new("bench.yaml", text.into_bytes()).unwrap()])
}

/// Medians of single calls, in nanoseconds, with and without limits by turns.
fn decisions() {
    let engines: Vec<Engine> =
        [0, 5].iter().map(|limits| Engine::builder().bundle(bundle(*limits)).build().unwrap()).collect();
    let model = r#"Model::"openai-main/gpt-4o""#;
    let requests: Vec<Request> = (0..1000)
        .map(|user| Request::new(format!(r#"User::"u{user}""#).parse().unwrap(), "chat", model.parse().unwrap()))
        .collect();
    let reserve = Reserve { input_tokens: Some(900), output_tokens: Some(500), ..Reserve::default() };
    let usage = ReportedUsage { input_tokens: Some(900), output_tokens: Some(500), ..ReportedUsage::default() };
    let (mut plain, mut check, mut hold) = (Vec::new(), Vec::new(), Vec::new());
    // Fewer, where instructions are counted instead (valgrind).
    let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(30);
    for _ in 0..rounds {
        for request in &requests {
            plain.push(time(|| engines[0].is_authorized(request).unwrap().is_permit()));
            check.push(time(|| engines[1].is_authorized(request).unwrap().is_permit()));
            let before = Instant::now();
            let decision = engines[1].reserve(request, reserve).unwrap();
            hold.push(before.elapsed().as_nanos());
            let id = decision.reservation.expect("it was permitted").id.parse().unwrap();
            engines[1].settle(id, usage).unwrap();
        }
    }
    let (plain, check, hold) = (median(&mut plain), median(&mut check), median(&mut hold));
    println!("### A decision in process, meters in memory (median of 30,000 single calls, ns)\n");
    println!("| | ns | more than without limits |\n|---|---|---|");
    println!("| no limit applies | {plain} | – |");
    println!("| a check, five limits apply | {check} | {} |", check.saturating_sub(plain));
    println!("| a hold on five limits | {hold} | {} |\n", hold.saturating_sub(plain));
}

fn named(name: &str) -> bool {
    std::env::args().any(|argument| argument == name)
}

fn time(work: impl FnOnce() -> bool) -> u128 {
    let before = Instant::now();
    assert!(black_box(work()));
    before.elapsed().as_nanos()
}

fn median(times: &mut [u128]) -> u128 {
    times.sort_unstable();
    times[times.len() / 2]
}

fn limit(durability: Durability) -> Arc<Limit> {
    let period = Period::Calendar { every: Every::Month(1), zone: jiff::tz::TimeZone::UTC };
    Arc::new(Limit {
        id: "month".into(),
        series: "month:usd:month".into(),
        measure: Measure::Budget { unit: Unit::Usd, period, carry_over_percent: 0 },
        cap: Amount::MAX,
        overrides: Box::default(),
        warn_at: Box::default(),
        mode: Mode::Enforce,
        on_expiry: OnExpiry::Charge,
        on_store_error: OnStoreError::Forbid,
        durability,
        unpriced: Unpriced::Forbid,
        on_missing_usage: OnMissingUsage::ChargeHold,
        lease: None,
    })
}

/// Charges a second: bare appends with a sync each, holds one at a time, and 256 in flight, by turns.
fn durable() {
    let directory =
        tempfile::tempdir_in(std::env::var("BENCH_DIRECTORY").unwrap_or_else(|_| "target".to_owned())).unwrap();
    let rounds: usize = std::env::var("ROUNDS").map_or(3, |text| text.parse().unwrap());
    let kinds = [("1 in flight, sync", 1, Durability::Sync), ("256 in flight, sync", IN_FLIGHT, Durability::Sync)];
    let kinds = [kinds[0], kinds[1], ("256 in flight, async", IN_FLIGHT, Durability::Async)];
    let mut bare = Vec::new();
    let mut figures = [const { Vec::new() }; 3];
    for round in 0..rounds {
        let mut file = File::create(directory.path().join("bare")).unwrap();
        bare.push(rate(|| {
            file.write_all(&[7; 64]).unwrap();
            file.sync_data().unwrap();
        }));
        for (kind, (_, tasks, durability)) in kinds.iter().enumerate() {
            figures[kind].push(in_flight(&directory.path().join(format!("{round}-{kind}")), *tasks, *durability));
        }
    }
    let median = |figures: &[f64]| {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
    };
    println!(
        "### Durable charges a second in the embedded store (a hold on one limit; 64 meters; median of {rounds} rounds)\n"
    );
    println!("| | a second | to one sync a charge | least and most |\n|---|---|---|---|");
    println!("| 64 bytes appended and synced, one at a time | {:.0} | 1 | |", median(&bare).1);
    for ((what, ..), figures) in kinds.iter().zip(&figures) {
        let ratios: Vec<f64> = figures.iter().zip(&bare).map(|(figure, bare)| figure / bare).collect();
        let (least, ratio, most) = median(&ratios);
        println!("| {what} | {:.0} | {ratio:.1} | {least:.1} – {most:.1} |", median(figures).1);
    }
}

fn rate(mut work: impl FnMut()) -> f64 {
    let (begun, mut done) = (Instant::now(), 0_u32);
    while begun.elapsed() < FOR {
        work();
        done += 1;
    }
    f64::from(done) / begun.elapsed().as_secs_f64()
}

fn in_flight(directory: &std::path::Path, tasks: usize, durability: Durability) -> f64 {
    let now = Timestamp::from_millis(1_773_144_000_000);
    let store: Arc<dyn Meters> = Arc::new(Embedded::open(directory, now).unwrap());
    let spending = Arc::new(Spending {
        principal: "User::\"alice\"".parse().unwrap(),
        resource: "Model::\"openai-main/gpt-4o\"".parse().unwrap(),
        permitted: Box::default(),
        price: None,
        if_unknown: Box::default(),
    });
    let (limit, next, done) = (limit(durability), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let begun = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..tasks)
            .map(|task| {
                let (store, spending, limit) = (Arc::clone(&store), Arc::clone(&spending), Arc::clone(&limit));
                let (next, done) = (Arc::clone(&next), Arc::clone(&done));
                tokio::spawn(async move {
                    while begun.elapsed() < FOR {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let subject = Some(format!("User::\"u{}\"", task % 64).into());
                        let charge = Charge { limit: Arc::clone(&limit), subject, amount: Amount::ONE };
                        let hold = Hold {
                            id: ReservationId::new(now, u128::from(number)),
                            spending: Arc::clone(&spending),
                            charges: vec![charge],
                            ttl_ms: 600_000,
                            idempotency: None,
                            most_open: None,
                        };
                        store.hold(hold, now).await.unwrap();
                        done.fetch_add(1, Ordering::Relaxed);
                        if durability == Durability::Async {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}
