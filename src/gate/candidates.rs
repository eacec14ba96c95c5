//! A list of models asked about at once, perhaps through a router: which of them may be used, in the caller's order.

use std::sync::Arc;

use smol_str::SmolStr;

use super::context::RequestContext;
use super::decide::{Case, Resolved, Verdict, Who, action, check_type, outcome};
use super::evaluate::evaluate;
use crate::model::{
    CandidateDecision, CandidatesRequest, Decision, DecisionCode, EntityUid, EvaluationError, Facts, Outcome,
    RequestError, RequestErrorCode, RuleReference,
};
use crate::policy::entities::{EntityIndex, Subject};
use crate::policy::snapshot::Snapshot;

/// Most candidates of one request.
pub const MAX_CANDIDATES: usize = 64;

/// The answer about a list.
#[derive(Debug, Clone, PartialEq)]
pub struct CandidatesDecision {
    /// Permit where at least one candidate is permitted.
    pub outcome: Outcome,
    /// `permitted`, else the router's code, else the first candidate's.
    pub code: DecisionCode,
    /// Who was decided about.
    pub principal: EntityUid,
    /// The key that asked, if one did.
    pub key: Option<EntityUid>,
    /// The action.
    pub action: SmolStr,
    /// The decision about the router, where there is one.
    pub router: Option<Decision>,
    /// Each candidate's decision, in order.
    pub candidates: Vec<CandidateDecision>,
    /// The content of the bundle that decided.
    pub revision: Arc<str>,
}

impl CandidatesDecision {
    /// The candidates that may be used, in order.
    pub fn permitted(&self) -> impl Iterator<Item = &EntityUid> {
        self.candidates.iter().filter(|one| one.decision.is_permit()).map(|one| &one.resource)
    }
}

/// Decides about each candidate.
///
/// # Errors
/// As for one request, and when there are no candidates, or more than 64.
pub fn decide_candidates(
    snapshot: &Snapshot,
    facts: &Facts,
    request: &CandidatesRequest,
) -> Result<CandidatesDecision, RequestError> {
    let (index, action) = action(snapshot, &request.action)?;
    if request.candidates.is_empty() || request.candidates.len() > MAX_CANDIDATES {
        let message = format!("`candidates` takes 1 to {MAX_CANDIDATES} resources, not {}", request.candidates.len());
        return Err(RequestError::new(RequestErrorCode::InvalidCandidates, "candidates", message));
    }
    check_type(&action.principals, &request.principal, action, "principal")?;
    for (position, candidate) in request.candidates.iter().enumerate() {
        check_type(&action.resources, candidate, action, &format!("candidates[{position}]"))?;
        if request.router.is_some() && candidate.kind() != "Model" {
            let message = format!("through a router only models are asked for, not a `{}`", candidate.kind());
            return Err(RequestError::new(
                RequestErrorCode::InvalidCandidates,
                format!("candidates[{position}]"),
                message,
            ));
        }
    }
    let context = RequestContext::check(&request.context, action, &snapshot.schema)?;
    let who = Who::find(snapshot, None, &request.principal)?;
    let case = Case { snapshot, facts, principal: &who.subject, action: index, context: &context, additional: None };
    let worded = |verdict: Verdict, asked: &EntityUid| Decision {
        outcome: if verdict.code == DecisionCode::Permitted { Outcome::Permit } else { Outcome::Forbid },
        code: verdict.code,
        principal: who.principal.clone(),
        key: who.key.clone(),
        action: action.name.clone(),
        resource: verdict.resource.uid(snapshot, asked),
        rules: verdict.rules,
        errors: verdict.errors,
        hint: None,
        revision: Arc::clone(&snapshot.revision),
    };
    let router = match &request.router {
        Some(uid) => {
            if uid.kind() != "Router" {
                let message = format!("beside `candidates` a resource is a Router, not a `{}`", uid.kind());
                return Err(RequestError::new(RequestErrorCode::InvalidCandidates, "resource", message));
            }
            Some((uid, case.judge(uid)))
        }
        None => None,
    };
    let each = request.candidates.iter().map(|uid| {
        let verdict = match &router {
            None => case.judge(uid),
            Some((_, through)) => judge_through(&case, uid, through),
        };
        let decision = worded(verdict, uid);
        CandidateDecision { resource: decision.resource.clone(), decision }
    });
    let candidates: Vec<CandidateDecision> = each.collect();
    let router = router.map(|(uid, verdict)| worded(verdict, uid));
    let some = candidates.iter().any(|one| one.decision.is_permit());
    let refused = router.as_ref().filter(|router| !router.is_permit()).map(|router| router.code);
    let first = candidates.first().map_or(DecisionCode::NoRulePermits, |one| one.decision.code);
    Ok(CandidatesDecision {
        outcome: if some { Outcome::Permit } else { Outcome::Forbid },
        code: if some { DecisionCode::Permitted } else { refused.unwrap_or(first) },
        principal: who.principal.clone(),
        key: who.key.clone(),
        action: action.name.clone(),
        router,
        candidates,
        revision: Arc::clone(&snapshot.revision),
    })
}

/// Judges a model that is reached through a router: the router must be permitted and lead there, and no forbid match.
fn judge_through(case: &Case<'_>, model: &EntityUid, router: &Verdict) -> Verdict {
    let snapshot = case.snapshot;
    let (resolved, refusal) = case.resolve(model);
    let nothing = |code, resource| Verdict { code, resource, rules: Vec::new(), errors: Vec::new() };
    if router.code == DecisionCode::PrincipalDisabled {
        return nothing(router.code, resolved);
    }
    let subject = match (&resolved, refusal) {
        (Resolved::Subject(subject), None) => subject.clone(),
        (_, refusal) => return nothing(refusal.unwrap_or(DecisionCode::ModelUnknown), resolved),
    };
    let evaluation = evaluate(&Case { ..*case }.question(&subject));
    let (code, rules) = outcome(snapshot, &evaluation);
    let error =
        |(index, message): &(_, String)| EvaluationError { rule: snapshot.reference(*index), message: message.clone() };
    let forbid_erred = code == DecisionCode::Error
        && evaluation.errors.iter().any(|(index, _)| snapshot.rule(*index).effect == crate::model::Effect::Forbid);
    let (code, rules): (_, Vec<RuleReference>) = if code == DecisionCode::ForbiddenByRule || forbid_erred {
        (code, rules.iter().map(|index| snapshot.reference(*index)).collect())
    } else if router.code != DecisionCode::Permitted {
        (router.code, router.rules.clone())
    } else if reaches(snapshot, router, &subject) {
        (DecisionCode::Permitted, router.rules.clone())
    } else {
        (DecisionCode::NoRulePermits, Vec::new())
    };
    Verdict { code, resource: resolved, rules, errors: evaluation.errors.iter().map(error).collect() }
}

fn reaches(snapshot: &Snapshot, router: &Verdict, model: &Subject) -> bool {
    let known: Option<EntityIndex> = match &router.resource {
        Resolved::Subject(Subject::Known(index)) => Some(*index),
        _ => None,
    };
    known.is_some_and(|index| snapshot.reaches(index, model))
}
