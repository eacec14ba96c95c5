//! What the watcher's thread waits for: a hint, a wish, the end, or the time to look by itself.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Why the watcher's thread woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// The time came.
    Due,
    /// Something seems to have changed.
    Hint,
    /// Events were lost: everything may have changed.
    Lost,
    /// Somebody wants the files now; this is the number of their wish.
    Wish(u64),
    /// The end.
    Stop,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    lost: bool,
    last_hint: Option<Instant>,
    /// How many times somebody wished for the files now, and how many of those wishes were fulfilled.
    wishes: u64,
    fulfilled: u64,
}

/// Shared by the watcher's thread, the thread of the operating system's events, and whoever holds the watcher.
#[derive(Debug, Default)]
pub(super) struct Signals {
    state: Mutex<State>,
    changed: Condvar,
}

impl Signals {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn hint(&self) {
        self.lock().last_hint = Some(Instant::now());
        self.changed.notify_all();
    }

    pub(super) fn lost(&self) {
        self.lock().lost = true;
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Wishes for the files now; the number is for [`Self::wait_fulfilled`].
    pub(super) fn wish(&self) -> u64 {
        let mut state = self.lock();
        state.wishes += 1;
        let wish = state.wishes;
        drop(state);
        self.changed.notify_all();
        wish
    }

    /// How many wishes there were.
    pub(super) fn wishes(&self) -> u64 {
        self.lock().wishes
    }

    /// How many of them were fulfilled.
    pub(super) fn fulfilled(&self) -> u64 {
        self.lock().fulfilled
    }

    pub(super) fn fulfil(&self, wish: u64) {
        self.lock().fulfilled = wish;
        self.changed.notify_all();
    }

    /// Whether `wish` was fulfilled before `timeout` was over.
    pub(super) fn wait_fulfilled(&self, wish: u64, timeout: Duration) -> bool {
        let mut state = self.lock();
        let pending = |state: &mut State| state.fulfilled < wish && !state.stopped;
        self.changed.wait_while_for(&mut state, pending, timeout);
        state.fulfilled >= wish
    }

    /// Waits for the next thing to do, at `due` at the latest.
    pub(super) fn wait(&self, due: Instant) -> Wake {
        let mut state = self.lock();
        loop {
            if let Some(wake) = state.wake() {
                return wake;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Wake::Due;
            }
            self.changed.wait_for(&mut state, left);
        }
    }

    /// Waits until no hint came for `quiet`, but no longer than `longest`, and not where there is something better to
    /// do. Hints that came until then are forgotten.
    pub(super) fn wait_quiet(&self, quiet: Duration, longest: Duration) {
        let began = Instant::now();
        let mut state = self.lock();
        while !state.stopped && state.wishes == state.fulfilled {
            let calm = state.last_hint.unwrap_or(began) + quiet;
            let left = calm.min(began + longest).saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.changed.wait_for(&mut state, left);
        }
        state.last_hint = None;
    }

    /// Waits for `duration`, less only at the end or where a wish comes in that is not among the first `wishes`.
    pub(super) fn pause(&self, duration: Duration, wishes: u64) -> Wake {
        let mut state = self.lock();
        let waiting = |state: &mut State| !state.stopped && state.wishes <= wishes;
        self.changed.wait_while_for(&mut state, waiting, duration);
        match state.stopped {
            true => Wake::Stop,
            false if state.wishes > wishes => Wake::Wish(state.wishes),
            false => Wake::Due,
        }
    }
}

impl State {
    fn wake(&mut self) -> Option<Wake> {
        if self.stopped {
            return Some(Wake::Stop);
        }
        if self.wishes > self.fulfilled {
            return Some(Wake::Wish(self.wishes));
        }
        if std::mem::take(&mut self.lost) {
            return Some(Wake::Lost);
        }
        self.last_hint.is_some().then_some(Wake::Hint)
    }
}
