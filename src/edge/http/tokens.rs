//! `POST /v1/token`: a credential becomes tokens of Tollgate's own; and `GET /.well-known/jwks.json`, the keys that sign
//! them.

use std::sync::Arc;

use axum::extract::State;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts as Head;
use serde::Serialize;
use serde_json::Value;

use super::app::App;
use super::body::{JSON, json, of_type};
use super::caller::{self, Peer};
use super::errors::{ApiError, ErrorCode, Response};
use super::extract::{AnyBody, NoBody};
use super::query::form_decoded;
use super::request_body;
use crate::gate::{Credential, Described, Issued, Presented, TokenError, Tokens};
use crate::model::{SecretText, strict_json};

/// Longest body: a credential, and little else.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// For how long others may keep the keys.
const PUBLISHED_FOR: HeaderValue = HeaderValue::from_static("public, max-age=300");

#[derive(Serialize)]
struct Wire<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_expires_in: Option<i64>,
}

/// What a body asks for.
enum Grant {
    /// Tokens for the credential in the headers.
    Headers,
    /// Tokens for this credential.
    Credential(Credential),
    /// The next tokens.
    Refresh(SecretText),
}

/// Exchanges a credential.
pub(super) async fn exchange(
    State(app): State<Arc<App>>,
    peer: Peer,
    head: Head,
    AnyBody(body): AnyBody,
) -> Result<Response, ApiError> {
    let (app, head, peer) = (&app, &head, &peer);
    let tokens = tokens(app)?;
    let grant = grant(head, &body)?;
    let in_headers = app.credential_headers.credential(&head.headers);
    let in_headers = in_headers.map_err(|error| ApiError::invalid("", error.to_string()))?;
    if in_headers.is_some() && !matches!(grant, Grant::Headers) {
        return Err(ApiError::invalid("", "a request brings one credential: in its headers, or in its body"));
    }
    let pinned = app.pdp().pin()?;
    let (snapshot, now) = (Arc::clone(pinned.snapshot()), pinned.facts().now);
    let identity = match grant {
        Grant::Refresh(token) => {
            let credential = Credential::Bearer(token.clone());
            let issued = on_disk(move || tokens.refresh(&token, &snapshot, now)).await?;
            return issued.map(|issued| answer(&issued)).map_err(|error| refused(app, peer, error, &credential));
        }
        Grant::Headers => caller::authenticated(app, &pinned, head, peer).await?,
        Grant::Credential(credential) => {
            let presented = Presented { credential, source: peer.address, request: Described::default() };
            let authenticated = pinned.authenticate(&presented).await;
            authenticated.map_err(|refusal| caller::refused(&refusal, &presented.credential))?
        }
    };
    let issued = on_disk(move || tokens.issue(&identity, &snapshot, now)).await?;
    issued.map(|issued| answer(&issued)).map_err(not_handed_out)
}

/// The keys that check Tollgate's own tokens.
pub(super) async fn published(State(app): State<Arc<App>>, _: NoBody) -> Result<Response, ApiError> {
    let mut response = of_type(StatusCode::OK, JSON, tokens(&app)?.published());
    response.headers_mut().insert(CACHE_CONTROL, PUBLISHED_FOR);
    Ok(response)
}

fn tokens(app: &App) -> Result<Arc<dyn Tokens>, ApiError> {
    let none = || {
        ApiError::new(
            ErrorCode::NotFound,
            "this server hands out no tokens: it has `identity.tokens: { enabled: false }`, keeps no keys, or has a Redis without a `pepper_file`",
        )
    };
    app.tokens.clone().ok_or_else(none)
}

/// What waits for the disk does so where nobody else waits for it.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|_| ApiError::new(ErrorCode::Unavailable, "the token was not made"))
}

fn refused(app: &App, peer: &Peer, error: TokenError, credential: &Credential) -> ApiError {
    if let TokenError::Refused(refusal) = &error {
        app.pdp().credential_refused(refusal, peer.address);
        return caller::refused(refusal, credential);
    }
    not_handed_out(error)
}

fn not_handed_out(error: TokenError) -> ApiError {
    match error {
        TokenError::Refused(refusal) => ApiError::refused(&refusal),
        TokenError::Exchanged | TokenError::Narrowed | TokenError::TooLong => {
            ApiError::new(ErrorCode::Forbidden, error.to_string())
        }
        TokenError::Store(_) | TokenError::Unavailable => {
            ApiError::new(ErrorCode::StoreUnavailable, "tokens cannot be kept at the moment")
        }
    }
}

