//! Who calls the server itself, and what that caller may do. On loopback decisions are open; elsewhere a caller proves
//! itself in its headers, and needs a role for what it asks.

use std::sync::Arc;

use hyper::header::{HeaderMap, WWW_AUTHENTICATE};
use hyper::http::request::Parts as Head;

use super::app::App;
use super::errors::{ApiError, ErrorCode};
use super::host;
use super::options::Silence;
use super::query;
use crate::edge::answer;
use crate::edge::identity::HeadersError;

use crate::model::{ADMINISTRATOR, GATEWAY, Identity, MONITOR, Refusal};
pub(super) use crate::pdp::Peer;
use crate::pdp::{Authority, Client, Credential, Pinned};

/// What a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: health, and what everybody may read.
    Everybody,
    /// The right to name any principal: reservations, and the standing of others.
    Gateway,
    /// The right of a gateway, or any credential for checks about the caller itself.
    Check,
    /// That, or the right to see what the `principal` of the query has spent (`view_usage`): standings.
    Standing,
    /// The right to look: metrics, the bundle's state.
    Monitor,
    /// That, or the right to see what the `principal` of the query has spent: the books.
    Usage,
    /// The right to change what the server does.
    Administrator,
    /// The route asks itself who calls, also where the server is open.
    Itself,
}

/// By what a caller was let through.
#[derive(Debug, Clone)]
pub(super) enum Admitted {
    /// It may ask about anybody.
    Whole,
    /// The caller may only ask for checks about itself.
    Itself(Arc<Identity>),
    /// It may see what the `principal` of its query has spent, and nothing of anybody else.
    Viewer,
}

impl Access {
    fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Everybody | Self::Itself => &[],
            Self::Gateway | Self::Check | Self::Standing => &[GATEWAY, ADMINISTRATOR],
            Self::Monitor | Self::Usage => &[MONITOR, GATEWAY, ADMINISTRATOR],
            Self::Administrator => &[ADMINISTRATOR],
        }
    }
}

/// Lets through whoever may ask for what takes `access`.
///
/// # Errors
/// 401 for who must prove itself and has not, 403 for who may not.
pub(super) async fn admit(app: &App, head: &Head, peer: &Peer, access: Access) -> Result<Admitted, ApiError> {
    if matches!(access, Access::Everybody | Access::Itself) {
        return Ok(Admitted::Whole);
    }
    if app.open {
        match host::check_open_loopback(head, &app.hosts, &app.origins) {
            Err(refused) if app.checks_host => {
                let wrong = |error: HeadersError| ApiError::invalid("", error.to_string());
                // Any text in `Authorization` is no credential yet: a page that came by DNS rebinding can set it.
                if app.credential_headers.presented(head, peer).map_err(wrong)?.is_none() {
                    return Err(refused);
                }
            }
            _ => return Ok(Admitted::Whole),
        }
    }
    let pinned = app.pdp().pin()?;
    let identity = authenticated(app, &pinned, head, peer).await?;
    let client = Client { identity: &identity, address: peer.address };
    if pinned.has_role(client, access.roles()) {
        return Ok(Admitted::Whole);
    }
    if access == Access::Check {
        return Ok(Admitted::Itself(identity));
    }
    if matches!(access, Access::Standing | Access::Usage) && may_view(app, &pinned, client, head) {
        return Ok(Admitted::Viewer);
    }
    let roles = access.roles().join("`, `");
    let message = format!(
        "{} has none of the roles that this takes, or its key is narrowed and may not use them: `{roles}`",
        identity.principal
    );
    Err(ApiError::new(ErrorCode::Forbidden, message))
}

/// Whether policy lets the caller read the usage of the `principal` of the query; of a key, that of its owner.
fn may_view(app: &App, pinned: &Pinned<'_>, client: Client<'_>, head: &Head) -> bool {
    let Some(principal) = query::principal(head.uri.query()) else { return false };
    let stored = app.keys.as_ref().and_then(|keys| keys.identity(&principal).ok().flatten());
    pinned.may_view_usage(client, &principal, stored.and_then(|key| key.owner.clone()))
}

/// The identity that the caller's own credential proves.
///
/// # Errors
/// 401 if there is no credential, or it is refused.
pub(super) async fn authenticated(
    app: &App,
    pinned: &Pinned<'_>,
    head: &Head,
    peer: &Peer,
) -> Result<Arc<Identity>, ApiError> {
    let wrong = |error: HeadersError| ApiError::invalid("", error.to_string());
    let presented = app.credential_headers.presented(head, peer).map_err(wrong)?.ok_or_else(|| {
        let message = "this takes a credential in `Authorization`; GET /docs tells which roles it needs";
        ApiError::new(ErrorCode::Unauthenticated, message)
    })?;
    pinned.authenticate(&presented).await.map_err(|refusal| refused(&refusal, &presented.credential))
}

/// What a caller is told whose credential proves nobody.
pub(super) fn refused(refusal: &Refusal, credential: &Credential) -> ApiError {
    let error = ApiError::refused(refusal);
    if answer::is_stale(refusal, credential) { ApiError { code: ErrorCode::StaleNonce, ..error } } else { error }
}

/// Adds to a 401 the challenges of the providers (`WWW-Authenticate`).
pub(super) fn challenge(app: &App, code: ErrorCode, headers: &mut HeaderMap) {
    if !matches!(code, ErrorCode::Unauthenticated | ErrorCode::StaleNonce) {
        return;
    }
    let stale = code == ErrorCode::StaleNonce;
    for challenge in answer::challenges(app.pdp().authenticators(), stale, app.pdp().facts().now) {
        headers.append(WWW_AUTHENTICATE, challenge);
    }
}

/// The client that sent a request: the other end of the connection, and what it was admitted to.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) peer: &'a Peer,
    pub(super) admitted: &'a Admitted,
}

impl Sender<'_> {
    /// The principals that the client may ask about.
    pub(super) fn authority(self) -> Authority {
        match self.admitted {
            Admitted::Itself(identity) => {
                Authority::Itself { identity: Arc::clone(identity), address: self.peer.address }
            }
            Admitted::Whole | Admitted::Viewer => Authority::AnyPrincipal,
        }
    }

    /// The meaning of an absent `reserve`. A client that may not reserve only checks.
    pub(super) fn default_reserve(self, app: &App) -> Silence {
        if matches!(self.admitted, Admitted::Itself(_)) { Silence::Checks } else { app.silence }
    }
}
