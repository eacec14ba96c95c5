//! `POST /v1/auth/validate`: the endpoint that others delegate to, in the form of Llama Stack. A credential and the
//! request that it came with; 200 says whom it proves, 401 that it proves nobody. With `"authorize": true` a forbid is a
//! 403, and a permit is counted on the limits that apply.

use std::cell::Cell;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};
use serde_json::{Map, Value, json};
use smol_str::SmolStr;

use super::app::App;
use super::body::{self, JSON, USUAL_ANSWER_BYTES, of_type, with_id};
use super::caller;
use super::errors::{ApiError, ErrorCode, Response};
use super::run::run_uncancelled;
use crate::edge::answer;
use crate::edge::identity::after_bearer;
use crate::model::{
    EntityUid, Identity, PathError, RESERVED_ROLE_PREFIX, RequestErrorCode, RequestPath, SecretText, request_address,
    strict_json,
};
use crate::pdp::{
    Answer, AuthorizeCall, Caller, Credential, Described, Found, LimitsMode, PdpError, Pinned, Presented, RouteError,
    RouteLimits, Via,
};

/// Longest credential.
const MAX_CREDENTIAL_BYTES: usize = 16 * 1024;

/// What is asked.
struct Asked {
    presented: Presented,
    params: Map<String, Value>,
    method: Option<SmolStr>,
    /// How long the body of the request is, where that is known.
    body_bytes: Option<u64>,
    authorize: bool,
}

/// Answers.
pub(super) async fn answer(app: &Arc<App>, text: &[u8]) -> Result<Response, ApiError> {
    let asked = read(text, app.validate_authorizes)?;
    // A permit can be charged, so the call runs to its end.
    if asked.authorize {
        let shared = Arc::clone(app);
        return run_uncancelled(app, |_| async move { answer_now(&shared, asked).await }).await;
    }
    answer_now(app, asked).await
}

async fn answer_now(app: &App, asked: Asked) -> Result<Response, ApiError> {
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
        let answer = pinned.authorize(call).await.map_err(amount_needed)?;
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

/// The call that the described request makes of an identity.
fn call(app: &App, pinned: &Pinned<'_>, identity: &Arc<Identity>, asked: &Asked) -> Result<AuthorizeCall, ApiError> {
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
fn asked_for(app: &App, pinned: &Pinned<'_>, asked: &Asked) -> Result<(Found, EntityUid), ApiError> {
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
fn context(asked: &Asked) -> Result<Map<String, Value>, ApiError> {
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

/// The length of the body of the described request: its `content-length`, or the length of `params` if they are the body;
/// the largest of them, since a caller that states less would pay less. `None` if neither is known.
fn body_bytes(headers: &Map<String, Value>, params: &Map<String, Value>) -> Option<u64> {
    let lengths = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let digits = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    // A header that came twice is a list.
    let values = lengths.flat_map(|(_, value)| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
    let length = values.filter_map(|value| value.as_u64().or_else(|| value.as_str().and_then(digits))).max();
    let is_body =
        ["messages", "input", "prompt", "contents", "documents"].iter().any(|name| params.contains_key(*name));
    let text = is_body.then(|| serde_json::to_string(params).ok()).flatten();
    length.max(text.and_then(|text| u64::try_from(text.len()).ok()))
}

/// A parameter: a text, or a list of one, as what reads queries makes of `?model=…`.
fn text_of(value: &Value) -> Option<&str> {
    match value.as_array().map(Vec::as_slice) {
        None => value.as_str(),
        Some([one]) => one.as_str(),
        Some(_) => None,
    }
}

/// Reads `{"api_key": …, "request": {"path", "headers", "params"}, "authorize": …}`; with `always`, every call is to be
/// decided. Errors show no part of the input, since it may be the credential.
fn read(text: &[u8], always: bool) -> Result<Asked, ApiError> {
    let form = || ApiError::invalid("", "expected {\"api_key\": …, \"request\": {\"path\", \"headers\", \"params\"}}");
    let Ok(Value::Object(mut members)) = strict_json::from_slice(text) else { return Err(form()) };
    let known = ["api_key", "request", "authorize"];
    if members.keys().any(|name| !known.contains(&name.as_str())) {
        return Err(ApiError::invalid("", format!("the members are `{}`", known.join("`, `"))));
    }
    let secret = match members.remove("api_key") {
        Some(Value::String(key))
            if (1..=MAX_CREDENTIAL_BYTES).contains(&key.len()) && !after_bearer(&key).is_empty() =>
        {
            let key = SecretText::new(key);
            SecretText::new(after_bearer(key.expose()))
        }
        _ => return Err(ApiError::invalid("api_key", "`api_key` is a text of 1 to 16384 bytes")),
    };
    let authorize = match members.remove("authorize") {
        None => always,
        Some(Value::Bool(authorize)) => authorize || always,
        Some(_) => return Err(ApiError::invalid("authorize", "`authorize` is true or false")),
    };
    let mut request = match members.remove("request") {
        None if !authorize => Map::new(),
        Some(Value::Object(request)) => request,
        _ => return Err(ApiError::invalid("request", "`request` is an object with `path`, `headers` and `params`")),
    };
    let mut text = |name: &str| match request.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(SmolStr::from(text))),
        Some(_) => Err(ApiError::invalid(format!("request.{name}"), format!("`{name}` is a text"))),
    };
    let (path, method, ip) = (text("path")?, text("method")?, text("ip")?);
    let no_path = |error: PathError| ApiError::invalid("request.path", error.to_string());
    let path = path.map(|text| RequestPath::parse(&text)).transpose().map_err(no_path)?;
    let path = path.map(RequestPath::into_text).unwrap_or_default();
    let no_address = || ApiError::invalid("request.ip", "`ip` is an IP address, and no range");
    let source = ip.map(|text| request_address(&text).ok_or_else(no_address)).transpose()?;
    let mut object = |name: &str| match request.remove(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(ApiError::invalid(format!("request.{name}"), format!("`{name}` is an object"))),
    };
    let (headers, params) = (object("headers")?, object("params")?);
    if let Some(name) = request.keys().next() {
        let message = "`request` has `path`, `method`, `ip`, `headers` and `params`";
        return Err(ApiError::invalid(format!("request.{}", name.escape_debug()), message));
    }
    let texts = |object: &Map<String, Value>, lower: bool| {
        let name = |name: &String| if lower { name.to_ascii_lowercase() } else { name.clone() };
        // A parameter may have several values.
        let values = |value: &'_ Value| match value {
            Value::Array(values) => values.iter().filter_map(Value::as_str).map(SmolStr::from).collect(),
            value => Vec::from_iter(value.as_str().map(SmolStr::from)),
        };
        object
            .iter()
            .flat_map(|(key, value)| values(value).into_iter().map(|value| (name(key).into(), value)))
            .collect()
    };
    let described = Described {
        method: method.clone().unwrap_or_default(),
        path,
        headers: texts(&headers, true),
        params: texts(&params, false),
        ..Described::default()
    };
    let presented = Presented { request: described, source, ..Presented::new(Credential::Bearer(secret)) };
    let body_bytes = body_bytes(&headers, &params);
    Ok(Asked { presented, params, method, body_bytes, authorize })
}
