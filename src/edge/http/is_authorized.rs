//! `POST /is_authorized`: one request for a decision, about one resource or a list of candidates.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};

use super::app::App;
use super::body::{JSON, USUAL_ANSWER_BYTES, of_type};
use super::caller::Sender;
use super::errors::{ApiError, Response};
use super::{run, wire};
use crate::edge::answer::{retry_after_of, status_of};

/// Answers one request. With `maps_status`, the status tells a forbid from a permit.
pub(super) async fn answer(
    app: &Arc<App>,
    sender: Sender<'_>,
    body: &[u8],
    maps_status: bool,
) -> Result<Response, ApiError> {
    let mut call = wire::question(body, sender.default_reserve(app))?;
    call.authority = sender.authority();
    let answer = run::authorize(app, call).await?;
    let mut text = Vec::with_capacity(USUAL_ANSWER_BYTES);
    answer.write_json(&mut text);
    if !maps_status {
        return Ok(of_type(StatusCode::OK, JSON, text));
    }
    let status = status_of(answer.code(), app.budget_status);
    let mut response = of_type(status, JSON, text);
    if let Some(seconds) = retry_after_of(status, answer.retry_after_seconds()) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}
