//! A list of models asked about at once, perhaps through a router: which of them may be used, in the caller's order.

use std::sync::Arc;

use smol_str::SmolStr;

use super::decide::{Case, Prepared, Resolved, Verdict, Who, action, check_type, outcome};
use super::evaluate::evaluate;
use crate::model::{
    CandidateDecision, CandidatesRequest, Decision, DecisionCode, EntityUid, EvaluationError, Facts, Outcome,
    RequestError, RequestErrorCode, RuleReference,
};
use crate::policy::entities::{EntityIndex, Kind, Subject};
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
    /// The decision that determines the answer: the first permitted candidate, else the router if it is forbidden, else
    /// the first candidate.
    #[must_use]
    pub fn deciding(&self) -> Option<&Decision> {
        let mut each = self.candidates.iter().map(|one| &one.decision);
        let permitted = each.clone().find(|one| one.is_permit());
        let refusing = self.router.as_ref().filter(|router| !router.is_permit());
        permitted.or(refusing).or_else(|| each.next())
    }

    /// The candidates that may be used, in order.
    pub fn permitted(&self) -> impl Iterator<Item = &EntityUid> {
        self.candidates.iter().filter(|one| one.decision.is_permit()).map(|one| &one.resource)
    }
}

/// Decides about each candidate by rules alone.
///
/// # Errors
/// As for one request, and when there are no candidates, or more than 64.
pub fn decide_candidates(
    snapshot: &Snapshot,
    facts: &Facts,
    request: &CandidatesRequest,
) -> Result<CandidatesDecision, RequestError> {
    let candidates = Candidates::check(snapshot, request)?;
    let prepared = candidates.prepared();
    let router = request.router.as_ref().map(|uid| (uid, prepared.case(facts).judge(uid)));
    let each = request.candidates.iter().map(|uid| {
        let verdict = candidates.judge(facts, uid, router.as_ref().map(|(_, verdict)| verdict));
        prepared.decision(verdict, uid)
    });
    let each = each.collect();
    Ok(candidates.decision(router.map(|(uid, verdict)| prepared.decision(verdict, uid)), each))
}

/// A list of candidates that the schema takes.
pub(super) struct Candidates<'a> {
    prepared: Prepared<'a>,
    snapshot: &'a Snapshot,
}

impl<'a> Candidates<'a> {
    pub(super) fn check(snapshot: &'a Snapshot, request: &'a CandidatesRequest) -> Result<Self, RequestError> {
        let known = action(snapshot, &request.action)?;
        let wrong = |param: String, message| RequestError::new(RequestErrorCode::InvalidCandidates, param, message);
        if request.candidates.is_empty() || request.candidates.len() > MAX_CANDIDATES {
            let count = request.candidates.len();
            let message = format!("`candidates` takes 1 to {MAX_CANDIDATES} resources, not {count}");
            return Err(wrong("candidates".to_owned(), message));
        }
        check_type(&known.action.principals, &request.principal, known.action, "principal")?;
        let members = request.router.as_ref().and_then(|uid| members_of(grant_of(uid)));
        for (position, candidate) in request.candidates.iter().enumerate() {
            check_type(&known.action.resources, candidate, known.action, &format!("candidates[{position}]"))?;
            if let Some((through, members)) = members.filter(|(_, members)| members.name() != candidate.kind()) {
                let (through, members) = (through.noun(), members.noun());
                let message =
                    format!("through a {through} only {members}s are asked for, not a `{}`", candidate.kind());
                return Err(wrong(format!("candidates[{position}]"), message));
            }
        }
        if let Some(uid) = request.router.as_ref().filter(|uid| grant_of(uid).is_none()) {
            let grants: Vec<&str> = Kind::all().filter(|kind| kind.grants_access()).map(Kind::name).collect();
            let message =
                format!("beside `candidates` a resource is a {}, not a `{}`", grants.join(" or a "), uid.kind());
            return Err(wrong("resource".to_owned(), message));
        }
        let who = Who::find(snapshot, None, &request.principal, request.identity.as_ref())?;
        let prepared = Prepared::of(snapshot, known, who, &request.context)?;
        Ok(Self { prepared, snapshot })
    }

    pub(super) fn prepared(&self) -> &Prepared<'a> {
        &self.prepared
    }

    /// Judges one candidate, through the router if there is one.
    pub(super) fn judge(&self, facts: &Facts, uid: &EntityUid, router: Option<&Verdict>) -> Verdict {
        let case = self.prepared.case(facts);
        match router {
            None => case.judge(uid),
            Some(through) => judge_through(&case, uid, through),
        }
    }

    /// What the decisions come to together.
    pub(super) fn decision(&self, router: Option<Decision>, each: Vec<Decision>) -> CandidatesDecision {
        let some = each.iter().any(Decision::is_permit);
        let refused = router.as_ref().filter(|router| !router.is_permit()).map(|router| router.code);
        let first = each.first().map_or(DecisionCode::NoRulePermits, |decision| decision.code);
        let (principal, key, action) = self.prepared.names();
        let candidate = |decision: Decision| CandidateDecision { resource: decision.resource.clone(), decision };
        CandidatesDecision {
            outcome: if some { Outcome::Permit } else { Outcome::Forbid },
            code: if some { DecisionCode::Permitted } else { refused.unwrap_or(first) },
            principal,
            key,
            action,
            router,
            candidates: each.into_iter().map(candidate).collect(),
            revision: Arc::clone(&self.snapshot.revision),
        }
    }
}

/// The kind of a router: one that grants access to the resources that it leads to.
fn grant_of(router: &EntityUid) -> Option<Kind> {
    Kind::named(router.kind()).filter(|kind| kind.grants_access())
}

/// The kind of a router, and the kind of the candidates behind it. The error for another kind of resource in its place
/// comes after those for the candidates, which are then checked as if it were a router.
fn members_of(grant: Option<Kind>) -> Option<(Kind, Kind)> {
    let grant = grant.or_else(|| Kind::all().find(|kind| kind.grants_access()))?;
    Some((grant, grant.leads_to()?))
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
    if let Some(forbid) = case.narrowed(&subject, true) {
        let code = DecisionCode::ForbiddenByRule;
        return Verdict { code, resource: resolved, rules: vec![forbid], errors: Vec::new() };
    }
    let mut evaluation = evaluate(&Case { ..*case }.question(&subject));
    evaluation.forbids.retain(|index| !snapshot.rule(*index).direct_only);
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
