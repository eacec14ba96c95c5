//! What changed in a ledger, so that a store can write just that.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::book::Book;
use super::meter::Meter;
use super::meters::Meters;
use super::price::Usage;
use super::reservation::{MeterKey, Reservation, ReservationId, Spending};
use crate::model::{Amount, Timestamp, Unit};

/// What changed since it was last taken: the state to be in, not the way there, so writing it twice does no harm.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Meters as they are.
    pub meters: Vec<(MeterKey, Meter)>,
    /// Meters that need not be known any longer; none of them among `meters`.
    pub blank: Vec<MeterKey>,
    /// Reservations as they are; shared, so that taking many is no pause.
    pub reservations: Vec<Arc<Reservation>>,
    /// Reservations that need not be known any longer; none of them among `reservations`.
    pub forgotten: Vec<ReservationId>,
    /// What was spent.
    pub entries: Vec<Entry>,
}

impl Changes {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let states = self.meters.is_empty() && self.reservations.is_empty();
        states && self.blank.is_empty() && self.forgotten.is_empty() && self.entries.is_empty()
    }
}

/// What was spent, for the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// For whom and what.
    pub spending: Arc<Spending>,
    /// What was used; nothing where nobody told.
    pub usage: Option<Usage>,
    /// Limit, unit, what is charged now and what was before.
    pub limits: Vec<(SmolStr, Unit, Amount, Amount)>,
}

impl Entry {
    /// The day that it is booked on, in days since 1970-01-01, by the clocks of UTC.
    #[must_use]
    pub fn day(&self) -> i64 {
        const DAY_MS: i64 = 86_400_000;
        self.at.as_millis().div_euclid(DAY_MS)
    }
}

/// Names of what changed, beside the meters.
#[derive(Debug, Clone, Default)]
pub(super) struct Changed {
    pub(super) blank: Vec<MeterKey>,
    pub(super) reservations: HashSet<ReservationId, RandomState>,
    pub(super) forgotten: Vec<ReservationId>,
    pub(super) entries: Vec<Entry>,
    /// Whether nobody asks for more than what was spent.
    pub(super) unasked: bool,
}

impl Changed {
    /// Notes that a reservation changed.
    pub(super) fn changed(&mut self, id: ReservationId) {
        if !self.unasked {
            self.reservations.insert(id);
        }
    }

    /// Notes that a reservation need not be known any longer.
    pub(super) fn forgot(&mut self, id: ReservationId) {
        if !self.unasked {
            self.forgotten.push(id);
        }
    }

    pub(super) fn take(&mut self, meters: &mut Meters, book: &Book) -> Changes {
        let changed = std::mem::replace(self, Self { unasked: self.unasked, ..Self::default() });
        Changes {
            meters: meters.take_changed(),
            // What was forgotten may have come again since.
            blank: changed.blank.into_iter().filter(|key| meters.get(key).is_none()).collect(),
            reservations: changed.reservations.iter().filter_map(|id| book.share(*id)).collect(),
            forgotten: changed.forgotten.into_iter().filter(|id| book.get(*id).is_none()).collect(),
            entries: changed.entries,
        }
    }

    /// Notes for the books what `reservation` was charged, where `before` was.
    pub(super) fn note(
        &mut self,
        reservation: &Reservation,
        usage: Option<Usage>,
        before: impl Fn(usize) -> Amount,
        now: Timestamp,
    ) {
        let parts = reservation.parts.iter().enumerate();
        let limits = parts.map(|(index, part)| (part.limit.clone(), part.unit, part.charged, before(index)));
        let limits: Vec<_> = limits.filter(|(_, _, charged, before)| charged != before).collect();
        if usage.is_some() || !limits.is_empty() {
            self.entries.push(Entry { at: now, spending: Arc::clone(&reservation.spending), usage, limits });
        }
    }
}
