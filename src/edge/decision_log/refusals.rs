//! Refused credentials: each is recorded by itself while they are few, and a sum is recorded when they are many.

use std::fmt::Write as _;

use crate::model::{RefusalReason, Timestamp};

/// Records of their own within [`WINDOW_MS`]; all others are summed up at its end.
const MOST_RECORDS: u32 = 20;
/// For how long they are counted.
const WINDOW_MS: i64 = 10_000;

/// The recent records, and the counts that are still to be summed up.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    began: Option<Timestamp>,
    records: u32,
    counts: [u64; RefusalReason::ALL.len()],
}

impl Refusals {
    /// Whether a refusal gets a record of its own.
    pub(super) fn takes(&mut self, reason: RefusalReason, now: Timestamp) -> bool {
        // The sum of the last window has not been taken yet if `due` was not called since. It keeps growing.
        if self.is_over(now) && self.counts.iter().all(|count| *count == 0) {
            (self.began, self.records) = (Some(now), 0);
        }
        if self.records < MOST_RECORDS {
            self.records += 1;
            return true;
        }
        let at = RefusalReason::ALL.iter().position(|known| *known == reason);
        if let Some(count) = at.and_then(|at| self.counts.get_mut(at)) {
            *count += 1;
        }
        false
    }

    /// The sum, once its window is over, or `at_once`: members of a JSON object, without braces.
    pub(super) fn due(&mut self, now: Timestamp, at_once: bool) -> Option<String> {
        if !at_once && !self.is_over(now) {
            return None;
        }
        let counts = std::mem::take(&mut self.counts);
        let since = std::mem::take(&mut self.began)?;
        let all: u64 = counts.iter().sum();
        if all == 0 {
            return None;
        }
        let mut text = format!("\"event\":\"refused\",\"since\":\"{since}\",\"count\":{all},\"reasons\":{{");
        let counted = RefusalReason::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
        for (number, (reason, count)) in counted.enumerate() {
            let between = if number == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{between}\"{}\":{count}", reason.as_str());
        }
        text.push('}');
        Some(text)
    }

    /// Also where the clock was set back.
    fn is_over(&self, now: Timestamp) -> bool {
        self.began.is_none_or(|began| now < began || now.as_millis() - began.as_millis() >= WINDOW_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_20_in_10_s_refusals_are_summed_up() {
        let mut refusals = Refusals::default();
        let at = Timestamp::from_millis;
        let taken = (0..25).filter(|number| refusals.takes(RefusalReason::Wrong, at(*number))).count();
        assert_eq!(taken, 20);
        assert!(!refusals.takes(RefusalReason::Expired, at(9_999)));
        assert_eq!(refusals.due(at(9_999), false), None);
        assert_eq!(
            refusals.due(at(10_000), false).as_deref(),
            Some(
                "\"event\":\"refused\",\"since\":\"1970-01-01T00:00:00Z\",\"count\":6,\"reasons\":{\"wrong\":5,\"expired\":1}"
            )
        );
        assert_eq!(refusals.due(at(30_000), false), None);
        assert!(refusals.takes(RefusalReason::Wrong, at(30_000)));
    }
}
