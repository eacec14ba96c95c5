//! Explaining a decision: which rules were looked at, what each part of each condition came to, and what the nearest
//! rule lacked. Computed when asked for, never on the way of a decision.

use super::evaluate::{Question, Scene, matching};
use crate::model::{Effect, RuleReference, Timestamp};
use crate::policy::cedar_text::Writer;
use crate::policy::condition::{Clause, Reads, conjuncts, looked_at};
use crate::policy::index::RuleIndex;

/// Most rules that are looked through for the nearest one.
const MOST_LOOKED_THROUGH: usize = 200_000;
/// Longest value that is shown, in characters.
const SHOWN: usize = 160;

/// One part of a condition, and what it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClauseTrace {
    /// The part, as Cedar.
    pub text: String,
    /// It stands in an `unless`: it must not hold.
    pub unless: bool,
    /// What it came to; `None` where a part before it had decided already.
    pub holds: Option<Result<bool, String>>,
    /// What it looked at, and the values it saw.
    pub values: Vec<(String, String)>,
}

/// One rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTrace {
    /// The rule.
    pub rule: RuleReference,
    /// Whether it matches, or which error it raised.
    pub matches: Result<bool, String>,
    /// The parts of its condition.
    pub clauses: Vec<ClauseTrace>,
}

/// Why a request was decided as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explanation {
    /// Every rule whose scope and actions fit.
    pub looked_at: Vec<RuleTrace>,
    /// The nearest rule that would have permitted, and what it lacked.
    pub hint: Option<String>,
}

/// Explains what the rules say to `question`.
#[must_use]
pub fn explain(question: &Question<'_>) -> Explanation {
    let looked_at: Vec<RuleTrace> = matching(question).into_iter().map(|index| trace(question, index)).collect();
    let matched = |effect| looked_at.iter().any(|one: &RuleTrace| one.rule.effect == effect && one.matches == Ok(true));
    let hint = if matched(Effect::Permit) || matched(Effect::Forbid) { None } else { hint(question) };
    Explanation { looked_at, hint }
}

fn trace(question: &Question<'_>, index: RuleIndex) -> RuleTrace {
    let rule = question.snapshot.reference(index);
    let Some(condition) = question.snapshot.rule(index).condition else {
        return RuleTrace { rule, matches: Ok(true), clauses: Vec::new() };
    };
    let condition = question.snapshot.condition(condition);
    let scene = Scene::new(question, &condition.reads);
    let mut settled = false;
    let mut clauses = Vec::new();
    for clause in &condition.clauses {
        for part in parts(clause) {
            let holds = (!settled).then(|| scene.holds(part));
            settled |= holds.as_ref().is_some_and(|holds| *holds != Ok(!clause.unless));
            let values = if holds.is_some() { values(&scene, part) } else { Vec::new() };
            clauses.push(ClauseTrace { text: part.to_string(), unless: clause.unless, holds, values });
        }
    }
    RuleTrace { rule, matches: scene.holds(&condition.expression), clauses }
}

/// What a clause is made of: each conjunct of a `when`, an `unless` as a whole.
fn parts(clause: &Clause) -> Vec<&cedar_policy_core::ast::Expr> {
    if clause.unless { vec![&clause.expression] } else { conjuncts(&clause.expression) }
}

fn values(scene: &Scene, part: &cedar_policy_core::ast::Expr) -> Vec<(String, String)> {
    let shown = |expression: &cedar_policy_core::ast::Expr| {
        let value = with_times(&scene.value(expression).ok()?.to_string());
        let cut: String = value.chars().take(SHOWN).collect();
        Some((expression.to_string(), if cut.len() < value.len() { format!("{cut}…") } else { cut }))
    };
    looked_at(part).into_iter().filter_map(shown).collect()
}

/// A value as people read it: an instant, which Cedar writes as milliseconds since 1970, is one of the calendar.
fn with_times(value: &str) -> String {
    const BEFORE: &str = "datetime(\"1970-01-01\").offset(duration(\"";
    const AFTER: &str = "ms\"))";
    let mut parts = value.split(BEFORE);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let instant = part.split_once(AFTER).and_then(|(millis, rest)| Some((millis.parse().ok()?, rest)));
        match instant {
            Some((millis, rest)) => {
                let instant = Timestamp::from_millis(millis).to_string();
                // Cedar reads milliseconds with three digits, or none.
                let instant = match instant.trim_end_matches('Z').split_once('.') {
                    Some((seconds, part)) => format!("{seconds}.{part:0<3}Z"),
                    None => instant,
                };
                text.extend(["datetime(\"", &instant, "\")", rest]);
            }
            None => text.extend([BEFORE, part]),
        }
    }
    text
}

