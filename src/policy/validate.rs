//! Validation by Cedar: strictly, against the schema, once for each distinct shape of rule and not once for each rule.
//!
//! Two rules have the same shape where they differ only in which entities of the same types they name: what Cedar's
//! validator says of one, it says of the other.

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy_core::ast::{BinaryOp, ExprKind, PolicyID, PolicySet};
use cedar_policy_core::validator::{ValidationError, ValidationMode, ValidationWarning};
use miette::Diagnostic;
use smol_str::SmolStr;

use super::cedar_text::Writer;
use super::condition::{Clause, Condition, conjuncts};
use super::entities::{EntityStore, Kind};
use super::index::{Key, KeyIndex, ScopeIndex, Scopes};
use super::problem::{ProblemCode, Severity, nearest};
use super::schema::{ActionSet, BundleSchema};
use super::snapshot::Rule;
use super::source;
use crate::model::Effect;

/// What Cedar finds wrong with every rule of a shape.
#[derive(Debug, Clone)]
pub struct ShapeProblem {
    /// Error or warning.
    pub severity: Severity,
    /// Which kind.
    pub code: ProblemCode,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
    /// Which clause of the condition, and the bytes of its text; `None` where it is about the rule as a whole.
    pub clause: Option<(usize, usize, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum KeyShape {
    Any,
    Is(Kind),
    In(Kind),
    Eq(Kind),
    Tag,
    Role,
    Matching,
}

type ScopeShape = Vec<Vec<KeyShape>>;

/// What makes a shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Shape {
    schema: u64,
    effect: Effect,
    principal: ScopeShape,
    resource: ScopeShape,
    actions: ActionSet,
    clauses: Vec<(bool, SmolStr)>,
}

/// What was found for shapes so far; kept from load to load.
#[derive(Debug, Default)]
pub struct ValidationCache {
    known: HashMap<Shape, Arc<[ShapeProblem]>>,
}

/// Validates rules of one bundle.
pub struct Validation<'a> {
    cache: &'a mut ValidationCache,
    schema: &'a BundleSchema,
    validator: cedar_policy_core::validator::Validator,
    /// Within this load, shapes by the numbers of their parts.
    local: HashMap<(Effect, ScopeIndex, ScopeIndex, u32, u32), Arc<[ShapeProblem]>>,
    reduced: HashMap<ScopeIndex, ScopeIndex>,
}

impl<'a> Validation<'a> {
    /// A validation against `schema`.
    pub fn new(cache: &'a mut ValidationCache, schema: &'a BundleSchema) -> Self {
        let validator = cedar_policy_core::validator::Validator::new(schema.core().clone());
        Self { cache, schema, validator, local: HashMap::new(), reduced: HashMap::new() }
    }

    /// What is wrong with `rule`, which has these actions and this condition.
    pub fn rule(
        &mut self,
        scopes: &mut Scopes,
        store: &EntityStore,
        rule: &Rule,
        actions: &ActionSet,
        condition: Option<&Condition>,
    ) -> Arc<[ShapeProblem]> {
        let reduced = Rule {
            principal: self.reduce(scopes, store, rule.principal),
            resource: self.reduce(scopes, store, rule.resource),
            ..rule.clone()
        };
        let number = condition.and(rule.condition).map_or(u32::MAX, |index| index.0);
        let key = (rule.effect, reduced.principal, reduced.resource, rule.actions.0, number);
        if let Some(known) = self.local.get(&key) {
            return Arc::clone(known);
        }
        let shape = Shape {
            schema: self.schema.key,
            effect: rule.effect,
            principal: shape_of(scopes, store, reduced.principal),
            resource: shape_of(scopes, store, reduced.resource),
            actions: actions.clone(),
            clauses: condition
                .map_or(&[] as &[Clause], |condition| &condition.clauses)
                .iter()
                .map(|clause| (clause.unless, clause.text.clone()))
                .collect(),
        };
        let found = match self.cache.known.get(&shape) {
            Some(known) => Arc::clone(known),
            None => {
                let writer = Writer { store, scopes, schema: self.schema };
                let found: Arc<[ShapeProblem]> = self.validate(writer, &reduced, actions, condition).into();
                self.cache.known.insert(shape, Arc::clone(&found));
                found
            }
        };
        self.local.insert(key, Arc::clone(&found));
        found
    }

