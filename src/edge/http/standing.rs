//! `GET /limits`: where a caller stands.

use std::sync::Arc;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use smol_str::SmolStr;
use tokio::runtime::Handle;

use super::app::App;
use super::body::json;
use super::caller::Admitted;
use super::errors::{ApiError, Response};
use super::query::{Part, Query, cursor, read_cursor};
use super::run::run_blocking;
use super::wire::missing;
use crate::pdp::{MAX_STANDINGS, Mark, Measure, MeterStanding, Mode, PdpError, Standings, StandingsOf};

/// Where the limits of a principal stand.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Standings")]
pub(super) struct Told<'a> {
    revision: &'a str,
    #[schemars(extend("format" = "date-time"))]
    at: String,
    #[schemars(with = "super::answers::Name")]
    principal: Who<'a>,
    limits: Vec<One<'a>>,
    /// The `after` of the next page.
    next: Option<String>,
}

#[derive(Serialize)]
struct Who<'a> {
    r#type: &'a str,
    id: &'a str,
}

/// Where one meter stands. Amounts are exact decimals, to be compared as numbers.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MeterStanding")]
struct One<'a> {
    id: &'a str,
    meter: Option<&'a str>,
    each: Option<String>,
    #[schemars(extend("enum" = ["budget", "rate", "concurrency"]))]
    kind: &'static str,
    #[schemars(with = "super::answers::Unit")]
    unit: &'static str,
    limit: String,
    used: String,
    held: String,
    remaining: String,
    #[schemars(extend("format" = "date-time"))]
    resets_at: Option<String>,
    warn_at: &'a [u8],
    #[schemars(extend("enum" = ["enforce", "warn"]))]
    mode: &'static str,
    /// The file of the bundle; null for a limit that a stored key has.
    file: Option<&'a str>,
    line: Option<u32>,
}

/// Answers about one page.
pub(super) async fn answer(app: &Arc<App>, query: Option<&str>, admitted: &Admitted) -> Result<Response, ApiError> {
    let query = Query::read(query, &["principal", "page_size", "after"])?;
    let principal = query.uid("principal")?.ok_or_else(|| missing("principal"))?;
    let most = query.page_size(MAX_STANDINGS)?;
    let after = query.get("after").map(read_cursor::<(SmolStr, Part)>).transpose()?;
    let kept = app.keys.as_ref().map(|keys| keys.identity(&principal)).transpose();
    let identity = kept.map_err(PdpError::from)?.flatten();
    let whole = matches!(admitted, Admitted::Whole);
    let waiting = Handle::current();
    // With a meter for each model or end user it looks through all of them.
    run_blocking(app, move |app| {
        let pinned = app.pdp().pin()?;
        let identity = identity.as_ref();
        let of = StandingsOf { principal: &principal, identity, after: after.as_ref(), most, whole };
        let found = waiting.block_on(pinned.standing(of))?;
        Ok(json(StatusCode::OK, &told(&found, pinned.snapshot().revision(), pinned.facts().now.to_string())))
    })
    .await?
}

fn told<'a>(found: &'a Standings<'_>, revision: &'a str, at: String) -> Told<'a> {
    Told {
        revision,
        at,
        principal: Who { r#type: found.principal.kind(), id: found.principal.id() },
        limits: found.meters.iter().map(one).collect(),
        next: found.next.as_ref().map(|next: &Mark| cursor(next)),
    }
}

fn one<'a>(meter: &'a MeterStanding<'_>) -> One<'a> {
    let (limit, standing) = (&meter.bound.limit, &meter.standing);
    let unit = limit.unit();
    let show = |amount| unit.show(amount).to_string();
    let in_bundle = meter.bound.line > 0;
    One {
        id: &limit.id,
        meter: meter.meter.as_deref(),
        each: meter.bound.each.as_ref().map(ToString::to_string),
        kind: match limit.measure {
            Measure::Budget { .. } => "budget",
            Measure::Rate { .. } => "rate",
            Measure::Concurrency => "concurrency",
        },
        unit: unit.as_str(),
        limit: show(standing.cap),
        used: show(standing.used),
        held: show(standing.held),
        remaining: show(standing.remaining()),
        resets_at: standing.resets_at.map(|at| at.to_string()),
        warn_at: &limit.warn_at,
        mode: if limit.mode == Mode::Warn { "warn" } else { "enforce" },
        file: in_bundle.then_some(&*meter.bound.file),
        line: in_bundle.then_some(meter.bound.line),
    }
}
