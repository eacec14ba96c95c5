//! `POST /v1/token`: a credential becomes tokens of Tollgate's own; and `GET /.well-known/jwks.json`, the keys that sign
//! them.

use std::sync::Arc;

use axum::extract::State;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts as Head;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::App;
use super::body::{JSON, json, of_type};
use super::caller::{self, Peer};
use super::errors::{ApiError, ErrorCode, Response};
use super::extract::{AnyBody, NoBody};
use super::request_body;
use super::wire::{self, Grant};
use crate::gate::{Credential, Described, Issued, Presented, TokenError, Tokens};

/// Longest body: a credential, and little else.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// For how long others may keep the keys.
const PUBLISHED_FOR: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// Tokens of Tollgate's own.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tokens")]
pub(super) struct Wire<'a> {
    /// Proves the principal of the credential, as `Authorization: Bearer`.
    access_token: &'a str,
    #[schemars(extend("const" = "Bearer"))]
    token_type: &'static str,
    /// In seconds.
    expires_in: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Gets the next tokens, once. It is absent where the revocation of the credential could not be noticed.
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_expires_in: Option<i64>,
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

/// Reads the body.
fn grant(head: &Head, body: &[u8]) -> Result<Grant, ApiError> {
    if body.len() > MAX_BODY_BYTES {
        let message = format!("this body may be {MAX_BODY_BYTES} bytes long at most");
        return Err(ApiError::new(ErrorCode::BodyTooLarge, message));
    }
    if body.is_empty() {
        return Ok(Grant::Headers);
    }
    if is_form(head) {
        return wire::token_of_form(body);
    }
    request_body::check_content_type(&head.headers)?;
    wire::token_of_json(body)
}

fn is_form(head: &Head) -> bool {
    let mut values = head.headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_keep_the_keys_no_longer_than_they_are_published_ahead() {
        assert_eq!(PUBLISHED_FOR, format!("public, max-age={}", crate::gate::PUBLISHED_FOR_SECONDS));
    }
}