    /// The scope with one entity of each type instead of all: the representative of its shape.
    fn reduce(&mut self, scopes: &mut Scopes, store: &EntityStore, index: ScopeIndex) -> ScopeIndex {
        if let Some(known) = self.reduced.get(&index) {
            return *known;
        }
        let mut clauses: Vec<Vec<KeyIndex>> = Vec::new();
        for clause in scopes.scope_at(index) {
            let mut kept: Vec<(KeyShape, KeyIndex)> = Vec::new();
            for key in clause {
                let shape = key_shape(scopes, store, *key);
                if !kept.iter().any(|(known, _)| *known == shape) {
                    kept.push((shape, *key));
                }
            }
            clauses.push(kept.into_iter().map(|(_, key)| key).collect());
        }
        let reduced = scopes.scope(clauses);
        self.reduced.insert(index, reduced);
        reduced
    }

    fn validate(
        &self,
        writer: Writer<'_>,
        rule: &Rule,
        actions: &ActionSet,
        condition: Option<&Condition>,
    ) -> Vec<ShapeProblem> {
        let written = writer.policy(rule, actions, condition);
        let clauses = condition.map_or(&[] as &[Clause], |condition| &condition.clauses);
        let locate = |error: &dyn Diagnostic| -> Option<(usize, usize, usize)> {
            let (offset, length) = source::label_of(error)?;
            let clause = written.clauses.iter().rposition(|start| *start <= offset)?;
            let start = written.clauses.get(clause)?;
            let text = &clauses.get(clause)?.text;
            (offset - start < text.len()).then(|| (clause, offset - start, length))
        };
        let mut set = PolicySet::new();
        let policy = cedar_policy_core::parser::parse_policy(Some(PolicyID::from_string("rule")), &written.text);
        match policy.map(|policy| set.add_static(policy)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return vec![whole(ProblemCode::CedarValidation, error.to_string(), None)],
            Err(error) => return vec![whole(ProblemCode::CedarSyntax, error.to_string(), None)],
        }
        let result = self.validator.validate(&set, ValidationMode::Strict);
        let mut found: Vec<ShapeProblem> = Vec::new();
        // Cedar's own order is that of a hash table.
        let mut errors: Vec<(String, &ValidationError)> =
            result.validation_errors().map(|error| (error.to_string(), error)).collect();
        errors.sort_by(|left, right| left.0.cmp(&right.0));
        for (_, error) in errors {
            let place = locate(error);
            let snippet =
                place.and_then(|(clause, offset, length)| clauses.get(clause)?.text.get(offset..offset + length));
            let problem = ShapeProblem { clause: place, ..of_error(error, snippet, rule.effect, self.schema) };
            // The same mistake is found once for each type that a principal or resource may have.
            if !found.iter().any(|known| known.clause == problem.clause && known.code == problem.code) {
                found.push(problem);
            }
        }
        if found.is_empty() {
            found.extend(result.validation_warnings().filter_map(of_warning));
        }
        if found.is_empty() && rule.effect == Effect::Forbid {
            found.extend(guarded(clauses));
        }
        found
    }
}

fn whole(code: ProblemCode, message: String, help: Option<String>) -> ShapeProblem {
    ShapeProblem { severity: Severity::Error, code, message, help, clause: None }
}

