//! `POST /is_authorized/batch`: many requests, decided by one bundle at one instant.

use std::sync::Arc;

use hyper::StatusCode;

use super::app::App;
use super::body::{JSON, USUAL_ANSWER_BYTES, of_type};
use super::caller::Sender;
use super::errors::{ApiError, Response};
use super::{run, wire};

/// Answers a batch.
pub(super) async fn answer(app: &Arc<App>, sender: Sender<'_>, body: &[u8]) -> Result<Response, ApiError> {
    let mut calls = wire::batch(body, app.batch, sender.default_reserve(app))?;
    for call in &mut calls {
        call.authority = sender.authority();
    }
    let answers = run::authorize_batch(app, calls).await?;
    let mut text = Vec::with_capacity(32 + answers.len() * USUAL_ANSWER_BYTES);
    text.extend_from_slice(br#"{"responses":["#);
    for (number, answer) in answers.iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        answer.write_json(&mut text);
    }
    text.extend_from_slice(b"]}");
    Ok(of_type(StatusCode::OK, JSON, text))
}
