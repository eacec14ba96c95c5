//! `POST /v1/auth/validate`: the endpoint that others delegate to, in the form of Llama Stack. A credential and the
//! request that it came with; 200 says whom it proves, 401 that it proves nobody. With `"authorize": true` a forbid is a
//! 403.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};
use serde_json::{Map, Value, json};
use smol_str::SmolStr;

use super::app::App;
use super::body::{self, JSON, USUAL_ANSWER_BYTES, of_type};
use super::caller;
use super::errors::{ApiError, ErrorCode, Response};
use crate::edge::answer;
use crate::edge::identity::after_bearer;
use crate::gate::{self, Credential, Described, Presented, RouteError};
use crate::model::{Facts, Identity, RESERVED_ROLE_PREFIX, Request, SecretText, Told, strict_json};
use crate::policy::Snapshot;

/// Longest credential.
const MAX_CREDENTIAL_BYTES: usize = 16 * 1024;

/// What is asked.
struct Asked {
    presented: Presented,
    params: Map<String, Value>,
    method: Option<SmolStr>,
    authorize: bool,
}

/// Answers.
pub(super) async fn answer(app: &Arc<App>, text: &[u8]) -> Result<Response, ApiError> {
    let asked = read(text)?;
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    let facts = app.engine.facts();
    let identity = match caller::identify(app, &snapshot, &asked.presented, facts.now).await {
        Ok(identity) => identity,
        Err(refusal) => return Err(caller::refused(&refusal, &asked.presented.credential)),
    };
    if !asked.authorize && gate::is_narrowed(&snapshot, &identity) {
        let message = format!(
            "{} may not do all that its owner may: ask with `\"authorize\": true`, so that it is decided what it may do",
            identity.principal
        );
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let told = gate::told_of(&snapshot, &identity, facts.now)
        .ok_or_else(|| ApiError::new(ErrorCode::Unauthenticated, "whoever it proves is disabled, or is gone"))?;
    if asked.authorize
        && let Some(forbidden) = forbidden(app, (&snapshot, &facts), &identity, &asked).await?
    {
        return Ok(forbidden);
    }
    // What one may do on this server is nobody else's business.
    let roles: Vec<_> = told.roles.iter().filter(|role| !role.starts_with(RESERVED_ROLE_PREFIX)).collect();
    let attributes = json!({ "teams": told.teams, "orgs": told.orgs, "roles": roles, "tags": told.tags });
    let whole = json!({ "principal": told.principal.to_string(), "attributes": attributes });
    Ok(body::json(StatusCode::OK, &whole))
}

/// The answer to what is forbidden; `None` for a permit.
async fn forbidden(
    app: &App,
    (snapshot, facts): (&Arc<Snapshot>, &Facts),
    identity: &Arc<Identity>,
    asked: &Asked,
) -> Result<Option<Response>, ApiError> {
    let several = Cell::new(false);
    let param = |name: &str| {
        let value = asked.params.get(name)?;
        several.set(value.as_array().is_some_and(|values| values.len() > 1));
        text_of(value)
    };
    let path = &asked.presented.request.path;
    let found = app.routes.find(path, asked.method.as_deref(), param);
    let (action, resource) = found.map_err(|error| match error {
        RouteError::NoModel if several.get() => {
            let message = "the parameters name several models, and nothing says which of them is asked for";
            ApiError::invalid("request.params", message)
        }
        RouteError::NoModel => ApiError::invalid("request.params", error.to_string()),
        RouteError::Unknown | RouteError::Ambiguous => ApiError::invalid("request.path", error.to_string()),
    })?;
    let mut context = Map::new();
    context.insert("path".to_owned(), path.as_str().into());
    if let Some(address) = &asked.presented.source {
        context.insert("ip".to_owned(), address.to_string().into());
    }
    if let Some(method) = &asked.method {
        context.insert("method".to_owned(), method.as_str().into());
    }
    let request = Request::proved(Arc::clone(identity), action, resource).with_context(Told::from(context));
    let decision = gate::authorize(app.engine.world(snapshot, facts), &request, None).await?.decision;
    app.metrics.decided(decision.code, &decision.rules);
    if decision.is_permit() {
        return Ok(None);
    }
    let status = answer::status_of(decision.code, StatusCode::FORBIDDEN);
    let mut text = Vec::with_capacity(USUAL_ANSWER_BYTES);
    answer::write(&mut text, app.next_id(), &decision);
    let mut response = of_type(status, JSON, text);
    if let Some(seconds) = answer::retry_after_of(status, decision.retry_after_seconds) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(Some(response))
}

/// A parameter: a text, or a list of one, as what reads queries makes of `?model=…`.
fn text_of(value: &Value) -> Option<&str> {
    match value.as_array().map(Vec::as_slice) {
        None => value.as_str(),
        Some([one]) => one.as_str(),
        Some(_) => None,
    }
}

/// Reads `{"api_key": …, "request": {"path", "headers", "params"}, "authorize": …}`. Nothing of what is wrong is shown:
/// it may be the credential.
fn read(text: &[u8]) -> Result<Asked, ApiError> {
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
        None => false,
        Some(Value::Bool(authorize)) => authorize,
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
    let (path, method, ip) = (text("path")?.unwrap_or_default(), text("method")?, text("ip")?);
    let no_address = |_| ApiError::invalid("request.ip", "`ip` is an IP address");
    let source = ip.map(|text| text.parse::<IpAddr>().map_err(no_address)).transpose()?;
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
    Ok(Asked { presented, params, method, authorize })
}
