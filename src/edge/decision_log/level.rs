//! Which decisions are recorded.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::gate::{DecisionId, DecisionRecord};
use crate::model::Outcome;

/// The whole, in the parts that a rate is counted in.
const WHOLE: u32 = 1_000_000_000;
/// How many digits behind the point that is.
const DIGITS: usize = 9;

/// Which decisions are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Every decision.
    All,
    /// Decisions that forbid.
    #[default]
    Forbids,
    /// Decisions that forbid, permits that hold or charge something on a limit, and a share of all other permits.
    Sample(SampleRate),
    /// None.
    Off,
}

impl Level {
    /// Whether this decision is recorded.
    pub(super) fn takes(self, record: &DecisionRecord<'_>) -> bool {
        let forbids = || record.outcome() == Outcome::Forbid;
        match self {
            Self::All => true,
            Self::Forbids => forbids(),
            Self::Sample(rate) => {
                forbids() || record.reservation().is_some() || record.charging.is_some() || rate.takes(record.id)
            }
            Self::Off => false,
        }
    }
}

/// A share of decisions, above 0 and at most 1, exact to nine digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRate(u32);

impl SampleRate {
    /// Reads a decimal such as `0.01`; `None` if it is not a decimal above 0 and at most 1.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(part) || part.len() > DIGITS {
            return None;
        }
        let part: u32 = format!("{part:0<DIGITS$}").parse().ok()?;
        let parts = whole.parse::<u32>().ok()?.checked_mul(WHOLE)?.checked_add(part)?;
        (1..=WHOLE).contains(&parts).then_some(Self(parts))
    }

    /// Whether a decision is part of the sample: a function of its id, the same on every machine.
    fn takes(self, id: DecisionId) -> bool {
        let mut hasher = SipHasher13::new();
        hasher.write_u64(id.process);
        hasher.write(&id.number.to_le_bytes());
        hasher.finish() % u64::from(WHOLE) < u64::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_decimal_above_0_and_at_most_1() {
        for (text, parts) in
            [("0.01", 10_000_000), ("1", WHOLE), ("1.0", WHOLE), ("0.000000001", 1), ("0.5", WHOLE / 2)]
        {
            assert_eq!(SampleRate::parse(text), Some(SampleRate(parts)), "{text}");
        }
        for text in ["0", "0.0", "1.1", "2", "-0.1", "", ".", ".5", "1.", "0.0000000001", "1e-3", "99999999999"] {
            assert_eq!(SampleRate::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_sample_is_about_its_share_and_the_same_again() {
        let rate = SampleRate::parse("0.1").unwrap();
        let sample = || -> Vec<u64> {
            let taken = |number: &u64| rate.takes(DecisionId { process: 0x0123_4567_89ab_cdef, number: *number });
            (0..10_000).filter(taken).collect()
        };
        assert_eq!(sample(), sample());
        assert!((800..1_200).contains(&sample().len()), "{}", sample().len());
    }
}
