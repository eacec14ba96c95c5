//! The answer: permit or forbid, by which rules, and why.

use std::fmt;
use std::sync::Arc;

use smol_str::SmolStr;

use super::standing::{LimitStanding, Reserved};
use super::uid::EntityUid;

/// What a rule does when it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Lets the request through, unless something forbids it.
    Permit,
    /// Refuses the request, whatever permits it.
    Forbid,
}

impl Effect {
    /// `permit` or `forbid`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Forbid => "forbid",
        }
    }
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Let it through.
    Permit,
    /// Refuse it.
    Forbid,
}

impl Outcome {
    /// `permit` or `forbid`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Forbid => "forbid",
        }
    }
}

/// Why: a closed set that grows only with a note in the changelog. Order is precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DecisionCode {
    /// At least one rule permits and none forbids.
    Permitted,
    /// The credential proves nobody.
    Unauthenticated,
    /// The identity provider or store for the credential is unavailable, so the credential cannot be verified.
    ProviderUnavailable,
    /// The credential was revoked.
    CredentialRevoked,
    /// The credential has expired.
    CredentialExpired,
    /// The principal, its team or its org is disabled or has expired.
    PrincipalDisabled,
    /// No model has this name.
    ModelUnknown,
    /// The model is declared with `enabled: false`.
    ModelDisabled,
    /// A forbid matched.
    ForbiddenByRule,
    /// A forbid raised an error, or nothing permitted and a permit raised one.
    Error,
    /// No rule permits this.
    NoRulePermits,
    /// Rules permit it, but nobody can say whether limits do.
    StoreUnavailable,
    /// A limit counts money, and nobody knows what the model costs.
    PriceUnknown,
    /// A budget has no room.
    BudgetExceeded,
    /// A rate has no room now.
    RateLimited,
    /// As many requests are under way as may be.
    ConcurrencyExceeded,
}

impl DecisionCode {
    /// The code as clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permitted => "permitted",
            Self::Unauthenticated => "unauthenticated",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::CredentialRevoked => "credential_revoked",
            Self::CredentialExpired => "credential_expired",
            Self::PrincipalDisabled => "principal_disabled",
            Self::ModelUnknown => "model_unknown",
            Self::ModelDisabled => "model_disabled",
            Self::ForbiddenByRule => "forbidden_by_rule",
            Self::Error => "error",
            Self::NoRulePermits => "no_rule_permits",
            Self::StoreUnavailable => "store_unavailable",
            Self::PriceUnknown => "price_unknown",
            Self::BudgetExceeded => "budget_exceeded",
            Self::RateLimited => "rate_limited",
            Self::ConcurrencyExceeded => "concurrency_exceeded",
        }
    }
}

/// A rule, by name and place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleReference {
    /// The rule's id; for native Cedar its `@id`, else file and number.
    pub id: SmolStr,
    /// What the rule does.
    pub effect: Effect,
    /// The file that holds it, relative to the bundle; empty for what narrows a key that the server keeps.
    pub file: Arc<str>,
    /// Its first line, from 1; 0 where there is no file.
    pub line: u32,
}

impl fmt::Display for RuleReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a key of the server's is narrowed to stands in no file.
        if self.file.is_empty() {
            return write!(f, "{}", self.id);
        }
        write!(f, "{} ({}:{})", self.id, self.file, self.line)
    }
}

/// An error that a rule raised when it was evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationError {
    /// The rule that raised it.
    pub rule: RuleReference,
    /// What went wrong, as Cedar says it.
    pub message: String,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Permit or forbid.
    pub outcome: Outcome,
    /// Why.
    pub code: DecisionCode,
    /// Who was decided about: the owner, where a key asked.
    pub principal: EntityUid,
    /// The key that asked, if one did.
    pub key: Option<EntityUid>,
    /// The bare name of the action (a uid for one outside the default namespace).
    pub action: SmolStr,
    /// What was decided about, under its real name.
    pub resource: EntityUid,
    /// The rules that determined the outcome: the forbids that matched, else the permits that did.
    pub rules: Vec<RuleReference>,
    /// What rules raised when they were evaluated.
    pub errors: Vec<EvaluationError>,
    /// Where the limits that apply stand; empty where nobody looked, since rules forbid it.
    pub limits: Vec<LimitStanding>,
    /// The limits that apply and that nothing was held on, since this was a check.
    pub not_held: Vec<SmolStr>,
    /// What is held.
    pub reservation: Option<Reserved>,
    /// The maximum number of open reservations of the principal, if that is why nothing is held.
    pub most_open: Option<usize>,
    /// In how many seconds there is room again, where waiting helps.
    pub retry_after_seconds: Option<u64>,
    /// The nearest rule that would have permitted and what it lacked; when asked for and forbidden.
    pub hint: Option<String>,
    /// The content of the bundle that decided.
    pub revision: Arc<str>,
}

