//! What a request will use: from what it says, what its context tells and what its model is declared to answer with at
//! most, to an amount for each limit that applies.

use std::sync::Arc;

use smol_str::SmolStr;

use super::gather::Applying;
use crate::meter::{Charge, Price, Unpriced, Usage};
use crate::model::{Amount, RequestError, RequestErrorCode, Unit};

/// What a request wants held. What it leaves out is taken from its context, the output from its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserve {
    /// Requests; one where nothing is said.
    pub requests: Option<u64>,
    /// Input tokens; else `context.input_tokens`.
    pub input_tokens: Option<u64>,
    /// Output tokens; else `context.max_output_tokens`, else what the model answers with at most.
    pub output_tokens: Option<u64>,
    /// Images.
    pub images: Option<u64>,
    /// Money; else computed from the price.
    pub usd: Option<Amount>,
}

/// What is known of how much a request will use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Estimate<'a> {
    pub(super) requests: u64,
    pub(super) input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
    pub(super) images: u64,
    pub(super) usd: Option<Amount>,
    pub(super) price: Option<&'a Arc<Price>>,
}

/// Why an amount cannot be said.
#[derive(Debug)]
pub(super) enum NoAmount {
    /// Nobody knows what the model costs.
    PriceUnknown,
    /// The request does not say.
    NotSaid(RequestError),
}

impl Estimate<'_> {
    /// What to hold on each of `applying`. What a limit that refuses nothing would need to know keeps nobody from calling.
    pub(super) fn charges(&self, applying: &[Applying<'_>]) -> Result<Vec<Charge>, NoAmount> {
        let mut charges = Vec::with_capacity(applying.len());
        for one in applying {
            charges.push(match self.amount(one) {
                Err(_) if !one.limit.limit.is_enforced() => charge(one, Amount::ZERO),
                amount => charge(one, amount?),
            });
        }
        Ok(charges)
    }

    /// The price to settle by: once `charges` took a model without one, it costs nothing unless somebody says what.
    pub(super) fn settling_price(&self, charges: &[Charge]) -> Option<Arc<Price>> {
        let free = || {
            let counts_money = charges.iter().any(|charge| charge.limit.unit() == Unit::Usd);
            (counts_money && self.usd.is_none()).then(Arc::default)
        };
        self.price.cloned().or_else(free)
    }

    /// The usage that is held, as far as it is known.
    pub(super) fn usage(&self) -> Usage {
        Usage {
            requests: self.requests,
            input_tokens: self.input_tokens.unwrap_or(0),
            output_tokens: self.output_tokens.unwrap_or(0),
            images: self.images,
            usd: self.usd,
            ..Usage::default()
        }
    }

    fn amount(&self, applying: &Applying<'_>) -> Result<Amount, NoAmount> {
        let limit = &applying.limit.limit;
        let id = &limit.id;
        let input = || self.input_tokens.ok_or_else(|| not_said(id, "input_tokens"));
        let output = || self.output_tokens.ok_or_else(|| not_said(id, "output_tokens"));
        let number = match limit.unit() {
            Unit::Usd => return self.money(id, limit.unpriced),
            Unit::Tokens => input()?.checked_add(output()?).ok_or_else(|| too_much(id))?,
            Unit::InputTokens => input()?,
            Unit::OutputTokens => output()?,
            Unit::Requests => self.requests,
            Unit::Places => 1,
        };
        Amount::new(number).ok_or_else(|| too_much(id))
    }

    fn money(&self, id: &SmolStr, unpriced: Unpriced) -> Result<Amount, NoAmount> {
        if let Some(usd) = self.usd {
            return Ok(usd);
        }
        let Some(price) = self.price else {
            return if unpriced == Unpriced::Free { Ok(Amount::ZERO) } else { Err(NoAmount::PriceUnknown) };
        };
        let (counts_input, counts_output) = price.counts();
        if counts_input && self.input_tokens.is_none() {
            return Err(not_said(id, "input_tokens"));
        }
        if counts_output && self.output_tokens.is_none() {
            return Err(not_said(id, "output_tokens"));
        }
        price.most(&self.usage()).map_err(|_| too_much(id))
    }
}

/// So much on the meter of one limit.
pub(super) fn charge(applying: &Applying<'_>, amount: Amount) -> Charge {
    Charge { limit: Arc::clone(&applying.limit.limit), subject: applying.subject.clone(), amount }
}

fn not_said(limit: &SmolStr, member: &str) -> NoAmount {
    let context = if member == "output_tokens" { "max_output_tokens" } else { member };
    let message = format!(
        "the limit `{limit}` needs to know how many {} there will be; say it in `reserve.{member}` or `context.{context}`",
        member.replace('_', " "),
    );
    NoAmount::NotSaid(RequestError::new(RequestErrorCode::AmountNeeded, format!("reserve.{member}"), message))
}

fn too_much(limit: &SmolStr) -> NoAmount {
    let message = format!("what is to be held on `{limit}` is beyond what can be counted");
    NoAmount::NotSaid(RequestError::new(RequestErrorCode::InvalidRequest, "reserve", message))
}
