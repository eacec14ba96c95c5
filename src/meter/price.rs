//! What a call costs: exact products of tokens and prices, rounded once, up.

use crate::model::{Amount, Unit};

/// Pico-dollars in a nano-dollar.
const PICOS_PER_NANO: u128 = 1000;

/// What a model costs. Prices are in pico-dollars (a dollar per million tokens is 1,000,000 pico-dollars a token).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Price {
    /// Prices of a call whose input is not longer than any tier begins at.
    pub rates: Rates,
    /// Prices of calls with longer inputs, ascending.
    pub tiers: Box<[Tier]>,
    /// For a request, whatever it holds.
    pub request: u64,
    /// For an image.
    pub image: u64,
}

/// Prices per token, in pico-dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Input tokens that came from the provider's cache. If absent, a tier uses that of the base price, and otherwise
    /// `input`.
    pub cached_input: Option<u64>,
    /// Input tokens that the provider put into its cache; as `input` where none is said.
    pub cache_write: Option<u64>,
    /// Output tokens spent on reasoning; as `output` where none is said.
    pub reasoning: Option<u64>,
}

/// Prices of calls with more input tokens than `above`; the whole call is priced so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// Input tokens.
    pub above: u64,
    /// Prices per token.
    pub rates: Rates,
}

/// What a call used, or will use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Requests.
    pub requests: u64,
    /// Input tokens, the cached and the cache-writing ones among them.
    pub input_tokens: u64,
    /// Output tokens, the reasoning ones among them.
    pub output_tokens: u64,
    /// Input tokens that came from the provider's cache.
    pub cached_input_tokens: u64,
    /// Input tokens that went into the provider's cache.
    pub cache_write_tokens: u64,
    /// Output tokens spent on reasoning.
    pub reasoning_tokens: u64,
    /// Images.
    pub images: u64,
    /// Money, where the caller knows it or it was computed.
    pub usd: Option<Amount>,
}

/// Why a usage has no price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// More cached, written or reasoning tokens than there are tokens.
    #[error("there are more {0} than tokens they are part of")]
    PartExceedsWhole(&'static str),
    /// Beyond what can be counted.
    #[error("the cost is beyond what can be counted")]
    Overflow,
}

impl Price {
    /// What `usage` costs, rounded up to the nano-dollar once.
    ///
    /// # Errors
    /// Where its parts are more than the whole, or the cost is beyond [`Amount::MAX`].
    pub fn cost(&self, usage: &Usage) -> Result<Amount, PriceError> {
        let rates = self.rates_for(usage.input_tokens);
        let fresh = usage.cached_input_tokens.checked_add(usage.cache_write_tokens);
        let fresh = fresh.and_then(|parts| usage.input_tokens.checked_sub(parts));
        let fresh = fresh.ok_or(PriceError::PartExceedsWhole("cached and cache-writing input tokens"))?;
        let said = usage.output_tokens.checked_sub(usage.reasoning_tokens);
        let said = said.ok_or(PriceError::PartExceedsWhole("reasoning tokens"))?;
        let parts = [
            (fresh, rates.input),
            (usage.cached_input_tokens, rates.cached_input.or(self.rates.cached_input).unwrap_or(rates.input)),
            (usage.cache_write_tokens, rates.cache_write.unwrap_or(rates.input)),
            (said, rates.output),
            (usage.reasoning_tokens, rates.reasoning.unwrap_or(rates.output)),
            (usage.requests, self.request),
            (usage.images, self.image),
        ];
        // Seven products of 64 bits each could pass 128 bits.
        let picos = parts
            .iter()
            .try_fold(0_u128, |sum, (count, price)| sum.checked_add(u128::from(*count) * u128::from(*price)));
        let nanos = picos.ok_or(PriceError::Overflow)?.div_ceil(PICOS_PER_NANO);
        u64::try_from(nanos).ok().and_then(Amount::new).ok_or(PriceError::Overflow)
    }

