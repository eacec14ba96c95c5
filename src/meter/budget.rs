//! A budget with a calendar period: what is used and held in its current window, and what is carried over into it.

use super::reservation::MEMORY_MS;
use crate::model::limit::Limit;
use crate::model::{Amount, Every, Timestamp, Window};

/// Used and held in the current window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The current window; there is none before the current one that is still open.
    pub window: Window,
    /// What was settled.
    pub used: Amount,
    /// What is held.
    pub held: Amount,
    /// What is had beyond the cap, from the window before.
    pub carried: Amount,
    /// The highest percent that was told.
    pub warned: u8,
    /// Whether the limit carried over when this was last touched: then what was left of the window still matters.
    pub carries: bool,
}

impl Budget {
    pub(super) fn new(window: Window, carries: bool) -> Self {
        Self { window, used: Amount::ZERO, held: Amount::ZERO, carried: Amount::ZERO, warned: 0, carries }
    }

    /// Opens `window`. What still is held in the one before stays charged to that one, so none of it is carried over;
    /// what was carried into it was used first, and is not carried further.
    pub(super) fn begin(&mut self, window: Window, limit: &Limit, every: Every, carry_over_percent: u8) {
        let before = self.window;
        let start = before.end.map_or(window.start, |end| window.start.max(end));
        self.carried = match before.end {
            Some(end) if carry_over_percent > 0 && every != Every::Total => {
                // A window that nobody used may lie between: then all of its cap was left.
                let taken = if window.start <= end { self.taken().less(self.carried) } else { Amount::ZERO };
                let just_before = Timestamp::from_millis(start.as_millis().saturating_sub(1));
                share(limit.cap_at(just_before).less(taken), carry_over_percent)
            }
            _ => Amount::ZERO,
        };
        self.window = Window { start, end: window.end };
        (self.used, self.held, self.warned) = (Amount::ZERO, Amount::ZERO, 0);
    }

    /// Used and held together.
    pub(super) fn taken(&self) -> Amount {
        self.used.plus(self.held).unwrap_or(Amount::MAX)
    }

    /// Whether a reservation made under `mark` counts in the current window.
    pub(super) fn counts(&self, mark: i64) -> bool {
        self.window.start.as_millis() == mark
    }

    /// Whether its window is over for so long that not even a clock put back opens it again.
    pub(super) fn is_blank(&self, now: Timestamp) -> bool {
        !self.carries && self.window.end.is_some_and(|end| end.as_millis().saturating_add(MEMORY_MS) <= now.as_millis())
    }
}

/// `percent` of `amount`, rounded down.
fn share(amount: Amount, percent: u8) -> Amount {
    let share = u128::from(amount.get()) * u128::from(percent.min(100)) / 100;
    u64::try_from(share).ok().and_then(Amount::new).unwrap_or(Amount::ZERO)
}
