//! Many nodes on one store, over a network that delays, loses and doubles messages, with nodes that crash, are cut off and
//! have clocks of their own: what docs/limits.md promises holds. The nodes are those that are shipped; time, network and
//! chance are the test's, so that a seed does the same each time.
//!
//! `NODES_SEEDS` seeds from `NODES_SEED` on (the long mode takes 100,000). A failure tells its seed.

#![allow(
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it sets up a world of its own, and fails by panicking"
)]

mod kernel;
mod network;
#[allow(dead_code, reason = "it is shared")]
#[path = "../properties/tape.rs"]
mod tape;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use network::Mutant;
use world::World;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("it is a number"),
        Err(_) => default,
    }
}

fn episode(seed: u64, mutant: Mutant) -> (u64, usize) {
    let world = World::new(seed, mutant);
    world.run();
    world.trace()
}

#[test]
fn nodes_keep_every_promise_on_thousands_of_seeds() {
    let (seeds, first) = (number("NODES_SEEDS", 2_000), number("NODES_SEED", 1));
    let (next, calls) = (AtomicU64::new(first), AtomicUsize::new(0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| episode(seed, Mutant::None))) {
                Ok((_, made)) => drop(calls.fetch_add(made, Ordering::Relaxed)),
                Err(panic) => {
                    eprintln!("NODES_SEED={seed} NODES_SEEDS=1 repeats this");
                    next.store(u64::MAX / 2, Ordering::Relaxed);
                    resume_unwind(panic);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
    });
    println!("{seeds} seeds from {first} on, {} calls permitted", calls.into_inner());
}

#[test]
fn a_seed_does_the_same_each_time() {
    for seed in 1..40 {
        assert_eq!(episode(seed, Mutant::None), episode(seed, Mutant::None), "seed {seed}");
    }
}

/// The bounds can fail: on each of these stores more is permitted than there is.
#[test]
fn nodes_on_a_wrong_store_are_found_out() {
    for mutant in [Mutant::Forgets, Mutant::ChecksThenCharges, Mutant::FreesLeases] {
        let over = |seed: &u64| {
            let Err(panic) = catch_unwind(AssertUnwindSafe(|| episode(*seed, mutant))) else { return false };
            panic.downcast_ref::<String>().is_some_and(|told| told.contains("were permitted of"))
        };
        let caught = (1..2_000).find(over);
        println!("{mutant:?} is found out by seed {caught:?}");
        assert!(caught.is_some(), "{mutant:?} was not found out");
    }
}
