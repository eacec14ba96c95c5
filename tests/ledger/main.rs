//! The ledger against a reference model, through all that may happen to it: `LEDGER_STEPS` steps (the long mode takes
//! 10,000,000), from seed `LEDGER_SEED` on. A failure tells its seed; with `LEDGER_CLOSELY=1` every meter is compared at
//! every step, so that it fails where it went wrong.

#![allow(
    clippy::pedantic,
    clippy::explicit_auto_deref,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "it sets up a world of its own, and fails by panicking"
)]

mod drive;
mod invariants;
mod model;
#[allow(dead_code, reason = "it is shared")]
#[path = "../properties/tape.rs"]
mod tape;
mod windows;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use drive::Drive;
use proptest::prelude::*;
use tape::Tape;

fn episode(seed: u64, steps: usize) {
    let mut drive = Drive::new(seed);
    (0..steps).for_each(|_| drive.step());
    drive.finish();
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("it is a number"),
        Err(_) => default,
    }
}

#[test]
fn a_ledger_is_its_model_for_many_steps() {
    let (steps, first) = (number("LEDGER_STEPS", 60_000), number("LEDGER_SEED", 1));
    let (mut done, mut seed) = (0, first);
    while done < steps {
        let length = [60, 300, 1000][Tape::new(seed, 0).below(3)];
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| episode(seed, length))) {
            eprintln!("LEDGER_SEED={seed} LEDGER_STEPS=1 repeats this");
            resume_unwind(panic);
        }
        (done, seed) = (done + length as u64, seed + 1);
    }
    println!("{done} steps in {} runs, from seed {first} to {}", seed - first, seed - 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Shrinks to the fewest steps that fail.
    #[test]
    fn property_a_ledger_is_its_model(seed in any::<u64>(), steps in 1..60_usize) {
        episode(seed, steps);
    }

    #[test]
    fn property_a_window_is_what_its_clocks_show(seed in any::<u64>()) {
        windows::check(&mut Tape::new(seed, 0));
    }
}
