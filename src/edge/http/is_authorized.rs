//! `POST /is_authorized`: one question, or one about a list.

use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};
use tokio::runtime::Handle;
use tracing::{Instrument as _, Span};

use super::app::App;
use super::body::{JSON, USUAL_ANSWER_BYTES, of_type};
use super::caller::{self, Admitted, Peer};
use super::errors::{ApiError, ErrorCode, Response};
use super::guard::{guarded, guarded_async};
use super::itself;
use super::wire::{self, Asked, Asking, Question, What};
use crate::edge::answer::{self, About, retry_after_of, status_of, telling};
use crate::edge::telemetry::metrics::DecisionMade;
use crate::gate::{
    self, Authorized, CandidatesDecision, DecisionId, DecisionRecord, KeyUse, ScopedKey, Seen, Unproved, Via, Wish,
    World,
};
use crate::meter::{Idempotency, ReservationId, State};
use crate::model::{CandidatesRequest, Decision, DecisionCode, Facts, Request, RequestErrorCode, RuleReference};
use crate::policy::Snapshot;

/// Answers one question. With `status_tells`, a forbid is told by the status too.
pub(super) async fn answer(
    app: &Arc<App>,
    (peer, admitted): (&Peer, &Admitted),
    body: &[u8],
    status_tells: bool,
) -> Result<Response, ApiError> {
    let asked = wire::question(body, itself::silence(app, admitted))?;
    let asked = itself::checked(app, admitted, peer, asked).await?;
    let answered = if asked.explains() {
        let waiting = Handle::current();
        aside(app, move |app| waiting.block_on(answer_now(app, &asked))).await??
    } else if asked.holds() {
        to_its_end(app, move |app| async move { answer_now(&app, &asked).await }).await?
    } else {
        answer_now(app, &asked).await?
    };
    if !status_tells {
        return Ok(of_type(StatusCode::OK, JSON, answered.text));
    }
    let status = status_of(answered.code, app.budget_status);
    let mut response = of_type(status, JSON, answered.text);
    if let Some(seconds) = retry_after_of(status, answered.retry_after_seconds) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}

async fn answer_now(app: &App, asked: &Asked) -> Result<Answered, ApiError> {
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    answer_by(app, &snapshot, &app.engine.facts(), asked).await
}

/// An answer, written.
pub(super) struct Answered {
    code: DecisionCode,
    pub(super) text: Vec<u8>,
    /// When to try again, where waiting helps.
    retry_after_seconds: Option<u64>,
    /// What is held that only this answer tells of: without a key it cannot be asked for again.
    pub(super) held: Option<ReservationId>,
}

/// Answers by `snapshot`; what was answered before, as it was. A credential that proves nobody is answered by a forbid.
pub(super) async fn answer_by(
    app: &App,
    snapshot: &Arc<Snapshot>,
    facts: &Facts,
    asked: &Asked,
) -> Result<Answered, ApiError> {
    let began = Instant::now();
    // The id is drawn before the decision, so that all log records of the decision carry it.
    let id = app.next_id(snapshot.revision());
    let (credential, parts) = match asked {
        Asked::Named(question) => {
            return answer_question(app, snapshot, facts, Identified { id, began, question }).await;
        }
        Asked::Unproved(credential, parts) => (credential, parts),
    };
    match caller::identify(app, snapshot, &caller::presented(credential, parts, snapshot)?, facts.now).await {
        Ok(identity) => {
            let question = &parts.clone().proved(&identity);
            answer_question(app, snapshot, facts, Identified { id, began, question }).await
        }
        Err(refusal) => {
            let code = refusal.reason.code();
            let took = began.elapsed();
            app.metrics.decided(&DecisionMade { via: Via::IsAuthorized, code, rules: &[], took });
            let mut text = Vec::with_capacity(USUAL_ANSWER_BYTES);
            let (resource, candidates) = match &parts.what {
                What::One(resource) => (Some(resource), None),
                What::Candidates { router, candidates } => (router.as_ref(), Some(candidates.as_slice())),
            };
            let about = About { action: &parts.action, resource, candidates };
            let unproved = Unproved {
                action: &parts.action,
                resource,
                candidates,
                context: Some(&parts.context),
                refusal: &refusal,
            };
            let (world, refused) = (app.engine.world(snapshot, facts), gate::Decided::Refused(unproved));
            app.engine.record(&DecisionRecord::of(id, Via::IsAuthorized, world, refused));
            answer::write_refused(&mut text, id, snapshot.revision(), &about, &refusal);
            Ok(Answered { code, text, retry_after_seconds: refusal.retry_after_seconds, held: None })
        }
    }
}

/// A question with the id of its decision.
struct Identified<'a> {
    id: DecisionId<'a>,
    /// When answering it began.
    began: Instant,
    question: &'a Question,
}

