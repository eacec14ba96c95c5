//! What the server decided, as far as callers look at it.

use serde::Deserialize;
use serde_json::Value;

/// A decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whether the request goes through.
    pub permit: bool,
    /// Why: one of a closed set, `permitted` or `no_rule_permits` say.
    pub code: String,
    /// The same in a sentence.
    pub message: String,
    /// Who it was decided about; nobody, where a credential proved nobody.
    pub principal: Option<Principal>,
    /// Of a list, those that are permitted, in their order.
    pub permitted: Vec<Principal>,
    /// Of a list, each.
    pub candidates: Vec<Candidate>,
    /// What is held.
    pub reservation: Option<Reservation>,
    /// In how many seconds there is room again, where waiting helps.
    pub retry_after_seconds: Option<u64>,
    /// The whole answer.
    pub body: Value,
}

/// A uid, of a principal or a resource.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Principal {
    /// `User`, `Model`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The id within the type.
    pub id: String,
}

/// One of a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Candidate {
    /// Which.
    pub resource: Principal,
    /// `permit` or `forbid`.
    pub decision: String,
    /// Why.
    pub code: String,
}

/// What is held.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Reservation {
    /// What settles it.
    pub id: String,
    /// Until when it lives, in RFC 3339.
    pub expires_at: String,
}

#[derive(Deserialize)]
struct Wire {
    decision: String,
    code: String,
    message: String,
    principal: Option<Principal>,
    #[serde(default)]
    permitted: Vec<Principal>,
    #[serde(default)]
    candidates: Vec<Candidate>,
    reservation: Option<Reservation>,
    retry_after_seconds: Option<u64>,
}

impl Answer {
    /// Reads an answer; `None` where it is none. Nothing but `permit` is a permit.
    pub(super) fn read(body: Value) -> Option<Self> {
        let wire = Wire::deserialize(&body).ok()?;
        if !matches!(wire.decision.as_str(), "permit" | "forbid") {
            return None;
        }
        Some(Self {
            permit: wire.decision == "permit",
            code: wire.code,
            message: wire.message,
            principal: wire.principal,
            permitted: wire.permitted,
            candidates: wire.candidates,
            reservation: wire.reservation,
            retry_after_seconds: wire.retry_after_seconds,
            body,
        })
    }

    /// Whether the request goes through.
    #[must_use]
    pub fn is_permit(&self) -> bool {
        self.permit
    }
}