/// The nearest rule that would have permitted, and what it lacked.
pub(super) fn hint(question: &Question<'_>) -> Option<String> {
    let matching = matching(question);
    let permits = || matching.iter().filter(|index| question.snapshot.rule(**index).effect == Effect::Permit);
    let by_condition = permits().filter_map(|index| lacking(question, *index)).min_by_key(|(count, _)| *count);
    if let Some((_, text)) = by_condition {
        return Some(text);
    }
    by_scope(question)
}

/// What of its condition a rule that otherwise fits lacked.
fn lacking(question: &Question<'_>, index: RuleIndex) -> Option<(usize, String)> {
    let rule = question.snapshot.rule(index);
    let condition = question.snapshot.condition(rule.condition?);
    let mut failed = Vec::new();
    for clause in &condition.clauses {
        for part in parts(clause) {
            let scene = Scene::new(question, &Reads::of(part));
            let holds = scene.holds(part);
            if holds == Ok(!clause.unless) {
                continue;
            }
            let seen: Vec<String> =
                values(&scene, part).into_iter().map(|(name, value)| format!("{name} is {value}")).collect();
            let came_to = match (holds, clause.unless) {
                (Ok(_), true) => "holds, and must not".to_owned(),
                (Ok(_), false) => "does not hold".to_owned(),
                (Err(message), _) => format!("raises an error ({message})"),
            };
            let seen = if seen.is_empty() { String::new() } else { format!(": {}", seen.join(", ")) };
            failed.push(format!("`{part}` {came_to}{seen}"));
            break;
        }
    }
    let first = failed.first()?;
    let rule = question.snapshot.reference(index);
    Some((failed.len(), format!("{rule} would permit this, but {first}")))
}

/// What alone keeps a rule from matching; the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Distance {
    Action,
    Principal,
    Resource,
}

fn by_scope(question: &Question<'_>) -> Option<String> {
    let snapshot = question.snapshot;
    let principal = snapshot.rule_keys(question.principal);
    let resource = snapshot.rule_keys(question.resource);
    let action = question.action?;
    let mut best: Option<(Distance, RuleIndex)> = None;
    let mut seen = |index: RuleIndex| {
        let rule = snapshot.rule(index);
        if rule.effect == Effect::Forbid {
            return;
        }
        let who = snapshot.scopes.contains(rule.principal, &principal);
        let what = snapshot.scopes.contains(rule.resource, &resource);
        let does = snapshot.action_set(rule.actions).contains(action);
        let distance = match (who, what, does) {
            (true, true, false) => Distance::Action,
            (false, true, true) => Distance::Principal,
            (true, false, true) => Distance::Resource,
            _ => return,
        };
        if best.is_none_or(|known| (distance, index) < known) {
            best = Some((distance, index));
        }
    };
    let of_either = snapshot.index.of_either(&principal, &resource).take(MOST_LOOKED_THROUGH);
    of_either.for_each(&mut seen);
    let every = (0..snapshot.rules.len()).take(MOST_LOOKED_THROUGH);
    every.filter_map(|index| u32::try_from(index).ok()).map(RuleIndex).for_each(&mut seen);
    let (distance, index) = best?;
    Some(worded(question, distance, index))
}

fn worded(question: &Question<'_>, distance: Distance, index: RuleIndex) -> String {
    let snapshot = question.snapshot;
    let rule = snapshot.rule(index);
    let reference = snapshot.reference(index);
    let writer = Writer { store: &snapshot.store, scopes: &snapshot.scopes, schema: &snapshot.schema };
    let names = |subject| snapshot.store.subject_core_uid(subject).to_string();
    match distance {
        Distance::Action => {
            let action = question
                .action
                .and_then(|index| snapshot.schema.action_at(index))
                .map_or("this", |action| &action.name);
            format!(
                "{reference} permits {} there, not {action}",
                writer.action_names(snapshot.action_set(rule.actions))
            )
        }
        Distance::Principal => format!(
            "{reference} permits this for {}, which {} is not",
            writer.principal_words(rule.principal),
            names(question.principal)
        ),
        Distance::Resource => format!(
            "{reference} permits this on {}, which {} is not",
            writer.resource_words(rule.resource),
            names(question.resource)
        ),
    }
}
