//! A decision, step by step: authenticate → gather → decide → hold → record → answer.
//!
//! Gathering, deciding and holding are one call of the core ([`gate::authorize`]), since conditions read the limits that
//! are held afterwards. This file puts the other steps around it, once for every protocol.

use std::pin::{Pin, pin};
use std::sync::Arc;

use super::answer::{Answer, AnswerResult};
use super::call::{Authority, AuthorizeCall, Caller, LimitsMode, Question, QuestionRef, ReserveOptions};
use super::catch::{Panicked, catch_panic, yield_now};
use super::error::{BatchError, PdpError};
use super::observe::Stopwatch;
use super::{Pinned, idempotency};
use crate::gate::{
    self, Authorized, CandidatesDecision, Charging, ClientKey, Decided, DecisionId, DecisionRecord, Explanation,
    KeyUse, ScopedKey, Seen, Unproved, Via, Wish,
};
use crate::meter::Alert;
use crate::model::{
    CandidatesRequest, Decision, Identity, Refusal, RefusalReason, Request, RequestError, RequestErrorCode,
};

/// After this many decisions of a batch, other tasks of the thread run.
const DECISIONS_PER_TURN: usize = 64;

impl Pinned<'_> {
    /// Decides one call.
    ///
    /// # Errors
    /// If no decision could be made. A forbid is an answer, and so is a refused credential.
    pub async fn authorize(&self, call: AuthorizeCall) -> Result<Answer, PdpError> {
        let work = async {
            let call = self.restricted(call).await?;
            self.decide(call).await
        };
        self.isolated(pin!(work)).await
    }

    /// Decides several calls by the same bundle at the same instant; each reserves on its own.
    ///
    /// # Errors
    /// If one of the calls has no answer. Then the batch has none: what its other calls reserved is released.
    pub async fn authorize_batch(&self, calls: Vec<AuthorizeCall>) -> Result<Vec<Answer>, BatchError> {
        let mut allowed = Vec::with_capacity(calls.len());
        for (index, call) in calls.into_iter().enumerate() {
            let restricted = self.isolated(pin!(self.restricted(call))).await;
            allowed.push(restricted.map_err(|error| BatchError { index, error })?);
        }
        let mut answers: Vec<Answer> = Vec::with_capacity(allowed.len());
        for (index, call) in allowed.into_iter().enumerate() {
            if index > 0 && index % DECISIONS_PER_TURN == 0 {
                yield_now().await;
            }
            match self.isolated(pin!(self.decide(call))).await {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    self.release_all(&answers).await;
                    return Err(BatchError { index, error });
                }
            }
        }
        Ok(answers)
    }

    /// Decides one call and explains the result of each rule. Nothing is counted or recorded.
    ///
    /// # Errors
    /// As [`Pinned::authorize`].
    pub async fn explain(&self, request: &Request) -> Result<(Decision, Explanation), PdpError> {
        self.isolated(pin!(async { Ok(gate::explain(self.env(), request).await?) })).await
    }

    /// Releases what the first calls of a failed batch reserved. A reservation with an idempotency key stays: its caller
    /// gets it again with the same key.
    async fn release_all(&self, answers: &[Answer]) {
        let has_key = |answer: &Answer| answer.json.is_some() || matches!(answer.result, AnswerResult::Replayed(_));
        for id in answers.iter().filter(|answer| !has_key(answer)).filter_map(Answer::reservation) {
            // After a failure the reservation expires by itself.
            let _closed = gate::release(self.env(), id).await;
        }
    }

    /// Runs `work`; a panic is an error of this call alone.
    pub(super) async fn isolated<T>(
        &self,
        work: Pin<&mut impl Future<Output = Result<T, PdpError>>>,
    ) -> Result<T, PdpError> {
        catch_panic(work).await.unwrap_or_else(|Panicked| {
            self.pdp.inner.observers.panicked();
            Err(PdpError::Panicked)
        })
    }

    /// The call as its client may make it.
    async fn restricted(&self, call: AuthorizeCall) -> Result<AuthorizeCall, PdpError> {
        match call.authority {
            Authority::AnyPrincipal => Ok(call),
            Authority::Itself { .. } => Box::pin(self.restrict(call)).await,
        }
    }

    async fn decide(&self, mut call: AuthorizeCall) -> Result<Answer, PdpError> {
        let recording = self.recording(call.via);
        let (principal, identity) = match self.identify(&mut call).await? {
            Identified::Principal(principal) => (principal, None),
            Identified::Identity(identity) => (identity.principal.clone(), Some(identity)),
            Identified::Refused(refusal) => return Ok(self.refused(recording, call, refusal)),
        };
        let (question, limits) = call.into_question(principal, identity.clone());
        let mut answer = match limits {
            LimitsMode::Check => self.check(recording, question.as_ref()).await?,
            // What waits for a store is boxed, so that the future of a plain check is small.
            LimitsMode::Reserve(options) => Box::pin(self.reserve(recording, &question, options)).await?,
            LimitsMode::Charge { body_bytes } => Box::pin(self.charge(recording, &question, body_bytes)).await?,
        };
        answer.identity = identity;
        Ok(answer)
    }

    /// Authenticates the caller of a call, unless it is known already.
    async fn identify(&self, call: &mut AuthorizeCall) -> Result<Identified, PdpError> {
        let presented = match std::mem::replace(&mut call.caller, Caller::Anonymous) {
            Caller::Asserted(principal) => return Ok(Identified::Principal(principal)),
            Caller::Authenticated(identity) => return Ok(Identified::Identity(identity)),
            Caller::Anonymous => {
                let refusal = Refusal::new(RefusalReason::NotRecognized, "this takes a credential");
                return Ok(Identified::Refused(refusal));
            }
            Caller::Credential(presented) => presented,
            Caller::Forwarded(credential) => self.presented(credential, &call.action, &call.context)?,
        };
        Ok(match self.authenticate(&presented).await {
            Ok(identity) => Identified::Identity(identity),
            Err(refusal) => Identified::Refused(refusal),
        })
    }

    /// The answer to a refused credential: a forbid, which is recorded like any other decision.
    fn refused(&self, of: Recording, call: AuthorizeCall, refusal: Refusal) -> Answer {
        let Recording { id, via, started } = of;
        let AuthorizeCall { action, target, context, .. } = call;
        let (resource, candidates) = target.parts();
        let unproved = Unproved { action: &action, resource, candidates, context: Some(&context), refusal: &refusal };
        self.record(&DecisionRecord::of(id, via, self.env(), Decided::Refused(unproved)), started);
        self.answer(id, AnswerResult::Refused { action, target, refusal })
    }

    /// Decides without counting. If no limit can apply, no store is read and the future completes at its first poll.
    pub(super) async fn check(&self, of: Recording, question: QuestionRef<'_>) -> Result<Answer, PdpError> {
        let identity = question.owner().identity;
        let has_limits = gate::has_limits(&self.snapshot, identity.map(|identity| &**identity));
        let decided = if has_limits {
            Box::pin(self.limited(question, None)).await?
        } else {
            match question {
                QuestionRef::One(request) => {
                    Outcome::One(unlimited(gate::decide(&self.snapshot, &self.facts, request)?))
                }
                QuestionRef::Candidates(request, _) => {
                    Outcome::Candidates(unlimited(gate::decide_candidates(&self.snapshot, &self.facts, request)?))
                }
            }
        };
        Ok(self.recorded(of, question, decided, Counting::default()))
    }

    /// Decides by rules and limits, and reserves what `wish` says.
    async fn limited(&self, question: QuestionRef<'_>, wish: Option<&Wish>) -> Result<Outcome, PdpError> {
        Ok(match question {
            QuestionRef::One(request) => Outcome::One(gate::authorize(self.env(), request, wish).await?),
            QuestionRef::Candidates(request, _) => {
                Outcome::Candidates(gate::authorize_candidates(self.env(), request, wish).await?)
            }
        })
    }

    /// Decides, and reserves on every limit that applies if the request is permitted.
    async fn reserve(&self, of: Recording, question: &Question, options: ReserveOptions) -> Result<Answer, PdpError> {
        let key = options.idempotency_key.map(|text| {
            let digest = question.digest(&options.amounts, options.ttl_ms);
            self.known_key(ClientKey { text, digest, unscoped_digest: Some(digest) })
        });
        let key = key.as_ref().map(|key| key.scoped(KeyUse::Reserve, &self.snapshot, question.as_ref().owner()));
        if let Some(key) = &key
            && let Some(replayed) = idempotency::replayed(self, key).await?
        {
            return Ok(self.answer(of.id, AnswerResult::Replayed(replayed)));
        }
        let wish = self.wish(options.amounts, options.ttl_ms, key.as_ref());
        let mut answer = self.reserve_with(of, question.as_ref(), &wish).await?;
        if let (Some(_), Some(id)) = (&key, answer.reservation()) {
            let json: Arc<[u8]> = answer.to_json().into();
            self.pdp.inner.meters.answered(id, Arc::clone(&json)).await?;
            answer.json = Some(json);
        }
        Ok(answer)
    }

    pub(super) fn wish(&self, reserve: gate::Reserve, ttl_ms: i64, key: Option<&ScopedKey<'_>>) -> Wish {
        let idempotency = key.map(|key| (key.name(), key.digest()));
        Wish { reserve, ttl_ms, id: self.pdp.reservation_id(), idempotency }
    }

    pub(super) async fn reserve_with(
        &self,
        of: Recording,
        question: QuestionRef<'_>,
        wish: &Wish,
    ) -> Result<Answer, PdpError> {
        let decided = self.limited(question, Some(wish)).await?;
        Ok(self.recorded(of, question, decided, Counting { reserve: Some(&wish.reserve), charging: None }))
    }

    /// Decides, and charges the estimate if the request is permitted.
    async fn charge(&self, of: Recording, question: &Question, body_bytes: Option<u64>) -> Result<Answer, PdpError> {
        let Question::One(request) = question else {
            let message = "a list of candidates cannot be charged at once; reserve, or ask about one resource";
            return Err(RequestError::new(RequestErrorCode::InvalidCandidates, "candidates", message).into());
        };
        let charging = Charging { id: self.pdp.reservation_id(), body_bytes };
        let decided = Outcome::One(gate::authorize_and_charge(self.env(), request, &charging).await?);
        Ok(self.recorded(of, question.as_ref(), decided, Counting { reserve: None, charging: Some(&charging) }))
    }

    /// Reports the alerts of a decision, records it, and makes its answer.
    fn recorded(&self, of: Recording, question: QuestionRef<'_>, outcome: Outcome, counting: Counting<'_>) -> Answer {
        let Recording { id, via, started } = of;
        self.alert(outcome.alerts());
        let decided = match (&outcome, question) {
            (Outcome::One(one), QuestionRef::One(request)) => Some(Decided::One(request, &one.decision)),
            (Outcome::Candidates(all), QuestionRef::Candidates(request, _)) => {
                Some(Decided::Candidates(request, &all.decision))
            }
            // INVARIANT: one question is decided as one, and a list as a list.
            _ => None,
        };
        if let Some(decided) = decided {
            let mut record = DecisionRecord::of(id, via, self.env(), decided).with_seen(outcome.seen());
            (record.reserve, record.charging) = (counting.reserve, counting.charging);
            self.record(&record, started);
        }
        let result = match (outcome, question) {
            (Outcome::Candidates(all), QuestionRef::Candidates(request, explain)) => {
                let hint = explain.then(|| self.hint(request, &all.decision)).flatten();
                AnswerResult::Candidates { decision: all.decision, hint }
            }
            (Outcome::Candidates(all), QuestionRef::One(_)) => {
                AnswerResult::Candidates { decision: all.decision, hint: None }
            }
            (Outcome::One(one), _) => AnswerResult::One(one.decision),
        };
        self.answer(id, result)
    }

    /// The nearest rule that would have permitted what the deciding resource of a list was forbidden.
    fn hint(&self, request: &CandidatesRequest, decision: &CandidatesDecision) -> Option<String> {
        let deciding = decision.deciding().filter(|deciding| !deciding.is_permit())?;
        let request = Request::new(request.principal.clone(), request.action.clone(), deciding.resource.clone())
            .with_context(request.context.clone())
            .with_explain(true);
        gate::decide(&self.snapshot, &self.facts, &request).ok()?.hint
    }

    fn answer(&self, id: DecisionId, result: AnswerResult) -> Answer {
        Answer { id, revision: Arc::clone(self.snapshot.revision()), identity: None, result, json: None }
    }
}