/// A validation error in our words.
#[must_use]
pub fn of_error(error: &ValidationError, snippet: Option<&str>, effect: Effect, schema: &BundleSchema) -> ShapeProblem {
    let cedar_help = match error {
        // Of names that are equally far, or far from all, Cedar proposes whichever it comes upon first.
        ValidationError::UnrecognizedActionId(unknown) => {
            let known: Vec<String> = schema.actions().map(|(_, action)| action.uid.to_string()).collect();
            did_you_mean(&unknown.actual_action_id, &known)
        }
        ValidationError::UnrecognizedEntityType(unknown) => {
            let known: Vec<String> = schema.core().entity_type_names().map(ToString::to_string).collect();
            did_you_mean(&unknown.actual_entity_type, &known)
        }
        _ => error.help().map(|help| help.to_string()),
    };
    if matches!(error, ValidationError::UnsafeOptionalAttributeAccess(_))
        && let Some(snippet) = snippet
        && let Some((owner, member)) = snippet.rsplit_once('.')
    {
        let fixed = match effect {
            Effect::Permit => format!("ask first: `{owner} has {member} && {snippet} …`"),
            Effect::Forbid => {
                format!(
                    "say what an absent member means; to refuse it: `if {owner} has {member} then {snippet} … else true`"
                )
            }
        };
        return whole(ProblemCode::UnguardedMember, format!("`{snippet}` may be absent"), Some(fixed));
    }
    if matches!(error, ValidationError::UnsafeTagAccess(_)) {
        let help = "ask first: `context.metadata.hasTag(\"env\") && context.metadata.getTag(\"env\") == \"prod\"`";
        return whole(ProblemCode::UnguardedMember, bare(&error.to_string()), Some(help.to_owned()));
    }
    whole(ProblemCode::ConditionType, bare(&error.to_string()), cedar_help)
}

fn did_you_mean(name: &str, known: &[String]) -> Option<String> {
    nearest(name, known.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"))
}

/// Cedar's message without its name for the policy, which is none that a person gave it.
pub(super) fn bare(message: &str) -> String {
    let rest = message.strip_prefix("for policy `").and_then(|rest| rest.split_once('`'));
    let rest = rest.and_then(|(_, rest)| rest.strip_prefix(", ").or_else(|| rest.strip_prefix(": ")));
    rest.unwrap_or(message).to_owned()
}

fn of_warning(warning: &ValidationWarning) -> Option<ShapeProblem> {
    match warning {
        ValidationWarning::ImpossiblePolicy(_) => Some(whole(
            ProblemCode::NeverMatches,
            "this rule can never match: its condition is never true".to_owned(),
            Some("leave the rule out, or mend its condition".to_owned()),
        )),
        ValidationWarning::InvalidActionApplication(_) => Some(whole(
            ProblemCode::NeverMatches,
            "this rule can never match: none of its actions applies to what it names".to_owned(),
            Some("`use` actions (chat, embed …) apply to models and routers, `admin` actions to orgs, teams, users and services".to_owned()),
        )),
        _ => None,
    }
}

/// The parts of a forbid that let an absent member pass.
fn guarded(clauses: &[Clause]) -> Vec<ShapeProblem> {
    let mut found = Vec::new();
    for (number, clause) in clauses.iter().enumerate().filter(|(_, clause)| !clause.unless) {
        for part in conjuncts(&clause.expression) {
            let guards = match part.expr_kind() {
                ExprKind::HasAttr { expr, .. } | ExprKind::ExtHasAttr { expr, .. } => {
                    expr.to_string().starts_with("context")
                }
                ExprKind::BinaryApp { op: BinaryOp::HasTag, arg1, .. } => arg1.to_string().starts_with("context"),
                _ => false,
            };
            if guards {
                found.push(ShapeProblem {
                    severity: Severity::Warning,
                    code: ProblemCode::GuardedForbid,
                    message: format!("a request for which `{part}` is false passes this forbid"),
                    help: Some(format!(
                        "to refuse it too, write `if {part} then … else true` instead of `{part} && …`"
                    )),
                    clause: Some((number, 0, clause.text.len())),
                });
                break;
            }
        }
    }
    found
}

fn shape_of(scopes: &Scopes, store: &EntityStore, index: ScopeIndex) -> ScopeShape {
    scopes
        .scope_at(index)
        .iter()
        .map(|clause| {
            let mut shapes: Vec<_> = clause.iter().map(|key| key_shape(scopes, store, *key)).collect();
            shapes.sort_unstable();
            shapes
        })
        .collect()
}

fn key_shape(scopes: &Scopes, store: &EntityStore, key: KeyIndex) -> KeyShape {
    match scopes.key_at(key) {
        Key::Any | Key::OneOf(_) => KeyShape::Any,
        Key::Is(kind) => KeyShape::Is(*kind),
        Key::In(entity) => KeyShape::In(store.record(*entity).kind),
        Key::Eq(entity) => KeyShape::Eq(store.record(*entity).kind),
        Key::Tag(_) => KeyShape::Tag,
        Key::Role(_) => KeyShape::Role,
        Key::Matching(_) => KeyShape::Matching,
    }
}
