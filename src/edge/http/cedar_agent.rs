//! `POST /v1/is_authorized`: what users of cedar-agent send, answered in its form.

use std::time::Instant;

use hyper::StatusCode;
use serde::Serialize;

use super::app::App;
use super::body::{json, with_id};
use super::caller::Admitted;
use super::errors::{ApiError, Response};
use super::itself;
use super::wire;
use crate::edge::telemetry::metrics::DecisionMade;
use crate::gate::{self, Decided, DecisionRecord, Via};

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

/// Answers one question.
pub(super) async fn answer(app: &App, admitted: &Admitted, body: &[u8]) -> Result<Response, ApiError> {
    let request = wire::cedar_agent(body)?;
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    let request = itself::checked_request(&snapshot, admitted, request)?;
    let (facts, began) = (app.engine.facts(), Instant::now());
    let world = app.engine.world(&snapshot, &facts);
    let id = app.next_id(snapshot.revision());
    let gate::Authorized { decision, seen, .. } = gate::authorize(world, &request, None).await?;
    let (code, rules, took) = (decision.code, &*decision.rules, began.elapsed());
    app.metrics.decided(&DecisionMade { via: Via::CedarAgent, code, rules, took });
    app.engine
        .record(&DecisionRecord::of(id, Via::CedarAgent, world, Decided::One(&request, &decision)).with_seen(&seen));
    let errors = decision.errors.iter().map(|error| format!("{}: {}", error.rule, error.message)).collect();
    let reason = decision.rules.iter().map(|rule| rule.id.as_str()).collect();
    let answer = Answer {
        decision: if decision.is_permit() { "Allow" } else { "Deny" },
        diagnostics: Diagnostics { reason, errors },
    };
    Ok(with_id(json(StatusCode::OK, &answer), id))
}
