//! What a request will use: from what it says, what its context tells and what its model is declared to answer with at
//! most, to an amount for each limit that applies.

use std::sync::Arc;

use smol_str::SmolStr;

use super::gather::Applying;
use crate::meter::{Charge, Limit, OnMissingUsage, Price, Unpriced, Usage};
use crate::model::{Amount, RequestError, RequestErrorCode, Unit};
use crate::policy::Snapshot;
use crate::policy::entities::Subject;

/// What a request wants held. What it leaves out is taken from its context, the output from its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserve {
    /// Requests; one where nothing is said.
    pub requests: Option<u64>,
    /// Input tokens; else `context.input_tokens`, else the estimate of the model or its account.
    pub input_tokens: Option<u64>,
    /// Output tokens; else `context.max_output_tokens`, else the estimate of the model or its account, else the model's
    /// maximum.
    pub output_tokens: Option<u64>,
    /// Images.
    pub images: Option<u64>,
    /// Money; else computed from the price.
    pub usd: Option<Amount>,
}

/// The estimated usage of a request on one model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Estimate<'a> {
    pub(super) requests: u64,
    pub(super) input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
    /// How many output tokens the model is declared to give on the whole.
    pub(super) usual_output_tokens: Option<u64>,
    pub(super) images: u64,
    pub(super) usd: Option<Amount>,
    pub(super) price: Option<&'a Arc<Price>>,
}

/// The estimates of a request: one for the model that it names. For a router there is one for each model that may serve
/// the request, and the most expensive one counts, since the model is not chosen yet.
#[derive(Debug, Clone)]
pub(super) struct Estimates<'a>(Vec<Estimate<'a>>);

/// Why an amount cannot be said.
#[derive(Debug)]
pub(super) enum NoAmount {
    /// Nobody knows what the model costs.
    PriceUnknown,
    /// The request does not say.
    NotSaid(RequestError),
}

/// The size of a request according to its context: input tokens, and the maximum of output tokens.
pub(super) type Told = (Option<u64>, Option<u64>);

impl<'a> Estimates<'a> {
    /// The one place where the size of a request is estimated: its own figures, then the estimate of the model or its
    /// account, then the model's maximum.
    pub(super) fn of(snapshot: &'a Snapshot, resource: Option<&Subject>, reserve: &Reserve, told: Told) -> Self {
        let (input, output) = (reserve.input_tokens.or(told.0), reserve.output_tokens.or(told.1));
        let plain = Estimate {
            requests: reserve.requests.unwrap_or(1),
            input_tokens: input,
            output_tokens: output,
            usual_output_tokens: None,
            images: reserve.images.unwrap_or(0),
            usd: reserve.usd,
            price: None,
        };
        let of_model = |model: &Subject| {
            let declared = snapshot.estimates(model);
            let most = || snapshot.max_output_tokens(model);
            Estimate {
                input_tokens: input.or(declared.input_tokens),
                output_tokens: output.or(declared.output_tokens).or_else(most),
                usual_output_tokens: declared.output_tokens,
                price: snapshot.price(model),
                ..plain
            }
        };
        let estimates = match resource {
            Some(router) if snapshot.store.name_of(router).0.leads_to().is_some() => {
                snapshot.models_behind(router).iter().map(of_model).collect()
            }
            Some(model) => vec![of_model(model)],
            None => Vec::new(),
        };
        Self(if estimates.is_empty() { vec![plain] } else { estimates })
    }

    /// The amounts of a reported usage.
    pub(super) fn used(usage: &Usage, price: Option<&'a Arc<Price>>) -> Self {
        Self(vec![Estimate {
            requests: usage.requests,
            input_tokens: Some(usage.input_tokens),
            output_tokens: Some(usage.output_tokens),
            usual_output_tokens: None,
            images: usage.images,
            usd: usage.usd,
            price,
        }])
    }

    /// The largest usage of any of the models, member by member.
    pub(super) fn usage(&self) -> Usage {
        let larger = |most: Usage, one: Usage| Usage {
            requests: most.requests.max(one.requests),
            input_tokens: most.input_tokens.max(one.input_tokens),
            output_tokens: most.output_tokens.max(one.output_tokens),
            images: most.images.max(one.images),
            usd: most.usd.max(one.usd),
            ..most
        };
        self.0.iter().map(Estimate::usage).fold(Usage::default(), larger)
    }

