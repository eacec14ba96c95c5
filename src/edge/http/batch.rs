//! `POST /is_authorized/batch`: many questions, answered by one bundle at one instant.

use std::sync::Arc;

use hyper::StatusCode;
use tokio::runtime::Handle;

use super::app::App;
use super::body::{JSON, USUAL_ANSWER_BYTES, of_type};
use super::errors::{ApiError, Response};
use super::is_authorized::{answer_by, aside, to_its_end};
use super::wire::{self, Asked};
use crate::model::Facts;
use crate::policy::Snapshot;

/// After so many decisions other connections get their turn.
const AT_ONCE: usize = 64;

/// Answers a batch.
pub(super) async fn answer(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let requests = wire::batch(body, app.batch)?;
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    let facts = app.engine.facts();
    let text = if requests.iter().any(Asked::explains) {
        let waiting = Handle::current();
        aside(app, move |app| waiting.block_on(answers(app, &snapshot, &facts, &requests))).await??
    } else if requests.iter().any(|asked| asked.wanted.is_some()) {
        to_its_end(app, move |app| async move { answers(&app, &snapshot, &facts, &requests).await }).await?
    } else {
        answers(app, &snapshot, &facts, &requests).await?
    };
    Ok(of_type(StatusCode::OK, JSON, text))
}

/// The answers in order; each item holds on its own.
async fn answers(app: &App, snapshot: &Snapshot, facts: &Facts, requests: &[Asked]) -> Result<Vec<u8>, ApiError> {
    let mut text = Vec::with_capacity(32 + requests.len() * USUAL_ANSWER_BYTES);
    text.extend_from_slice(br#"{"responses":["#);
    for (number, asked) in requests.iter().enumerate() {
        let answered = answer_by(app, snapshot, facts, asked).await;
        let answered = answered.map_err(|error| error.within(&format!("requests[{number}]")))?;
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
