//! The output of a decision: what every protocol converts into its own form.

use std::sync::Arc;

use smol_str::SmolStr;

use super::call::Target;
use super::json::{self, RefusedQuestion};
use crate::gate::{CandidatesDecision, DecisionId};
use crate::meter::ReservationId;
use crate::model::{Decision, DecisionCode, EntityUid, Identity, Refusal, Timestamp};

/// Room for a usual answer as JSON.
const USUAL_JSON_BYTES: usize = 512;

/// The answer to one call.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The id of the decision, as the decision log has it.
    pub id: DecisionId,
    /// The revision of the bundle that decided.
    pub revision: Arc<str>,
    /// The identity that the caller's credential proved; `None` for an asserted principal and a refused credential.
    pub identity: Option<Arc<Identity>>,
    /// The result.
    pub result: AnswerResult,
    /// The answer as JSON, if the store keeps it for the idempotency key of the call.
    pub(super) json: Option<Arc<[u8]>>,
}

/// The result of one call.
#[derive(Debug, Clone)]
pub enum AnswerResult {
    /// One resource was decided.
    One(Decision),
    /// A list of candidates was decided.
    Candidates {
        /// The decisions.
        decision: CandidatesDecision,
        /// If the call asked for it: the nearest rule that would have permitted, and what the request lacked.
        hint: Option<String>,
    },
    /// The credential was refused, which forbids the request.
    Refused {
        /// The action that was asked for.
        action: SmolStr,
        /// The resources that were asked for.
        target: Target,
        /// The reason.
        refusal: Refusal,
    },
    /// The call was answered before: its idempotency key names this reservation.
    Replayed(ReplayedReservation),
}

/// A reservation that an earlier call with the same idempotency key made.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayedReservation {
    /// Its id.
    pub id: ReservationId,
    /// The resource that it is held for.
    pub resource: EntityUid,
    /// The instant at which it expires.
    pub expires_at: Timestamp,
    /// The first answer, in the JSON form of `POST /is_authorized`.
    pub json: Arc<[u8]>,
}

impl Answer {
    /// Whether the request is permitted; of candidates, whether one of them is.
    #[must_use]
    pub fn is_permit(&self) -> bool {
        self.code() == DecisionCode::Permitted
    }

    /// The code of the decision.
    #[must_use]
    pub fn code(&self) -> DecisionCode {
        match &self.result {
            AnswerResult::One(decision) => decision.code,
            AnswerResult::Candidates { decision, .. } => decision.code,
            AnswerResult::Refused { refusal, .. } => refusal.reason.code(),
            AnswerResult::Replayed(_) => DecisionCode::Permitted,
        }
    }

    /// The decision: of candidates, the one that determines the answer. `None` for a refused credential and for an
    /// answer that is replayed.
    #[must_use]
    pub fn decision(&self) -> Option<&Decision> {
        match &self.result {
            AnswerResult::One(decision) => Some(decision),
            AnswerResult::Candidates { decision, .. } => decision.deciding(),
            AnswerResult::Refused { .. } | AnswerResult::Replayed(_) => None,
        }
    }

    /// After how many seconds the request may be permitted, if waiting helps.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match &self.result {
            AnswerResult::Refused { refusal, .. } => refusal.retry_after_seconds,
            _ => self.decision()?.retry_after_seconds,
        }
    }

    /// The reservation that the caller has to settle or release.
    #[must_use]
    pub fn reservation(&self) -> Option<ReservationId> {
        match &self.result {
            AnswerResult::Replayed(replayed) => Some(replayed.id),
            _ => self.decision()?.reservation.as_ref()?.id.parse().ok(),
        }
    }

    /// Appends the answer in the JSON form of `POST /is_authorized`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match (&self.json, &self.result) {
            (Some(json), _) => out.extend_from_slice(json),
            (None, AnswerResult::One(decision)) => json::write(out, self.id, decision),
            (None, AnswerResult::Candidates { decision, hint }) => {
                json::write_candidates(out, self.id, decision, hint.as_deref());
            }
            (None, AnswerResult::Refused { action, target, refusal }) => {
                let (resource, candidates) = target.parts();
                let question = RefusedQuestion { action, resource, candidates };
                json::write_refused(out, self.id, &self.revision, &question, refusal);
            }
            (None, AnswerResult::Replayed(replayed)) => out.extend_from_slice(&replayed.json),
        }
    }

    /// The answer in the JSON form of `POST /is_authorized`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(USUAL_JSON_BYTES);
        self.write_json(&mut json);
        json
    }
}

impl Target {
    /// The resource or router, and the candidates.
    pub(super) fn parts(&self) -> (Option<&EntityUid>, Option<&[EntityUid]>) {
        match self {
            Self::One(resource) => (Some(resource), None),
            Self::Candidates { router, candidates } => (router.as_ref(), Some(candidates)),
        }
    }
}
