//! Validation by Cedar: strictly, against the schema, once for each distinct shape of rule and not once for each rule.
//!
//! Two rules have the same shape where they differ only in which entities of the same types they name: what Cedar's
//! validator says of one, it says of the other.

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy_core::ast::{BinaryOp, Expr, ExprKind, PolicyID, PolicySet};
use cedar_policy_core::validator::{ValidationError, ValidationMode, ValidationWarning};
use foldhash::fast::RandomState;
use miette::Diagnostic;
use parking_lot::{Mutex, MutexGuard};
use smol_str::SmolStr;

use super::any_of::opposite_bounds;
use super::cedar_text::Writer;
use super::condition::{Clause, Condition, conjuncts, is_limits};
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

/// What was found for shapes so far; kept from load to load, and used by every thread.
#[derive(Debug, Default)]
pub struct ValidationCache {
    known: Mutex<HashMap<Shape, Arc<[ShapeProblem]>>>,
}

impl ValidationCache {
    fn lock(&self) -> MutexGuard<'_, HashMap<Shape, Arc<[ShapeProblem]>>> {
        self.known.lock()
    }

    /// Forgets everything once it has become much: texts that are edited leave theirs behind.
    pub fn tidy(&self) {
        const KEPT: usize = 100_000;
        let mut known = self.lock();
        if known.len() > KEPT {
            known.clear();
        }
    }
}

/// Cedar's validator against one schema, and what it found so far.
pub struct Checker<'a> {
    cache: &'a ValidationCache,
    schema: &'a BundleSchema,
    validator: cedar_policy_core::validator::Validator,
}

impl<'a> Checker<'a> {
    /// A validator against `schema`.
    pub fn new(cache: &'a ValidationCache, schema: &'a BundleSchema) -> Self {
        Self { cache, schema, validator: cedar_policy_core::validator::Validator::new(schema.core().clone()) }
    }
}

/// Effect, and the numbers of both scopes' shapes, of the actions and of the condition.
type LocalShape = (Effect, u32, u32, u32, u32);

/// Validates rules of one file.
pub struct Validation<'a> {
    checker: &'a Checker<'a>,
    /// Within this file, findings by the numbers of what makes a shape.
    local: HashMap<LocalShape, Arc<[ShapeProblem]>, RandomState>,
    /// The numbers of the shapes of scopes, in this file.
    shapes: HashMap<ScopeShape, u32, RandomState>,
    /// The number of each scope's shape, once it is known.
    of_scopes: Vec<Option<u32>>,
}

impl<'a> Validation<'a> {
    /// A validation by `checker`.
    pub fn new(checker: &'a Checker<'a>) -> Self {
        Self { checker, local: HashMap::default(), shapes: HashMap::default(), of_scopes: Vec::new() }
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
        let number = condition.and(rule.condition).map_or(u32::MAX, |index| index.0);
        let principal = self.shape_number(scopes, store, rule.principal);
        let resource = self.shape_number(scopes, store, rule.resource);
        let key = (rule.effect, principal, resource, rule.actions.0, number);
        if let Some(known) = self.local.get(&key) {
            return Arc::clone(known);
        }
        let reduced = Rule {
            principal: reduce(scopes, store, rule.principal),
            resource: reduce(scopes, store, rule.resource),
            ..rule.clone()
        };
        let shape = Shape {
            schema: self.checker.schema.key,
            effect: rule.effect,
            principal: shape_of(scopes, store, rule.principal),
            resource: shape_of(scopes, store, rule.resource),
            actions: actions.clone(),
            clauses: condition
                .map_or(&[] as &[Clause], |condition| &condition.clauses)
                .iter()
                .map(|clause| (clause.unless, clause.text.clone()))
                .collect(),
        };
        let known = self.checker.cache.lock().get(&shape).cloned();
        let found = known.unwrap_or_else(|| {
            let writer = Writer { store, scopes, schema: self.checker.schema };
            let found: Arc<[ShapeProblem]> = self.checker.validate(writer, &reduced, actions, condition).into();
            self.checker.cache.lock().insert(shape, Arc::clone(&found));
            found
        });
        self.local.insert(key, Arc::clone(&found));
        found
    }

    /// The number of the scope's shape.
    fn shape_number(&mut self, scopes: &Scopes, store: &EntityStore, index: ScopeIndex) -> u32 {
        let at = index.0 as usize;
        if let Some(Some(known)) = self.of_scopes.get(at) {
            return *known;
        }
        let next = source::number(self.shapes.len());
        let found = *self.shapes.entry(shape_of(scopes, store, index)).or_insert(next);
        self.of_scopes.resize(self.of_scopes.len().max(scopes.len()), None);
        self.of_scopes.iter_mut().skip(at).take(1).for_each(|slot| *slot = Some(found));
        found
    }
}

