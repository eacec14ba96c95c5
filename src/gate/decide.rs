//! The decision: sync, pure, total over requests that the schema takes. A forbid wins, nothing permitted means forbid, and
//! a forbid that raises an error forbids (Cedar alone would skip it).

use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};

use super::additional::Additional;
use super::context::RequestContext;
use super::evaluate::{Evaluation, Question, evaluate};
use super::explain::{self, Explanation};
use super::gather::own_limits;
use super::manage::VIEW_USAGE;
use super::narrow::{self, Use};
use super::shipped;
use crate::model::{
    Decision, DecisionCode, Effect, EntityUid, EvaluationError, Facts, Identity, Outcome, Request, RequestError,
    RequestErrorCode, RuleReference, Told,
};
use crate::policy::entities::Subject;
use crate::policy::index::RuleIndex;
use crate::policy::limits::BoundLimit;
use crate::policy::problem::nearest;
use crate::policy::schema::{Action, ActionIndex};
use crate::policy::snapshot::{ResourceName, Snapshot};

/// Decides one request by its rules alone; limits are [`super::authorize`]'s.
///
/// # Errors
/// When it is no request that the schema takes: an unknown action or type, or a context that does not fit.
pub fn decide(snapshot: &Snapshot, facts: &Facts, request: &Request) -> Result<Decision, RequestError> {
    let prepared = Prepared::check(snapshot, request)?;
    let verdict = prepared.case(facts).judge(&request.resource);
    let mut decision = prepared.decision(verdict, &request.resource);
    decision.hint = prepared.hint(facts, &decision, request);
    Ok(decision)
}

/// Decides one request and explains what the rules said to it.
///
/// # Errors
/// As [`decide`].
pub fn explain_request(
    snapshot: &Snapshot,
    facts: &Facts,
    request: &Request,
) -> Result<(Decision, Explanation), RequestError> {
    let decision = decide(snapshot, facts, request)?;
    let prepared = Prepared::check(snapshot, request)?;
    let explanation = prepared.case(facts).explanation(&request.resource, &decision);
    Ok((decision, explanation))
}

/// A request that the schema takes: everything of it but its resource, looked up.
pub(super) struct Prepared<'a> {
    snapshot: &'a Snapshot,
    index: ActionIndex,
    action: &'a Action,
    context: RequestContext,
    additional: Option<Additional>,
    who: Who<'a>,
    /// The limits of the key that asks.
    own_limits: Box<[BoundLimit]>,
}

impl<'a> Prepared<'a> {
    pub(super) fn check(snapshot: &'a Snapshot, request: &'a Request) -> Result<Self, RequestError> {
        let known = action(snapshot, &request.action)?;
        check_type(&known.action.principals, &request.principal, known.action, "principal")?;
        check_type(&known.action.resources, &request.resource, known.action, "resource")?;
        let additional = Additional::check(snapshot, &request.additional_entities)?;
        let who = Who::find(snapshot, additional.as_ref(), &request.principal, request.identity.as_ref())?;
        let prepared = Self::of(snapshot, known, who, &request.context)?;
        Ok(Self { additional, ..prepared })
    }

    /// Of an action whose principal and resources were checked.
    pub(super) fn of(
        snapshot: &'a Snapshot,
        known: KnownAction<'a>,
        who: Who<'a>,
        context: &Told,
    ) -> Result<Self, RequestError> {
        let KnownAction { index, action } = known;
        let mut context = RequestContext::check(context, action, &snapshot.schema)?;
        if let Some(identity) = who.identity {
            context.add_proved(identity);
        }
        let own_limits = who.identity.map(own_limits).unwrap_or_default();
        Ok(Self { snapshot, index, action, context, additional: None, who, own_limits })
    }

    pub(super) fn own_limits(&self) -> &[BoundLimit] {
        &self.own_limits
    }

    pub(super) fn context(&self) -> &RequestContext {
        &self.context
    }

    pub(super) fn case<'b>(&'b self, facts: &'b Facts) -> Case<'b> {
        Case {
            snapshot: self.snapshot,
            facts,
            principal: &self.who.subject,
            identity: self.who.identity,
            action: self.index,
            context: &self.context,
            additional: self.additional.as_ref(),
        }
    }

