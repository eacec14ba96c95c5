//! What a decision allocates: some, and not more of it where there are more rules.

#[path = "../benches/common/mod.rs"]
mod common;

use std::hint::black_box;

use common::{Requests, Size};
use tollgate::gate::decide;
use tollgate::policy::load;
use tollgate::{Request, Snapshot};

/// How many allocations a decision makes, and of how many bytes, on average.
fn allocations(snapshot: &Snapshot, requests: &[Request]) -> (f64, f64) {
    let facts = common::facts();
    let all = || requests.iter().for_each(|request| drop(black_box(decide(snapshot, &facts, request))));
    // What is made once in a process is made before.
    all();
    let counted = allocation_counter::measure(all);
    #[expect(clippy::cast_precision_loss, reason = "they are thousands")]
    let mean = |count: u64| count as f64 / requests.len() as f64;
    (mean(counted.count_total), mean(counted.bytes_total))
}

#[test]
fn no_allocation_grows_with_the_rules() {
    let mut least: Option<[(f64, f64); 2]> = None;
    for rules in [1_000, 10_000] {
        let size = Size::of(rules);
        let snapshot = load(&common::bundle(size)).unwrap().snapshot;
        let Requests { plain, conditional } = common::requests(&snapshot, size, 128);
        let found = [&plain, &conditional].map(|requests| allocations(&snapshot, requests));
        let [(count, bytes), (with_condition, bytes_with_condition)] = found;
        println!(
            "{rules} rules: {count:.1} / {bytes:.0}, {with_condition:.1} / {bytes_with_condition:.0} with a condition"
        );
        for ((count, bytes), (least_count, least_bytes)) in found.iter().zip(least.unwrap_or(found)) {
            // The requests are others, and so are the lengths of names.
            assert!(*count <= least_count * 1.3, "{count} allocations, {least_count} with fewer rules");
            assert!(*bytes <= least_bytes * 1.3, "{bytes} bytes, {least_bytes} with fewer rules");
        }
        least = Some(found);
    }
}
