//! Reservations, with the order in which they are due and the names that clients gave them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::reservation::{Reservation, ReservationId, State};
use crate::model::{EntityUid, Timestamp};

/// Reservations: those that are open, and those that are remembered.
// INVARIANT: `due` has each of them once, and `keys` only what is among them.
#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    // Not in the table itself, since one that grows moves all it has; shared with whoever writes it down meanwhile.
    reservations: HashMap<ReservationId, Arc<Reservation>, RandomState>,
    due: BTreeSet<(Timestamp, ReservationId)>,
    keys: HashMap<SmolStr, ReservationId, RandomState>,
    open: usize,
    /// The number of open reservations of each principal; principals without open reservations have no entry.
    open_of: HashMap<EntityUid, usize, RandomState>,
}

impl Book {
    pub(super) fn get(&self, id: ReservationId) -> Option<&Reservation> {
        self.reservations.get(&id).map(|found| &**found)
    }

    pub(super) fn share(&self, id: ReservationId) -> Option<Arc<Reservation>> {
        self.reservations.get(&id).map(Arc::clone)
    }

    pub(super) fn named(&self, key: &str) -> Option<&Reservation> {
        self.get(*self.keys.get(key)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Reservation> {
        self.reservations.values().map(|found| &**found)
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// How many of a principal are open.
    pub(super) fn open_of(&self, principal: &EntityUid) -> usize {
        self.open_of.get(principal).copied().unwrap_or(0)
    }

    fn opened(&mut self, principal: &EntityUid) {
        self.open += 1;
        match self.open_of.get_mut(principal) {
            Some(count) => *count += 1,
            None => drop(self.open_of.insert(principal.clone(), 1)),
        }
    }

    fn closed(&mut self, principal: &EntityUid) {
        self.open -= 1;
        match self.open_of.get_mut(principal) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.open_of.remove(principal)),
        }
    }

    pub(super) fn first_due(&self) -> Option<(Timestamp, ReservationId)> {
        self.due.first().copied()
    }

    /// Takes it in, in the place of one with its name.
    pub(super) fn insert(&mut self, reservation: Reservation) {
        let id = reservation.id;
        drop(self.remove(id));
        self.due.insert((reservation.due_at, id));
        if let Some(idempotency) = &reservation.idempotency {
            self.keys.insert(idempotency.key.clone(), id);
        }
        if reservation.state == State::Open {
            self.opened(&reservation.spending.principal);
        }
        self.reservations.insert(id, Arc::new(reservation));
    }

    pub(super) fn remove(&mut self, id: ReservationId) -> Option<Reservation> {
        let reservation = self.reservations.remove(&id)?;
        self.due.remove(&(reservation.due_at, id));
        if let Some(idempotency) = &reservation.idempotency
            // A later one may have been given the same key.
            && self.keys.get(&idempotency.key) == Some(&id)
        {
            self.keys.remove(&idempotency.key);
        }
        if reservation.state == State::Open {
            self.closed(&reservation.spending.principal);
        }
        Some(Arc::unwrap_or_clone(reservation))
    }

    /// Changes one, except for its id and its key, and keeps its place among those that are due.
    pub(super) fn change<T>(&mut self, id: ReservationId, with: impl FnOnce(&mut Reservation) -> T) -> Option<T> {
        let reservation = Arc::make_mut(self.reservations.get_mut(&id)?);
        let (was_due, was_open) = (reservation.due_at, reservation.state == State::Open);
        let result = with(reservation);
        let (is_due, is_open) = (reservation.due_at, reservation.state == State::Open);
        let spending = (is_open != was_open).then(|| Arc::clone(&reservation.spending));
        if is_due != was_due {
            self.due.remove(&(was_due, id));
            self.due.insert((is_due, id));
        }
        match spending {
            Some(spending) if is_open => self.opened(&spending.principal),
            Some(spending) => self.closed(&spending.principal),
            None => {}
        }
        Some(result)
    }
}
