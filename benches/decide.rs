//! Decisions by the number of rules, with Cedar's own authorizer beside them: `cargo bench --bench decide`.
//!
//! `BENCH_LARGE=1` adds a million rules. Thousands of different requests come one after the other, so that a large bundle
//! is not measured on what happens to be in the cache.

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

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::cedar::Plain;
use common::{Size, facts};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use tollgate::gate::decide;
use tollgate::policy::load;
use tollgate::{Bundle, Request, Snapshot};

const REQUESTS: usize = 2_048;

fn sizes() -> Vec<usize> {
    let mut sizes = vec![1_000, 10_000, 100_000];
    sizes.extend(std::env::var_os("BENCH_LARGE").map(|_| 1_000_000));
    sizes
}

fn snapshot(bundle: &Bundle) -> Arc<Snapshot> {
    load(bundle).expect("the bundle is right").snapshot
}

/// Decides one request after the other, from wherever the last sample ended.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, rules: usize, on: &Snapshot, requests: &[Request]) {
    let facts = facts();
    let mut next = requests.iter().cycle();
    group.bench_function(BenchmarkId::new(name, rules), |bencher| {
        // As a server has it: just made, so that it is in the cache, whatever of the rules is not.
        let made = || next.next().cloned();
        let decided = |request: &mut Option<Request>| request.as_ref().map(|request| decide(on, &facts, request));
        bencher.iter_batched_ref(made, decided, BatchSize::NumIterations(16));
    });
}

fn by_size(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for rules in sizes() {
        let size = Size::of(rules);
        let bundle = common::bundle(size);
        let loaded = snapshot(&bundle);
        let requests = common::requests(&loaded, size, REQUESTS);
        measure(&mut group, "without condition", rules, &loaded, &requests.plain);
        measure(&mut group, "with condition", rules, &loaded, &requests.conditional);
        let crowd = snapshot(&common::with(&bundle, common::crowd(size)));
        measure(&mut group, "user in 50 teams", rules, &crowd, &common::crowd_requests(size));
        if rules <= 10_000 {
            plain_cedar(&mut group, size, &requests.conditional);
        }
    }
}

fn rules_for_everyone(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rules that no index can skip");
    let size = Size::of(10_000);
    let bundle = common::bundle(size);
    for count in [0, 1, 10] {
        let bare = snapshot(&common::with(&bundle, common::for_everyone(count, false)));
        let requests = common::requests(&bare, size, REQUESTS).plain;
        measure(&mut group, "without condition", count, &bare, &requests);
        let conditional = snapshot(&common::with(&bundle, common::for_everyone(count, true)));
        let requests = common::requests(&conditional, size, REQUESTS).conditional;
        measure(&mut group, "with condition", count, &conditional, &requests);
    }
}

fn plain_cedar(group: &mut BenchmarkGroup<'_, WallTime>, size: Size, requests: &[Request]) {
    let plain = Plain::new(size);
    let facts = facts();
    let requests: Vec<_> = requests.iter().take(256).map(|request| Plain::request(request, &facts)).collect();
    let mut next = requests.iter().cycle();
    group.bench_function(BenchmarkId::new("plain Cedar", size.rules), |bencher| {
        bencher.iter_custom(|iterations| {
            let start = Instant::now();
            for request in next.by_ref().take(usize::try_from(iterations).unwrap_or(usize::MAX)) {
                std::hint::black_box(plain.permits(request));
            }
            start.elapsed()
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1));
    targets = by_size, rules_for_everyone
}
criterion_main!(benches);
