//! The usage that a caller reports for a finished call, and the members that it must contain.

use crate::meter::{Price, Usage};
use crate::model::{Amount, RequestError, RequestErrorCode, Unit};

/// The usage of a call, as its caller reports it. An absent member is unknown; a zero is a zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportedUsage {
    /// Requests; the default is one.
    pub requests: Option<u64>,
    /// Input tokens, the cached and the cache-writing ones among them.
    pub input_tokens: Option<u64>,
    /// Output tokens, the reasoning ones among them.
    pub output_tokens: Option<u64>,
    /// Input tokens that came from the provider's cache; the default is zero.
    pub cached_input_tokens: u64,
    /// Input tokens that went into the provider's cache; the default is zero.
    pub cache_write_tokens: u64,
    /// Output tokens spent on reasoning; the default is zero.
    pub reasoning_tokens: u64,
    /// Images.
    pub images: Option<u64>,
    /// Money, where the caller knows it.
    pub usd: Option<Amount>,
}

/// The statement of a caller about a call for which it had a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stated {
    /// This was used.
    Used(ReportedUsage),
    /// The usage is unknown.
    Unknown,
}

impl From<ReportedUsage> for Stated {
    fn from(usage: ReportedUsage) -> Self {
        Self::Used(usage)
    }
}

impl ReportedUsage {
    /// The usage, with zero for each absent member.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            requests: self.requests.unwrap_or(1),
            input_tokens: self.input_tokens.unwrap_or(0),
            output_tokens: self.output_tokens.unwrap_or(0),
            cached_input_tokens: self.cached_input_tokens,
            cache_write_tokens: self.cache_write_tokens,
            reasoning_tokens: self.reasoning_tokens,
            images: self.images.unwrap_or(0),
            usd: self.usd,
        }
    }

    /// Refuses a usage without a member that a limit counts, or that the price charges and the caller does not state the
    /// cost of: it would be counted as nothing.
    pub(super) fn check(
        &self,
        counted: impl IntoIterator<Item = Unit>,
        price: Option<&Price>,
    ) -> Result<(), RequestError> {
        let price = price.filter(|_| self.usd.is_none());
        let (mut input, mut output) = price.map_or((false, false), Price::counts);
        for unit in counted {
            input |= matches!(unit, Unit::Tokens | Unit::InputTokens);
            output |= matches!(unit, Unit::Tokens | Unit::OutputTokens);
        }
        let images = price.is_some_and(|price| price.image > 0);
        let missing = [
            (input && self.input_tokens.is_none(), "input_tokens"),
            (output && self.output_tokens.is_none(), "output_tokens"),
            (images && self.images.is_none(), "images"),
        ];
        let Some((_, member)) = missing.into_iter().find(|(is_missing, _)| *is_missing) else { return Ok(()) };
        let message = format!(
            "`usage.{member}` is missing, and a limit or the model's price counts it; send 0 if there were none; POST \
             /settle takes `\"usage\": null` if the usage is unknown"
        );
        Err(RequestError::new(RequestErrorCode::AmountNeeded, format!("usage.{member}"), message))
    }
}
