//! `POST /is_authorized/batch`: many questions, answered by one bundle at one instant.

use std::sync::Arc;

use hyper::StatusCode;

use super::app::App;
use super::body::{JSON, USUAL_ANSWER_BYTES, of_type};
use super::errors::{ApiError, Response};
use super::is_authorized::{aside, decide};
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
    let mut text = br#"{"responses":["#.to_vec();
    if requests.iter().any(Asked::explains) {
        text.extend(aside(app, move |app| chunk(app, &snapshot, &facts, &requests, 0)).await??);
    } else {
        for (number, requests) in requests.chunks(AT_ONCE).enumerate() {
            text.extend(chunk(app, &snapshot, &facts, requests, number * AT_ONCE)?);
            tokio::task::yield_now().await;
        }
    }
    text.extend_from_slice(b"]}");
    Ok(of_type(StatusCode::OK, JSON, text))
}

/// The answers to some of a batch, with a comma between them and after those that came before.
fn chunk(app: &App, snapshot: &Snapshot, facts: &Facts, requests: &[Asked], first: usize) -> Result<Vec<u8>, ApiError> {
    let mut text = Vec::with_capacity(requests.len() * USUAL_ANSWER_BYTES);
    for (number, asked) in (first..).zip(requests) {
        let decided = decide(app, snapshot, facts, asked);
        let decided = decided.map_err(|error| error.within(&format!("requests[{number}]")))?;
        if number > 0 {
            text.push(b',');
        }
        decided.write(app, &mut text);
    }
    Ok(text)
}