/// A decision that is to be recorded: its id, the interface that its call came through, and the start of the call.
#[derive(Clone, Copy)]
pub(super) struct Recording {
    pub(super) id: DecisionId,
    pub(super) via: Via,
    pub(super) started: Stopwatch,
}

/// The caller of a call, after authentication.
enum Identified {
    Principal(crate::model::EntityUid),
    Identity(Arc<Identity>),
    Refused(Refusal),
}

/// The amounts that a request asked to count, for its record.
#[derive(Clone, Copy, Default)]
struct Counting<'a> {
    reserve: Option<&'a gate::Reserve>,
    charging: Option<&'a Charging>,
}

/// The outcome of the core.
enum Outcome {
    One(Authorized<Decision>),
    Candidates(Authorized<CandidatesDecision>),
}

impl Outcome {
    fn alerts(&self) -> &[Alert] {
        match self {
            Self::One(one) => &one.alerts,
            Self::Candidates(all) => &all.alerts,
        }
    }

    fn seen(&self) -> &[Seen] {
        match self {
            Self::One(one) => &one.seen,
            Self::Candidates(all) => &all.seen,
        }
    }
}

fn unlimited<D>(decision: D) -> Authorized<D> {
    Authorized { decision, alerts: Vec::new(), seen: Vec::new() }
}
