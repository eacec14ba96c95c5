//! The one thread that writes: takes what moved and who waits for it, commits, and tells them.

use std::sync::PoisonError;
use std::time::Duration;

use super::file::File;
use super::{ASYNC_WAIT_MS, Shared, State};
use crate::meter::{Changes, ReservationId, State as Stage};

/// How many closed reservations with keys stay in memory: more than are closed while one request is answered.
const MOST_LINGERING: usize = 4096;

/// Writes until the store is closed.
pub(super) fn run(shared: &Shared, mut file: File) {
    loop {
        let mut state = shared.lock();
        while state.waiting.is_empty() && !state.ends {
            if state.moved {
                // What nobody waits for is written a little later, with what comes meanwhile.
                let wait = Duration::from_millis(ASYNC_WAIT_MS);
                let enough = |state: &mut State| state.waiting.is_empty() && !state.ends;
                (state, _) =
                    shared.wake.wait_timeout_while(state, wait, enough).unwrap_or_else(PoisonError::into_inner);
                break;
            }
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let ends = state.ends;
        let waiting = std::mem::take(&mut state.waiting);
        state.moved = false;
        let changes = state.ledger.take_changes();
        drop(state);
        let outcome = file.write(&changes);
        {
            let mut state = shared.lock();
            state.fails = outcome.is_err();
            if outcome.is_ok() {
                state.let_go(&changes);
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
            return;
        }
        if outcome.is_err() {
            // A disk that fails is not asked again without pause.
            let pause = Duration::from_millis(ASYNC_WAIT_MS);
            let state = shared.lock();
            drop(shared.wake.wait_timeout_while(state, pause, |state| !state.ends));
        }
    }
}

impl State {
    /// What is closed and written need not be in memory: a million requests an hour would be remembered for a day.
    fn let_go(&mut self, written: &Changes) {
        let closed = written.reservations.iter().filter(|reservation| reservation.state != Stage::Open);
        for reservation in closed {
            if self.ledger.reservation(reservation.id) != Some(reservation) {
                continue;
            }
            if reservation.idempotency.is_some() {
                self.lingering.push_back(reservation.id);
            } else {
                self.forget(reservation.id);
            }
        }
        while self.lingering.len() > MOST_LINGERING
            && let Some(id) = self.lingering.pop_front()
        {
            // What changed since will be written, and comes here again.
            if self.ledger.is_taken(id) {
                self.forget(id);
            }
        }
    }

    fn forget(&mut self, id: ReservationId) {
        self.ledger.forget(id);
        self.let_go += 1;
    }
}