    /// Who asks, the key that asked, and the action.
    pub(super) fn names(&self) -> (EntityUid, Option<EntityUid>, SmolStr) {
        (self.who.principal.clone(), self.who.key.clone(), self.action.name.clone())
    }

    /// What a verdict about the resource that was `asked` about comes to.
    pub(super) fn decision(&self, verdict: Verdict, asked: &EntityUid) -> Decision {
        let resource = verdict.resource.uid(self.snapshot, asked);
        Decision {
            outcome: if verdict.code == DecisionCode::Permitted { Outcome::Permit } else { Outcome::Forbid },
            code: verdict.code,
            principal: self.who.principal.clone(),
            key: self.who.key.clone(),
            action: self.action.name.clone(),
            resource,
            rules: verdict.rules,
            errors: verdict.errors,
            limits: Vec::new(),
            not_held: Vec::new(),
            reservation: None,
            most_open: None,
            retry_after_seconds: None,
            hint: None,
            revision: Arc::clone(&self.snapshot.revision),
        }
    }

    /// What a request lacked that no rule permits, where it asks for that.
    pub(super) fn hint(&self, facts: &Facts, decision: &Decision, request: &Request) -> Option<String> {
        if !request.explain || decision.code != DecisionCode::NoRulePermits {
            return None;
        }
        let case = self.case(facts);
        match case.resolve(&request.resource) {
            (Resolved::Subject(resource), _) => explain::hint(&case.question(&resource)),
            (Resolved::Nothing, _) => None,
        }
    }
}

/// An action of the schema, with its number.
#[derive(Clone, Copy)]
pub(super) struct KnownAction<'a> {
    pub(super) index: ActionIndex,
    pub(super) action: &'a Action,
}

/// The action of a request.
pub(super) fn action<'a>(snapshot: &'a Snapshot, name: &str) -> Result<KnownAction<'a>, RequestError> {
    let found = snapshot.schema.action(name);
    let found = found.and_then(|index| Some(KnownAction { index, action: snapshot.schema.action_at(index)? }));
    let wrong = |message: String| RequestError::new(RequestErrorCode::UnknownAction, "action", message);
    match found {
        Some(KnownAction { action, .. }) if action.principals.is_empty() => {
            Err(wrong(format!("`{}` is a group of actions; ask about one of them", action.name)))
        }
        Some(found) => Ok(found),
        None => {
            let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
            let help = match nearest(name.get(..80).unwrap_or(name), snapshot.schema.action_names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the actions are {}", snapshot.schema.action_names().collect::<Vec<_>>().join(", ")),
            };
            Err(wrong(format!("no action is called `{shown}`; {help}")))
        }
    }
}

/// Whether the action takes an entity of that type there.
pub(super) fn check_type(types: &[SmolStr], uid: &EntityUid, action: &Action, param: &str) -> Result<(), RequestError> {
    if types.iter().any(|kind| kind == uid.kind()) {
        return Ok(());
    }
    let message = format!("`{}` takes a {param} of type {}, not `{}`", action.name, types.join(", "), uid.kind());
    Err(RequestError::new(RequestErrorCode::UnknownEntityType, param, message))
}

/// Who asks: the principal that rules see, and how the answer names it.
pub(super) struct Who<'a> {
    pub(super) subject: Subject,
    pub(super) principal: EntityUid,
    pub(super) key: Option<EntityUid>,
    pub(super) identity: Option<&'a Identity>,
}

impl<'a> Who<'a> {
    pub(super) fn find(
        snapshot: &Snapshot,
        additional: Option<&Additional>,
        uid: &EntityUid,
        identity: Option<&'a Arc<Identity>>,
    ) -> Result<Self, RequestError> {
        if let Some(proved) = identity.and_then(|identity| snapshot.proved(identity)) {
            let subject = Subject::Proved(proved);
            let identity = identity.map(|identity| &**identity);
            let owner = identity.and_then(|identity| identity.owner.clone());
            let (principal, key) = match owner {
                Some(owner) => (owner, Some(uid.clone())),
                None => (uid.clone(), None),
            };
            return Ok(Self { subject, principal, key, identity });
        }
        let given = additional.and_then(|additional| {
            let kind = snapshot.store.kind_of(uid.kind())?;
            additional.subject(snapshot, kind, uid.id()).cloned()
        });
        let Some(subject) = given.or_else(|| snapshot.subject(uid)) else {
            let message = format!("no entity type is called `{}`", uid.kind());
            return Err(RequestError::new(RequestErrorCode::UnknownEntityType, "principal", message));
        };
        let (principal, key) = match snapshot.owner(&subject) {
            Some(owner) => (snapshot.store.uid(owner), Some(uid.clone())),
            None => (uid.clone(), None),
        };
        Ok(Self { subject, principal, key, identity: identity.map(|identity| &**identity) })
    }
}

