//! The queue of records to be written: one bounded buffer of bytes. A thread that decides copies its line into it and
//! continues. Waking the writer costs more than the copy, so the writer is woken only while it sleeps.

use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// How to handle a record for which the queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// The record is dropped, and the log counts the dropped records.
    #[default]
    Drop,
    /// The decision waits for room, as long as the log can be written.
    Wait,
}

#[derive(Debug, Default)]
struct State {
    /// Lines, each with its newline.
    lines: Vec<u8>,
    /// How many were dropped since the lines were last taken. While there are any, all others are dropped too: so the gap
    /// stands behind the lines.
    dropped: u64,
    /// Whether the writer sleeps until it is notified.
    sleeps: bool,
    /// Whether writing has stopped, so that no decision waits for room.
    stopped: bool,
    /// Whether there comes nothing more.
    closed: bool,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    taken: Condvar,
    most_bytes: usize,
    on_full: OnFull,
}

/// The records that the writer takes out of the queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) lines: Vec<u8>,
    /// How many were dropped behind them.
    pub(super) dropped: u64,
    pub(super) closed: bool,
}

impl Queue {
    pub(super) fn new(most_bytes: usize, on_full: OnFull) -> Self {
        let (state, arrived, taken) = (Mutex::default(), Condvar::new(), Condvar::new());
        Self { state, arrived, taken, most_bytes, on_full }
    }

    /// Puts a line in; false where it is dropped.
    pub(super) fn put(&self, line: &[u8]) -> bool {
        let has_room = |state: &State| {
            // A line that is longer than the queue fits into an empty one.
            state.dropped == 0 && (state.lines.is_empty() || state.lines.len() + line.len() <= self.most_bytes)
        };
        let mut state = self.lock();
        if self.on_full == OnFull::Wait {
            let waits = |state: &mut State| !has_room(state) && !state.stopped && !state.closed;
            self.taken.wait_while(&mut state, waits);
        }
        let fits = has_room(&state) && !state.closed;
        if fits {
            state.lines.extend_from_slice(line);
        } else {
            state.dropped += 1;
        }
        if std::mem::take(&mut state.sleeps) {
            drop(state);
            self.arrived.notify_one();
        }
        fits
    }

    /// Takes all queued records, and waits at most `longest` for the first one. The buffer of the last batch is passed
    /// back in, so that its memory is reused.
    pub(super) fn take(&self, mut before: Vec<u8>, longest: Duration) -> Taken {
        before.clear();
        let mut state = self.lock();
        let is_empty = |state: &State| state.lines.is_empty() && state.dropped == 0 && !state.closed;
        if is_empty(&state) {
            state.sleeps = true;
            self.arrived.wait_while_for(&mut state, |state| is_empty(state), longest);
            state.sleeps = false;
        }
        let lines = std::mem::replace(&mut state.lines, before);
        let taken = Taken { lines, dropped: std::mem::take(&mut state.dropped), closed: state.closed };
        drop(state);
        self.taken.notify_all();
        taken
    }

    /// Sets whether writing has stopped.
    pub(super) fn stopped(&self, stopped: bool) {
        self.lock().stopped = stopped;
        if stopped {
            self.taken.notify_all();
        }
    }

    /// Lets nothing more in.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
        self.taken.notify_all();
    }

    pub(super) fn len(&self) -> usize {
        self.lock().lines.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn what_does_not_fit_is_counted_behind_what_does() {
        let queue = Queue::new(8, OnFull::Drop);
        assert!(queue.put(b"1234\n") && !queue.put(b"5678\n") && !queue.put(b"\n"));
        let taken = queue.take(Vec::new(), NOW);
        assert_eq!(taken, Taken { lines: b"1234\n".to_vec(), dropped: 2, closed: false });
        assert!(queue.put(b"longer than all\n"));
        queue.close();
        assert!(!queue.put(b"x\n"));
        let taken = queue.take(Vec::new(), NOW);
        assert_eq!(taken, Taken { lines: b"longer than all\n".to_vec(), dropped: 1, closed: true });
    }

    #[test]
    fn a_decision_waits_for_room_unless_nothing_can_be_written() {
        let queue = Queue::new(4, OnFull::Wait);
        assert!(queue.put(b"123\n"));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.put(b"456\n"));
            assert_eq!(queue.take(Vec::new(), NOW).lines, b"123\n");
            assert!(waiting.join().unwrap());
        });
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.put(b"789\n"));
            queue.stopped(true);
            assert!(!waiting.join().unwrap());
        });
    }
}
