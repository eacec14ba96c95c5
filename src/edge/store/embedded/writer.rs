//! The one thread that writes: takes what moved and who waits for it, commits, and tells them.

use std::time::Duration;

use parking_lot::MutexGuard;

use super::log::Log;
use super::{ASYNC_WAIT_MS, Shared, State, record};
use crate::gate::StoreError;
use crate::meter::{Changes, State as Stage};

/// How much one file of the log takes before the other is used.
const SWITCH_AT_BYTES: u64 = 16 << 20;
/// How much it takes where the tables have not taken in the other one yet: this, twice, is what a start has to read.
const MOST_BYTES: u64 = 64 << 20;
/// How long nothing happens until what the log has is taken into the tables.
const IDLE: Duration = Duration::from_secs(1);
const ASYNC_WAIT: Duration = Duration::from_millis(ASYNC_WAIT_MS);

/// Writes until the store is closed.
pub(super) fn run(shared: &Shared, mut log: Log) {
    loop {
        let mut state = wait(shared, log.len() > 0);
        let ends = state.ends;
        let waiting = std::mem::take(&mut state.waiting);
        state.moved = false;
        let changes = state.ledger.take_changes();
        let number = log.number() + 1;
        for closed in changes.reservations.iter().filter(|one| one.state != Stage::Open) {
            state.unfolded.insert(closed.id, number);
        }
        drop(state);
        let outcome = write(shared, &mut log, &changes);
        {
            let mut state = shared.lock();
            state.fails = outcome.is_err();
            if outcome.is_ok() {
                state.fold.written = log.number();
                hand_over(shared, &mut state, &mut log);
            } else {
                state.moved = true;
                state.ledger.put_back(changes);
            }
        }
        for sender in waiting {
            // Who does not wait any longer need not be told.
            let _ = sender.send(outcome.clone());
        }
        if ends {
            return end(shared, &mut log);
        }
        if outcome.is_err() {
            // A disk that fails is not asked again without pause.
            let mut state = shared.lock();
            shared.wake.wait_while_for(&mut state, |state| !state.ends, ASYNC_WAIT);
        }
    }
}

/// Until there is something to do.
fn wait(shared: &Shared, has_records: bool) -> MutexGuard<'_, State> {
    let nobody_waits = |state: &mut State| state.waiting.is_empty() && !state.ends && !state.can_fold();
    let mut state = shared.lock();
    while nobody_waits(&mut state) {
        if state.moved {
            // What nobody waits for is written a little later, with what comes meanwhile.
            shared.wake.wait_while_for(&mut state, nobody_waits, ASYNC_WAIT);
            break;
        }
        if has_records {
            let idle = |state: &mut State| nobody_waits(state) && !state.moved;
            let waited = shared.wake.wait_while_for(&mut state, idle, IDLE);
            state.fold.wanted |= waited.timed_out();
            if waited.timed_out() {
                break;
            }
        } else {
            shared.wake.wait(&mut state);
        }
    }
    state
}

fn write(shared: &Shared, log: &mut Log, changes: &Changes) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    if log.len() >= MOST_BYTES {
        let behind = |state: &mut State| state.fold.handed.is_some() && state.fold.failed.is_none();
        let mut state = shared.lock();
        shared.folding.wait_while(&mut state, behind);
        if let (Some(_), Some(reason)) = (&state.fold.handed, &state.fold.failed) {
            return Err(StoreError::NotWritten(reason.clone()));
        }
        hand_over(shared, &mut state, log);
    }
    log.append(|out| record::write(out, changes)).map_err(|error| StoreError::NotWritten(error.to_string().into()))
}

/// Lets the tables take in what the log has, where it is time.
fn hand_over(shared: &Shared, state: &mut State, log: &mut Log) {
    let is_time = state.fold.wanted || log.len() >= SWITCH_AT_BYTES;
    if !is_time || state.fold.handed.is_some() {
        return;
    }
    state.fold.wanted = false;
    if log.len() > 0 {
        state.fold.handed = Some(log.switch());
        shared.folding.notify_all();
    }
}

/// All that is written is in the tables when the store is closed, if they can be written.
fn end(shared: &Shared, log: &mut Log) {
    let behind = |state: &mut State| state.fold.handed.is_some() && state.fold.failed.is_none();
    let mut state = shared.lock();
    shared.folding.wait_while(&mut state, behind);
    state.fold.wanted = true;
    hand_over(shared, &mut state, log);
    state.fold.ends = true;
    shared.folding.notify_all();
}

impl State {
    fn can_fold(&self) -> bool {
        self.fold.wanted && self.fold.handed.is_none()
    }
}