/// What was asked about, as far as it is anything.
pub(super) enum Resolved {
    Subject(Subject),
    Nothing,
}

impl Resolved {
    /// The entity, where there is one.
    pub(super) fn as_subject(&self) -> Option<&Subject> {
        match self {
            Self::Subject(subject) => Some(subject),
            Self::Nothing => None,
        }
    }

    /// The real name; the asked one where there is none.
    pub(super) fn uid(&self, snapshot: &Snapshot, asked: &EntityUid) -> EntityUid {
        match self {
            Self::Subject(subject) => {
                let (kind, id) = snapshot.store.name_of(subject);
                EntityUid::trusted(snapshot.store.kind_text(kind).clone(), id.clone())
            }
            Self::Nothing => asked.clone(),
        }
    }
}

/// A decision before it is worded.
pub(super) struct Verdict {
    pub(super) code: DecisionCode,
    pub(super) resource: Resolved,
    pub(super) rules: Vec<RuleReference>,
    pub(super) errors: Vec<EvaluationError>,
}

/// Everything of a request but its resource.
pub(super) struct Case<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) facts: &'a Facts,
    pub(super) principal: &'a Subject,
    pub(super) identity: Option<&'a Identity>,
    pub(super) action: ActionIndex,
    pub(super) context: &'a RequestContext,
    pub(super) additional: Option<&'a Additional>,
}

impl<'a> Case<'a> {
    /// The results of the rules for `decision` about `resource`.
    pub(super) fn explanation(&self, resource: &EntityUid, decision: &Decision) -> Explanation {
        let (Resolved::Subject(resource), _) = self.resolve(resource) else { return Explanation::default() };
        let mut explanation = explain::explain(&self.question(&resource));
        let asked = self.asked(&resource);
        if self.snapshot.admin_policies && asked.is_admin() {
            explanation.looked_at.extend(asked.traces());
        }
        if decision.is_permit() {
            explanation.hint = None;
        }
        explanation
    }

