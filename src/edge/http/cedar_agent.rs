//! `POST /v1/is_authorized`: the request form of cedar-agent, answered in its response form.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;

use super::app::App;
use super::body::{json, with_id};
use super::caller::Sender;
use super::errors::{ApiError, Response};
use super::{run, wire};

#[derive(Serialize)]
struct Answer<'a> {
    decision: &'static str,
    diagnostics: Diagnostics<'a>,
}

#[derive(Serialize)]
struct Diagnostics<'a> {
    reason: Vec<&'a str>,
    errors: Vec<String>,
}

/// Answers one request.
pub(super) async fn answer(app: &Arc<App>, sender: Sender<'_>, body: &[u8]) -> Result<Response, ApiError> {
    let mut call = wire::cedar_agent(body)?;
    call.authority = sender.authority();
    let answer = run::authorize(app, call).await?;
    let rules = answer.decision().map_or(&[][..], |decision| &decision.rules);
    let errors = answer.decision().map_or(&[][..], |decision| &decision.errors);
    let wire = Answer {
        decision: if answer.is_permit() { "Allow" } else { "Deny" },
        diagnostics: Diagnostics {
            reason: rules.iter().map(|rule| rule.id.as_str()).collect(),
            errors: errors.iter().map(|error| format!("{}: {}", error.rule, error.message)).collect(),
        },
    };
    Ok(with_id(json(StatusCode::OK, &wire), answer.id))
}