impl Checker<'_> {
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
        // Cedar tells the same mistake once for each type that a principal or resource may have, in no fixed order.
        let mut told: Vec<ShapeProblem> = Vec::new();
        for error in result.validation_errors() {
            let place = locate(error);
            let clause = place.and_then(|(clause, ..)| clauses.get(clause));
            let snippet = place.zip(clause).and_then(|((_, at, length), clause)| clause.text.get(at..at + length));
            told.push(ShapeProblem { clause: place, ..of_error(error, snippet, clause, rule.effect, self.schema) });
        }
        told.sort_by(|left, right| (left.clause, &left.message).cmp(&(right.clause, &right.message)));
        told.dedup_by(|right, left| left.clause == right.clause && left.code == right.code);
        let mut found = told;
        if found.is_empty() {
            found.extend(result.validation_warnings().find_map(of_warning));
        }
        if found.is_empty() && rule.effect == Effect::Forbid {
            found.extend(guarded(clauses));
            found.extend(opposite_bounds(clauses));
        }
        found
    }
}

fn whole(code: ProblemCode, message: String, help: Option<String>) -> ShapeProblem {
    ShapeProblem { severity: Severity::Error, code, message, help, clause: None }
}

/// A clause as help shows it: as it is written, or as Cedar prints it where that takes lines or holds a comment.
pub(super) fn one_line(clause: &Clause) -> String {
    let text = clause.text.trim();
    let plain = !text.contains('\n') && !text.contains("//");
    if plain { text.to_owned() } else { clause.expression.to_string() }
}

/// The clause, in parentheses if needed, so that another one can follow it with `&&`.
pub(super) fn grouped(clause: &Clause) -> String {
    in_group(&clause.expression, one_line(clause))
}

fn in_group(expression: &Expr, text: String) -> String {
    match expression.expr_kind() {
        ExprKind::Or { .. } | ExprKind::If { .. } => format!("({text})"),
        _ => text,
    }
}

/// Longest condition that a help shows with its mistake mended, in bytes.
const MOST_SHOWN: usize = 500;

/// How to ask for a member before it is read: a condition that can take the place of `clause`, in which a request without
/// the member is refused.
fn ask_first(guard: &str, clause: Option<&Clause>, effect: Effect) -> String {
    let Some(clause) = clause.filter(|clause| clause.text.len() <= MOST_SHOWN) else {
        return format!("check first whether it is present (`{guard}`), and state the meaning of its absence");
    };
    let refused_where_it_holds = (effect == Effect::Forbid) != clause.unless;
    if refused_where_it_holds {
        let rest = one_line(clause);
        return format!(
            "state the meaning of an absent member; to refuse the request: `if {guard} then {rest} else \
                        true`"
        );
    }
    format!("ask first: `{guard} && {}`", grouped(clause))
}

/// Converts a validation error. `snippet` is the text that it points at, `clause` the condition that contains it.
#[must_use]
pub fn of_error(
    error: &ValidationError,
    snippet: Option<&str>,
    clause: Option<&Clause>,
    effect: Effect,
    schema: &BundleSchema,
) -> ShapeProblem {
    let message = bare(&error.to_string());
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
        _ => error.help().map(|help| bare(&help.to_string())),
    };
    if matches!(error, ValidationError::UnsafeOptionalAttributeAccess(_))
        && let Some((owner, member)) = snippet.and_then(|snippet| optional_member(snippet, &message))
    {
        let shown = if member.starts_with('"') { format!("{owner}[{member}]") } else { format!("{owner}.{member}") };
        let fixed = ask_first(&format!("{owner} has {member}"), clause, effect);
        return whole(ProblemCode::UnguardedMember, format!("`{shown}` may be absent"), Some(fixed));
    }
    if matches!(error, ValidationError::UnsafeOptionalAttributeAccess(_)) {
        let help = "check with `has` whether it is present before it is read";
        return whole(ProblemCode::UnguardedMember, message, Some(help.to_owned()));
    }
    if matches!(error, ValidationError::UnsafeTagAccess(_)) {
        let help = "ask first: `context.metadata.hasTag(\"env\") && context.metadata.getTag(\"env\") == \"prod\"`";
        return whole(ProblemCode::UnguardedMember, message, Some(help.to_owned()));
    }
    whole(ProblemCode::ConditionType, message, cedar_help)
}