    /// Reserves the largest input and the largest output of any of the models, so that the hold equals the charge for
    /// [`Estimates::usage`], which takes each member from the largest model too.
    pub(super) fn largest(&self, reserve: &Reserve) -> Reserve {
        let most = |tokens: fn(&Estimate<'a>) -> Option<u64>| {
            let all: Option<Vec<u64>> = self.0.iter().map(tokens).collect();
            all.and_then(|all| all.into_iter().max())
        };
        let (input_tokens, output_tokens) = (most(|one| one.input_tokens), most(|one| one.output_tokens));
        Reserve { input_tokens, output_tokens, ..*reserve }
    }

    /// Whether money can be counted at all.
    pub(super) fn has_price(&self) -> bool {
        self.0.iter().any(|estimate| estimate.usd.is_some() || estimate.price.is_some())
    }

    /// What to hold on each of `applying`. What a limit that refuses nothing would need to know keeps nobody from calling.
    pub(super) fn charges(&self, applying: &[Applying<'_>]) -> Result<Vec<Charge>, NoAmount> {
        let mut charges = Vec::with_capacity(applying.len());
        for one in applying {
            charges.push(match self.amount(&one.limit.limit) {
                Err(_) if !one.limit.limit.is_enforced() => charge(one, Amount::ZERO),
                amount => charge(one, amount?),
            });
        }
        Ok(charges)
    }

    /// The charges for a usage that the caller states as unknown; empty if each stays as it is held.
    pub(super) fn if_unknown(&self, charges: &[Charge]) -> Box<[Amount]> {
        if charges.iter().all(|charge| charge.limit.on_missing_usage == OnMissingUsage::ChargeHold) {
            return Box::default();
        }
        let usual = |estimate: &Estimate<'a>| Estimate {
            output_tokens: estimate.usual_output_tokens.or(estimate.output_tokens),
            ..*estimate
        };
        let usual = Self(self.0.iter().map(usual).collect());
        let charged = |charge: &Charge| match charge.limit.on_missing_usage {
            OnMissingUsage::ChargeHold => charge.amount,
            OnMissingUsage::ChargeEstimate => usual.amount(&charge.limit).unwrap_or(charge.amount),
            OnMissingUsage::Release => Amount::ZERO,
        };
        charges.iter().map(charged).collect()
    }

    /// The price to settle by. If `charges` included a model without a price, the cost is zero unless the caller states
    /// one. For a router, it is the price of the model that the caller names when it settles.
    pub(super) fn settling_price(&self, charges: &[Charge]) -> Option<Arc<Price>> {
        if let [one] = self.0.as_slice()
            && let Some(price) = one.price
        {
            return Some(Arc::clone(price));
        }
        let counts_money = charges.iter().any(|charge| charge.limit.unit() == Unit::Usd);
        (counts_money && !self.has_price()).then(Arc::default)
    }

    fn amount(&self, limit: &Limit) -> Result<Amount, NoAmount> {
        let mut most = None;
        for estimate in &self.0 {
            match estimate.amount(limit) {
                Ok(amount) => most = most.max(Some(amount)),
                // Another model with a known price counts.
                Err(NoAmount::PriceUnknown) => {}
                Err(error) => return Err(error),
            }
        }
        most.ok_or(NoAmount::PriceUnknown)
    }
}

impl Estimate<'_> {
    /// The usage that is held, as far as it is known.
    fn usage(&self) -> Usage {
        Usage {
            requests: self.requests,
            input_tokens: self.input_tokens.unwrap_or(0),
            output_tokens: self.output_tokens.unwrap_or(0),
            images: self.images,
            usd: self.usd,
            ..Usage::default()
        }
    }

    fn amount(&self, limit: &Limit) -> Result<Amount, NoAmount> {
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
        "the limit `{limit}` needs to know how many {} there will be; say it in `reserve.{member}` or \
         `context.{context}`, or declare `estimate_{member}` on the model or its account",
        member.replace('_', " "),
    );
    NoAmount::NotSaid(RequestError::new(RequestErrorCode::AmountNeeded, format!("reserve.{member}"), message))
}

fn too_much(limit: &SmolStr) -> NoAmount {
    let message = format!("what is to be held on `{limit}` is beyond what can be counted");
    NoAmount::NotSaid(RequestError::new(RequestErrorCode::InvalidRequest, "reserve", message))
}
