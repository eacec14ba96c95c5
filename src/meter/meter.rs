//! One meter: what is used and held of one limit by one subject. A plain value; each kind moves by rules of its own.
//!
//! What is hard about it: a hold is closed when its limit may have changed or gone, its period may be over and the clock
//! may have been put back. So a meter keeps what it needs to move on its own, and time in it never runs backwards.

use super::budget::Budget;
use super::rate::Rate;
use super::rolling::{Rolling, slice_ms};
use crate::model::limit::{Limit, Measure};
use crate::model::{Amount, Period, Timestamp, Unit};

/// What is used and held of one limit by one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meter {
    /// Of a budget with a calendar period.
    Budget(Budget),
    /// Of a budget over a rolling window.
    Rolling(Rolling),
    /// Of a rate.
    Rate(Rate),
    /// Of places.
    Places(Places),
}

/// How many are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// What is held.
    pub held: Amount,
}

/// Where a meter stands at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How much there may be in all.
    pub cap: Amount,
    /// What was settled.
    pub used: Amount,
    /// What is held.
    pub held: Amount,
    /// When nothing of what is used counts any more; none where it never ends, or nothing is used up.
    pub resets_at: Option<Timestamp>,
}

impl Standing {
    /// What there is room for.
    #[must_use]
    pub fn remaining(&self) -> Amount {
        self.cap.less(self.used).less(self.held)
    }

    /// Used and held together.
    #[must_use]
    pub fn taken(&self) -> Amount {
        self.used.plus(self.held).unwrap_or(Amount::MAX)
    }

    /// Used and held of the cap in percent, rounded up; 100 only when full.
    #[must_use]
    pub fn used_percent(&self) -> i64 {
        self.taken().percent_of(self.cap)
    }
}

/// What there is no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lack {
    /// When there is room again if nothing else is taken; `None` where waiting does not help, or nobody knows how long.
    pub retry_at: Option<Timestamp>,
}

impl Meter {
    /// The meter of `limit` that nobody has used.
    #[must_use]
    pub fn new(limit: &Limit, now: Timestamp) -> Self {
        match &limit.measure {
            Measure::Budget { period: Period::Calendar { every, zone }, carry_over_percent, .. } => {
                Self::Budget(Budget::new(every.window(zone, now), *carry_over_percent > 0))
            }
            Measure::Budget { period: Period::Rolling(length), .. } => Self::Rolling(Rolling::new(*length, now)),
            Measure::Rate { unit, amount, every_ms } => Self::Rate(Rate {
                level: 0,
                at: now,
                amount: *amount,
                every_ms: *every_ms,
                since: now,
                held: Amount::ZERO,
                certain: *unit == Unit::Requests,
            }),
            Measure::Concurrency => Self::Places(Places { held: Amount::ZERO }),
        }
    }

    /// Brings it to `now`: begins the window that holds it, lets flow out what has. Takes over how `limit` counts.
    pub fn advance(&mut self, limit: &Limit, now: Timestamp) {
        match (&mut *self, &limit.measure) {
            (
                Self::Budget(budget),
                Measure::Budget { period: Period::Calendar { every, zone }, carry_over_percent, .. },
            ) => {
                if !budget.window.lasts(now) {
                    budget.begin(every.window(zone, now), limit, *every, *carry_over_percent);
                }
                budget.carries = *carry_over_percent > 0;
            }
            (Self::Rolling(rolling), Measure::Budget { period: Period::Rolling(length), .. })
                if rolling.slice_ms == slice_ms(*length) =>
            {
                rolling.advance(now);
            }
            (Self::Rate(rate), Measure::Rate { amount, every_ms, .. }) => rate.adopt(*amount, *every_ms, now),
            (Self::Places(_), Measure::Concurrency) => {}
            // INVARIANT: a series names unit and period, so a meter found under it is of the limit's kind.
            _ => *self = Self::new(limit, now),
        }
    }

    /// Where it stands; after [`Meter::advance`].
    #[must_use]
    pub fn standing(&self, limit: &Limit, now: Timestamp) -> Standing {
        let cap = limit.cap_at(now);
        match self {
            Self::Budget(budget) => Standing {
                cap: cap.plus(budget.carried).unwrap_or(Amount::MAX),
                used: budget.used,
                held: budget.held,
                resets_at: budget.window.end,
            },
            Self::Rolling(rolling) => Standing {
                cap,
                used: rolling.sum(),
                held: rolling.held,
                resets_at: rolling.used.back().map(|(number, _)| rolling.leaves(*number)),
            },
            Self::Rate(rate) => Standing {
                cap,
                used: rate.used(),
                held: rate.held,
                resets_at: (rate.level > 0).then(|| rate.empty_of(rate.level)),
            },
            Self::Places(places) => Standing { cap, used: Amount::ZERO, held: places.held, resets_at: None },
        }
    }

    /// Whether `amount` fits; after [`Meter::advance`].
    ///
    /// # Errors
    /// With when it will.
    pub fn room(&self, limit: &Limit, amount: Amount, now: Timestamp) -> Result<(), Lack> {
        let standing = self.standing(limit, now);
        if let Self::Rate(rate) = self {
            return rate.room(standing.cap, amount);
        }
        let taken = standing.used.plus(standing.held).and_then(|taken| taken.plus(amount));
        if taken.is_some_and(|taken| taken <= standing.cap) {
            return Ok(());
        }
        Err(Lack { retry_at: self.retry_at(limit, standing, amount, now) })
    }