async fn answer_question(
    app: &App,
    snapshot: &Snapshot,
    facts: &Facts,
    identified: Identified<'_>,
) -> Result<Answered, ApiError> {
    let Identified { id, began, question: asked } = identified;
    let key = asked.wanted.as_ref().and_then(|wanted| wanted.key.as_ref()).map(|key| app.as_known(key));
    let key = key.as_ref().map(|key| key.scoped(KeyUse::Reserve, snapshot, asked.asking.principal()));
    if let Some(key) = &key
        && let Some(text) = before(app, snapshot, facts, key).await?
    {
        return Ok(Answered { code: DecisionCode::Permitted, text, retry_after_seconds: None, held: None });
    }
    let decided = decide(app, snapshot, facts, (asked, key.as_ref())).await?;
    let (code, rules, took) = (decided.code(), decided.rules(), began.elapsed());
    app.metrics.decided(&DecisionMade { via: Via::IsAuthorized, code, rules, took });
    let mut text = Vec::with_capacity(USUAL_ANSWER_BYTES);
    if let Some(record) = decided.record(id, app.engine.world(snapshot, facts), asked) {
        app.engine.record(&record);
    }
    decided.write(id, &mut text);
    if let (Some(_), Some(id)) = (&key, decided.reservation()) {
        let kept = app.engine.meters().answered(id, text.as_slice().into()).await;
        kept.map_err(|error| ApiError::new(ErrorCode::StoreUnavailable, error.to_string()))?;
    }
    let held = decided.reservation().filter(|_| key.is_none());
    Ok(Answered { code: decided.code(), text, retry_after_seconds: decided.retry_after_seconds(), held })
}

/// What was answered to the request of this key.
async fn before(
    app: &App,
    snapshot: &Snapshot,
    facts: &Facts,
    key: &ScopedKey<'_>,
) -> Result<Option<Vec<u8>>, ApiError> {
    let conflict = |message| {
        let code = ErrorCode::Request(RequestErrorCode::IdempotencyConflict);
        Err(ApiError { param: "idempotency_key".to_owned(), ..ApiError::new(code, message) })
    };
    let found = key.find(&**app.engine.meters(), facts.now).await;
    let found = found.map_err(|error| ApiError::new(ErrorCode::StoreUnavailable, error.to_string()))?;
    let Some((found, is_same)) = found.filter(|(found, _)| !found.leaves_its_key()) else { return Ok(None) };
    let (id, has_expired) = (found.id, found.state == State::Expired);
    match found.idempotency {
        None => Ok(None),
        Some(_) if !is_same => conflict("this `idempotency_key` names another request"),
        Some(Idempotency { answer: Some(answer), .. }) => Ok(Some(answer.to_vec())),
        // Whoever held it ended before anyone was told.
        Some(_) if has_expired => {
            let given_back = gate::release(app.engine.world(snapshot, facts), id).await;
            given_back.map(|_| None).map_err(ApiError::from)
        }
        Some(_) => conflict("a request with this `idempotency_key` is being answered; send it again in a moment"),
    }
}

/// A question with its answer.
pub(super) enum Decided {
    One(Decision, Vec<Seen>),
    Candidates(CandidatesDecision, Option<String>, Vec<Seen>),
}

impl Decided {
    fn code(&self) -> DecisionCode {
        match self {
            Self::One(decision, _) => decision.code,
            Self::Candidates(decision, ..) => decision.code,
        }
    }

    /// The rules that determined it.
    fn rules(&self) -> &[RuleReference] {
        match self {
            Self::One(decision, _) => &decision.rules,
            Self::Candidates(decision, ..) => telling(decision).map_or(&[], |telling| &telling.rules),
        }
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::One(decision, _) => decision.retry_after_seconds,
            Self::Candidates(decision, _, _) => telling(decision)?.retry_after_seconds,
        }
    }

    fn reservation(&self) -> Option<ReservationId> {
        let held = match self {
            Self::One(decision, _) => decision.reservation.as_ref(),
            Self::Candidates(decision, ..) => telling(decision)?.reservation.as_ref(),
        };
        held?.id.parse().ok()
    }

    /// The record of the decision.
    fn record<'a>(&'a self, id: DecisionId<'a>, world: World<'a>, asked: &'a Question) -> Option<DecisionRecord<'a>> {
        let (decided, seen) = match (self, &asked.asking) {
            (Self::One(decision, seen), Asking::One(request)) => (gate::Decided::One(request, decision), seen),
            (Self::Candidates(decision, _, seen), Asking::Candidates(request, _)) => {
                (gate::Decided::Candidates(request, decision), seen)
            }
            // One question is decided as one, a list as a list.
            _ => return None,
        };
        let reserve = asked.wanted.as_ref().map(|wanted| &wanted.reserve);
        Some(DecisionRecord::of(id, Via::IsAuthorized, world, decided).with_seen(seen).with_reserve(reserve))
    }

    /// Writes the answer.
    fn write(&self, id: DecisionId<'_>, out: &mut Vec<u8>) {
        match self {
            Self::One(decision, _) => answer::write(out, id, decision),
            Self::Candidates(decision, hint, _) => answer::write_candidates(out, id, decision, hint.as_deref()),
        }
    }
}

