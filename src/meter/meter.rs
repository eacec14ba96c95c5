//! One meter: what is used and held of one limit by one subject. A plain value; each kind moves by rules of its own.
//!
//! What is hard about it: a hold is closed when its limit may have changed or gone, its period may be over and the clock
//! may have been put back. So a meter keeps what it needs to move on its own, and time in it never runs backwards.

use std::collections::VecDeque;

use super::limit::{Limit, Measure};
use crate::model::{Amount, Every, Period, Timestamp, Unit, Window};

/// Into how many slices a rolling window is cut: an amount leaves it at most one slice late, never early.
const SLICES: i64 = 64;

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
}

/// Used in the slices of a rolling window, oldest first, and held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rolling {
    /// How long a slice is, in milliseconds.
    pub slice_ms: i64,
    /// The number of the current slice.
    pub current: i64,
    /// What was settled, by the number of its slice.
    pub used: VecDeque<(i64, Amount)>,
    /// What is held.
    pub held: Amount,
    /// The highest percent that was told, and in which slice.
    pub warned: (u8, i64),
}

/// A leaky bucket: what is in it flows out evenly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// What is in it, in `every_ms`-ths, so that no division is on the way.
    pub level: u128,
    /// As of when.
    pub at: Timestamp,
    /// What flows out in `every_ms`.
    pub amount: Amount,
    /// Milliseconds.
    pub every_ms: u64,
    /// What is held, and comes into it when settled.
    pub held: Amount,
    /// Whether amounts are known when held, as requests are: then they come into it at once.
    pub certain: bool,
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
            Measure::Budget { period: Period::Calendar { every, zone }, .. } => Self::Budget(Budget {
                window: every.window(zone, now),
                used: Amount::ZERO,
                held: Amount::ZERO,
                carried: Amount::ZERO,
                warned: 0,
            }),
            Measure::Budget { period: Period::Rolling(length), .. } => {
                let slice_ms = slice_ms(*length);
                let (current, used) = (now.as_millis().div_euclid(slice_ms), VecDeque::new());
                Self::Rolling(Rolling { slice_ms, current, used, held: Amount::ZERO, warned: (0, i64::MIN) })
            }
            Measure::Rate { unit, amount, every_ms } => Self::Rate(Rate {
                level: 0,
                at: now,
                amount: *amount,
                every_ms: *every_ms,
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
            }
            (Self::Rolling(rolling), Measure::Budget { period: Period::Rolling(length), .. })
                if rolling.slice_ms == slice_ms(*length) =>
            {
                rolling.advance(now);
            }
            (Self::Rate(rate), Measure::Rate { amount, every_ms, .. }) => {
                rate.advance(now);
                rate.adopt(*amount, *every_ms);
            }
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
            Self::Rolling(rolling) => rolling.room_at(standing, amount),
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
                if budget.window.start.as_millis() == mark {
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
                if budget.window.start.as_millis() == mark {
                    budget.used = budget.used.less(before).plus(after).unwrap_or(Amount::MAX);
                }
            }
            Self::Rolling(rolling) => {
                rolling.advance(now);
                if let Some((_, used)) = rolling.used.iter_mut().find(|(number, _)| *number == mark) {
                    *used = used.less(before).plus(after).unwrap_or(Amount::MAX);
                } else {
                    // What has left the window cannot be given back; what was used beyond it still counts.
                    rolling.add(after.less(before));
                }
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
            Self::Rolling(rolling) if reached > rolling.warned.0 || rolling.current > rolling.warned.1 + SLICES => {
                rolling.warned = (reached, rolling.current);
                Some(reached)
            }
            _ => None,
        }
    }

    /// Whether forgetting it changes nothing, now or later.
    #[must_use]
    pub fn is_blank(&self, now: Timestamp) -> bool {
        match self {
            Self::Budget(_) => false,
            Self::Rolling(rolling) => {
                let gone = |(number, _): &(i64, Amount)| rolling.leaves(*number) <= now;
                rolling.held.is_zero() && rolling.used.iter().all(gone)
            }
            Self::Rate(rate) => rate.held.is_zero() && rate.empty_of(rate.level) <= now,
            Self::Places(places) => places.held.is_zero(),
        }
    }
}

impl Budget {
    /// Opens `window`. What still is held in the one before stays charged to that one, so none of it is carried over;
    /// what was carried into it was used first, and is not carried further.
    fn begin(&mut self, window: Window, limit: &Limit, every: Every, carry_over_percent: u8) {
        let before = self.window;
        self.carried = match before.end {
            Some(end) if carry_over_percent > 0 && every != Every::Total => {
                let cap = limit.cap_at(Timestamp::from_millis(end.as_millis() - 1));
                // A window that nobody used may lie between: then all of its cap was left.
                let taken = if window.start <= end { self.taken().less(self.carried) } else { Amount::ZERO };
                share(cap.less(taken), carry_over_percent)
            }
            _ => Amount::ZERO,
        };
        let start = before.end.map_or(window.start, |end| window.start.max(end));
        self.window = Window { start, end: window.end };
        (self.used, self.held, self.warned) = (Amount::ZERO, Amount::ZERO, 0);
    }

