//! A bounded queue of events that wait to be sent, and the counts of their outcomes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// How many events had each outcome.
#[derive(Debug, Default)]
pub struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    retried: AtomicU64,
}

/// The values of the counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Events that were accepted.
    pub delivered: u64,
    /// Events that were given up.
    pub failed: u64,
    /// Events that were pushed out of a full queue.
    pub dropped: u64,
    /// How often an event was sent again.
    pub retried: u64,
    /// Events that wait, including the one that is being sent.
    pub waiting: usize,
}

impl Counts {
    pub(super) fn count_delivered(&self) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }
}

/// Events that wait to be sent. In a full queue, the newest event replaces the oldest one.
#[derive(Debug)]
pub struct Outbox<E> {
    state: Mutex<Waiting<E>>,
    capacity: usize,
    /// Notified when an event is added.
    added: Notify,
    /// Notified when no event is left.
    emptied: Notify,
    counts: Counts,
}

#[derive(Debug)]
struct Waiting<E> {
    events: VecDeque<E>,
    /// Whether an event is being sent.
    sending: bool,
}

impl<E> Outbox<E> {
    /// An outbox with room for this many events, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let state = Mutex::new(Waiting { events: VecDeque::new(), sending: false });
        let (added, emptied, counts) = (Notify::new(), Notify::new(), Counts::default());
        Self { state, capacity: capacity.max(1), added, emptied, counts }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<E>> {
        self.state.lock()
    }

    /// Adds an event without waiting. If the queue is full, returns the event that was dropped for it.
    pub fn put(&self, event: E) -> Option<E> {
        let mut state = self.lock();
        let mut dropped = None;
        if state.events.len() >= self.capacity {
            dropped = state.events.pop_front();
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        state.events.push_back(event);
        drop(state);
        self.added.notify_one();
        dropped
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The outcomes so far, and how many events wait.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Delivery {
            delivered: load(&self.counts.delivered),
            failed: load(&self.counts.failed),
            dropped: load(&self.counts.dropped),
            retried: load(&self.counts.retried),
            waiting: self.len(),
        }
    }

    /// How many events wait, including the one that is being sent.
    #[must_use]
    pub fn len(&self) -> usize {
        let state = self.lock();
        state.events.len() + usize::from(state.sending)
    }

    /// How many events can wait.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether every event was sent or given up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Completes when every event was sent or given up.
    pub async fn emptied(&self) {
        while !self.is_empty() {
            self.emptied.notified().await;
        }
    }

    /// The next event. The event before it counts as sent.
    pub(super) async fn next(&self) -> E {
        loop {
            {
                let mut state = self.lock();
                let next = state.events.pop_front();
                state.sending = next.is_some();
                if let Some(next) = next {
                    return next;
                }
            }
            self.emptied.notify_one();
            self.added.notified().await;
        }
    }
}