    fn retry_at(&self, limit: &Limit, standing: Standing, amount: Amount, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Budget(budget) => budget.window.end.filter(|end| amount <= limit.cap_at(*end)),
            Self::Rolling(rolling) => rolling.room_at(standing.taken().plus(amount)?, standing.cap),
            Self::Places(_) => {
                // Somebody's call ends; nobody knows when, and a second is what clients wait.
                (amount <= standing.cap).then(|| Timestamp::from_millis(now.as_millis().saturating_add(1000)))
            }
            Self::Rate(_) => None,
        }
    }

    /// Holds `amount`, whether it fits or not, and returns the mark that [`Meter::close`] wants back. Nothing is held
    /// where the sum is beyond [`Amount::MAX`].
    #[must_use]
    pub fn hold(&mut self, amount: Amount) -> Option<i64> {
        self.taken().plus(amount)?;
        match self {
            Self::Budget(budget) => {
                budget.held = budget.held.plus(amount)?;
                Some(budget.window.start.as_millis())
            }
            Self::Rolling(rolling) => {
                rolling.held = rolling.held.plus(amount)?;
                Some(rolling.current)
            }
            Self::Rate(rate) if rate.certain => {
                rate.level = rate.level.checked_add(rate.scaled(amount))?;
                Some(rate.at.as_millis())
            }
            Self::Rate(rate) => {
                rate.held = rate.held.plus(amount)?;
                Some(rate.at.as_millis())
            }
            Self::Places(places) => {
                places.held = places.held.plus(amount)?;
                Some(0)
            }
        }
    }

    /// Gives back what was `held` under `mark`, and charges `charged` instead; returns the mark of the charge. Of a
    /// period that is over nothing changes.
    pub fn close(&mut self, mark: i64, held: Amount, charged: Amount, now: Timestamp) -> i64 {
        match self {
            Self::Budget(budget) => {
                if budget.counts(mark) {
                    budget.held = budget.held.less(held);
                    budget.used = budget.used.plus(charged).unwrap_or(Amount::MAX);
                }
                mark
            }
            Self::Rolling(rolling) => {
                rolling.advance(now);
                rolling.held = rolling.held.less(held);
                rolling.add(charged);
                rolling.current
            }
            Self::Rate(rate) => {
                rate.advance(now);
                if rate.certain {
                    rate.correct(mark, held, charged);
                    return mark;
                }
                rate.held = rate.held.less(held);
                rate.level = rate.level.saturating_add(rate.scaled(charged));
                rate.at.as_millis()
            }
            Self::Places(places) => {
                places.held = places.held.less(held);
                mark
            }
        }
    }

    /// Charges `after` where `before` was charged under `mark`.
    pub fn recharge(&mut self, mark: i64, before: Amount, after: Amount, now: Timestamp) {
        match self {
            Self::Budget(budget) => {
                if budget.counts(mark) {
                    budget.used = budget.used.less(before).plus(after).unwrap_or(Amount::MAX);
                }
            }
            Self::Rolling(rolling) => {
                rolling.advance(now);
                rolling.recharge(mark, before, after);
            }
            Self::Rate(rate) => {
                rate.advance(now);
                rate.correct(mark, before, after);
            }
            Self::Places(_) => {}
        }
    }

    /// The highest of the limit's percents that is reached and was not told in this period; from now on it was.
    pub fn warn(&mut self, limit: &Limit, now: Timestamp) -> Option<u8> {
        if limit.warn_at.is_empty() {
            return None;
        }
        let standing = self.standing(limit, now);
        let (part, whole) = (u128::from(standing.taken().get()), u128::from(standing.cap.get()));
        let reached = limit.warn_at.iter().rev().copied().find(|mark| part * 100 >= u128::from(*mark) * whole)?;
        match self {
            Self::Budget(budget) if reached > budget.warned => {
                budget.warned = reached;
                Some(reached)
            }
            Self::Rolling(rolling) if reached > rolling.warned.0 || rolling.told_long_ago() => {
                rolling.warned = (reached, rolling.current);
                Some(reached)
            }
            _ => None,
        }
    }

    /// Used and held together, as it was last left.
    fn taken(&self) -> Amount {
        match self {
            Self::Budget(budget) => budget.taken(),
            Self::Rolling(rolling) => rolling.sum().plus(rolling.held).unwrap_or(Amount::MAX),
            Self::Rate(rate) => rate.used().plus(rate.held).unwrap_or(Amount::MAX),
            Self::Places(places) => places.held,
        }
    }

    /// Whether so much more can be counted, on whatever cap; after [`Meter::advance`].
    // INVARIANT: what is used and held together is never beyond `Amount::MAX`: who holds or charges asks this first.
    pub(super) fn has_space(&self, amount: Amount) -> bool {
        self.taken().plus(amount).is_some()
    }

    /// Whether `after` can be counted in the place of `before`, which counts under `mark`.
    pub(super) fn can_count(&self, mark: i64, before: Amount, after: Amount) -> bool {
        match self {
            Self::Budget(budget) if !budget.counts(mark) => true,
            _ => self.taken().less(before).plus(after).is_some(),
        }
    }

    /// Whether forgetting it changes nothing, now or later: a settle may correct it for a day, and a clock may be put
    /// back by as much.
    #[must_use]
    pub fn is_blank(&self, now: Timestamp) -> bool {
        match self {
            Self::Budget(budget) => budget.is_blank(now),
            Self::Rolling(rolling) => rolling.is_blank(now),
            Self::Rate(rate) => rate.is_blank(now),
            Self::Places(places) => places.held.is_zero(),
        }
    }
}

#[cfg(test)]
mod tests;
