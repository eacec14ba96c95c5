//! Evaluation: of the rules whose scope matches, the conditions, by Cedar. Nothing that a rule list's length changes.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;

use cedar_policy_core::ast::{
    Entity, EntityUID, EntityUIDEntry, Expr, Literal, PartialValue, Request as CedarRequest, SlotEnv, Value, ValueKind,
};
use cedar_policy_core::entities::{Dereference, Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;
use smol_str::SmolStr;

use super::additional::Additional;
use super::context::RequestContext;
use crate::model::{Effect, Facts};
use crate::policy::condition::Reads;
use crate::policy::entities::Subject;
use crate::policy::index::RuleIndex;
use crate::policy::schema::ActionIndex;
use crate::policy::snapshot::Snapshot;

/// Stack that Cedar's evaluator wants free at any time, and what it takes for each level of an expression.
/// It answers "recursion limit reached" below that, and a forbid that errs must not depend on whose thread decides.
/// Unoptimised code takes about 32 KiB a level, optimised code 8.
const STACK_BASE: usize = 256 * 1024;
const STACK_PER_LEVEL: usize = if cfg!(debug_assertions) { 96 * 1024 } else { 24 * 1024 };

/// A request, resolved against a snapshot.
#[derive(Debug)]
pub struct Question<'a> {
    /// What decides.
    pub snapshot: &'a Snapshot,
    /// Who.
    pub principal: &'a Subject,
    /// Does what; `None` for an action that the schema does not have.
    pub action: Option<ActionIndex>,
    /// With what.
    pub resource: &'a Subject,
    /// The circumstances.
    pub context: &'a RequestContext,
    /// What Tollgate knows.
    pub facts: &'a Facts,
    /// Entities that the request brought along.
    pub additional: Option<&'a Additional>,
}

/// What the rules say to a request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// Permits that match.
    pub permits: Vec<RuleIndex>,
    /// Forbids that match.
    pub forbids: Vec<RuleIndex>,
    /// Rules that raised an error, and which.
    pub errors: Vec<(RuleIndex, String)>,
}

/// Looks at every rule that can match, and at no other.
#[must_use]
pub fn evaluate(question: &Question<'_>) -> Evaluation {
    let matching = matching(question);
    let mut found = Evaluation::default();
    let mut conditional = Vec::new();
    let mut reads: Option<Reads> = None;
    for index in matching {
        match question.snapshot.rule(index).condition {
            None => found.put(question.snapshot, index),
            Some(condition) => {
                let condition = question.snapshot.condition(condition);
                match &mut reads {
                    Some(reads) => reads.add(&condition.reads),
                    None => reads = Some(condition.reads.clone()),
                }
                conditional.push((index, condition));
            }
        }
    }
    if let Some(reads) = reads {
        let scene = Scene::new(question, &reads);
        for (index, condition) in conditional {
            match scene.holds(&condition.expression) {
                Ok(true) => found.put(question.snapshot, index),
                Ok(false) => {}
                Err(message) => found.errors.push((index, message)),
            }
        }
    }
    found.permits.sort_unstable();
    found.forbids.sort_unstable();
    found
}

impl Evaluation {
    fn put(&mut self, snapshot: &Snapshot, index: RuleIndex) {
        match snapshot.rule(index).effect {
            Effect::Permit => self.permits.push(index),
            Effect::Forbid => self.forbids.push(index),
        }
    }
}

/// The rules whose scope and actions fit, each once, in the order of the bundle.
pub(super) fn matching(question: &Question<'_>) -> Vec<RuleIndex> {
    let Question { snapshot, principal, resource, action, .. } = question;
    let principal = snapshot.rule_keys(principal);
    let resource = snapshot.rule_keys(resource);
    let mut found = Vec::with_capacity(8);
    snapshot.index.candidates(&principal, &resource, |index| found.push(index));
    // Of a million rules none is in the cache: this fetches all of them at once and not one by one.
    black_box(found.iter().fold(0, |all, index| all ^ snapshot.rule(*index).actions.0));
    found.retain(|index| {
        let rule = snapshot.rule(*index);
        action.is_some_and(|action| snapshot.action_set(rule.actions).contains(action))
            && (rule.exact
                || snapshot.scopes.contains(rule.principal, &principal)
                    && snapshot.scopes.contains(rule.resource, &resource))
    });
    found.sort_unstable();
    found.dedup();
    found
}

/// What Cedar is shown of one request: only what the conditions read.
pub(super) struct Scene {
    request: CedarRequest,
    entities: Entities,
    depth: usize,
}

impl Scene {
    pub(super) fn new(question: &Question<'_>, reads: &Reads) -> Self {
        let store = &question.snapshot.store;
        let context = question.context.to_cedar(question.facts, reads.members);
        let entities = Self::entities(question, reads, &context);
        let known = |uid: EntityUID| EntityUIDEntry::Known { euid: Arc::new(uid), loc: None };
        let action = question.action.and_then(|index| question.snapshot.schema.action_at(index));
        let action = match action {
            Some(action) => EntityUIDEntry::Known { euid: Arc::clone(&action.uid), loc: None },
            // Reached only where a schema is not enforced; no rule names such an action.
            None => known(store.subject_core_uid(question.principal)),
        };
        let request = CedarRequest::new_unchecked(
            known(store.subject_core_uid(question.principal)),
            action,
            known(store.subject_core_uid(question.resource)),
            Some(context),
        );
        Self { request, entities, depth: reads.depth }
    }