    /// The question about `resource`.
    pub(super) fn question(&self, resource: &'a Subject) -> Question<'a> {
        let Self { snapshot, facts, principal, action, context, additional, .. } = *self;
        Question { snapshot, principal, action: Some(action), resource, context, facts, additional }
    }

    /// Judges one resource.
    pub(super) fn judge(&self, resource: &EntityUid) -> Verdict {
        let snapshot = self.snapshot;
        let (resolved, refusal) = self.resolve(resource);
        let refusal = match refusal {
            _ if snapshot.may_be_disabled && snapshot.store.is_disabled(self.principal, self.facts.now) => {
                Some(DecisionCode::PrincipalDisabled)
            }
            refusal => refusal,
        };
        if let (None, Resolved::Subject(subject)) = (refusal, &resolved) {
            if let Some(forbid) = self.narrowed(subject, false).or_else(|| self.manages_nothing(subject)) {
                let (rules, errors) = (vec![forbid], Vec::new());
                return Verdict { code: DecisionCode::ForbiddenByRule, resource: resolved, rules, errors };
            }
            let evaluation = evaluate(&Case { ..*self }.question(subject));
            let (code, rules) = outcome(snapshot, &evaluation);
            let reference = |index: &RuleIndex| snapshot.reference(*index);
            if code == DecisionCode::NoRulePermits
                && let Some(rules) = self.shipped(subject)
            {
                return Verdict { code: DecisionCode::Permitted, resource: resolved, rules, errors: Vec::new() };
            }
            let error = |(index, message): &(RuleIndex, String)| EvaluationError {
                rule: reference(index),
                message: message.clone(),
            };
            return Verdict {
                code,
                rules: rules.iter().map(reference).collect(),
                errors: evaluation.errors.iter().map(error).collect(),
                resource: resolved,
            };
        }
        let code = refusal.unwrap_or(DecisionCode::NoRulePermits);
        Verdict { code, resource: resolved, rules: Vec::new(), errors: Vec::new() }
    }

    /// The question, in the form that the built-in policies take.
    fn asked<'b>(&'b self, resource: &'b Subject) -> shipped::Asked<'b> {
        let Self { snapshot, principal, action, .. } = *self;
        shipped::Asked { snapshot, principal, action, resource }
    }

    /// The policies that ship, where some permit what no rule of the bundle is about.
    fn shipped(&self, resource: &Subject) -> Option<Vec<RuleReference>> {
        let asked = self.asked(resource);
        let rules = (self.snapshot.admin_policies && asked.is_admin()).then(|| asked.permits())?;
        Some(rules).filter(|rules| !rules.is_empty())
    }

    /// A restricted key may not manage anything, even if a rule permits it. A key with a replaced secret may have been
    /// stolen.
    fn manages_nothing(&self, resource: &Subject) -> Option<RuleReference> {
        let asked = self.asked(resource);
        let action = self.snapshot.schema.action_at(self.action)?;
        if action.name == VIEW_USAGE || !asked.is_admin() {
            return None;
        }
        // For a key of the bundle, a rule of the bundle already forbids this.
        let identity = self.identity?;
        let why = if identity.replaced {
            "replaced"
        } else if identity.narrowed.is_some() || !identity.limits.is_empty() {
            "narrowed"
        } else {
            return None;
        };
        let id = format_smolstr!("key:{}:{why}", identity.principal.id());
        Some(RuleReference { id, effect: Effect::Forbid, file: "".into(), line: 0 })
    }

    /// What a key is narrowed to, where that forbids the resource, or its use through a router.
    pub(super) fn narrowed(&self, resource: &Subject, through_router: bool) -> Option<RuleReference> {
        let identity = self.identity?;
        let narrowed = identity.narrowed.as_ref()?;
        let action = self.snapshot.schema.action_at(self.action)?;
        let used =
            Use { snapshot: self.snapshot, action: &action.name, resource, through_router, context: self.context };
        narrow::forbids(narrowed, &identity.principal, &used)
    }

    /// What a resource stands for, and why it is refused before any rule is looked at.
    pub(super) fn resolve(&self, uid: &EntityUid) -> (Resolved, Option<DecisionCode>) {
        let snapshot = self.snapshot;
        let Some(kind) = snapshot.store.kind_of(uid.kind()) else {
            return (Resolved::Nothing, Some(DecisionCode::NoRulePermits));
        };
        // If the principal is also the resource, both are one entity, with the attributes from its credential.
        if snapshot.store.name_of(self.principal) == (kind, uid.id_smol()) {
            return (Resolved::Subject(self.principal.clone()), None);
        }
        let given = || self.additional?.subject(snapshot, kind, uid.id()).cloned();
        match snapshot.resource(kind, uid.id_smol()) {
            ResourceName::Resource(subject) => (Resolved::Subject(given().unwrap_or(subject)), None),
            ResourceName::Disabled(subject) => (Resolved::Subject(subject), Some(DecisionCode::ModelDisabled)),
            ResourceName::Unknown => (Resolved::Nothing, Some(DecisionCode::ModelUnknown)),
        }
    }
}

/// What an evaluation comes to, and by which rules.
pub(super) fn outcome<'a>(snapshot: &Snapshot, evaluation: &'a Evaluation) -> (DecisionCode, &'a [RuleIndex]) {
    let erred = |effect: Effect| evaluation.errors.iter().any(|(index, _)| snapshot.rule(*index).effect == effect);
    if !evaluation.forbids.is_empty() {
        (DecisionCode::ForbiddenByRule, &evaluation.forbids)
    } else if erred(Effect::Forbid) {
        (DecisionCode::Error, &[])
    } else if !evaluation.permits.is_empty() {
        (DecisionCode::Permitted, &evaluation.permits)
    } else if erred(Effect::Permit) {
        (DecisionCode::Error, &[])
    } else {
        (DecisionCode::NoRulePermits, &[])
    }
}