    fn taken(&self) -> Amount {
        self.used.plus(self.held).unwrap_or(Amount::MAX)
    }
}

/// `percent` of `amount`, rounded down.
fn share(amount: Amount, percent: u8) -> Amount {
    let share = u128::from(amount.get()) * u128::from(percent.min(100)) / 100;
    u64::try_from(share).ok().and_then(Amount::new).unwrap_or(Amount::ZERO)
}

fn slice_ms(length_ms: i64) -> i64 {
    ((length_ms - 1).div_euclid(SLICES) + 1).max(1)
}

impl Rolling {
    fn advance(&mut self, now: Timestamp) {
        self.current = self.current.max(now.as_millis().div_euclid(self.slice_ms));
        while self.used.front().is_some_and(|(number, _)| *number + SLICES < self.current) {
            self.used.pop_front();
        }
    }

    fn sum(&self) -> Amount {
        self.used.iter().try_fold(Amount::ZERO, |sum, (_, amount)| sum.plus(*amount)).unwrap_or(Amount::MAX)
    }

    fn add(&mut self, amount: Amount) {
        if amount.is_zero() {
            return;
        }
        match self.used.back_mut() {
            Some((number, used)) if *number == self.current => *used = used.plus(amount).unwrap_or(Amount::MAX),
            _ => self.used.push_back((self.current, amount)),
        }
    }

    /// When the amounts of a slice count no more: a window's length after its end.
    fn leaves(&self, number: i64) -> Timestamp {
        let after = number.saturating_add(SLICES + 1);
        Timestamp::from_millis(after.saturating_mul(self.slice_ms))
    }

    fn room_at(&self, standing: Standing, amount: Amount) -> Option<Timestamp> {
        let mut taken = standing.used.plus(standing.held)?.plus(amount)?;
        self.used.iter().find_map(|(number, used)| {
            taken = taken.less(*used);
            (taken <= standing.cap).then(|| self.leaves(*number))
        })
    }
}

impl Rate {
    fn scaled(&self, amount: Amount) -> u128 {
        u128::from(amount.get()) * u128::from(self.every_ms)
    }

    fn advance(&mut self, now: Timestamp) {
        let elapsed = now.as_millis().saturating_sub(self.at.as_millis());
        if let Ok(elapsed) = u64::try_from(elapsed) {
            self.level = self.level.saturating_sub(u128::from(self.amount.get()) * u128::from(elapsed));
            self.at = now;
        }
    }

    /// Counts by other numbers from now on; what is in it stays the same share of a request, rounded up.
    fn adopt(&mut self, amount: Amount, every_ms: u64) {
        if every_ms != self.every_ms {
            let level = self.level.saturating_mul(u128::from(every_ms));
            self.level = level.div_ceil(u128::from(self.every_ms.max(1)));
            self.every_ms = every_ms;
        }
        self.amount = amount;
    }

    fn used(&self) -> Amount {
        let used = self.level.div_ceil(u128::from(self.every_ms.max(1)));
        u64::try_from(used).ok().and_then(Amount::new).unwrap_or(Amount::MAX)
    }

    fn room(&self, cap: Amount, amount: Amount) -> Result<(), Lack> {
        let held = self.scaled(self.held);
        let (wanted, most) = (held + self.scaled(amount), self.scaled(cap));
        match self.level.saturating_add(wanted).checked_sub(most) {
            None | Some(0) => Ok(()),
            // What is held stays until it is settled, so waiting only helps beside it.
            Some(over) => Err(Lack { retry_at: (wanted <= most).then(|| self.empty_of(over)) }),
        }
    }

    /// When `level` will have flown out.
    fn empty_of(&self, level: u128) -> Timestamp {
        let wait = level.div_ceil(u128::from(self.amount.get().max(1)));
        Timestamp::from_millis(self.at.as_millis().saturating_add(i64::try_from(wait).unwrap_or(i64::MAX)))
    }

    /// Charges `after` instead of `before`, which came into it at `mark`. Of what has flown out since, nothing is given
    /// back: it may have made room for others.
    fn correct(&mut self, mark: i64, before: Amount, after: Amount) {
        if after >= before {
            self.level = self.level.saturating_add(self.scaled(after.less(before)));
            return;
        }
        let elapsed = u64::try_from(self.at.as_millis().saturating_sub(mark)).unwrap_or(0);
        let flown = u128::from(self.amount.get()) * u128::from(elapsed);
        let back = self.scaled(before).saturating_sub(flown.max(self.scaled(after)));
        self.level = self.level.saturating_sub(back);
    }
}