/// What is read of what: Cedar's message names the member, and the text before it is its owner.
fn optional_member<'a>(snippet: &'a str, message: &'a str) -> Option<(&'a str, &'a str)> {
    // What an id with other characters than a name's is read by.
    if let Some((owner, quoted)) = snippet.strip_suffix(']').and_then(|inner| inner.rsplit_once('['))
        && quoted.starts_with('"')
    {
        return Some((owner, quoted));
    }
    let named = message.split('`').nth(1)?;
    if let Some((_, quoted)) = named.strip_suffix(']').and_then(|inner| inner.rsplit_once('['))
        && quoted.starts_with('"')
    {
        let at = snippet.find(&format!("[{quoted}]"))?;
        return Some((snippet.get(..at)?, quoted));
    }
    let member = named.rsplit('.').next()?;
    let dotted = snippet
        .match_indices(member)
        .map(|(at, _)| at)
        .find(|at| snippet.get(..*at).is_some_and(|before| before.ends_with('.')));
    // Cedar's message has a point also where the text has brackets.
    let before = match dotted {
        Some(at) => at - 1,
        None => snippet.find(&format!("[\"{member}\"]"))?,
    };
    Some((snippet.get(..before)?, member))
}

fn did_you_mean(name: &str, known: &[String]) -> Option<String> {
    nearest(name, known.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"))
}

/// Cedar's message without its name for the policy, which is none that a person gave it, and without whichever action it
/// came to first.
pub(super) fn bare(message: &str) -> String {
    let rest = message.strip_prefix("for policy `").and_then(|rest| rest.split_once('`'));
    let rest = rest.and_then(|(_, rest)| rest.strip_prefix(", ").or_else(|| rest.strip_prefix(": ")));
    let message = rest.unwrap_or(message);
    match message.split_once(" in context for Action::\"") {
        Some((before, after)) => {
            let after = after.split_once('"').map_or("", |(_, after)| after);
            format!("{before} in context{after}")
        }
        None => message.to_owned(),
    }
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
        let parts = conjuncts(&clause.expression);
        for (position, part) in parts.iter().enumerate() {
            let guards = match part.expr_kind() {
                // A limit that does not apply cannot be what keeps a request out.
                ExprKind::HasAttr { expr, .. } | ExprKind::ExtHasAttr { expr, .. } => {
                    !is_limits(expr) && expr.to_string().starts_with("context")
                }
                ExprKind::BinaryApp { op: BinaryOp::HasTag, arg1, .. } => arg1.to_string().starts_with("context"),
                _ => false,
            };
            if guards {
                found.push(ShapeProblem {
                    severity: Severity::Warning,
                    code: ProblemCode::GuardedForbid,
                    message: format!("a request for which `{part}` is false passes this forbid"),
                    help: Some(refused_too(&parts, position)),
                    clause: Some((number, 0, clause.text.len())),
                });
                break;
            }
        }
    }
    found
}

/// How to write a forbid so that it also refuses requests that the guard at `position` excludes.
fn refused_too(parts: &[&Expr], position: usize) -> String {
    let joined =
        |parts: &[&Expr]| parts.iter().map(|part| in_group(part, part.to_string())).collect::<Vec<_>>().join(" && ");
    let guard = joined(parts.get(position..=position).unwrap_or_default());
    let before = joined(parts.get(..position).unwrap_or_default());
    let after = joined(parts.get(position + 1..).unwrap_or_default());
    if after.is_empty() {
        return format!("to refuse it too, leave `{guard}` out");
    }
    let asked = format!("if {guard} then {after} else true");
    let fixed = if before.is_empty() { asked } else { format!("{before} && ({asked})") };
    if fixed.len() > MOST_SHOWN {
        return "to refuse it too, state the meaning of an absent member with `if`, `then` and `else true`".to_owned();
    }
    format!("to refuse it too, write `{fixed}`")
}

/// The scope with one entity of each type instead of all: the representative of its shape.
fn reduce(scopes: &mut Scopes, store: &EntityStore, index: ScopeIndex) -> ScopeIndex {
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
    scopes.scope(clauses)
}

/// What alternatives of each kind there are, each kind once.
fn shape_of(scopes: &Scopes, store: &EntityStore, index: ScopeIndex) -> ScopeShape {
    let shape_of = |clause: &[KeyIndex]| {
        let mut shapes: Vec<_> = clause.iter().map(|key| key_shape(scopes, store, *key)).collect();
        shapes.sort_unstable();
        shapes.dedup();
        shapes
    };
    scopes.scope_at(index).map(shape_of).collect()
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
