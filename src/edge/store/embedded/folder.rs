//! The thread that takes what the log has into the tables, and lets go of what is found there from then on.

use std::time::Duration;

use super::file::File;
use super::fold::FoldError;
use super::log::Part;
use super::{Shared, State};
use crate::meter::ReservationId;

/// How many closed reservations with keys stay in memory: more than are closed while one request is answered.
const MOST_LINGERING: usize = 4096;
/// How many closed reservations are let go of while somebody may wait.
const LET_GO_AT_ONCE: usize = 128;
/// Tables that cannot be written are not tried again without pause.
const PAUSE: Duration = Duration::from_secs(1);

/// Folds until the store is closed.
pub(super) fn run(shared: &Shared, mut file: File) {
    loop {
        let part = {
            let nothing = |state: &mut State| state.fold.handed.is_none() && !state.fold.ends;
            let mut state = shared.lock();
            shared.folding.wait_while(&mut state, nothing);
            state.fold.handed.clone()
        };
        let Some(part) = part else { return };
        match fold(&mut file, &part) {
            Ok(closed) => {
                {
                    let mut state = shared.lock();
                    state.fold.folded = part.number;
                    state.fold.handed = None;
                    state.fold.failed = None;
                }
                shared.folding.notify_all();
                shared.wake.notify_one();
                for some in closed.chunks(LET_GO_AT_ONCE) {
                    shared.lock().let_go(some, part.number);
                }
            }
            Err(error) => {
                let mut state = shared.lock();
                state.fold.failed = Some(error.to_string().into());
                shared.folding.notify_all();
                shared.folding.wait_while_for(&mut state, |state| !state.fold.ends, PAUSE);
                if state.fold.ends {
                    return;
                }
            }
        }
    }
}

fn fold(file: &mut File, part: &Part) -> Result<Vec<ReservationId>, FoldError> {
    let bytes = part.read()?;
    let closed = file.fold(&[&bytes])?;
    if file.folded != part.number {
        let reason = format!("it has not the record {} that was written to it", part.number);
        return Err(FoldError::Damaged { file: 0, reason });
    }
    Ok(closed)
}

impl State {
    /// What is closed and in the tables as it is need not be in memory: a million requests an hour would be remembered
    /// for a day.
    fn let_go(&mut self, closed: &[ReservationId], folded: u64) {
        for id in closed {
            if self.unfolded.get(id).is_some_and(|written| *written <= folded) {
                self.unfolded.remove(id);
                let Some(reservation) = self.ledger.reservation(*id).filter(|_| self.ledger.is_taken(*id)) else {
                    continue;
                };
                if reservation.idempotency.is_some() {
                    self.lingering.push_back(*id);
                } else {
                    self.forget(*id);
                }
            }
        }
        while self.lingering.len() > MOST_LINGERING
            && let Some(id) = self.lingering.pop_front()
        {
            // What changed since will be folded, and comes here again.
            if self.ledger.is_taken(id) && !self.unfolded.contains_key(&id) {
                self.forget(id);
            }
        }
    }

    fn forget(&mut self, id: ReservationId) {
        self.ledger.forget(id);
        self.let_go += 1;
    }
}