    /// The entities that the conditions can reach: the principal and the resource, entities named in the text or the
    /// context, and from all of them as many steps along attributes as a condition takes.
    fn entities(question: &Question<'_>, reads: &Reads, context: &cedar_policy_core::ast::Context) -> Entities {
        let Question { snapshot, principal, resource, .. } = question;
        let mut list: Vec<Arc<Entity>> = Vec::with_capacity(2);
        if reads.principal {
            list.push(snapshot.store.materialize(principal));
        }
        // Cedar has one entity for each uid. A principal that is also the resource therefore has its proved attributes
        // in both places.
        let is_principal = || snapshot.store.name_of(principal) == snapshot.store.name_of(resource);
        if reads.resource && !(reads.principal && is_principal()) {
            list.push(snapshot.store.materialize(if is_principal() { principal } else { resource }));
        }
        if let (true, Some(action)) = (reads.action, question.action.and_then(|index| snapshot.schema.action_at(index)))
            && let Dereference::Data(entity) = snapshot.schema.action_entities.entity(&action.uid)
        {
            list.push(Arc::new(entity.clone()));
        }
        if reads.members.has("metadata")
            && !reads.members.is_empty()
            && let Some(metadata) = question.context.metadata()
        {
            list.push(metadata);
        }
        let mut next: Vec<EntityUID> = reads.literals.iter().map(|uid| uid.as_ref().clone()).collect();
        if let (RequestContext::Native(_), cedar_policy_core::ast::Context::Value(members)) =
            (question.context, context)
        {
            next.extend(members.values().flat_map(Value::all_literal_uids));
        }
        let mut from = 0;
        let mut seen: HashSet<EntityUID> = HashSet::new();
        for _ in 0..=reads.steps {
            let attributes = list.get(from..).unwrap_or_default().iter().flat_map(|entity| named_by(entity));
            next.extend(attributes.collect::<Vec<_>>());
            // Nearly every condition names no entity, and Tollgate's own types have no attribute that does.
            if next.is_empty() {
                break;
            }
            seen.extend(list.iter().skip(from).map(|entity| entity.uid().clone()));
            from = list.len();
            for uid in next.drain(..) {
                if seen.contains(&uid) {
                    continue;
                }
                if let Some(entity) = find(question, &uid) {
                    list.push(entity);
                }
                seen.insert(uid);
            }
            if from == list.len() {
                break;
            }
        }
        Entities::new()
            .add_entities(
                list,
                None::<&NoEntitiesSchema>,
                TCComputation::AssumeAlreadyComputed,
                Extensions::all_available(),
            )
            .unwrap_or_default()
    }

    /// Whether `expression` is true.
    pub(super) fn holds(&self, expression: &Expr) -> Result<bool, String> {
        match self.value(expression)?.value_kind() {
            ValueKind::Lit(Literal::Bool(holds)) => Ok(*holds),
            // Reached only by policies that were never validated.
            other => Err(format!("type error: a condition must be true or false, not {other}")),
        }
    }

    /// What `expression` comes to.
    pub(super) fn value(&self, expression: &Expr) -> Result<Value, String> {
        let needed = STACK_BASE + self.depth * STACK_PER_LEVEL;
        stacker::maybe_grow(needed, needed * 2, || {
            let evaluator = Evaluator::new(self.request.clone(), &self.entities, Extensions::all_available());
            evaluator.interpret(expression, &SlotEnv::new()).map_err(|error| error.to_string())
        })
    }
}

/// The entities that an entity's attributes and tags name. Tollgate's own types name none.
fn named_by(entity: &Entity) -> Vec<EntityUID> {
    let values = entity.attrs().chain(entity.tags()).filter_map(|(_, value)| match value {
        PartialValue::Value(value) => Some(value),
        PartialValue::Residual(_) => None,
    });
    values.filter(|value| may_name(value)).flat_map(Value::all_literal_uids).collect()
}

/// A cheap look before the costly one: most values are texts, numbers, and sets of texts.
fn may_name(value: &Value) -> bool {
    match value.value_kind() {
        ValueKind::Lit(Literal::EntityUID(_)) | ValueKind::Record(_) => true,
        ValueKind::Set(set) => set.iter().next().is_some_and(may_name),
        _ => false,
    }
}

/// The entity that a condition reaches under this uid: one that the request itself brings, or one of the bundle. Whether
/// another rule reads the principal must not change what this one sees of it.
fn find(question: &Question<'_>, uid: &EntityUID) -> Option<Arc<Entity>> {
    let Question { snapshot, principal, resource, context, .. } = question;
    if let Some(entity) = question.additional.and_then(|additional| additional.entity(snapshot, uid)) {
        return Some(entity);
    }
    if uid.is_action() {
        return match snapshot.schema.action_entities.entity(uid) {
            Dereference::Data(entity) => Some(Arc::new(entity.clone())),
            _ => None,
        };
    }
    let kind = snapshot.store.kind_of(&uid.entity_type().to_string())?;
    let id = SmolStr::new(uid.eid());
    let asked = [principal, resource].into_iter().find(|subject| snapshot.store.name_of(subject) == (kind, &id));
    if let Some(subject) = asked {
        return Some(snapshot.store.materialize(subject));
    }
    let known = snapshot.store.find(kind, &id).filter(|index| snapshot.store.exists(*index));
    known
        .map(|index| snapshot.store.materialize(&Subject::Known(index)))
        .or_else(|| context.metadata().filter(|metadata| metadata.uid() == uid))
}
