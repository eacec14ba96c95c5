//! After a call: `POST /settle`, `/release`, `/extend` and `/usage`. Each may be sent again, and is answered as it was.
//!
//! A charge runs to its end even if the client goes away: the store reports once that a limit reached a threshold, and
//! the alert would be lost with the rest of the request.

use std::sync::Arc;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use smol_str::SmolStr;

use super::app::App;
use super::body::json;
use super::errors::{ApiError, Response};
use super::run::run_uncancelled;
use super::wire::{self, UsageBody};
use crate::model::{Amount, Unit};
use crate::pdp::{Closed, Part, Pdp, State, Usage, UsageReport};

/// `POST /settle`.
pub(super) async fn settle(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let asked = wire::settle(body)?;
    let settled = run_uncancelled(app, |pdp| async move {
        Ok(pdp.settle(asked.reservation, asked.usage, asked.resource.as_ref()).await?)
    });
    let closed = settled.await?;
    Ok(json(StatusCode::OK, &Outcome::of_held(&closed)))
}

/// `POST /release`.
pub(super) async fn release(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let reservation = wire::release(body)?;
    let closed = app.pdp().release(reservation).await?;
    Ok(json(StatusCode::OK, &Outcome::of_held(&closed)))
}

/// The new end of a reservation.
#[derive(Serialize, JsonSchema)]
pub(super) struct Extended {
    reservation: String,
    #[schemars(extend("format" = "date-time"))]
    expires_at: String,
}

/// `POST /extend`.
pub(super) async fn extend(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let asked = wire::extend(body)?;
    let expires_at = app.pdp().extend(asked.reservation, asked.ttl_ms).await?;
    let answer = Extended { reservation: asked.reservation.to_string(), expires_at: expires_at.to_string() };
    Ok(json(StatusCode::OK, &answer))
}

/// `POST /usage`: one, or a batch of which each is noted or refused by itself, so that a queue can be sent again.
pub(super) async fn usage(app: &Arc<App>, body: &[u8]) -> Result<Response, ApiError> {
    let usage = wire::usage(body, app.batch)?;
    run_uncancelled(app, |pdp| async move { record_all(&pdp, &usage).await }).await
}

async fn record_all(pdp: &Pdp, usage: &UsageBody) -> Result<Response, ApiError> {
    match usage {
        UsageBody::One(report) => Ok(json(StatusCode::OK, &record(pdp, report).await?)),
        UsageBody::Many(batch) => {
            let mut responses = Vec::with_capacity(batch.len());
            for (number, report) in batch.iter().enumerate() {
                let recorded = record(pdp, report).await.map_err(|error| error.within(&format!("usages[{number}]")));
                responses.push(match recorded {
                    Ok(told) => serde_json::to_value(&told).unwrap_or_default(),
                    Err(error) => error.value(),
                });
            }
            Ok(json(StatusCode::OK, &serde_json::json!({ "responses": responses })))
        }
    }
}

async fn record(pdp: &Pdp, report: &UsageReport) -> Result<Outcome, ApiError> {
    Ok(Outcome::of(&pdp.record_usage(report).await?))
}

/// The outcome of a reservation, the same each time it is asked for.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Closed")]
pub(super) struct Outcome {
    #[schemars(extend("pattern" = "^r-[0-9a-f]{32}$"))]
    reservation: String,
    #[schemars(extend("enum" = ["open", "settled", "released", "expired"]))]
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ToldUsage>,
    /// Whether it used more than it held. It is charged in full all the same.
    over: bool,
    charged: Vec<ToldPart>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct ToldUsage {
    requests: u64,
    input_tokens: u64,
    output_tokens: u64,
    cached_input_tokens: u64,
    cache_write_tokens: u64,
    reasoning_tokens: u64,
    images: u64,
    usd: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct ToldPart {
    id: SmolStr,
    meter: Option<SmolStr>,
    #[schemars(with = "super::answers::Unit")]
    unit: &'static str,
    held: String,
    charged: String,
}

impl Outcome {
    /// Of what was held before.
    fn of_held(closed: &Closed) -> Self {
        let over = closed.reservation.parts.iter().any(|part| part.charged > part.held);
        Self { over, ..Self::of(closed) }
    }

    fn of(closed: &Closed) -> Self {
        let reservation = &closed.reservation;
        let part = |part: &Part| ToldPart {
            id: part.limit.clone(),
            meter: part.meter.subject.clone(),
            unit: part.unit.as_str(),
            held: part.unit.show(part.held).to_string(),
            charged: part.unit.show(part.charged).to_string(),
        };
        let usd = |amount: Amount| Unit::Usd.show(amount).to_string();
        let usage = |usage: Usage| ToldUsage {
            requests: usage.requests,
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cached_input_tokens: usage.cached_input_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            images: usage.images,
            usd: usage.usd.map(usd),
        };
        Self {
            reservation: reservation.id.to_string(),
            state: match reservation.state {
                State::Open => "open",
                State::Settled(_) | State::UsageUnknown => "settled",
                State::Released => "released",
                State::Expired => "expired",
            },
            usage: if let State::Settled(used) = reservation.state { Some(usage(used)) } else { None },
            over: false,
            charged: reservation.parts.iter().map(part).collect(),
        }
    }
}
