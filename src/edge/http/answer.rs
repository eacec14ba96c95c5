//! Answers as clients read them, written from borrowed data. The core's types are not serializable, so that what is
//! sent changes only here.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::gate::CandidatesDecision;
use crate::model::{CandidateDecision, Decision, EntityUid, EvaluationError, RuleReference};

/// The name of a decision: unique in this process by its number, and beyond it by chance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id {
    pub(super) process: u64,
    pub(super) number: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.process, self.number)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The answer about one resource.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    decision: &'static str,
    id: Id,
    revision: &'a str,
    principal: Uid<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Uid<'a>>,
    action: &'a str,
    resource: Uid<'a>,
    rules: Rules<'a>,
    code: &'static str,
    message: String,
    limits: [(); 0],
    not_held: [(); 0],
    errors: Errors<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl<'a> Answer<'a> {
    pub(super) fn new(id: Id, decision: &'a Decision) -> Self {
        Self {
            decision: decision.outcome.as_str(),
            id,
            revision: &decision.revision,
            principal: Uid::of(&decision.principal),
            key: decision.key.as_ref().map(Uid::of),
            action: &decision.action,
            resource: Uid::of(&decision.resource),
            rules: Rules(&decision.rules),
            code: decision.code.as_str(),
            message: decision.message(),
            limits: [],
            not_held: [],
            errors: Errors(&decision.errors),
            hint: decision.hint.as_deref(),
        }
    }
}

/// The answer about a list.
#[derive(Debug, Serialize)]
pub(super) struct CandidatesAnswer<'a> {
    decision: &'static str,
    id: Id,
    revision: &'a str,
    principal: Uid<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Uid<'a>>,
    action: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Uid<'a>>,
    permitted: Vec<Uid<'a>>,
    candidates: Vec<Candidate<'a>>,
    rules: Rules<'a>,
    code: &'static str,
    message: String,
    limits: [(); 0],
    not_held: [(); 0],
    errors: Vec<RuleError<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Candidate<'a> {
    resource: Uid<'a>,
    decision: &'static str,
    code: &'static str,
    rules: Rules<'a>,
}

impl<'a> CandidatesAnswer<'a> {
    pub(super) fn new(id: Id, decision: &'a CandidatesDecision, hint: Option<&'a str>) -> Self {
        let telling = telling(decision);
        let all = decision.router.iter().chain(decision.candidates.iter().map(|one| &one.decision));
        Self {
            decision: decision.outcome.as_str(),
            id,
            revision: &decision.revision,
            principal: Uid::of(&decision.principal),
            key: decision.key.as_ref().map(Uid::of),
            action: &decision.action,
            resource: decision.router.as_ref().map(|router| Uid::of(&router.resource)),
            permitted: decision.permitted().map(Uid::of).collect(),
            candidates: decision.candidates.iter().map(Candidate::of).collect(),
            rules: Rules(telling.map_or(&[], |telling| &telling.rules)),
            code: decision.code.as_str(),
            message: telling.map(Decision::message).unwrap_or_default(),
            limits: [],
            not_held: [],
            errors: all.flat_map(|one| &one.errors).map(RuleError::of).collect(),
            hint,
        }
    }
}

impl<'a> Candidate<'a> {
    fn of(one: &'a CandidateDecision) -> Self {
        Self {
            resource: Uid::of(&one.resource),
            decision: one.decision.outcome.as_str(),
            code: one.decision.code.as_str(),
            rules: Rules(&one.decision.rules),
        }
    }
}

/// The one decision that tells why: the first that permits, else the router's where that refuses, else the first.
pub(super) fn telling(decision: &CandidatesDecision) -> Option<&Decision> {
    let mut each = decision.candidates.iter().map(|one| &one.decision);
    let permits = each.clone().find(|one| one.is_permit());
    let refuses = decision.router.as_ref().filter(|router| !router.is_permit());
    permits.or(refuses).or_else(|| each.next())
}

#[derive(Debug, Serialize)]
struct Uid<'a> {
    r#type: &'a str,
    id: &'a str,
}

impl<'a> Uid<'a> {
    fn of(uid: &'a EntityUid) -> Self {
        Self { r#type: uid.kind(), id: uid.id() }
    }
}

#[derive(Debug)]
struct Rules<'a>(&'a [RuleReference]);

#[derive(Serialize)]
struct Rule<'a> {
    id: &'a str,
    effect: &'static str,
    file: &'a str,
    line: u32,
}

impl Serialize for Rules<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rules = self.0.iter();
        serializer.collect_seq(rules.map(|one| Rule {
            id: &one.id,
            effect: one.effect.as_str(),
            file: &one.file,
            line: one.line,
        }))
    }
}

#[derive(Debug)]
struct Errors<'a>(&'a [EvaluationError]);

#[derive(Debug, Serialize)]
struct RuleError<'a> {
    rule: &'a str,
    file: &'a str,
    line: u32,
    message: &'a str,
}

impl<'a> RuleError<'a> {
    fn of(error: &'a EvaluationError) -> Self {
        Self { rule: &error.rule.id, file: &error.rule.file, line: error.rule.line, message: &error.message }
    }
}

impl Serialize for Errors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(RuleError::of))
    }
}
