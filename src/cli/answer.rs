//! Answers as they are written: the JSON has the members that `POST /is_authorized` answers with, but for `id`.

use serde::Serialize;

use super::output::{Paint, shown};
use crate::gate::{ClauseTrace, Explanation, RuleTrace};
use crate::model::{Decision, EntityUid, EvaluationError, RuleReference};

#[derive(Serialize)]
struct Uid<'a> {
    r#type: &'a str,
    id: &'a str,
}

#[derive(Serialize)]
struct Rule<'a> {
    id: &'a str,
    effect: &'static str,
    file: &'a str,
    line: u32,
}

#[derive(Serialize)]
struct Raised<'a> {
    rule: Rule<'a>,
    message: &'a str,
}

#[derive(Serialize)]
struct Answer<'a> {
    decision: &'static str,
    revision: &'a str,
    principal: Uid<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Uid<'a>>,
    action: &'a str,
    resource: Uid<'a>,
    rules: Vec<Rule<'a>>,
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    errors: Vec<Raised<'a>>,
}

#[derive(Serialize)]
struct Clause<'a> {
    #[serde(rename = "clause")]
    word: &'static str,
    text: &'a str,
    /// Null where a part before it had decided already, or it raised an error.
    holds: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    values: Vec<Seen<'a>>,
}

#[derive(Serialize)]
struct Seen<'a> {
    expression: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
struct LookedAt<'a> {
    rule: Rule<'a>,
    /// Null where it raised an error.
    matches: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    clauses: Vec<Clause<'a>>,
}

#[derive(Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    answer: Answer<'a>,
    looked_at: Vec<LookedAt<'a>>,
}

fn uid(uid: &EntityUid) -> Uid<'_> {
    Uid { r#type: uid.kind(), id: uid.id() }
}

fn rule(rule: &RuleReference) -> Rule<'_> {
    Rule { id: &rule.id, effect: rule.effect.as_str(), file: &rule.file, line: rule.line }
}

fn raised(error: &EvaluationError) -> Raised<'_> {
    Raised { rule: rule(&error.rule), message: &error.message }
}

fn answer<'a>(decision: &'a Decision, hint: Option<&'a str>) -> Answer<'a> {
    Answer {
        decision: decision.outcome.as_str(),
        revision: &decision.revision,
        principal: uid(&decision.principal),
        key: decision.key.as_ref().map(uid),
        action: &decision.action,
        resource: uid(&decision.resource),
        rules: decision.rules.iter().map(rule).collect(),
        code: decision.code.as_str(),
        message: decision.message(),
        hint,
        errors: decision.errors.iter().map(raised).collect(),
    }
}

fn clause(trace: &ClauseTrace) -> Clause<'_> {
    Clause {
        word: if trace.unless { "unless" } else { "when" },
        text: &trace.text,
        holds: trace.holds.as_ref().and_then(|holds| holds.as_ref().ok().copied()),
        error: trace.holds.as_ref().and_then(|holds| holds.as_ref().err().map(String::as_str)),
        values: trace.values.iter().map(|(expression, value)| Seen { expression, value }).collect(),
    }
}

fn looked_at(trace: &RuleTrace) -> LookedAt<'_> {
    LookedAt {
        rule: rule(&trace.rule),
        matches: trace.matches.as_ref().ok().copied(),
        error: trace.matches.as_ref().err().map(String::as_str),
        clauses: trace.clauses.iter().map(clause).collect(),
    }
}

fn json(value: &impl Serialize) -> String {
    // Nothing in an answer can fail to be written: there are no maps with keys that are not texts.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// A decision as JSON.
pub(super) fn decision_json(decision: &Decision) -> String {
    json(&answer(decision, decision.hint.as_deref()))
}

/// A decision with what the rules said, as JSON.
pub(super) fn explanation_json(decision: &Decision, explanation: &Explanation, hint: Option<&str>) -> String {
    let looked_at = explanation.looked_at.iter().map(looked_at).collect();
    json(&Explained { answer: answer(decision, hint), looked_at })
}

/// A decision for people.
pub(super) fn decision_text(decision: &Decision, hint: Option<&str>, paint: Paint) -> String {
    let outcome = decision.outcome.as_str();
    let outcome = if decision.is_permit() { paint.green(outcome) } else { paint.red(outcome) };
    let mut lines = vec![format!("{outcome}: {}", shown(&decision.message()))];
    let mut line =
        |name: &str, value: String| lines.push(format!("  {} {}", paint.dim(&format!("{name:9}")), shown(&value)));
    line("principal", decision.principal.to_string());
    if let Some(key) = &decision.key {
        line("key", key.to_string());
    }
    line("action", decision.action.to_string());
    line("resource", decision.resource.to_string());
    line("code", decision.code.as_str().to_owned());
    for rule in &decision.rules {
        line("rule", format!("{} {rule}", rule.effect.as_str()));
    }
    for error in &decision.errors {
        line("error", format!("{}: {}", error.rule, error.message));
    }
    line("revision", decision.revision.to_string());
    if let Some(hint) = hint {
        line("hint", hint.to_owned());
    }
    lines.join("\n") + "\n"
}
