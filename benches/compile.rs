//! From files to a snapshot: `cargo bench --bench compile`. `BENCH_LARGE=1` adds a million rules.

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

use std::hint::black_box;
use std::time::Duration;

use common::Size;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tollgate::policy::{Loader, load};

fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    let mut sizes = vec![1_000, 10_000, 100_000];
    sizes.extend(std::env::var_os("BENCH_LARGE").map(|_| 1_000_000));
    for rules in sizes {
        let size = Size::of(rules);
        let bundle = common::bundle(size);
        group.throughput(Throughput::Elements(rules as u64));
        group.bench_function(BenchmarkId::new("first load", rules), |bencher| {
            bencher.iter_with_large_drop(|| load(black_box(&bundle)).expect("the bundle is right"));
        });
        let mut loader = Loader::default();
        loader.load(&bundle).expect("the bundle is right");
        group.bench_function(BenchmarkId::new("one file changed", rules), |bencher| {
            let mut round = 0;
            let next = || {
                round += 1;
                common::changed(&bundle, size, round)
            };
            bencher.iter_batched(
                next,
                |changed| loader.load(&changed).expect("the bundle is right"),
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1));
    targets = compile
}
criterion_main!(benches);
