//! Admission of connections: the configured number is served, and a few more are accepted, so that a health check is
//! answered while the limit is reached.
//!
//! The extra connections must not raise the limit. Each has one second to send its request. A health request is
//! answered and the connection closed. Any other request gives its extra place to the next connection and waits for
//! room, or is refused if too many wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How many connections over the limit are accepted at once.
const SPARE: usize = 32;
/// How many of those wait for room, with a request in hand.
const WAITING: usize = 256;
/// How many connections of the listener for health checks are served at once.
const HEALTH: usize = 64;
/// How long a connection over the limit may take to send the head of its request.
pub(super) const HURRY: Duration = Duration::from_secs(1);

/// All the room there is.
pub(super) struct Seats {
    room: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    waiting: Semaphore,
    open: AtomicUsize,
}

/// A place of one connection.
pub(super) struct Seat {
    seats: Arc<Seats>,
    held: Mutex<Held>,
    /// Whether a connection has taken it.
    is_taken: AtomicBool,
}

struct Held {
    place: Place,
    /// Given back when the place is.
    _permit: Option<OwnedSemaphorePermit>,
}

/// What kind of place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// One of those that are served.
    Room,
    /// One of the extra places over the limit.
    Spare,
    /// A place on the listener that answers only health requests.
    Health,
    /// None: it waits, or waited in vain.
    Nowhere,
}

/// The requests that a connection may have answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Any request.
    Anything,
    /// This request, if it asks for the server's health; then the connection ends.
    HealthOnce,
    /// The server's health, and nothing else.
    Health,
    /// A refusal, since the limit is reached.
    Nothing,
}

impl Seats {
    pub(super) fn new(connections: usize) -> Arc<Self> {
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Arc::new(Self {
            room: semaphore(connections),
            spare: semaphore(SPARE),
            waiting: Semaphore::new(WAITING),
            open: AtomicUsize::new(0),
        })
    }

    /// Places for a listener that answers only health requests.
    pub(super) fn for_health() -> Arc<Self> {
        let none = || Arc::new(Semaphore::new(0));
        Arc::new(Self {
            room: none(),
            spare: Arc::new(Semaphore::new(HEALTH)),
            waiting: Semaphore::new(0),
            open: AtomicUsize::new(0),
        })
    }

    /// How many connections are open, those over the limit among them.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The next place that is free: of those that are served, if there is one.
    pub(super) async fn next(self: &Arc<Self>) -> Seat {
        if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
            return self.seat(Place::Room, permit);
        }
        // INVARIANT: the semaphores are never closed, so one of the branches is taken.
        tokio::select! {
            biased;
            Ok(permit) = Arc::clone(&self.room).acquire_owned() => self.seat(Place::Room, permit),
            Ok(permit) = Arc::clone(&self.spare).acquire_owned() => self.seat(Place::Spare, permit),
            else => std::future::pending().await,
        }
    }

    /// The next place for a health check.
    pub(super) async fn next_for_health(self: &Arc<Self>) -> Option<Seat> {
        let permit = Arc::clone(&self.spare).acquire_owned().await.ok()?;
        Some(self.seat(Place::Health, permit))
    }

    fn seat(self: &Arc<Self>, place: Place, permit: OwnedSemaphorePermit) -> Seat {
        Seat { seats: Arc::clone(self), held: Mutex::new(Held::at(place, permit)), is_taken: AtomicBool::new(false) }
    }
}

impl Held {
    fn at(place: Place, permit: OwnedSemaphorePermit) -> Self {
        Self { place, _permit: Some(permit) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if *self.is_taken.get_mut() {
            self.seats.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Seat {
    /// Notes that a connection was accepted.
    pub(super) fn accepted(&self) {
        if !self.is_taken.swap(true, Ordering::Relaxed) {
            self.seats.open.fetch_add(1, Ordering::Relaxed);
        }
        self.move_up();
    }

    /// Takes a place of those that are served, where one has come free since.
    fn move_up(&self) {
        let mut held = self.held();
        if held.place == Place::Spare
            && let Ok(permit) = Arc::clone(&self.seats.room).try_acquire_owned()
        {
            *held = Held::at(Place::Room, permit);
        }
    }

    /// Whether the connection has to send its request at once.
    pub(super) fn hurries(&self) -> bool {
        self.held().place != Place::Room
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }

    /// Returns whether a request of this connection may be answered. A request that needs room waits for it at most
    /// `patience`.
    pub(super) async fn admit(&self, is_health: bool, patience: Duration) -> Admission {
        self.move_up();
        {
            let mut held = self.held();
            match held.place {
                Place::Room => return Admission::Anything,
                Place::Health => return Admission::Health,
                Place::Spare if is_health => return Admission::HealthOnce,
                Place::Nowhere => return Admission::Nothing,
                Place::Spare => {}
            }
            // The next connection gets the extra place meanwhile.
            *held = Held { place: Place::Nowhere, _permit: None };
        }
        let Ok(_waiting) = self.seats.waiting.try_acquire() else { return Admission::Nothing };
        match timeout(patience, Arc::clone(&self.seats.room).acquire_owned()).await {
            Ok(Ok(permit)) => {
                *self.held() = Held::at(Place::Room, permit);
                Admission::Anything
            }
            _ => Admission::Nothing,
        }
    }
}
