//! Decisions under assumed limits: the command line reads no meters, so nothing is used of a limit unless the caller
//! assumes otherwise. Every limit that applies is evaluated, and refuses like on a server that has just started.

use smol_str::SmolStr;

use super::authorize::{Asking, Ground, Item, known};
use super::decide::Prepared;
use super::explain::Explanation;
use super::gather::Applying;
use super::ports::Look;
use crate::meter::{Lack, Measure, Meter, Standing};
use crate::model::{Amount, Decision, Facts, LimitFacts, Request, RequestError, Unit};
use crate::policy::Snapshot;

/// Nano-dollars in a micro-dollar.
const NANOS_PER_MICRO: u64 = 1000;

/// The assumptions for a decision without meters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assumptions {
    /// The facts in addition to the limits: the instant, and how the caller authenticated.
    pub facts: Facts,
    /// How full the fullest budget of money is, in percent.
    pub used_percent: Option<i64>,
    /// The remaining amount, in micro-dollars.
    pub remaining_micros: Option<i64>,
    /// Requests that a rate still lets through.
    pub remaining_requests: Option<i64>,
    /// Tokens that a rate still lets through.
    pub remaining_tokens: Option<i64>,
    /// The assumed limits, by id. All others are unused.
    pub limits: Vec<(SmolStr, LimitFacts)>,
}

impl Assumptions {
    /// The assumption that every limit is unused.
    #[must_use]
    pub const fn none(facts: Facts) -> Self {
        Self {
            facts,
            used_percent: None,
            remaining_micros: None,
            remaining_requests: None,
            remaining_tokens: None,
            limits: Vec::new(),
        }
    }

    /// Decides one request, and explains the result of each rule.
    ///
    /// # Errors
    /// Returns the errors of [`super::decide`].
    pub fn decide(&self, snapshot: &Snapshot, request: &Request) -> Result<(Decision, Explanation), RequestError> {
        let prepared = Prepared::check(snapshot, request)?;
        let ground = Ground { snapshot, facts: &self.facts };
        let asking = Asking { router: None, wish: None };
        let mut item = Item::resolve(ground, &prepared, &request.resource, asking);
        let looks = self.looks(item.applying());
        let facts = self.over(known(&self.facts, item.applying(), &looks));
        item.know(looks, facts);
        Ok(item.explained(ground, request))
    }

    fn of(&self, one: &Applying<'_>) -> Option<&LimitFacts> {
        self.limits.iter().find(|(id, _)| *id == one.limit.limit.id).map(|(_, facts)| facts)
    }

    fn looks(&self, applying: &[Applying<'_>]) -> Vec<Look> {
        let mut looks: Vec<Look> = applying.iter().map(|one| self.look(one)).collect();
        let is_full = |remaining: Option<i64>| remaining.is_some_and(|remaining| remaining <= 0);
        let budget = is_full(self.remaining_micros) || self.used_percent.is_some_and(|percent| percent >= 100);
        let all = [
            (budget, Unit::Usd, false),
            (is_full(self.remaining_requests), Unit::Requests, true),
            (is_full(self.remaining_tokens), Unit::Tokens, true),
        ];
        for (_, unit, of_rate) in all.into_iter().filter(|(is_full, ..)| *is_full) {
            let is_meant = |one: &Applying<'_>| {
                let limit = &one.limit.limit;
                let counts = match unit {
                    Unit::Tokens => matches!(limit.unit(), Unit::Tokens | Unit::InputTokens | Unit::OutputTokens),
                    unit => limit.unit() == unit,
                };
                limit.is_enforced() && counts && matches!(limit.measure, Measure::Rate { .. }) == of_rate
            };
            // The assumption does not determine which meter is the fullest.
            let found = applying.iter().zip(&mut looks).find(|(one, _)| is_meant(one) && self.of(one).is_none());
            if let Some((_, look)) = found {
                look.standing.used = look.standing.cap;
                look.lack = Some(Lack { retry_at: None });
            }
        }
        looks
    }

    fn look(&self, one: &Applying<'_>) -> Look {
        let (limit, now) = (&one.limit.limit, self.facts.now);
        let Some(facts) = self.of(one) else {
            let meter = Meter::new(limit, now);
            let lack = if limit.is_enforced() { meter.room(limit, Amount::ONE, now).err() } else { None };
            return Look { standing: meter.standing(limit, now), lack };
        };
        let amount = |number: i64| {
            let number = u64::try_from(number).unwrap_or(0);
            let number = if facts.unit == Unit::Usd { number.saturating_mul(NANOS_PER_MICRO) } else { number };
            Amount::new(number).unwrap_or(Amount::MAX)
        };
        let is_full = facts.remaining <= 0 || facts.used_percent >= 100;
        let (cap, held) = (amount(facts.limit), amount(facts.held));
        let used = if is_full { amount(facts.used).max(cap.less(held)) } else { amount(facts.used) };
        let standing = Standing { cap, used, held, resets_at: None };
        Look { standing, lack: (limit.is_enforced() && is_full).then_some(Lack { retry_at: None }) }
    }

    /// The facts that conditions see: exactly the assumed values.
    fn over(&self, mut facts: Facts) -> Facts {
        facts.budget.used_percent = self.used_percent.unwrap_or(facts.budget.used_percent);
        facts.budget.remaining_micros = self.remaining_micros.unwrap_or(facts.budget.remaining_micros);
        facts.rate.remaining_requests = self.remaining_requests.unwrap_or(facts.rate.remaining_requests);
        facts.rate.remaining_tokens = self.remaining_tokens.unwrap_or(facts.rate.remaining_tokens);
        let said = |(id, known): &(SmolStr, LimitFacts)| {
            let assumed = self.limits.iter().find(|(assumed, _)| assumed == id).map(|(_, assumed)| *assumed);
            (id.clone(), assumed.unwrap_or(*known))
        };
        facts.limits = facts.limits.iter().map(said).collect();
        facts
    }
}
