//! Where meters, keys and tokens are kept: in memory, in a file that outlives the process, or in a Redis that many nodes
//! share. Those of one kind pass one contract suite.

pub mod background;
mod books;
#[cfg(feature = "sqlite")]
pub mod embedded;
pub mod fallback;
#[cfg(any(feature = "sqlite", feature = "redis"))]
pub mod keys;
pub mod leases;
pub mod memory;
#[cfg(any(feature = "sqlite", feature = "redis"))]
mod private;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "sqlite", feature = "redis"))]
#[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "a Redis has meters as its scripts write them"))]
mod rows;
#[cfg(any(feature = "sqlite", feature = "redis"))]
pub mod tokens;
#[cfg(feature = "sqlite")]
mod whole;

pub use background::{Background, Work};
#[cfg(feature = "sqlite")]
pub use embedded::{Embedded, OpenError};
pub use fallback::Fallback;
#[cfg(feature = "sqlite")]
pub use keys::{KeyFile, KeyFileError};
#[cfg(any(feature = "sqlite", feature = "redis"))]
pub use keys::{Pepper, PepperError};
pub use leases::Leases;
pub use memory::Memory;
#[cfg(feature = "redis")]
pub use redis::{EvictionCheck, Redis, RedisError, RedisKeys, RedisOptions, RedisTokens, Secret};
#[cfg(feature = "sqlite")]
pub use tokens::{TokenFile, TokenFileError};

use std::collections::BTreeSet;
use std::sync::Arc;

use smol_str::SmolStr;

use crate::gate::{CloseError, HoldError, Look, StoreError, SubjectsOf};
use crate::meter::{Cause, Charge, Closed, Held, Hold, Ledger, ReservationId, Usage};
use crate::model::Timestamp;

/// How many reservations may expire while somebody waits: with five limits each, about a tenth of a millisecond.
const EXPIRE_AT_ONCE: usize = 128;
/// How many meters are looked at, whether they may be forgotten, at each tick.
const SWEEP_AT_ONCE: usize = 512;

fn looks(ledger: &Ledger, charges: &[Charge], now: Timestamp) -> Vec<Look> {
    ledger.look(charges, now).into_iter().map(|(standing, lack)| Look { standing, lack }).collect()
}

/// Holds, unless a request with the same key was here before: under one lock, so that of two only one is held.
fn held(ledger: &mut Ledger, hold: Hold, now: Timestamp) -> Result<Held, HoldError> {
    let named = hold.idempotency.as_ref().and_then(|(key, _)| ledger.named(key));
    if named.is_some_and(|found| !found.leaves_its_key()) {
        return Err(HoldError::KeyTaken);
    }
    ledger.hold(hold, now).map_err(|refused| match refused.cause {
        Some(Cause::TooManyOpen) => HoldError::Store(StoreError::Full),
        Some(Cause::TooManyOfPrincipal) => HoldError::TooManyOpen,
        Some(Cause::NameTaken) => HoldError::KeyTaken,
        None => HoldError::Refused(refused),
    })
}

/// Notes what was spent, unless it was noted before.
fn recorded(ledger: &mut Ledger, hold: Hold, usage: Usage, now: Timestamp) -> Result<Closed, CloseError> {
    let named = hold.idempotency.as_ref().and_then(|(key, _)| ledger.named(key));
    match named {
        Some(found) => Err(CloseError::KeyTaken(Box::new(found.clone()))),
        None => Ok(ledger.record(hold, usage, now)?),
    }
}

/// Keeps what was answered, unless it was given back meanwhile.
fn answered(ledger: &mut Ledger, id: ReservationId, answer: Arc<[u8]>) -> Result<(), StoreError> {
    if ledger.answered(id, answer) { Ok(()) } else { Err(given_back()) }
}

fn given_back() -> StoreError {
    StoreError::Away("it took so long that what was held was given back".into())
}

/// Takes from one part of the meters whose they are; false behind the last part. Part by part, so that nobody waits for
/// long.
fn gather_subjects(ledger: &Ledger, part: usize, of: &SubjectsOf, found: &mut BTreeSet<SmolStr>) -> bool {
    let Some(meters) = ledger.meters_in(part) else { return false };
    for (key, _) in meters.filter(|(key, _)| key.series == of.series) {
        if let Some(subject) = key.subject.as_ref().filter(|subject| of.takes(subject)) {
            found.insert(subject.clone());
            if found.len() > of.most {
                found.pop_last();
            }
        }
    }
    true
}

/// Whether it is still known: open, or closed for no longer than it is remembered.
#[cfg(feature = "sqlite")]
fn is_known(reservation: &crate::meter::Reservation, now: Timestamp) -> bool {
    reservation.state == crate::meter::State::Open || now < reservation.due_at
}