impl Decision {
    /// Whether the request goes through.
    #[must_use]
    pub fn is_permit(&self) -> bool {
        self.outcome == Outcome::Permit
    }

    /// The outcome in a sentence that may be shown to the caller.
    #[must_use]
    pub fn message(&self) -> String {
        let mut message = String::new();
        // Only writing to something that is no text could fail.
        let _written = self.write_message(&mut message);
        message
    }

    /// Writes what [`Decision::message`] says.
    ///
    /// # Errors
    /// Where `out` cannot be written to.
    pub fn write_message(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match (self.code, self.rules.split_first()) {
            (DecisionCode::Permitted, Some((first, others))) => by(out, "permitted", first, others.len()),
            (DecisionCode::ForbiddenByRule, Some((first, others))) => by(out, "forbidden", first, others.len()),
            (DecisionCode::Permitted, None) => out.write_str("permitted"),
            (DecisionCode::ForbiddenByRule, None) => out.write_str("forbidden by a rule"),
            (DecisionCode::Unauthenticated, _) => out.write_str("the credential proves nobody"),
            (DecisionCode::ProviderUnavailable, _) => {
                out.write_str("the identity provider for this credential is unavailable; try again later")
            }
            (DecisionCode::CredentialRevoked, _) => out.write_str("the credential was revoked"),
            (DecisionCode::CredentialExpired, _) => out.write_str("the credential has expired"),
            (DecisionCode::PrincipalDisabled, _) => {
                write!(out, "{} is disabled or has expired, or its team or org is", self.principal)
            }
            (DecisionCode::ModelUnknown, _) => {
                write!(out, "no model is called `{}`", self.resource.id().escape_debug())
            }
            (DecisionCode::ModelDisabled, _) => {
                write!(out, "the model `{}` is disabled", self.resource.id().escape_debug())
            }
            (DecisionCode::Error, _) => match self.errors.first() {
                Some(error) => write!(out, "{} raised an error: {}", error.rule, error.message),
                None => out.write_str("a rule raised an error"),
            },
            (DecisionCode::NoRulePermits, _) => {
                write!(out, "no rule permits {} to {} {}", self.principal, self.action, self.resource)
            }
            (DecisionCode::StoreUnavailable, _) => {
                out.write_str("rules permit it, but what is used and held cannot be read or kept now")
            }
            (DecisionCode::PriceUnknown, _) => write!(out, "a limit counts money, and {} has no price", self.resource),
            (DecisionCode::ConcurrencyExceeded, _) if self.most_open.is_some() => {
                let most = self.most_open.unwrap_or_default();
                write!(
                    out,
                    "{} has {most} open reservations, the maximum for a principal \
                     (limits.open_reservations_per_principal); settle or release finished calls",
                    self.principal
                )
            }
            (DecisionCode::BudgetExceeded | DecisionCode::RateLimited | DecisionCode::ConcurrencyExceeded, _) => {
                out.write_str("no room under ")?;
                for (at, one) in self.limits.iter().filter(|one| one.shortage.is_some()).enumerate() {
                    write!(out, "{}{one}", if at == 0 { "" } else { "; nor under " })?;
                }
                Ok(())
            }
        }
    }
}

/// `permitted by research-chat (rules.yaml:31) and 2 more`.
fn by(out: &mut impl fmt::Write, what: &str, first: &RuleReference, others: usize) -> fmt::Result {
    write!(out, "{what} by {first}")?;
    if others > 0 { write!(out, " and {others} more") } else { Ok(()) }
}

/// The answer about one candidate of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct CandidateDecision {
    /// The candidate, under its real name.
    pub resource: EntityUid,
    /// The decision about it alone.
    pub decision: Decision,
}
