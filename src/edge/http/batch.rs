//! `POST /is_authorized/batch`: many questions, answered by one bundle at one instant.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use super::app::App;
use super::body::json;
use super::errors::{ApiError, Response};
use super::is_authorized::{aside, decide};
use super::wire::{self, Asked};
use crate::model::Facts;
use crate::policy::Snapshot;

/// After so many decisions other connections get their turn.
const AT_ONCE: usize = 64;

#[derive(Serialize)]
struct Responses {
    responses: Vec<Box<RawValue>>,
}

/// Answers a batch.
pub(super) async fn answer(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let requests = wire::batch(body, app.batch)?;
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    let facts = app.engine.facts();
    let mut responses = Vec::with_capacity(requests.len());
    if requests.iter().any(Asked::explains) {
        responses = aside(app, move |app| chunk(app, &snapshot, &facts, &requests, 0)).await??;
    } else {
        for (number, requests) in requests.chunks(AT_ONCE).enumerate() {
            responses.extend(chunk(app, &snapshot, &facts, requests, number * AT_ONCE)?);
            tokio::task::yield_now().await;
        }
    }
    Ok(json(StatusCode::OK, &Responses { responses }))
}

fn chunk(
    app: &App,
    snapshot: &Snapshot,
    facts: &Facts,
    requests: &[Asked],
    first: usize,
) -> Result<Vec<Box<RawValue>>, ApiError> {
    let mut answers = Vec::with_capacity(requests.len());
    for (number, asked) in requests.iter().enumerate() {
        let decided = decide(app, snapshot, facts, asked);
        let decided = decided.map_err(|error| error.within(&format!("requests[{}]", first + number)))?;
        answers.extend(decided.text(app));
    }
    Ok(answers)
}
