//! `POST /is_authorized`: one question, or one about a list.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hyper::StatusCode;

use super::answer::{self, telling};
use super::app::App;
use super::body::{JSON, USUAL_ANSWER_BYTES, of_type};
use super::errors::{ApiError, ErrorCode, Response};
use super::wire::{self, Asked};
use crate::gate::{self, CandidatesDecision};
use crate::model::{CandidatesRequest, Decision, Facts, Outcome, Request};
use crate::policy::Snapshot;

/// Answers one question. With `status_tells`, a forbid is a 403.
pub(super) async fn answer(app: &Arc<App>, body: &[u8], status_tells: bool) -> Result<Response, ApiError> {
    let asked = wire::question(body)?;
    let explains = asked.explains();
    let decided =
        if explains { aside(app, move |app| decide_now(app, &asked)).await? } else { decide_now(app, &asked) };
    Ok(decided?.response(app, status_tells))
}

/// A question with its answer.
pub(super) enum Decided {
    One(Decision),
    Candidates(CandidatesDecision, Option<String>),
}

impl Decided {
    fn is_permit(&self) -> bool {
        match self {
            Self::One(decision) => decision.is_permit(),
            Self::Candidates(decision, _) => decision.outcome == Outcome::Permit,
        }
    }

    fn response(&self, app: &App, status_tells: bool) -> Response {
        let status = if status_tells && !self.is_permit() { StatusCode::FORBIDDEN } else { StatusCode::OK };
        let mut text = Vec::with_capacity(USUAL_ANSWER_BYTES);
        self.write(app, &mut text);
        of_type(status, JSON, text)
    }

    /// Writes the answer, under a name of its own.
    pub(super) fn write(&self, app: &App, out: &mut Vec<u8>) {
        let id = app.next_id();
        match self {
            Self::One(decision) => answer::write(out, id, decision),
            Self::Candidates(decision, hint) => answer::write_candidates(out, id, decision, hint.as_deref()),
        }
    }
}

fn decide_now(app: &App, asked: &Asked) -> Result<Decided, ApiError> {
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    decide(app, &snapshot, &app.engine.facts(), asked)
}

/// Decides by `snapshot`, and counts it.
pub(super) fn decide(app: &App, snapshot: &Snapshot, facts: &Facts, asked: &Asked) -> Result<Decided, ApiError> {
    guarded(app, || match asked {
        Asked::One(request) => {
            let decision = gate::decide(snapshot, facts, request)?;
            app.metrics.decided(decision.code, &decision.rules);
            Ok(Decided::One(decision))
        }
        Asked::Candidates(request, explain) => {
            let decision = gate::decide_candidates(snapshot, facts, request)?;
            app.metrics.decided(decision.code, telling(&decision).map_or(&[], |telling| &telling.rules));
            let hint = explain.then(|| hint(snapshot, facts, request, &decision)).flatten();
            Ok(Decided::Candidates(decision, hint))
        }
    })
}

/// The last net: what should never happen is no decision, and ends neither the server nor the connection.
pub(super) fn guarded<T>(app: &App, work: impl FnOnce() -> Result<T, ApiError>) -> Result<T, ApiError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        app.metrics.panicked();
        Err(ApiError::new(ErrorCode::Unavailable, "no decision could be made; the server's log says why"))
    })
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

/// Works away from the threads that serve connections, a few at a time.
pub(super) async fn aside<T, F>(app: &Arc<App>, work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce(&App) -> T + Send + 'static,
{
    let unavailable = || ApiError::new(ErrorCode::Unavailable, "the server is about to end");
    let _permit = app.explaining.acquire().await.map_err(|_| unavailable())?;
    let shared = Arc::clone(app);
    tokio::task::spawn_blocking(move || work(&shared)).await.map_err(|_| unavailable())
}