fn answer(issued: &Issued) -> Response {
    let refresh = issued.refresh.as_ref();
    let mut response = json(
        StatusCode::OK,
        &Wire {
            access_token: issued.access.expose(),
            token_type: "Bearer",
            expires_in: issued.expires_in,
            refresh_token: refresh.map(|(token, _)| token.expose()),
            refresh_expires_in: refresh.map(|(_, seconds)| *seconds),
        },
    );
    // RFC 6749, section 5.1.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Reads the body: JSON, or a form with the same names (RFC 6749).
fn grant(head: &Head, body: &[u8]) -> Result<Grant, ApiError> {
    let members = members(head, body)?;
    let said = |name: &str| members.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let wanted = |name: &str| {
        let missing = || ApiError::invalid(name, format!("`{name}` is missing"));
        said(name).filter(|value| !value.expose().is_empty()).cloned().ok_or_else(missing)
    };
    let (grant, names): (_, &[&str]) = match said("grant_type").map(SecretText::expose) {
        None => (Grant::Headers, &[]),
        Some("api_key") => (Grant::Credential(Credential::ApiKey(wanted("api_key")?)), &["api_key"]),
        Some("password") => {
            let (username, password) = (wanted("username")?.expose().into(), wanted("password")?);
            (Grant::Credential(Credential::Basic { username, password }), &["username", "password"])
        }
        Some("refresh_token") => (Grant::Refresh(wanted("refresh_token")?), &["refresh_token"]),
        Some(_) => {
            let message =
                "`grant_type` is `api_key`, `password` or `refresh_token`; without it the headers hold the credential";
            return Err(ApiError::invalid("grant_type", message));
        }
    };
    match members.iter().find(|(name, _)| name != "grant_type" && !names.contains(&name.as_str())) {
        Some(_) => Err(ApiError::invalid("", "the body has a member that this grant does not take")),
        None => Ok(grant),
    }
}

/// The members of a body, each once. What is wrong is told without showing any of it.
fn members(head: &Head, body: &[u8]) -> Result<Vec<(String, SecretText)>, ApiError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(ApiError::new(
            ErrorCode::BodyTooLarge,
            format!("this body may be {MAX_BODY_BYTES} bytes long at most"),
        ));
    }
    if body.is_empty() {
        return Ok(Vec::new());
    }
    if is_form(head) {
        return form(body).ok_or_else(|| ApiError::invalid("", "the body is no form whose names stand once"));
    }
    request_body::check_content_type(&head.headers)?;
    let wrong = || ApiError::invalid("", "the body is no JSON object of texts whose members stand once");
    let Ok(Value::Object(members)) = strict_json::from_slice(body) else { return Err(wrong()) };
    let text = |(name, value)| match value {
        Value::String(text) => Ok((name, SecretText::new(text))),
        _ => Err(wrong()),
    };
    members.into_iter().map(text).collect()
}

fn is_form(head: &Head) -> bool {
    let mut values = head.headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn form(body: &[u8]) -> Option<Vec<(String, SecretText)>> {
    let mut members: Vec<(String, SecretText)> = Vec::new();
    for pair in std::str::from_utf8(body).ok()?.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let name = form_decoded(name)?;
        if members.iter().any(|(known, _)| *known == name) {
            return None;
        }
        members.push((name, SecretText::new(form_decoded(value)?)));
    }
    Some(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_keep_the_keys_no_longer_than_they_are_published_ahead() {
        assert_eq!(PUBLISHED_FOR, format!("public, max-age={}", crate::gate::PUBLISHED_FOR_SECONDS));
    }

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        for (text, read) in [
            ("a=1&b=x+y", Some(vec![("a", "1"), ("b", "x y")])),
            ("a=%41%2b", Some(vec![("a", "A+")])),
            ("a=%C3%A9", Some(vec![("a", "é")])),
            ("a=%ff", None),
            ("a=%4", None),
            ("a=1&a=2", None),
            ("a=1&%61=2", None),
            ("a", None),
        ] {
            let found = form(text.as_bytes());
            let found =
                found.map(|all| all.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect());
            let read = read.map(|all| all.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect::<Vec<_>>());
            assert_eq!(found, read, "{text}");
        }
    }
}
