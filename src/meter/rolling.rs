//! A budget over a rolling window: what was settled, by slices of time, and what is held.

use std::collections::VecDeque;

use super::reservation::MEMORY_MS;
use crate::model::{Amount, Timestamp};

/// Into how many slices a rolling window is cut: an amount leaves it at most one slice late, never early.
pub(super) const SLICES: i64 = 64;

/// Used in the slices of a rolling window, oldest first, and held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rolling {
    /// How long a slice is, in milliseconds.
    pub slice_ms: i64,
    /// The number of the current slice.
    pub current: i64,
    /// What was settled, by the number of its slice; none of them zero.
    pub used: VecDeque<(i64, Amount)>,
    /// What is held.
    pub held: Amount,
    /// The highest percent that was told, and in which slice.
    pub warned: (u8, i64),
}

/// How long a slice of a window of that length is, in milliseconds.
#[must_use]
pub fn slice_ms(length_ms: i64) -> i64 {
    (length_ms.saturating_sub(1).div_euclid(SLICES) + 1).max(1)
}

impl Rolling {
    pub(super) fn new(length_ms: i64, now: Timestamp) -> Self {
        let slice_ms = slice_ms(length_ms);
        let current = now.as_millis().div_euclid(slice_ms);
        Self { slice_ms, current, used: VecDeque::new(), held: Amount::ZERO, warned: (0, i64::MIN) }
    }

    pub(super) fn advance(&mut self, now: Timestamp) {
        self.current = self.current.max(now.as_millis().div_euclid(self.slice_ms));
        while self.used.front().is_some_and(|(number, _)| !self.counts(*number)) {
            self.used.pop_front();
        }
    }

    /// Whether what is in a slice counts still.
    fn counts(&self, number: i64) -> bool {
        number.saturating_add(SLICES) >= self.current
    }

    pub(super) fn sum(&self) -> Amount {
        self.used.iter().try_fold(Amount::ZERO, |sum, (_, amount)| sum.plus(*amount)).unwrap_or(Amount::MAX)
    }

    /// Puts `amount` into the current slice.
    pub(super) fn add(&mut self, amount: Amount) {
        self.replace(self.current, Amount::ZERO, amount);
    }

    /// Puts `after` in the place of `before`, which is in the slice of that number.
    fn replace(&mut self, number: i64, before: Amount, after: Amount) {
        let place = self.used.partition_point(|(other, _)| *other < number);
        match self.used.get_mut(place) {
            Some((other, used)) if *other == number => {
                *used = used.less(before).plus(after).unwrap_or(Amount::MAX);
                if used.is_zero() {
                    self.used.remove(place);
                }
            }
            _ if after.is_zero() => {}
            _ => self.used.insert(place, (number, after)),
        }
    }

    /// Charges `after` where `before` was charged in the slice of that number.
    pub(super) fn recharge(&mut self, number: i64, before: Amount, after: Amount) {
        if self.counts(number) {
            self.replace(number, before, after);
        } else {
            // What has left the window cannot be given back; what was used beyond it still counts.
            self.add(after.less(before));
        }
    }

    /// When the amounts of a slice count no more: a window's length after its end.
    pub(super) fn leaves(&self, number: i64) -> Timestamp {
        let after = number.saturating_add(SLICES + 1);
        Timestamp::from_millis(after.saturating_mul(self.slice_ms))
    }

    /// When so much has left that `taken`, with all of it, is `cap` at most.
    pub(super) fn room_at(&self, mut taken: Amount, cap: Amount) -> Option<Timestamp> {
        self.used.iter().find_map(|(number, used)| {
            taken = taken.less(*used);
            (taken <= cap).then(|| self.leaves(*number))
        })
    }

    /// Whether a percent may be told again: a window's length after it was told last.
    pub(super) fn told_long_ago(&self) -> bool {
        self.current > self.warned.1.saturating_add(SLICES)
    }

    pub(super) fn is_blank(&self, now: Timestamp) -> bool {
        let settled_until = self.current.saturating_add(1).saturating_mul(self.slice_ms).saturating_add(MEMORY_MS);
        self.held.is_zero() && self.leaves(self.current) <= now && settled_until <= now.as_millis()
    }
}
