//! Turns a permit into a forbid because of limits: the code, and the time after which a retry helps.

use super::gather::Applying;
use crate::meter::Measure;
use crate::model::{Decision, DecisionCode, Outcome, Timestamp};

/// Turns the decision into a forbid with this code.
pub(super) fn forbid(decision: &mut Decision, code: DecisionCode) {
    decision.outcome = Outcome::Forbid;
    // The first of the codes that is so.
    if decision.code == DecisionCode::Permitted || code < decision.code {
        decision.code = code;
    }
    decision.rules.clear();
}

/// Forbids because of limits that have no room, if there are any.
pub(super) fn refuse<'a>(
    decision: &mut Decision,
    now: Timestamp,
    short: impl Iterator<Item = (&'a Applying<'a>, Option<Timestamp>)>,
) {
    let mut retry: Option<Option<Timestamp>> = None;
    for (one, retry_at) in short {
        forbid(decision, code_of(&one.limit.limit.measure));
        retry = Some(match (retry, retry_at) {
            (None, retry_at) => retry_at,
            (Some(before), retry_at) => before.zip(retry_at).map(|(before, after)| before.max(after)),
        });
    }
    decision.retry_after_seconds = retry.flatten().map(|retry_at| {
        let millis = retry_at.as_millis().saturating_sub(now.as_millis());
        u64::try_from(millis).unwrap_or(0).div_ceil(1000).max(1)
    });
}

fn code_of(measure: &Measure) -> DecisionCode {
    match measure {
        Measure::Budget { .. } => DecisionCode::BudgetExceeded,
        Measure::Rate { .. } => DecisionCode::RateLimited,
        Measure::Concurrency => DecisionCode::ConcurrencyExceeded,
    }
}
