//! `POST /is_authorized/batch`: many questions, answered by one bundle at one instant.

use std::sync::Arc;

use hyper::StatusCode;
use tokio::runtime::Handle;

use super::app::App;
use super::body::{JSON, USUAL_ANSWER_BYTES, of_type};
use super::caller::{Admitted, Peer};
use super::errors::{ApiError, Response};
use super::is_authorized::{answer_by, aside, to_its_end};
use super::itself;
use super::wire::{self, Asked};
use crate::gate;
use crate::meter::ReservationId;
use crate::model::Facts;
use crate::policy::Snapshot;

/// After so many decisions other connections get their turn.
const AT_ONCE: usize = 64;

/// Answers a batch.
pub(super) async fn answer(
    app: &Arc<App>,
    (peer, admitted): (&Peer, &Admitted),
    body: &[u8],
) -> Result<Response, ApiError> {
    let asked = wire::batch(body, app.batch, itself::silence(app, admitted))?;
    let mut requests = Vec::with_capacity(asked.len());
    for (number, asked) in asked.into_iter().enumerate() {
        let checked = itself::checked(app, admitted, peer, asked).await;
        requests.push(checked.map_err(|error| error.within(&format!("requests[{number}]")))?);
    }
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    let facts = app.engine.facts();
    let text = if requests.iter().any(Asked::explains) {
        let waiting = Handle::current();
        aside(app, move |app| waiting.block_on(answers(app, &snapshot, &facts, &requests))).await??
    } else if requests.iter().any(Asked::holds) {
        to_its_end(app, move |app| async move { answers(&app, &snapshot, &facts, &requests).await }).await?
    } else {
        answers(app, &snapshot, &facts, &requests).await?
    };
    Ok(of_type(StatusCode::OK, JSON, text))
}

/// The answers in order; each item holds on its own.
async fn answers(app: &App, snapshot: &Arc<Snapshot>, facts: &Facts, requests: &[Asked]) -> Result<Vec<u8>, ApiError> {
    let mut text = Vec::with_capacity(32 + requests.len() * USUAL_ANSWER_BYTES);
    text.extend_from_slice(br#"{"responses":["#);
    let mut held = Vec::new();
    for (number, asked) in requests.iter().enumerate() {
        let answered = match answer_by(app, snapshot, facts, asked).await {
            Ok(answered) => answered,
            Err(error) => {
                give_back(app, snapshot, facts, held).await;
                return Err(error.within(&format!("requests[{number}]")));
            }
        };
        held.extend(answered.held);
        if number > 0 {
            text.push(b',');
            if number % AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        text.extend_from_slice(&answered.text);
    }
    text.extend_from_slice(b"]}");
    Ok(text)
}

/// Gives back what items before one that is no request hold: nobody is told of it.
async fn give_back(app: &App, snapshot: &Snapshot, facts: &Facts, held: Vec<ReservationId>) {
    for id in held {
        // Where that fails it expires.
        let _closed = gate::release(app.engine.world(snapshot, facts), id).await;
    }
}