    /// What `usage` costs at most, whatever of it turns out to be cached, written to a cache or reasoning.
    ///
    /// # Errors
    /// Where the cost is beyond [`Amount::MAX`].
    pub fn most(&self, usage: &Usage) -> Result<Amount, PriceError> {
        // A shorter input than told may not cost more than what is held: every tier up to this one counts.
        let tiers = self.tiers.iter().take_while(|tier| usage.input_tokens > tier.above).map(|tier| &tier.rates);
        let dearest = tiers.chain([&self.rates]).fold(Rates::default(), |most, rates| Rates {
            input: [Some(rates.input), rates.cached_input, rates.cache_write]
                .into_iter()
                .flatten()
                .fold(most.input, u64::max),
            output: rates.reasoning.unwrap_or(0).max(rates.output).max(most.output),
            ..Rates::default()
        });
        let plain = Price { rates: dearest, tiers: Box::default(), request: self.request, image: self.image };
        let usage = Usage { cached_input_tokens: 0, cache_write_tokens: 0, reasoning_tokens: 0, ..*usage };
        plain.cost(&usage)
    }

    /// Whether nothing costs anything.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.counts() == (false, false) && self.request == 0 && self.image == 0
    }

    /// Whether input tokens cost something, and whether output tokens do.
    #[must_use]
    pub fn counts(&self) -> (bool, bool) {
        let all = || self.tiers.iter().map(|tier| &tier.rates).chain([&self.rates]);
        let some = |price: Option<u64>| price.is_some_and(|price| price > 0);
        let input = all().any(|rates| rates.input > 0 || some(rates.cached_input) || some(rates.cache_write));
        let output = all().any(|rates| rates.output > 0 || some(rates.reasoning));
        (input, output)
    }

    fn rates_for(&self, input_tokens: u64) -> &Rates {
        let tier = self.tiers.iter().rev().find(|tier| input_tokens > tier.above);
        tier.map_or(&self.rates, |tier| &tier.rates)
    }
}

impl Usage {
    /// How much of `unit` it is; `None` for money that nobody knows, and beyond [`Amount::MAX`].
    #[must_use]
    pub fn of(&self, unit: Unit) -> Option<Amount> {
        let number = match unit {
            Unit::Usd => return self.usd,
            Unit::Tokens => self.input_tokens.checked_add(self.output_tokens)?,
            Unit::InputTokens => self.input_tokens,
            Unit::OutputTokens => self.output_tokens,
            Unit::Requests => self.requests,
            Unit::Places => 1,
        };
        Amount::new(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price() -> Price {
        let rates = Rates { input: 150_000, output: 600_000, cached_input: Some(75_000), ..Rates::default() };
        let dear = Rates { input: 300_000, output: 900_000, ..Rates::default() };
        Price { rates, tiers: Box::new([Tier { above: 1000, rates: dear }]), request: 0, image: 0 }
    }

    #[test]
    fn a_cost_is_rounded_up_once() {
        let usage = |input_tokens, output_tokens| Usage { input_tokens, output_tokens, ..Usage::default() };
        let cost = |usage: Usage| price().cost(&usage).map(Amount::get);
        assert_eq!(cost(usage(1, 0)), Ok(150));
        assert_eq!(cost(usage(900, 500)), Ok(900 * 150 + 500 * 600));
        assert_eq!(cost(usage(1001, 1)), Ok(1001 * 300 + 900));
        assert_eq!(cost(Usage { cached_input_tokens: 3, ..usage(3, 0) }), Ok(225));
        assert_eq!(cost(Usage { cached_input_tokens: 1, ..usage(1, 0) }), Ok(75));
        let tiny = Price { rates: Rates { input: 1, ..Rates::default() }, ..Price::default() };
        assert_eq!(tiny.cost(&usage(1, 0)).map(Amount::get), Ok(1));
        assert_eq!(tiny.cost(&usage(1001, 0)).map(Amount::get), Ok(2));
    }

    #[test]
    fn a_tier_without_a_cached_price_has_that_of_the_base() {
        let usage = Usage { input_tokens: 2000, cached_input_tokens: 1000, ..Usage::default() };
        assert_eq!(price().cost(&usage).map(Amount::get), Ok(1000 * 300 + 1000 * 75));
        let mut price = price();
        price.rates.cached_input = None;
        assert_eq!(price.cost(&usage).map(Amount::get), Ok(2000 * 300));
    }

    #[test]
    fn absurd_usage_is_an_error() {
        let most = Usage { input_tokens: u64::MAX, ..Usage::default() };
        assert_eq!(price().cost(&most), Err(PriceError::Overflow));
        let parts = Usage { input_tokens: 1, cached_input_tokens: 2, ..Usage::default() };
        assert!(matches!(price().cost(&parts), Err(PriceError::PartExceedsWhole(_))));
        let parts = Usage { reasoning_tokens: 1, ..Usage::default() };
        assert!(matches!(price().cost(&parts), Err(PriceError::PartExceedsWhole(_))));
    }
}
