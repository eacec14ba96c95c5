//! The log of the embedded store, cut and damaged anywhere: what a crash tore is cut off, anything else is refused, and
//! nothing that was acknowledged is lost in silence.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;
use tollgate::edge::store::{Embedded, OpenError};
use tollgate::gate::{BooksWish, By, Meters, Sum};

use crate::embedded::{as_after_a_crash, open};
use crate::{NOON, at, charge, daily, hold, id, tokens, wait};

const HOLDS: u128 = 24;
const HEADER_BYTES: u64 = 48;

fn log(directory: &Path) -> PathBuf {
    directory.join("meters-0.log")
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// A directory as a crash leaves it after as many holds, one a record; with where each record ends.
struct Crashed {
    directory: TempDir,
    ends: Vec<u64>,
}

impl Crashed {
    fn new() -> Self {
        loop {
            let directory = tempfile::tempdir().unwrap();
            let (store, limit) = (open(directory.path()), daily("day", 1_000_000));
            let mut ends = Vec::new();
            for number in 0..HOLDS {
                wait(store.hold(hold(number, &[charge(&limit, "a", 1)]), at(0))).unwrap();
                ends.push(length(&log(directory.path())));
            }
            let copy = as_after_a_crash(directory.path());
            // A machine that stood still for a second has the rest in the other file.
            if length(&copy.path().join("meters-1.log")) == HEADER_BYTES && ends.is_sorted_by(|one, next| one < next) {
                return Self { directory: copy, ends };
            }
        }
    }

    /// What a start says where the log is `bytes`: how many of the holds are there, the first ones.
    fn with_log(&self, bytes: &[u8]) -> Result<usize, OpenError> {
        let copy = as_after_a_crash(self.directory.path());
        fs::write(log(copy.path()), bytes).unwrap();
        let store = Embedded::open(copy.path(), at(0))?;
        let is_there = |number: &u128| wait(store.reservation(id(*number), at(0))).unwrap().is_some();
        let there = (0..HOLDS).filter(is_there).count();
        assert!((0..there as u128).all(|number| is_there(&number)), "there is a hole in what it has");
        let look = wait(store.look(&[charge(&daily("day", 1_000_000), "a", 1)], at(0))).unwrap();
        assert_eq!(look[0].standing.held.get(), there as u64);
        drop(store);
        // What was taken in is in the tables now.
        let again = open(copy.path());
        let look = wait(again.look(&[charge(&daily("day", 1_000_000), "a", 1)], at(0))).unwrap();
        assert_eq!(look[0].standing.held.get(), there as u64);
        Ok(there)
    }
}

fn is_damaged(outcome: Result<usize, OpenError>) -> bool {
    match outcome {
        Err(error @ OpenError::Damaged { .. }) => {
            assert!(error.to_string().contains("meters-"), "{error}");
            true
        }
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    }
}

#[test]
fn what_a_crash_tore_is_cut_off_and_what_is_damaged_is_refused() {
    let crashed = Crashed::new();
    let whole = fs::read(log(crashed.directory.path())).unwrap();
    let records_in = |bytes: usize| crashed.ends.iter().filter(|end| **end <= bytes as u64).count();
    let last = records_in(whole.len()) - 1;
    assert_eq!(last + 1, HOLDS as usize);
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    let change = (0..whole.len(), 0..8_u32, 0..3_u8, prop::collection::vec(any::<u8>(), 0..200));
    proptest!(config, |((place, bit, how, garbage) in change)| {
        match how {
            // Cut anywhere.
            0 => {
                let outcome = crashed.with_log(&whole[..place]);
                if (place as u64) < HEADER_BYTES {
                    prop_assert!(is_damaged(outcome));
                } else {
                    prop_assert_eq!(outcome.unwrap(), records_in(place));
                }
            }
            // A record half overwritten by what was there before, or torn.
            1 => {
                let torn = [&whole[..place.max(usize::try_from(crashed.ends[last - 1]).unwrap())], &garbage].concat();
                prop_assert_eq!(crashed.with_log(&torn).unwrap(), last);
            }
            // A bit of it is another.
            _ => {
                let mut flipped = whole.clone();
                flipped[place] ^= 1 << bit;
                let outcome = crashed.with_log(&flipped);
                if records_in(place) < last || (place as u64) < HEADER_BYTES {
                    prop_assert!(is_damaged(outcome));
                } else {
                    prop_assert_eq!(outcome.unwrap(), last);
                }
            }
        }
    });
}

/// The files are written by turns and over and over: at each moment a crash leaves all that was acknowledged.
#[test]
fn what_lies_behind_the_end_of_a_file_is_not_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let (store, limit) = (open(directory.path()), daily("day", 1_000_000));
    let by = By { limit: true, ..By::default() };
    let today = NOON / 86_400_000;
    let (principal, resource, of, after) = (None, None, None, None);
    let wish = BooksWish { from: today, to: today, by, principal, resource, limit: of, after, most: 10 };
    for number in 0..40_u128 {
        wait(store.hold(hold(number, &[charge(&limit, "a", 3)]), at(0))).unwrap();
        wait(store.settle(id(number), tokens(2), at(1))).unwrap();
        // A report has the tables take in what is written.
        if number % 3 == 0 {
            let lines = store.books().unwrap().report(&wish).unwrap().lines;
            assert!(
                matches!(lines[..], [(_, Sum::Counted(counted))] if counted == 2 * (number as i128 + 1)),
                "{lines:?}"
            );
        }
        if number % 4 == 0 {
            let copy = as_after_a_crash(directory.path());
            let crashed = open(copy.path());
            let look = wait(crashed.look(&[charge(&limit, "a", 1)], at(2))).unwrap();
            assert_eq!((look[0].standing.used.get(), look[0].standing.held.get()), (2 * (number as u64 + 1), 0));
            assert!(wait(crashed.settle(id(number), tokens(2), at(3))).is_ok());
            assert!(wait(crashed.settle(id(number), tokens(3), at(3))).is_err());
        }
    }
}
