//! `POST /v1/auth/validate`: the endpoint that others delegate to, in the form of Llama Stack. A credential and the
//! request that it came with; 200 says whom it proves, 401 that it proves nobody. With `"authorize": true` a forbid is a
//! 403, and a permit is counted on the limits that apply.

use std::cell::Cell;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};
use serde_json::{Map, Value, json};

use super::app::App;
use super::body::{self, JSON, USUAL_ANSWER_BYTES, of_type, with_id};
use super::caller;
use super::errors::{ApiError, ErrorCode, Response};
use super::run::run_uncancelled;
use super::wire::{self, Delegated};
use crate::edge::answer;
use crate::model::{EntityUid, Identity, RESERVED_ROLE_PREFIX, RequestErrorCode};
use crate::pdp::{
    Answer, AuthorizeCall, Caller, Found, LimitsMode, Pdp, PdpError, Pinned, RouteError, RouteLimits, Via,
};

/// Answers.
pub(super) async fn answer(app: &Arc<App>, text: &[u8]) -> Result<Response, ApiError> {
    let asked = wire::validate(text, app.validate_authorizes)?;
    let pinned = app.pdp().pin()?;
    let identity = match pinned.authenticate(&asked.presented).await {
        Ok(identity) => identity,
        Err(refusal) => return Err(caller::refused(&refusal, &asked.presented.credential)),
    };
    if !asked.authorize && pinned.is_restricted(&identity) {
        let message = format!(
            "{} may not do all that its owner may: ask with `\"authorize\": true`, so that it is decided what it may do",
            identity.principal
        );
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let attributes = pinned
        .attributes(&identity)
        .ok_or_else(|| ApiError::new(ErrorCode::Unauthenticated, "whoever it proves is disabled, or is gone"))?;
    let mut decided = None;
    if asked.authorize {
        let call = call(app, &pinned, &identity, &asked)?;
        let answer = authorize(app, &pinned, call).await?;
        if !answer.is_permit() {
            return Ok(forbidden(&answer));
        }
        decided = Some(answer.id);
    }
    // The rights of the caller on this server are not shown to other services.
    let roles: Vec<_> = attributes.roles.iter().filter(|role| !role.starts_with(RESERVED_ROLE_PREFIX)).collect();
    let shown = json!({ "teams": attributes.teams, "orgs": attributes.orgs, "roles": roles, "tags": attributes.tags });
    let whole = json!({ "principal": attributes.principal.to_string(), "attributes": shown });
    let response = body::json(StatusCode::OK, &whole);
    Ok(match decided {
        Some(id) => with_id(response, id),
        None => response,
    })
}

/// Decides the call. A charge runs to its end even if the client goes away. It begins after the authentication, so that a
/// client that gives up while a provider is slow is not charged.
async fn authorize(app: &Arc<App>, pinned: &Pinned<'_>, call: AuthorizeCall) -> Result<Answer, ApiError> {
    if !call.counts() {
        return pinned.authorize(call).await.map_err(amount_needed);
    }
    let (snapshot, facts) = (Arc::clone(pinned.snapshot()), pinned.facts().clone());
    let charging = |pdp: Pdp| async move { pdp.pin_to(snapshot, facts).authorize(call).await.map_err(amount_needed) };
    run_uncancelled(app, charging).await
}

/// The call that the described request makes of an identity.
fn call(
    app: &App,
    pinned: &Pinned<'_>,
    identity: &Arc<Identity>,
    asked: &Delegated,
) -> Result<AuthorizeCall, ApiError> {
    let (found, resource) = asked_for(app, pinned, asked)?;
    let caller = Caller::Authenticated(Arc::clone(identity));
    let mut call = AuthorizeCall::new(caller, found.action.clone(), resource).with_context(context(asked)?);
    call.via = Via::Validate;
    call.limits = match found.limits {
        RouteLimits::Check => LimitsMode::Check,
        RouteLimits::Charge => LimitsMode::Charge { body_bytes: asked.body_bytes },
    };
    Ok(call)
}

/// The response to a forbid.
fn forbidden(answer: &Answer) -> Response {
    let status = answer::status_of(answer.code(), StatusCode::FORBIDDEN);
    let mut text = Vec::with_capacity(USUAL_ANSWER_BYTES);
    answer.write_json(&mut text);
    let mut response = of_type(status, JSON, text);
    if let Some(seconds) = answer::retry_after_of(status, answer.retry_after_seconds()) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The action and resource of the request, by the routes of this server.
fn asked_for(app: &App, pinned: &Pinned<'_>, asked: &Delegated) -> Result<(Found, EntityUid), ApiError> {
    let (several, unreadable) = (Cell::new(false), Cell::new(false));
    let param = |name: &str| {
        let value = asked.params.get(name).filter(|value| !value.is_null())?;
        let text = text_of(value);
        several.set(value.as_array().is_some_and(|values| values.len() > 1));
        unreadable.set(text.is_none());
        text
    };
    let found = app.routes.look_up(&asked.presented.request.path, asked.method.as_deref(), param);
    let found = found.and_then(|found| pinned.resource_of(&found).map(|resource| (found, resource)));
    let found = found.map_err(|error| match error {
        RouteError::NoModel if several.get() => {
            let message = "the parameters name several models, and nothing says which of them is asked for";
            ApiError::invalid("request.params", message)
        }
        RouteError::NoModel | RouteError::InvalidModel | RouteError::TwoModels => {
            ApiError::invalid("request.params", error.to_string())
        }
        RouteError::Unknown | RouteError::Ambiguous(_) => ApiError::invalid("request.path", error.to_string()),
    })?;
    if several.get() {
        // A path that names one of them does not say that the others are not asked for.
        return Err(ApiError::invalid("request.params", "the parameters name several models"));
    }
    if unreadable.get() {
        // The gateway may understand a value that is not text as a model.
        return Err(ApiError::invalid(
            "request.params",
            "the parameter for the model must be a string, or a list of one string",
        ));
    }
    Ok(found)
}

/// The context of the request, for conditions and limits.
fn context(asked: &Delegated) -> Result<Map<String, Value>, ApiError> {
    let mut context = Map::new();
    context.insert("path".to_owned(), asked.presented.request.path.as_str().into());
    if let Some(address) = &asked.presented.source {
        context.insert("ip".to_owned(), address.to_string().into());
    }
    if let Some(method) = &asked.method {
        context.insert("method".to_owned(), method.as_str().into());
    }
    match asked.params.get("user") {
        None | Some(Value::Null) => {}
        Some(user) => {
            let wrong =
                || ApiError::invalid("request.params.user", "`user` is a text, the gateway's own name of its user");
            context.insert("end_user".to_owned(), text_of(user).ok_or_else(wrong)?.into());
        }
    }
    if let Some(most) = max_output_tokens(&asked.params)? {
        context.insert("max_output_tokens".to_owned(), most.into());
    }
    if let Some(stream) = asked.params.get("stream").and_then(Value::as_bool) {
        context.insert("stream".to_owned(), stream.into());
    }
    Ok(context)
}

/// Where protocols say how many tokens there may be in the answer: within which member, where in one, and under which name.
const MOST_TOKENS: [(Option<&str>, &str); 5] = [
    (None, "max_tokens"),
    (None, "max_completion_tokens"),
    (None, "max_output_tokens"),
    (Some("generationConfig"), "maxOutputTokens"),
    (Some("inferenceConfig"), "maxTokens"),
];

/// The most tokens that the parameters ask for, the largest number where several say so.
fn max_output_tokens(params: &Map<String, Value>) -> Result<Option<i64>, ApiError> {
    let mut most = None;
    for (within, name) in MOST_TOKENS {
        let outer = within.map_or(Some(params), |within| params.get(within).and_then(Value::as_object));
        let value = match outer.and_then(|outer| outer.get(name)) {
            None | Some(Value::Null) => continue,
            Some(value) => value,
        };
        let digits = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = value.as_i64().or_else(|| text_of(value).and_then(digits)).filter(|number| *number >= 0);
        let wrong = || {
            let param = within.map_or_else(|| name.to_owned(), |within| format!("{within}.{name}"));
            ApiError::invalid(format!("request.params.{param}"), format!("`{name}` is a whole number, not negative"))
        };
        most = most.max(Some(number.ok_or_else(wrong)?));
    }
    Ok(most)
}

/// The members for a needed amount have other names here than in a question, so the message differs.
fn amount_needed(error: PdpError) -> ApiError {
    let error = match error {
        PdpError::Request(error) if error.code == RequestErrorCode::AmountNeeded => error,
        error => return error.into(),
    };
    let message = format!(
        "{}; here, send the body's `content-length` in `request.headers` and `max_tokens` in `request.params`, declare \
         `estimate_input_tokens` and `max_output_tokens` of the model, or set `limits: check` for the route",
        error.message
    );
    ApiError { param: "request.params".to_owned(), ..ApiError::new(ErrorCode::Request(error.code), message) }
}

/// A parameter: a text, or a list of one, as what reads queries makes of `?model=…`.
fn text_of(value: &Value) -> Option<&str> {
    match value.as_array().map(Vec::as_slice) {
        None => value.as_str(),
        Some([one]) => one.as_str(),
        Some(_) => None,
    }
}
