//! Who calls the server itself, and what that caller may do. On loopback decisions are open; elsewhere a caller proves
//! itself in its headers, and needs a role for what it asks.

use std::sync::Arc;

use hyper::header::WWW_AUTHENTICATE;
use hyper::http::request::Parts as Head;

use super::app::App;
use super::errors::{ApiError, ErrorCode, Response};
use super::host;
use super::query;
use super::wire::Parts;
use crate::edge::answer;
use crate::edge::identity::HeadersError;
pub(super) use crate::gate::Peer;
use crate::gate::{self, Credential, Described, Manager, Presented, VIEW_USAGE};
use crate::model::{
    ADMINISTRATOR, GATEWAY, Identity, MONITOR, Refusal, RequestError, RequestErrorCode, RequestPath, Timestamp,
    request_address,
};
use crate::policy::Snapshot;

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
    let snapshot = app.engine.snapshot().ok_or_else(ApiError::no_bundle)?;
    let identity = proved(app, &snapshot, head, peer).await?;
    if gate::has_role(&snapshot, &identity, access.roles(), peer.address, app.engine.facts().now) {
        return Ok(Admitted::Whole);
    }
    if access == Access::Check {
        return Ok(Admitted::Itself(identity));
    }
    if matches!(access, Access::Standing | Access::Usage) && may_view(app, &snapshot, &identity, head, peer) {
        return Ok(Admitted::Viewer);
    }
    let roles = access.roles().join("`, `");
    let message = format!(
        "{} has none of the roles that this takes, or its key is narrowed and may not use them: `{roles}`",
        identity.principal
    );
    Err(ApiError::new(ErrorCode::Forbidden, message))
}

/// Whether policy lets the caller see what the `principal` of the query has spent; of a key, what its owner has.
fn may_view(app: &App, snapshot: &Snapshot, identity: &Arc<Identity>, head: &Head, peer: &Peer) -> bool {
    let Some(asked) = query::principal(head.uri.query()) else { return false };
    let kept = app.keys.get().and_then(|desk| desk.identity(&asked).ok().flatten());
    let owner =
        kept.and_then(|kept| kept.owner.clone()).or_else(|| snapshot.owner_of(&asked)).unwrap_or_else(|| asked.clone());
    // A narrowed key may see its own usage, and that of its owner, whose limits apply to the key.
    let is_own = identity.principal.kind() == "ApiKey" && gate::person(snapshot, identity) == owner;
    let sees_itself = is_own && gate::is_used_from(snapshot, identity, peer.address) && !identity.replaced;
    if sees_itself && asked == identity.principal {
        return true;
    }
    let whole = || Arc::new(Identity { narrowed: None, limits: Arc::default(), ..(**identity).clone() });
    let identity = &if sees_itself { whole() } else { Arc::clone(identity) };
    let facts = app.engine.facts();
    let manager = Manager { snapshot, facts: &facts, identity, peer: peer.address, session_key_ms: 0 };
    manager.right(VIEW_USAGE, &owner).is_some()
}

/// Whom the caller's own credential proves.
///
/// # Errors
/// 401 where there is none, or it proves nobody.
pub(super) async fn proved(
    app: &App,
    snapshot: &Arc<Snapshot>,
    head: &Head,
    peer: &Peer,
) -> Result<Arc<Identity>, ApiError> {
    let wrong = |error: HeadersError| ApiError::invalid("", error.to_string());
    let presented = app.credential_headers.presented(head, peer).map_err(wrong)?.ok_or_else(|| {
        let message = "this takes a credential in `Authorization`; GET /docs tells which roles it needs";
        ApiError::new(ErrorCode::Unauthenticated, message)
    })?;
    let proved = identify(app, snapshot, &presented, app.engine.facts().now).await;
    proved.map_err(|refusal| refused(&refusal, &presented.credential))
}

/// What a caller is told whose credential proves nobody.
pub(super) fn refused(refusal: &Refusal, credential: &Credential) -> ApiError {
    let error = ApiError::refused(refusal);
    if answer::is_stale(refusal, credential) { ApiError { code: ErrorCode::StaleNonce, ..error } } else { error }
}

/// The response to an error; to a caller that must prove itself, with what it may do that with.
pub(super) fn challenged(app: &App, error: &ApiError) -> Response {
    let mut response = error.response();
    if !matches!(error.code, ErrorCode::Unauthenticated | ErrorCode::StaleNonce) {
        return response;
    }
    let stale = error.code == ErrorCode::StaleNonce;
    for challenge in answer::challenges(app.engine.authenticators(), stale, app.engine.facts().now) {
        response.headers_mut().append(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Whom a credential proves; a refusal is counted and logged.
pub(super) async fn identify(
    app: &App,
    snapshot: &Arc<Snapshot>,
    presented: &Presented,
    now: Timestamp,
) -> Result<Arc<Identity>, Refusal> {
    let proved = app.engine.authenticate_by(presented, snapshot, now).await;
    proved.inspect_err(|refusal| app.refused(refusal, presented.source))
}

/// The credential of a question, with what the question tells of the request that it came with.
///
/// # Errors
/// Refuses an invalid address or path, since failures are counted by source. For the context of an action that the
/// bundle defines, the schema decides which members exist, and these names may mean something else.
pub(super) fn presented(credential: &Credential, parts: &Parts, snapshot: &Snapshot) -> Result<Presented, ApiError> {
    let action = snapshot.schema.action(&parts.action).and_then(|index| snapshot.schema.action_at(index));
    let is_own = action.is_some_and(|action| !action.tollgate_context);
    let told = |name: &str| {
        let member = parts.context.members().iter().find(|(known, _)| known == name);
        member.and_then(|(_, member)| member.as_text()).cloned()
    };
    // The gateway's own address is not where the credential came from.
    let source = told("ip").map(|text| {
        let message = "`context.ip` must be an IP address such as \"10.1.2.3\", and no range";
        request_address(&text).ok_or_else(|| refused_context("context.ip", message.to_owned()))
    });
    let path = told("path").map(|text| {
        let wrong = |error| refused_context("context.path", format!("`context.path` is invalid: {error}"));
        RequestPath::parse(&text).map(RequestPath::into_text).map_err(wrong)
    });
    let (source, path) = match (source.transpose(), path.transpose()) {
        (source, path) if is_own => (source.ok().flatten(), path.ok().flatten()),
        (source, path) => (source?, path?),
    };
    let path = path.unwrap_or_default();
    let request = Described { method: told("method").unwrap_or_default(), path, ..Described::default() };
    Ok(Presented { credential: credential.clone(), source, request })
}

fn refused_context(param: &str, message: String) -> ApiError {
    RequestError::new(RequestErrorCode::InvalidContext, param, message).into()
}
