//! Room for connections: as many as are configured are served, and a few more are looked at, so that a health check is
//! answered while the limit is reached.
//!
//! What is hard about it: those few must not become as many more. Each of them sends its request within a second; one that
//! asks for the server's health is answered and closed. Any other gives its place to the next one, and waits for room, or is
//! refused where too many wait.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How many connections over the limit are looked at at once.
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
}

/// A place of one connection.
pub(super) struct Seat {
    seats: Arc<Seats>,
    held: Mutex<Held>,
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
    /// One of those that are looked at.
    Spare,
    /// One of those that are told of the server's health and of nothing else.
    Health,
    /// None: it waits, or waited in vain.
    Nowhere,
}

/// What a connection may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Whatever it asks for.
    Anything,
    /// This request, if it asks for the server's health; then the connection ends.
    HealthOnce,
    /// The server's health, and nothing else.
    Health,
    /// That there is no room.
    Nothing,
}

impl Seats {
    pub(super) fn new(connections: usize) -> Arc<Self> {
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Arc::new(Self { room: semaphore(connections), spare: semaphore(SPARE), waiting: Semaphore::new(WAITING) })
    }

    /// For connections that are told of the server's health alone.
    pub(super) fn for_health() -> Arc<Self> {
        let none = || Arc::new(Semaphore::new(0));
        Arc::new(Self { room: none(), spare: Arc::new(Semaphore::new(HEALTH)), waiting: Semaphore::new(0) })
    }

    /// The next place that is free: of those that are served, if there is one.
    pub(super) async fn next(self: &Arc<Self>) -> Seat {
        if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
            return self.seat(Place::Room, permit);
        }
        let (mut room, mut spare) =
            (pin!(Arc::clone(&self.room).acquire_owned()), pin!(Arc::clone(&self.spare).acquire_owned()));
        std::future::poll_fn(|cx| {
            // The semaphores are never closed.
            if let Poll::Ready(Ok(permit)) = room.as_mut().poll(cx) {
                return Poll::Ready(self.seat(Place::Room, permit));
            }
            match spare.as_mut().poll(cx) {
                Poll::Ready(Ok(permit)) => Poll::Ready(self.seat(Place::Spare, permit)),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// The next place for a health check.
    pub(super) async fn next_for_health(self: &Arc<Self>) -> Option<Seat> {
        let permit = Arc::clone(&self.spare).acquire_owned().await.ok()?;
        Some(self.seat(Place::Health, permit))
    }

    fn seat(self: &Arc<Self>, place: Place, permit: OwnedSemaphorePermit) -> Seat {
        Seat { seats: Arc::clone(self), held: Mutex::new(Held::at(place, permit)) }
    }
}

impl Held {
    fn at(place: Place, permit: OwnedSemaphorePermit) -> Self {
        Self { place, _permit: Some(permit) }
    }
}

impl Seat {
    /// Takes a place of those that are served, where one has come free since.
    pub(super) fn move_up(&self) {
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
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a request of this connection may be answered; one that needs room waits for it, for as long as `patience`.
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
            // The next connection is looked at meanwhile.
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