/// Decides by `snapshot`. Where there are no limits and nothing is to be held, nothing waits.
async fn decide(app: &App, snapshot: &Snapshot, facts: &Facts, keyed: Keyed<'_>) -> Result<Decided, ApiError> {
    let (asked, _) = keyed;
    let (_, identity) = asked.asking.principal();
    if asked.wanted.is_none() && !gate::has_limits(snapshot, identity.map(|identity| &**identity)) {
        return guarded(app, || decide_by_rules(snapshot, facts, &asked.asking));
    }
    guarded_async(app, decide_by_limits(app, snapshot, facts, keyed)).await
}

/// A question, with the key that its client gave it.
type Keyed<'q> = (&'q Question, Option<&'q ScopedKey<'q>>);

fn decide_by_rules(snapshot: &Snapshot, facts: &Facts, asking: &Asking) -> Result<Decided, ApiError> {
    match asking {
        Asking::One(request) => Ok(Decided::One(gate::decide(snapshot, facts, request)?, Vec::new())),
        Asking::Candidates(request, explain) => {
            let decision = gate::decide_candidates(snapshot, facts, request)?;
            let hint = explain.then(|| hint(snapshot, facts, request, &decision)).flatten();
            Ok(Decided::Candidates(decision, hint, Vec::new()))
        }
    }
}

async fn decide_by_limits(
    app: &App,
    snapshot: &Snapshot,
    facts: &Facts,
    (asked, key): Keyed<'_>,
) -> Result<Decided, ApiError> {
    let world = app.engine.world(snapshot, facts);
    let wish = asked.wanted.as_ref().map(|wanted| Wish {
        reserve: wanted.reserve,
        ttl_ms: wanted.ttl_ms,
        id: app.engine.reservation_id(),
        idempotency: key.map(|key| (key.name(), key.digest())),
    });
    match &asked.asking {
        Asking::One(request) => {
            let Authorized { decision, alerts, seen } = gate::authorize(world, request, wish.as_ref()).await?;
            app.alert(&alerts, snapshot, facts);
            Ok(Decided::One(decision, seen))
        }
        Asking::Candidates(request, explain) => {
            let Authorized { decision, alerts, seen } =
                gate::authorize_candidates(world, request, wish.as_ref()).await?;
            app.alert(&alerts, snapshot, facts);
            let hint = explain.then(|| hint(snapshot, facts, request, &decision)).flatten();
            Ok(Decided::Candidates(decision, hint, seen))
        }
    }
}

/// What the one that refuses lacked.
fn hint(
    snapshot: &Snapshot,
    facts: &Facts,
    request: &CandidatesRequest,
    decision: &CandidatesDecision,
) -> Option<String> {
    let telling = telling(decision).filter(|telling| !telling.is_permit())?;
    let request = Request::new(request.principal.clone(), request.action.clone(), telling.resource.clone())
        .with_context(request.context.clone())
        .with_explain(true);
    gate::decide(snapshot, facts, &request).ok()?.hint
}

/// Works to the end even where the client goes away: what is held half way nobody would know of. What need not wait for
/// anything needs no task of its own for that.
pub(super) async fn to_its_end<T, W>(app: &Arc<App>, work: impl FnOnce(Arc<App>) -> W) -> Result<T, ApiError>
where
    T: Send + 'static,
    W: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    let mut work = Box::pin(work(Arc::clone(app)));
    let begun = std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    match begun {
        Poll::Ready(done) => done,
        Poll::Pending => {
            let ended = tokio::spawn(work.in_current_span()).await;
            ended.map_err(|_| ApiError::new(ErrorCode::Unavailable, "the server is about to end"))?
        }
    }
}

/// Works away from the threads that serve connections, a few at a time.
pub(super) async fn aside<T, F>(app: &Arc<App>, work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce(&App) -> T + Send + 'static,
{
    let unavailable = || ApiError::new(ErrorCode::Unavailable, "the server is about to end");
    let _permit = app.explaining.acquire().await.map_err(|_| unavailable())?;
    let (shared, span) = (Arc::clone(app), Span::current());
    tokio::task::spawn_blocking(move || span.in_scope(|| work(&shared))).await.map_err(|_| unavailable())
}
