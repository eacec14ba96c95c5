//! A rate: a leaky bucket, in whole numbers.

use super::meter::Lack;
use super::reservation::MEMORY_MS;
use crate::model::{Amount, Timestamp};

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
    /// Since when it flows so.
    pub since: Timestamp,
    /// What is held, and comes into it when settled.
    pub held: Amount,
    /// Whether amounts are known when held, as requests are: then they come into it at once.
    pub certain: bool,
}

impl Rate {
    pub(super) fn scaled(&self, amount: Amount) -> u128 {
        u128::from(amount.get()) * u128::from(self.every_ms)
    }

    pub(super) fn advance(&mut self, now: Timestamp) {
        let elapsed = now.as_millis().saturating_sub(self.at.as_millis());
        if let Ok(elapsed) = u64::try_from(elapsed) {
            self.level = self.level.saturating_sub(u128::from(self.amount.get()) * u128::from(elapsed));
            self.at = now;
        }
    }

    /// Counts by these numbers since it was last touched: when they were changed it does not know, and a bucket that is
    /// full, so that nobody touches it, has to flow by what the limit says now.
    pub(super) fn adopt(&mut self, amount: Amount, every_ms: u64, now: Timestamp) {
        let changed = (amount, every_ms) != (self.amount, self.every_ms);
        if changed {
            self.rescale(every_ms);
            self.amount = amount;
        }
        self.advance(now);
        if changed {
            self.since = self.at;
        }
    }

    /// What is in it stays the same share of a request, rounded up.
    fn rescale(&mut self, every_ms: u64) {
        let (before, after) = (u128::from(self.every_ms.max(1)), u128::from(every_ms));
        // In two steps, since the product of level and `after` may be beyond 128 bits.
        let (whole, rest) = (self.level / before, self.level % before);
        self.level = whole.saturating_mul(after).saturating_add((rest * after).div_ceil(before));
        self.every_ms = every_ms;
    }

    pub(super) fn used(&self) -> Amount {
        let used = self.level.div_ceil(u128::from(self.every_ms.max(1)));
        u64::try_from(used).ok().and_then(Amount::new).unwrap_or(Amount::MAX)
    }

    pub(super) fn room(&self, cap: Amount, amount: Amount) -> Result<(), Lack> {
        let held = self.scaled(self.held);
        let (wanted, most) = (held + self.scaled(amount), self.scaled(cap));
        match self.level.saturating_add(wanted).checked_sub(most) {
            None | Some(0) => Ok(()),
            // What is held stays until it is settled, so waiting only helps beside it.
            Some(over) => Err(Lack { retry_at: (wanted <= most).then(|| self.empty_of(over)) }),
        }
    }

    /// When `level` will have flown out.
    pub(super) fn empty_of(&self, level: u128) -> Timestamp {
        let wait = level.div_ceil(u128::from(self.amount.get().max(1)));
        Timestamp::from_millis(self.at.as_millis().saturating_add(i64::try_from(wait).unwrap_or(i64::MAX)))
    }

    /// Charges `after` instead of `before`, which came into it at `mark`. Of what has flown out since, nothing is given
    /// back: it may have made room for others. How much that is, nobody knows where the rate was another then.
    pub(super) fn correct(&mut self, mark: i64, before: Amount, after: Amount) {
        if after >= before {
            self.level = self.level.saturating_add(self.scaled(after.less(before)));
            return;
        }
        let elapsed = self.at.as_millis().saturating_sub(mark);
        if let Ok(elapsed) = u64::try_from(elapsed)
            && mark >= self.since.as_millis()
        {
            let flown = u128::from(self.amount.get()) * u128::from(elapsed);
            let back = self.scaled(before).saturating_sub(flown.max(self.scaled(after)));
            self.level = self.level.saturating_sub(back);
        }
    }

    pub(super) fn is_blank(&self, now: Timestamp) -> bool {
        let untouched_for = now.as_millis().saturating_sub(self.at.as_millis());
        self.held.is_zero() && self.empty_of(self.level) <= now && untouched_for >= MEMORY_MS
    }
}
