//! The server's own endpoints: how it is, what it decides by, and what it offers.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json as object};

use super::app::App;
use super::body::{json, of_type};
use super::errors::{ApiError, ErrorCode, Response};
use super::extract::{NoBody, OptionalJsonBody};
use super::health::{self, Component};
use super::wire;
use crate::policy::problem::{Problem, ProblemCode};
use crate::policy::{Report, Snapshot, report};

const PAGE: &str = include_str!("page.html");

/// `GET /health/live`.
pub(super) async fn live(_: NoBody) -> Response {
    json(StatusCode::OK, &object!({ "status": "live" }))
}

/// `GET /health/ready`.
pub(super) async fn ready(State(app): State<Arc<App>>, _: NoBody) -> Response {
    let failed = app.engine.report().failure.is_some();
    let failed = failed.then(|| "the newest files of the bundle do not load".to_owned());
    let away = components(&app).into_iter().filter(|one| one.away).map(|one| one.reason());
    let reasons: Vec<String> = failed.into_iter().chain(away).collect();
    let degraded = !reasons.is_empty();
    let Some(snapshot) = app.engine.snapshot() else {
        let body = object!({ "status": "no_bundle", "degraded": degraded, "reasons": reasons, "revision": null });
        return json(StatusCode::SERVICE_UNAVAILABLE, &body);
    };
    let (status, revision) = (if degraded { "degraded" } else { "ready" }, &**snapshot.revision());
    let body = object!({ "status": status, "degraded": degraded, "reasons": reasons, "revision": revision });
    json(StatusCode::OK, &body)
}

fn components(app: &App) -> Vec<Component> {
    health::components(&app.engine, app.keys.as_ref().map(|service| &*service.keys))
}

/// `GET /metrics`.
pub(super) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap, _: NoBody) -> Response {
    super::metrics::answer(&app, &headers)
}

/// `GET /bundle`.
pub(super) async fn bundle(State(app): State<Arc<App>>, _: NoBody) -> Response {
    current_bundle(&app)
}

fn current_bundle(app: &App) -> Response {
    json(StatusCode::OK, &describe(app.engine.snapshot().as_deref(), &app.engine.report()))
}

/// `POST /bundle/reload`.
pub(super) async fn reload(
    State(app): State<Arc<App>>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, ApiError> {
    let acknowledged = if body.is_empty() { None } else { wire::reload(&body)? };
    let engine = app.engine.clone();
    if let Some(revision) = acknowledged {
        engine.acknowledge(&revision);
    }
    let timeout = app.reload_timeout;
    let read = tokio::task::spawn_blocking(move || engine.reload(timeout)).await.unwrap_or(false);
    let report = app.engine.report();
    match &report.failure {
        _ if !read => Ok(json(StatusCode::ACCEPTED, &describe(app.engine.snapshot().as_deref(), &report))),
        None => Ok(current_bundle(&app)),
        Some(failure) => Err(not_loaded(&failure.problems)),
    }
}

fn not_loaded(problems: &[Problem]) -> ApiError {
    let first = problems.iter().find(|problem| problem.is_error()).or_else(|| problems.first());
    let held = first.is_some_and(|problem| problem.code == ProblemCode::ReloadHeld);
    let code = if held { ErrorCode::ReloadHeld } else { ErrorCode::ReloadFailed };
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let first = first.map(ToString::to_string).unwrap_or_default();
    let help = problems.iter().filter(|_| held).find_map(|problem| problem.help.clone());
    let message = match help {
        Some(help) => format!("{first}; {help}"),
        None => format!("the files do not load ({errors} errors; GET /bundle lists them): {first}"),
    };
    ApiError::new(code, message)
}

/// `GET /version`.
pub(super) async fn version(_: NoBody) -> Response {
    json(StatusCode::OK, &object!({ "name": "tollgate", "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /openapi.json`.
pub(super) async fn open_api(State(app): State<Arc<App>>, _: NoBody) -> Response {
    of_type(StatusCode::OK, "application/json", app.description.get().cloned().unwrap_or_default())
}

/// `GET /docs`.
pub(super) async fn page(_: NoBody) -> Response {
    let mut response = of_type(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let policy = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'";
    let policy = hyper::header::HeaderValue::from_static(policy);
    response.headers_mut().insert(hyper::header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// Everything about the bundle: what decides, and what did not load.
fn describe(snapshot: Option<&Snapshot>, report: &Report) -> impl serde::Serialize {
    let failure = report.failure.as_ref().map(|failure| {
        object!({
            "at": failure.at.to_string(),
            "revision": failure.revision.as_deref(),
            "problems": problems(&failure.problems),
        })
    });
    let is_skipped = |problem: &&Problem| problem.code == ProblemCode::FileSkipped && !problem.file.is_empty();
    let skipped: BTreeSet<&str> = report.warnings.iter().filter(is_skipped).map(|problem| &*problem.file).collect();
    let files: BTreeSet<&str> = snapshot.into_iter().flat_map(Snapshot::files).map(|file| &**file).collect();
    object!({
        "revision": snapshot.map(|snapshot| &**snapshot.revision()),
        "loaded_at": report.loaded_at.map(|at| at.to_string()),
        "degraded": report.failure.is_some(),
        "counts": snapshot.map(counts),
        "files": files,
        "skipped": skipped,
        "warnings": problems(&report.warnings),
        "failure": failure,
        "loads": report.loads,
        "failures": report.failures,
    })
}

/// The problems in the form that `tollgate check --format json` prints.
fn problems(problems: &[Problem]) -> Value {
    serde_json::from_str(&report::json(problems)).unwrap_or_default()
}

fn counts(snapshot: &Snapshot) -> Value {
    let counts = snapshot.counts();
    object!({
        "files": counts.files, "rules": counts.rules, "permits": counts.permits, "forbids": counts.forbids,
        "conditions": counts.conditions, "limits": counts.limits, "orgs": counts.orgs, "teams": counts.teams, "users": counts.users,
        "services": counts.services, "keys": counts.keys, "provider_accounts": counts.provider_accounts,
        "models": counts.models, "model_groups": counts.model_groups, "routers": counts.routers,
        "entities": counts.entities,
    })
}
